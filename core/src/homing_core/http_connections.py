"""Connections to an HTTP server: how many there may be, and for how long one may say nothing.

Where there are too many those go that have waited longest for a request, so that whoever comes anew is served: those
who ask for health above all. Each has a moment for its request to come, however many came with it.
"""

from __future__ import annotations

import asyncio
import resource
from collections import Counter
from http import HTTPStatus
from typing import Any, Final, Protocol

from aiohttp import web

SILENT_SECONDS: Final = 30.0
"""A request has come after so many seconds, from the beginning of its connection or the end of the one before."""
_MOST: Final = 1_000
_MOST_OF_A_PEER: Final = 250
_MOST_FOR_A_MOMENT: Final = 4_000
_MOMENT_SECONDS: Final = 0.5


class LimitedConnection(Protocol):
    """A connection that can be counted, and closed while it is idle."""

    @property
    def peer(self) -> str:
        """The address that it comes from."""

    @property
    def opened_at(self) -> float:
        """When it was opened, by the clock of the event loop."""

    @property
    def busy(self) -> int:
        """How many of its requests are being handled."""

    def force_close(self) -> None:
        """Close it at once."""


class ConnectionLimit:
    """Lets connections in."""

    def __init__(self) -> None:
        # Files are needed for more than this, by gRPC above all.
        self._most = min(_MOST_FOR_A_MOMENT, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)
        self._connections: dict[LimitedConnection, None] = {}
        """The oldest first."""
        self._peers: Counter[str] = Counter()
        self._clearing: asyncio.TimerHandle | None = None

    def opened(self, connection: LimitedConnection) -> None:
        """Take a connection in; where there are too many, close those that are idle soon."""
        if len(self._connections) >= self._most:
            connection.force_close()
            return
        self._connections[connection] = None
        self._peers[connection.peer] += 1
        if self._clearing is None and self._too_many(connection.peer):
            self._clear_later()

    def closed(self, connection: LimitedConnection) -> None:
        """Forget a connection."""
        if connection in self._connections:
            del self._connections[connection]
            self._peers -= Counter((connection.peer,))

    def close(self) -> None:
        """Look after connections no more."""
        if self._clearing is not None:
            self._clearing.cancel()

    def _too_many(self, peer: str) -> bool:
        return len(self._connections) > _MOST or self._peers[peer] > _MOST_OF_A_PEER

    def _clear_later(self) -> None:
        self._clearing = asyncio.get_running_loop().call_later(_MOMENT_SECONDS, self._clear)

    def _clear(self) -> None:
        """Close idle connections, the oldest first, while there are too many of all or of their peer."""
        self._clearing = None
        before = asyncio.get_running_loop().time() - _MOMENT_SECONDS
        for connection in list(self._connections):
            if not self._too_many(connection.peer):
                continue
            if connection.opened_at > before:
                # What has come with it may not have been read yet.
                self._clear_later()
                return
            if not connection.busy:
                self.closed(connection)
                connection.force_close()


class Connection(web.RequestHandler):
    """One connection to a server of aiohttp's."""

    __slots__ = ("_limit", "busy", "opened_at", "peer")

    def __init__(self, limit: ConnectionLimit, server: web.Server) -> None:
        """Prepare to serve.

        :param limit: Counts connections.
        :param server: Handles requests.
        """
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # it is None where nothing is logged
            keepalive_timeout=SILENT_SECONDS,
        )
        self._limit = limit
        self.peer = ""
        self.opened_at = 0.0
        self.busy = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Serve it, in place of an idle one where there are too many."""
        super().connection_made(transport)
        self.opened_at = asyncio.get_running_loop().time()
        name = transport.get_extra_info("peername")
        self.peer = str(name[0]) if name else ""
        self._limit.opened(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Count it no more."""
        self._limit.closed(self)
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = HTTPStatus.INTERNAL_SERVER_ERROR,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what cannot be served; what cannot be read is no fault of ours, and nothing for the log."""
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return super().handle_error(request, status, exc, message)
        response = web.Response(status=status, text="the request cannot be read\n")
        response.force_close()
        return response


@web.middleware
async def note_busy(request: web.Request, handler: Any) -> web.StreamResponse:
    """Note that a connection is in use while its request is handled."""
    connection = request.protocol
    assert isinstance(connection, Connection), "they are made here"
    connection.busy += 1
    try:
        response: web.StreamResponse = await handler(request)
    finally:
        connection.busy -= 1
    return response
