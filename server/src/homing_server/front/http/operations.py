"""What the HTTP port tells of the server itself: health for load balancers, metrics for Prometheus."""

from __future__ import annotations

from typing import Final

from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from homing.v1.key_service_pb2 import SCOPE_READ
from homing_server.auth.identity import Identity
from homing_server.errors import key_limited, scope_missing
from homing_server.front.http.areas import Area, routed
from homing_server.metrics import Metrics

_HEALTH: Final = "/healthz"
_METRICS: Final = "/metrics"


class Operations:
    """Serves health and metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._serving = False

    @property
    def areas(self) -> tuple[Area, ...]:
        """What is served here."""
        health, metrics = Route(_HEALTH, self._healthz), Route(_METRICS, self._show_metrics)
        return (
            Area(path=_HEALTH, app=routed([health]), open=True),
            Area(path=_METRICS, app=routed([metrics]), operates=True),
        )

    def set_serving(self, serving: bool) -> None:  # noqa: FBT001 it is the one thing this sets
        """Set what ``/healthz`` answers."""
        self._serving = serving

    async def _healthz(self, _request: Request) -> Response:
        if self._serving:
            return PlainTextResponse("ok\n")
        return PlainTextResponse("not serving: draining, or the store or the broker is away\n", status_code=503)

    async def _show_metrics(self, request: Request) -> Response:
        _check_metrics(request.state.identity)
        return Response(generate_latest(self._metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _check_metrics(identity: Identity) -> None:
    """Check that it may read what concerns all functions.

    :raises ApiError: PERMISSION_DENIED.
    """
    if not identity.may(SCOPE_READ):
        raise scope_missing(_METRICS, ["read"])
    if identity.functions:
        raise key_limited("the metrics are")
