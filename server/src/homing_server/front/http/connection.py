"""A connection to the HTTP port: uvicorn's protocol, with bounds on what may come, and on how slowly.

uvicorn knows none for the head of a request, and waits for ever for what has begun to come. What it would do with
what follows a request that cannot be read is stricter here too: no answer is ever written into another one.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from homing_core.http_connections import SILENT_SECONDS, ConnectionLimit
from homing_core.limits import KIB

MAX_HEAD_BYTES: Final = 64 * KIB
"""What the line and the headers of a request have at the most."""
MAX_HEADERS: Final = 128
_STALLED_SECONDS: Final = 60.0
"""So long may pass between two parts of a body, or without a byte of an answer being taken."""

_LINE: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+ [!-~]+ HTTP/1\.[01]\r\n")
"""The first line of a request of whatever method: RFC 9112, 3."""
_VERSIONS: Final = frozenset({"1.0", "1.1"})
_UPGRADE: Final = frozenset({b"connection", b"upgrade", b"http2-settings"})

_REFUSED_SECONDS: Final = 1.0
"""So long a client that is refused may go on sending; closed at once, it might be reset before it reads why."""

_Disconnected = Callable[[], object]


class BadHeadError(Exception):
    """The head of a request is none that is served here."""


def percent_encoded(data: bytes) -> bytes | None:
    """Return a request with UTF-8 in its line as one with ASCII alone; None where it is not whole, or has other bytes.

    curl sends a path and a query just as they are typed, `?name=Jürgen`, and so do others; most servers take it.
    """
    line, ended, rest = data.partition(b"\n")
    if not ended or line.isascii():
        return None
    try:
        line.decode()
    except UnicodeDecodeError:
        return None
    return b"".join([*(b"%%%02X" % byte if byte > 0x7F else bytes([byte]) for byte in line), ended, rest])


class Connection(HttpToolsProtocol):
    """One connection. Its requests find it as `connection` in the `state` of their scope."""

    def __init__(self, config: Config, state: ServerState, limit: ConnectionLimit) -> None:
        """Prepare to serve.

        :param config: Knows the application.
        :param state: Knows all connections of the server.
        :param limit: Counts connections.
        """
        super().__init__(config, state, {"connection": self}, asyncio.get_running_loop())
        self._limit = limit
        self.peer = ""
        """The address that it comes from."""
        self.patient = False
        """Whether the body of the request that is being handled may come as slowly as it likes."""
        self.opened_at = self._silent_since = self._heard_at = self.loop.time()
        """When it was opened, by the clock of the event loop; and when it was last heard or last answered."""
        self._unread_since: float | None = None
        self._in_head = True
        self._head_bytes = 0
        self._refused = HTTPStatus.BAD_REQUEST
        self._on_disconnect: _Disconnected | None = None
        self._refused_at = 0.0
        """When what came was refused, by the clock of the event loop: nothing more is read."""

    @property
    def busy(self) -> int:
        """How many of its requests are being handled."""
        return 0 if self.cycle is None or self.cycle.response_complete else 1

    def on_disconnect(self, callback: _Disconnected | None) -> None:
        """Have a function called should the client go away before its request is answered; None for none any more."""
        self._on_disconnect = callback

    def force_close(self) -> None:
        """Close it at once, whatever is under way."""
        self.transport.abort()

    def close_if_stalled(self) -> None:
        """Close it where nothing has come, or was taken, for too long."""
        now = self.loop.time()
        if self._refused_at and not self.busy:
            if now - self._refused_at > _REFUSED_SECONDS:
                self.force_close()
        elif self._unread_since is not None and now - self._unread_since > _STALLED_SECONDS:
            self.force_close()
        elif not self.busy:
            if now - self._silent_since > SILENT_SECONDS:
                self.transport.close()
        elif (
            self.cycle.more_body
            and not (self.patient or self.flow.read_paused)
            and now - self._heard_at > _STALLED_SECONDS
        ):
            self._refuse(HTTPStatus.REQUEST_TIMEOUT)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Serve it, in place of an idle one where there are too many."""
        super().connection_made(transport)
        self.peer = self.client[0] if self.client else ""
        self._limit.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Count it no more."""
        self._limit.closed(self)
        gone = self._on_disconnect if self.busy else None
        super().connection_lost(exc)
        if gone is not None:
            gone()

    def data_received(self, data: bytes) -> None:
        """Read what has come."""
        if self._refused_at:
            return
        self._heard_at = self.loop.time()
        begins = self._in_head and not self._head_bytes
        if self._in_head:
            self._head_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserInvalidURLError:
            if begins and (encoded := percent_encoded(data)) is not None:
                self._head_bytes = 0
                self._read_anew(encoded)
            else:
                self._refuse(self._refused)
        except httptools.HttpParserError as error:
            self._refuse(HTTPStatus.NOT_IMPLEMENTED if self._is_of_other_method(data, error) else self._refused)
        else:
            if self._in_head and self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def _is_of_other_method(self, data: bytes, error: httptools.HttpParserError) -> bool:
        """Tell whether a request could be read but for its method, which the parser does not know.

        The parser reads no further, so this is known of what comes in one piece and first in it.
        """
        begins = self._in_head and self._head_bytes == len(data)
        return begins and "method" in str(error) and _LINE.match(data) is not None

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Read a request anew that asked for another protocol, as if it had not: the parser would skip its body.

        Java's HttpClient asks so with its first request, curl with `--http2`.
        """
        head = [self.parser.get_method(), b" ", self.url, b" HTTP/1.1\r\n"]
        for name, value in self.headers:
            if name not in _UPGRADE:
                head += [name, b": ", value, b"\r\n"]
        # What would follow it is of another protocol.
        head.append(b"connection: close\r\n\r\n")
        self._read_anew(b"".join(head) + rest)

    def _read_anew(self, data: bytes) -> None:
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self.data_received(data)

    def pause_writing(self) -> None:
        """Note that the client does not take what is written."""
        super().pause_writing()
        self._unread_since = self.loop.time()

    def resume_writing(self) -> None:
        """Note that the client has taken what was written."""
        super().resume_writing()
        self._unread_since = None

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, but none that comes behind a body in chunks: the request was checked without it."""
        if self._in_head:
            name = name.lower()
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Serve a request whose head has come."""
        self._in_head = False
        if len(self.headers) > MAX_HEADERS or (
            self._head_bytes > MAX_HEAD_BYTES
            and len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > MAX_HEAD_BYTES
        ):
            self._refused = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            raise BadHeadError
        if self.parser.get_http_version() not in _VERSIONS or self.parser.get_method() == b"CONNECT":
            raise BadHeadError
        if not self.parser.should_upgrade():
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Note that the whole of a request has come."""
        self._in_head = True
        self._head_bytes = 0
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Go on with the next request. As in uvicorn, without a timer for each: stalled connections are looked for."""
        self._on_disconnect = None
        self.patient = False
        self._silent_since = self.loop.time()
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())

    def _refuse(self, status: HTTPStatus) -> None:
        """Refuse what has come, and whatever follows it."""
        cycle = self.cycle
        self._refused_at = self.loop.time()
        if self.busy and not cycle.more_body:
            # It is what follows a whole request: that one has its answer, and is the last.
            cycle.keep_alive = False
            self.flow.pause_reading()
            return
        if self.busy:
            cycle.disconnected = True
            cycle.message_event.set()
            if cycle.response_started or self.pipeline:
                # An answer, its own or that of one before it, may be half-way.
                self.force_close()
                return
        why = "the method is not known" if status is HTTPStatus.NOT_IMPLEMENTED else "the request cannot be read"
        body = f"{status.phrase.lower()}: {why}\n"
        head = (
            f"HTTP/1.1 {status} {status.phrase}\r\nContent-Type: text/plain; charset=utf-8\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        self.transport.write((head + body).encode())
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()
