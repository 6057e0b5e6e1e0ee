"""The HTTP front: health for load balancers, metrics for Prometheus, and the data port for workers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final

from aiohttp import web
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from homing.v1.key_service_pb2 import SCOPE_READ
from homing_core.http_connections import Connection, ConnectionLimit, note_busy
from homing_core.listening import listening
from homing_core.tls import TlsFiles
from homing_server.auth.identity import Identity
from homing_server.auth.key_cache import KeyCache
from homing_server.auth.refusals import Refusals
from homing_server.errors import ApiError, key_limited, key_missing, scope_missing
from homing_server.front.http.data_port import DataPort
from homing_server.front.http.host_names import HostNames
from homing_server.front.http.status import refusal
from homing_server.metrics import Metrics
from homing_server.payloads.signed_urls import BLOBS, RESULTS

_HEALTH: Final = "/healthz"
_METRICS: Final = "/metrics"
_BACKLOG: Final = 1024
"""So many connections wait to be taken in; the client of another one would try again after a second."""
_OPEN: Final = frozenset({_HEALTH, BLOBS + "{id}", RESULTS + "{id}"})
"""What needs no key: the URLs of bodies are signed."""

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class HttpFront:
    """An HTTP server."""

    def __init__(
        self,
        listen: str,
        metrics: Metrics,
        data_port: DataPort,
        *,
        tls: TlsFiles | None,
        keys: KeyCache | None,
        refusals: Refusals,
        names: HostNames,
    ) -> None:
        """Put the routes together.

        :param tls: The certificate to show, and those of clients to trust; None to serve without TLS.
        :param keys: Who knows callers; None lets everybody in.
        :param refusals: Tells of those who are not let in.
        :param names: Under which it may be asked for something.
        :raises TlsError: A file cannot be used.
        """
        self._host, _, port = listen.rpartition(":")
        self._port = int(port)
        self._tls = None if tls is None else tls.server_context()
        self._metrics = metrics
        self._keys = keys
        self._refusals = refusals
        self._names = names
        self._serving = False
        self.app = web.Application(middlewares=[note_busy, self._admit])
        self.app.router.add_get(_HEALTH, self._healthz)
        self.app.router.add_get(_METRICS, self._show_metrics)
        data_port.add_to(self.app.router)
        self._runner = web.AppRunner(self.app)
        self._limit = ConnectionLimit()
        self._listener: asyncio.Server | None = None

    async def start(self) -> str:
        """Serve; return the address.

        :raises ListenError: The address cannot be listened on.
        """
        await self._runner.setup()
        server = self._runner.server
        assert server is not None, "it was just set up"
        with listening("http_listen", f"{self._host}:{self._port}"):
            self._listener = await asyncio.get_running_loop().create_server(
                lambda: Connection(self._limit, server),
                self._host.strip("[]"),
                self._port,
                ssl=self._tls,
                backlog=_BACKLOG,
            )
        port = self._listener.sockets[0].getsockname()[1]
        return f"{self._host}:{port}"

    def set_serving(self, serving: bool) -> None:  # noqa: FBT001 it is the one thing this sets
        """Set what ``/healthz`` answers."""
        self._serving = serving

    async def stop(self) -> None:
        """Take no more requests."""
        if self._listener is not None:
            self._listener.close()
        self._limit.close()
        await self._runner.cleanup()

    @web.middleware
    async def _admit(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Let nobody in without a key, also where nothing is: who may not know is not told."""
        if not self._names.allow(request.headers.get("Host", "")):
            return web.Response(status=HTTPStatus.MISDIRECTED_REQUEST, text="this server has another name\n")
        resource = request.match_info.route.resource
        if self._keys is not None and (resource is None or resource.canonical not in _OPEN):
            try:
                identity = self._keys.identify(request.headers.get("Authorization"))
                if not identity.known:
                    raise key_missing()
                identity.take()
                if resource is not None:
                    _check_metrics(identity)
            except ApiError as error:
                self._refusals.note(error, peer=request.remote or "", what=request.path)
                return refusal(error)
        return await handler(request)

    async def _healthz(self, _request: web.Request) -> web.Response:
        if self._serving:
            return web.Response(text="ok\n")
        return web.Response(status=503, text="not serving: draining, or the store or the broker is away\n")

    async def _show_metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _check_metrics(identity: Identity) -> None:
    """Check that it may read what concerns all functions.

    :raises ApiError: PERMISSION_DENIED.
    """
    if not identity.may(SCOPE_READ):
        raise scope_missing(_METRICS, ["read"])
    if identity.functions:
        raise key_limited("the metrics are")
