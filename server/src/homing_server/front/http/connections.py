"""Connections to the HTTP front: how many there may be, and for how long one may say nothing.

Where there are too many the one goes that has waited longest for a request, so that whoever comes anew is served: those
who ask for health above all.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web

_MOST: Final = 1_000
_MOST_OF_A_PEER: Final = 250
_SILENT_SECONDS: Final = 30.0
"""A request has come after so many seconds, from the beginning of its connection or the end of the one before."""


class Connection(web.RequestHandler):
    """One connection."""

    __slots__ = ("_door", "busy", "peer")

    def __init__(self, door: Door, server: web.Server) -> None:
        """Prepare to serve.

        :param door: Counts connections.
        :param server: Handles requests.
        """
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # it is None where nothing is logged
            keepalive_timeout=_SILENT_SECONDS,
        )
        self._door = door
        self.peer = ""
        self.busy = 0
        """How many of its requests are being handled."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Serve it, in place of an idle one where there are too many."""
        super().connection_made(transport)
        name = transport.get_extra_info("peername")
        self.peer = str(name[0]) if name else ""
        self._door.opened(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Count it no more."""
        self._door.closed(self)
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


class Door:
    """Lets connections in."""

    def __init__(self) -> None:
        self._connections: dict[Connection, None] = {}
        """The oldest first."""
        self._peers: Counter[str] = Counter()

    def opened(self, connection: Connection) -> None:
        """Take a connection in, or close one."""
        self._connections[connection] = None
        self._peers[connection.peer] += 1
        if self._peers[connection.peer] > _MOST_OF_A_PEER:
            self._close_one(connection.peer)
        elif len(self._connections) > _MOST:
            self._close_one(None)

    def closed(self, connection: Connection) -> None:
        """Forget a connection."""
        if connection in self._connections:
            del self._connections[connection]
            self._peers -= Counter((connection.peer,))

    def _close_one(self, peer: str | None) -> None:
        """Close the oldest one that waits for a request; where none does the newest, which has not sent one yet.

        :param peer: Whose; None for anybody's.
        """
        for connection in self._connections:
            if not connection.busy and peer in (None, connection.peer):
                self.closed(connection)
                connection.force_close()
                return


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
