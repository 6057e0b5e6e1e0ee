"""A function that runs in the test's own process and answers bit by bit, as the test says; called by its URL."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

Answer = Callable[["Exchange"], None]


@dataclass
class Exchange:
    """One call of the function."""

    connection: socket.socket
    target: str
    sent: int = 0
    """So many bytes of the body were written: what the sockets hold counts."""
    times: list[float] = field(default_factory=list)
    """When each part was written, in the seconds of time.monotonic."""
    left: threading.Event = field(default_factory=threading.Event)
    """Set once whoever called has closed the connection."""

    def head(self, *headers: str, status: str = "200 OK") -> None:
        self.connection.sendall("\r\n".join([f"HTTP/1.1 {status}", *headers, "", ""]).encode())

    def chunked(self, content_type: str = "text/plain", *, status: str = "200 OK") -> None:
        self.head(f"Content-Type: {content_type}", "Transfer-Encoding: chunked", "X-Own: 1", status=status)

    def chunk(self, data: bytes) -> None:
        self.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def end(self) -> None:
        self.connection.sendall(b"0\r\n\r\n")

    def write(self, data: bytes) -> None:
        self.times.append(time.monotonic())
        self.connection.sendall(data)
        self.sent += len(data)

    def wait_left(self, seconds: float) -> bool:
        """Wait until whoever called goes away; tell whether they have."""
        self.connection.settimeout(seconds)
        with suppress(TimeoutError):
            try:
                while self.connection.recv(65536):
                    pass
            except ConnectionError:
                pass
            self.left.set()
        return self.left.is_set()


class Source:
    """Serves calls, each in a thread."""

    def __init__(self) -> None:
        self.calls: list[Exchange] = []
        self.answers: dict[str, Answer] = {}
        """By path, what is done to answer."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads: list[threading.Thread] = []

    def serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                thread = threading.Thread(target=self._answer, args=(connection,))
                self._threads.append(thread)
                thread.start()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for call in self.calls:
            with suppress(OSError):
                call.connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10.0)

    def _answer(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            request = lines.readline()
            length = 0
            while (line := lines.readline().strip()) != b"":
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            lines.read(length)
            if not request:
                return
            call = Exchange(connection, request.split()[1].decode())
            self.calls.append(call)
            try:
                self.answers[call.target](call)
            except OSError:
                call.left.set()


@contextmanager
def running_source() -> Iterator[Source]:
    source = Source()
    thread = threading.Thread(target=source.serve)
    thread.start()
    try:
        yield source
    finally:
        source.close()
        thread.join(10.0)
