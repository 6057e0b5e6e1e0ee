"""What the gateway counts and measures, under the names that OpenFaaS's dashboards know."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from homing_core.gateway import NAMESPACE
from homing_server.functions.catalog import Catalog

_NAME: Final = "function_name"
_BOUNDS: Final = Histogram.DEFAULT_BUCKETS
"""Up to how many seconds each bucket counts; the last one has no bound."""
_LE: Final = [floatToGoString(bound) for bound in _BOUNDS]  # type: ignore[no-untyped-call]


class GatewayMetrics(Collector):
    """Metrics by function. Those of a function that is deleted go with it, and names of none have none.

    They are counted in plain numbers, by the event loop alone: the locks of prometheus_client's own, five for each
    request, cost four times as much.
    """

    def __init__(self, registry: CollectorRegistry, catalog: Catalog) -> None:
        self._by_function: dict[str, Measured] = {}
        self._catalog = catalog
        catalog.on_change(self._forget)
        registry.register(self)

    def of(self, function: str) -> Measured:
        """Return the metrics of a function that exists."""
        found = self._by_function.get(function)
        if found is None:
            found = self._by_function[function] = Measured()
        return found

    def collect(self) -> Iterator[Metric]:
        """Return what is shown; on the event loop too."""
        ended = CounterMetricFamily("gateway_function_invocation", "Invocations over HTTP.", labels=[_NAME, "code"])
        took = HistogramMetricFamily(
            "gateway_functions_seconds", "How long invocations over HTTP took.", labels=[_NAME]
        )
        started = CounterMetricFamily(
            "gateway_function_invocation_started", "Invocations over HTTP that began.", labels=[_NAME]
        )
        for function, measured in self._by_function.items():
            name = f"{function}.{NAMESPACE}"
            started.add_metric([name], measured.started)
            took.add_metric([name], list(zip(_LE, accumulate(measured.buckets), strict=True)), measured.seconds)
            for code, count in measured.codes.items():
                ended.add_metric([name, str(code)], count)
        yield from (ended, took, started)

    def _forget(self, function: str) -> None:
        if self._catalog.is_deleted(function):
            self._by_function.pop(function, None)


class Measured:
    """The metrics of one function."""

    __slots__ = ("buckets", "codes", "seconds", "started")

    def __init__(self) -> None:
        self.started = 0
        self.seconds = 0.0
        """How long those took that have ended, in all."""
        self.buckets = [0] * len(_BOUNDS)
        """How many of them took longer than the bound before and no longer than this one."""
        self.codes: Counter[int] = Counter()
        """How many of them were answered with each status."""

    def begin(self) -> float:
        """Count a beginning; return what :meth:`end` is told of it."""
        self.started += 1
        return time.perf_counter()

    def end(self, code: int, begun: float) -> None:
        """Count an end, with the status that was answered."""
        seconds = time.perf_counter() - begun
        self.seconds += seconds
        self.buckets[bisect_left(_BOUNDS, seconds)] += 1
        self.codes[code] += 1
