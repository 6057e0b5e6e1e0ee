"""Connections to functions and receivers, kept for further requests where that loses none.

A request that is sent just when the other side closes its connection is lost, and nobody can tell whether it was begun:
it must not be sent again in the same attempt (RFC 9110, 9.2.2), since a function might run twice. Most servers leave
idle connections open for seconds, but some close each soon after an answer, without a word. So an origin has to show
first that it leaves an idle one open for longer than it is kept here; until then each request has a new one.
"""

from __future__ import annotations

import asyncio
import select
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any, Final

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

_KEPT: Final = 0.5
"""Seconds that an idle connection is kept for a next request."""
_TRIAL: Final = 2 * _KEPT
"""Seconds that an origin is given to close an idle connection, before any is used again."""
_DISTRUST: Final = 60.0
"""Seconds for which none is kept once one was closed sooner."""
_MAX_ORIGINS: Final = 10_000
"""Of so many origins it is remembered what they do."""
_END_OF_HEAD: Final = b"\r\n\r\n"


class ConnectionLostError(Exception):
    """The connection closed before an answer came; whether the request was begun is unknown."""


@dataclass(slots=True, eq=False)
class _Origin:
    """What is known of how one origin treats idle connections."""

    trusted: bool = False
    on_trial: bool = False
    distrusted_until: float = 0.0

    @property
    def may_keep(self) -> bool:
        """Whether a connection may be kept: for use, or as the one that is watched."""
        return self.trusted or not (self.on_trial or monotonic() < self.distrusted_until)

    def distrust(self) -> None:
        """Note that it has closed a connection that was kept."""
        self.trusted, self.distrusted_until = False, monotonic() + _DISTRUST


class _Connection(ResponseHandler):
    """One connection, which knows its origin once a request went by it.

    It takes answers so that a head counts whatever follows it, as a body after 204. aiohttp drops a head with which
    something came that is no HTTP; where that comes later, whoever reads the body waits for ever.
    """

    origin: _Origin | None = None
    _arrivals: select.poll | None = None

    @property
    def is_over(self) -> bool:
        """Whether it was closed while idle, or something came by it that nobody asked for."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return True
        if self._arrivals is None:
            self._arrivals = select.poll()
            self._arrivals.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(self._arrivals.poll(0))

    def data_received(self, data: bytes) -> None:
        """Take a part of an answer."""
        if data.startswith(b"HTTP/"):
            end = data.find(_END_OF_HEAD) + len(_END_OF_HEAD)
            if len(_END_OF_HEAD) <= end < len(data):
                super().data_received(data[:end])
                data = data[end:]
        super().data_received(data)
        wrong = self.exception()
        if wrong is not None and self._payload is not None:
            self._payload.set_exception(aiohttp.ClientError(str(wrong)))

    def released(self) -> None:
        """Close it after a request, unless it may be kept."""
        if self.origin is None or not self.origin.may_keep:
            self.force_close()


class KeptConnections(aiohttp.TCPConnector):
    """Makes connections, and keeps them where that loses no request."""

    def __init__(self, **options: Any) -> None:
        """Prepare to connect.

        :param options: Those of :class:`aiohttp.TCPConnector`.
        """
        super().__init__(limit=0, keepalive_timeout=_KEPT, **options)
        self._factory = partial(_Connection, loop=self._loop)  # type: ignore[assignment]  # partial is invariant
        self._origins: dict[ConnectionKey, _Origin] = {}
        self._trials: dict[Connection, asyncio.TimerHandle] = {}

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Trace],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 the base's
    ) -> Connection:
        """Return a connection by which a request can be sent, a kept or a new one."""
        while True:
            connection = await super().connect(req, traces, timeout)
            protocol = connection.protocol
            assert isinstance(protocol, _Connection)
            origin = protocol.origin
            if origin is None:
                protocol.origin = self._origin(req.connection_key)
                break
            if protocol.is_over:
                origin.distrust()
                connection.close()
            elif origin.trusted:
                break
            elif origin.may_keep:
                self._begin_trial(origin, connection)
            else:
                connection.close()
        connection.add_callback(protocol.released)
        return connection

    async def close(self, *, abort_ssl: bool = False) -> None:
        """Close all connections."""
        for connection, end in self._trials.items():
            end.cancel()
            connection.close()
        self._trials.clear()
        await super().close(abort_ssl=abort_ssl)

    async def send_once(
        self, request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Send a request that breaks off no second time, as a middleware.

        aiohttp sends GET, PUT and others once more where the connection closes before an answer came, without a sign.

        :raises ConnectionLostError: It broke off.
        """
        try:
            return await send(request)
        except aiohttp.ClientConnectorError:
            raise  # nothing was sent, and nothing is again
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            self._origin(request.connection_key).distrust()
            raise ConnectionLostError(str(error)) from error

    def _origin(self, key: ConnectionKey) -> _Origin:
        origin = self._origins.get(key)
        if origin is None:
            if len(self._origins) >= _MAX_ORIGINS:
                self._origins.clear()
            origin = self._origins[key] = _Origin()
        return origin

    def _begin_trial(self, origin: _Origin, connection: Connection) -> None:
        origin.on_trial = True
        self._trials[connection] = asyncio.get_running_loop().call_later(_TRIAL, self._end_trial, origin, connection)

    def _end_trial(self, origin: _Origin, connection: Connection) -> None:
        del self._trials[connection]
        origin.on_trial = False
        if not isinstance(connection.protocol, _Connection) or connection.protocol.is_over:
            origin.distrust()
        else:
            origin.trusted = True
        connection.close()
