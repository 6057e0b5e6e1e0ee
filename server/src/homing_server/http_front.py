"""The HTTP front: health for load balancers, metrics for Prometheus, and the data port for workers."""

from __future__ import annotations

from aiohttp import web
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from homing_server.data_port import DataPort
from homing_server.metrics import Metrics


class HttpFront:
    """An HTTP server."""

    def __init__(self, listen: str, metrics: Metrics, data_port: DataPort) -> None:
        self._host, _, port = listen.rpartition(":")
        self._port = int(port)
        self._metrics = metrics
        self._serving = False
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/metrics", self._show_metrics)
        data_port.add_to(app.router)
        self._runner = web.AppRunner(app, access_log=None)

    async def start(self) -> str:
        """Serve; return the address.

        :raises OSError: The address cannot be listened on.
        """
        await self._runner.setup()
        await web.TCPSite(self._runner, self._host.strip("[]"), self._port).start()
        port = self._runner.addresses[0][1]
        return f"{self._host}:{port}"

    def set_serving(self, serving: bool) -> None:  # noqa: FBT001 it is the one thing this sets
        """Set what ``/healthz`` answers."""
        self._serving = serving

    async def stop(self) -> None:
        """Take no more requests."""
        await self._runner.cleanup()

    async def _healthz(self, _request: web.Request) -> web.Response:
        if self._serving:
            return web.Response(text="ok\n")
        return web.Response(status=503, text="not serving: draining, or the store or the broker is away\n")

    async def _show_metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})
