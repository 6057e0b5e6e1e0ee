"""What the gateway counts and measures, under the names that OpenFaaS's dashboards know."""

from __future__ import annotations

import time
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram

from homing_core.gateway import NAMESPACE
from homing_server.functions.catalog import Catalog

_NAME: Final = "function_name"


class GatewayMetrics:
    """Metrics by function. Those of a function that is deleted go with it, and names of none have none."""

    def __init__(self, registry: CollectorRegistry, catalog: Catalog) -> None:
        self._invocations = Counter(
            "gateway_function_invocation", "Invocations over HTTP.", [_NAME, "code"], registry=registry
        )
        self._seconds = Histogram(
            "gateway_functions_seconds", "How long invocations over HTTP took.", [_NAME], registry=registry
        )
        self._started = Counter(
            "gateway_function_invocation_started", "Invocations over HTTP that began.", [_NAME], registry=registry
        )
        # To look one up by its labels costs as much as to count.
        self._by_function: dict[str, Measured] = {}
        self._catalog = catalog
        catalog.on_change(self._forget)

    def of(self, function: str) -> Measured:
        """Return the metrics of a function that exists."""
        found = self._by_function.get(function)
        if found is None:
            name = f"{function}.{NAMESPACE}"
            found = self._by_function[function] = Measured(
                name, self._invocations, self._seconds.labels(name), self._started.labels(name)
            )
        return found

    def _forget(self, function: str) -> None:
        if not self._catalog.is_deleted(function):
            return
        found = self._by_function.pop(function, None)
        if found is not None:
            found.remove()
            name = f"{function}.{NAMESPACE}"
            self._seconds.remove(name)
            self._started.remove(name)


class Measured:
    """The metrics of one function."""

    def __init__(self, name: str, invocations: Counter, seconds: Histogram, started: Counter) -> None:
        self._name = name
        self._invocations = invocations
        self._seconds = seconds
        self._started = started
        self._by_code: dict[int, Counter] = {}

    def begin(self) -> float:
        """Count a beginning; return what :meth:`end` is told of it."""
        self._started.inc()
        return time.perf_counter()

    def end(self, code: int, begun: float) -> None:
        """Count an end, with the status that was answered."""
        self._seconds.observe(time.perf_counter() - begun)
        counter = self._by_code.get(code)
        if counter is None:
            counter = self._by_code[code] = self._invocations.labels(self._name, str(code))
        counter.inc()

    def remove(self) -> None:
        """Forget the counts by status."""
        for code in self._by_code:
            self._invocations.remove(self._name, str(code))
