"""A function that answers as the path says, and a gateway in front of it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Queue

from homing import Client
from support.http_client import Headers, Reply, ask
from support.processes import Server

PATIENCE = 60.0
COOKIES = ("a=1; Expires=Wed, 21 Oct 2026 07:28:00 GMT", "b=2")
HEADERS: dict[str, Headers] = {
    "headers": [
        *(("Set-Cookie", cookie) for cookie in COOKIES),
        ("Connection", "keep-alive, X-Of-Connection"),
        ("X-Of-Connection", "yes"),
        ("Location", "/elsewhere"),
        ("X-Duration-Seconds", "0.25"),
    ],
    "type": [("Content-Type", "text/of-function")],
}
"""What the function says, by the first part of the path."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """A request as a function got it."""

    method: str
    path: str
    headers: Headers
    body: bytes

    def get(self, name: str) -> list[str]:
        return [value for each, value in self.headers if each == name]


class FunctionServer(ThreadingHTTPServer):
    """Serves a function that answers as the path says."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Function)
        self.seen: Queue[Seen] = Queue()
        self.go_on = threading.Event()
        """Lets it go on that waits in between."""


class Function(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"
    server: FunctionServer

    def serve(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        headers = [(name.lower(), value) for name, value in self.headers.items()]
        self.server.seen.put(Seen(method=self.command, path=self.path, headers=headers, body=body))
        kind, _, argument = self.path.lstrip("/").partition("?")[0].partition("/")
        if kind == "hold":
            self.server.go_on.wait(PATIENCE)
        if kind == "break":
            self.close_connection = True
        elif kind == "range":
            self._answer_range(argument)
        elif kind == "drip":
            self._drip(int(argument) if argument.isdigit() else 200)
        else:
            self._answer(kind, argument, b"x" * int(argument) if kind == "large" else b"answer of " + body)

    def _drip(self, status: int) -> None:
        """Send two parts, the second once the test lets it; or break off before it."""
        self.send_response(status)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"3\r\none\r\n")
        self.server.go_on.wait(PATIENCE)
        if self.path.endswith("breaks"):
            self.close_connection = True
            return
        self.wfile.write(b"3\r\ntwo\r\n0\r\n\r\n")

    def _answer_range(self, tag: str) -> None:
        """Answer a part of what it has, all of it, or that it has not changed."""
        whole = bytes(range(256)) * 2000
        asked = self.headers["Range"]
        first, last = (int(each) for each in asked.removeprefix("bytes=").split("-")) if asked else (0, len(whole) - 1)
        part = whole[first : last + 1]
        status = 206 if asked else 200
        if self.headers["If-None-Match"] == f'"{tag}"':
            status = 304
        elif not part:
            status = 416
        self.send_response(status)
        self.send_header("ETag", f'"{tag}"')
        self.send_header("Accept-Ranges", "bytes")
        if status != 304:
            told = f"{first}-{first + len(part) - 1}" if part else "*"
            self.send_header("Content-Range", f"bytes {told}/{len(whole)}")
            self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        if self.command != "HEAD" and status != 304:
            self.wfile.write(part)

    def _answer(self, kind: str, argument: str, answer: bytes) -> None:
        status = int(argument) if kind == "status" else 200
        self.send_response(status)
        for name, value in HEADERS.get(kind, ()):
            self.send_header(name, value)
        if status not in {204, 304}:
            self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        if self.command != "HEAD" and status not in {204, 304}:
            # A caller who has gone away does not read it.
            with contextlib.suppress(OSError):
                self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


for _method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"):
    setattr(Function, f"do_{_method}", Function.serve)


@contextlib.contextmanager
def function_server() -> Iterator[FunctionServer]:
    """Serve the function."""
    with FunctionServer() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.go_on.set()
            server.shutdown()
            thread.join()


@dataclass(frozen=True, kw_only=True, slots=True)
class Gateway:
    """A running server, and a function ``web`` that shows what it gets."""

    client: Client
    server: Server
    seen: Queue[Seen]
    go_on: threading.Event

    def ask(
        self,
        method: str,
        target: str,
        headers: Headers | None = None,
        body: bytes | None = None,
        *,
        timeout: float = 60,
    ) -> Reply:
        while not self.seen.empty():
            self.seen.get()
        return ask(self.server.http, method, target, headers, body, timeout=timeout)

    def post(self, target: str, headers: Headers | None = None, body: bytes = b"hi") -> Reply:
        return self.ask("POST", target, headers, body)

    def next(self) -> Seen:
        return self.seen.get(timeout=PATIENCE)
