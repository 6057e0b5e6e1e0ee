"""The HTTP port: one server for all that is served over HTTP, in the process and on the event loop of the server."""

from __future__ import annotations

import asyncio
import logging
from email.utils import formatdate
from typing import Final

from uvicorn.config import Config
from uvicorn.server import ServerState

from homing_core.http_connections import ConnectionLimit
from homing_core.listening import listening
from homing_core.tls import TlsFiles
from homing_server.front.http.connection import Connection
from homing_server.front.http.root import Root

_BACKLOG: Final = 1024
"""So many connections wait to be taken in; the client of another one would try again after a second."""
_HANDSHAKE_SECONDS: Final = 10.0
_TICK_SECONDS: Final = 1.0
_CLOSING_SECONDS: Final = 5.0
"""How long what is open may still be answered once nothing is taken in any more."""


class HttpFront:
    """Listens, and hands what comes to the root."""

    def __init__(self, listen: str, root: Root, *, tls: TlsFiles | None) -> None:
        """Prepare to serve.

        :param tls: The certificate to show, and those of clients to trust; None to serve without TLS.
        :raises TlsError: A file cannot be used.
        """
        self._host, _, port = listen.rpartition(":")
        self._port = int(port)
        self._root = root
        self._tls = None if tls is None else tls.server_context()
        self._config = Config(
            root,
            http="httptools",
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
        )
        self._config.load()
        # What fails is logged where it is caught, and what strangers send is nothing for the log.
        logging.getLogger("uvicorn.error").disabled = True
        self._state = ServerState()
        self._limit = ConnectionLimit()
        self._listener: asyncio.Server | None = None
        self._ticking: asyncio.TimerHandle | None = None

    async def start(self) -> str:
        """Serve; return the address.

        :raises ListenError: The address cannot be listened on.
        """
        loop = asyncio.get_running_loop()
        with listening("http_listen", f"{self._host}:{self._port}"):
            self._listener = await loop.create_server(
                lambda: Connection(self._config, self._state, self._limit),
                self._host.strip("[]"),
                self._port,
                ssl=self._tls,
                ssl_handshake_timeout=None if self._tls is None else _HANDSHAKE_SECONDS,
                backlog=_BACKLOG,
            )
        self._tick()
        port = self._listener.sockets[0].getsockname()[1]
        return f"{self._host}:{port}"

    @property
    def open_connections(self) -> int:
        """How many connections there are."""
        return len(self._state.connections)

    async def drain(self, grace: float) -> None:
        """Take no more calls and give those under way so many seconds to end; workers are served on."""
        await self._root.drain(grace)

    async def stop(self) -> None:
        """Take no more requests."""
        if self._listener is not None:
            self._listener.close()
        if self._ticking is not None:
            self._ticking.cancel()
        self._limit.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        if self._state.tasks:
            await asyncio.wait(set(self._state.tasks), timeout=_CLOSING_SECONDS)
        for connection in list(self._state.connections):
            if isinstance(connection, Connection):
                connection.force_close()

    def _tick(self) -> None:
        """Once a second: answers have the time, and connections on which nothing goes on are closed."""
        self._state.default_headers = [(b"date", formatdate(usegmt=True).encode())]
        for connection in list(self._state.connections):
            if isinstance(connection, Connection):
                connection.close_if_stalled()
        self._ticking = asyncio.get_running_loop().call_later(_TICK_SECONDS, self._tick)
