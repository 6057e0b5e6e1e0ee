"""What the worker counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from homing.v1.invocation_pb2 import InvocationState


class LaneFigures(Protocol):
    """What is exported of a lane."""

    name: str

    @property
    def in_flight(self) -> int:
        """Work messages that are not acknowledged yet."""

    @property
    def leased(self) -> int:
        """Executions that this worker answers for instead of the broker."""

    @property
    def busy(self) -> int:
        """Attempts that run."""

    @property
    def instances(self) -> int:
        """Running instances."""


class Metrics:
    """The counters and gauges of one worker, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._executions = Counter(
            "homing_worker_executions",
            "Dispatches that this worker settled, by how they went.",
            ["lane", "outcome"],
            registry=self.registry,
        )
        self._attempts = Counter(
            "homing_worker_attempts", "Attempts that failed, by reason.", ["reason"], registry=self.registry
        )
        self._deliveries = Counter(
            "homing_worker_deliveries",
            "Deliveries that this worker settled, by state: PENDING is tried again later.",
            ["state"],
            registry=self.registry,
        )
        self._open_breakers = Gauge(
            "homing_worker_open_circuit_breakers",
            "Receivers of deliveries whose circuit breaker is open or half-open.",
            registry=self.registry,
        )
        self._batches = Histogram(
            "homing_worker_event_batch_size",
            "Events in a published batch.",
            buckets=(1, 2, 5, 10, 20, 50, 100, 200),
            registry=self.registry,
        )
        self._lines = Counter(
            "homing_worker_log_lines",
            "Lines that functions wrote, by what became of them: published, or lost because the broker was too slow.",
            ["outcome"],
            registry=self.registry,
        )
        self._outcomes: dict[tuple[str, str], Counter] = {}

    def watch(self, lanes: Callable[[], Iterable[LaneFigures]]) -> None:
        """Export the figures of these lanes whenever the metrics are read."""
        self.registry.register(_LaneCollector(lanes))

    def watch_circuit_breakers(self, opened: Callable[[], int]) -> None:
        """Export how many circuit breakers are not closed whenever the metrics are read."""
        self._open_breakers.set_function(opened)

    def execution(self, lane: str, outcome: str) -> None:
        """Count a dispatch that was settled."""
        key = lane, outcome
        counter = self._outcomes.get(key)
        if counter is None:
            counter = self._outcomes[key] = self._executions.labels(lane, outcome)
        counter.inc()

    def failed_attempt(self, reason: str) -> None:
        """Count an attempt that failed."""
        self._attempts.labels(reason).inc()

    def delivery(self, state: str) -> None:
        """Count a delivery that ended."""
        self._deliveries.labels(state).inc()

    def log_lines(self, outcome: str, number: int) -> None:
        """Count so many log lines."""
        self._lines.labels(outcome).inc(number)

    def events(self, number: int) -> None:
        """Count a batch of so many events."""
        self._batches.observe(number)


class _LaneCollector(Collector):
    def __init__(self, lanes: Callable[[], Iterable[LaneFigures]]) -> None:
        self._lanes = lanes

    def collect(self) -> Iterable[Metric]:
        in_flight = GaugeMetricFamily(
            "homing_worker_in_flight", "Work messages delivered and not acknowledged.", labels=["function"]
        )
        leased = GaugeMetricFamily("homing_worker_leased", "Executions that have left the broker.", labels=["function"])
        busy = GaugeMetricFamily("homing_worker_busy", "Attempts that run.", labels=["function"])
        instances = GaugeMetricFamily("homing_worker_instances", "Running instances.", labels=["function"])
        for lane in self._lanes():
            in_flight.add_metric([lane.name], lane.in_flight)
            leased.add_metric([lane.name], lane.leased)
            busy.add_metric([lane.name], lane.busy)
            instances.add_metric([lane.name], lane.instances)
        return in_flight, leased, busy, instances


def state_name(state: InvocationState.ValueType) -> str:
    """Return the short name of a state, as in ``SUCCEEDED``."""
    return InvocationState.Name(state).removeprefix("INVOCATION_STATE_")
