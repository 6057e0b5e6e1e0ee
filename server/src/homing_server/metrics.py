"""What the server counts and measures, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics


class Metrics:
    """The server's metrics in a registry of their own."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, that no dashboard uses
        self.registry = CollectorRegistry()
        self.accepted = Counter(
            "homing_invocations_accepted", "Asynchronous invocations made durable.", registry=self.registry
        )
        self.ended = Counter(
            "homing_invocations_ended", "Invocations recorded as ended.", ["state"], registry=self.registry
        )
        self.deliveries = Counter(
            "homing_deliveries_ended", "Deliveries recorded as ended.", ["state"], registry=self.registry
        )
        self.deliveries_waiting = Gauge(
            "homing_deliveries",
            "Deliveries that are not over, by who holds them: store, sent, broker.",
            ["custody"],
            registry=self.registry,
        )
        self.dead_letters = Gauge(
            "homing_dead_letters", "Dead letters, by kind: invocation, delivery.", ["kind"], registry=self.registry
        )
        self.events = Counter("homing_events_recorded", "Events taken from workers.", registry=self.registry)
        self.events_refused = Counter(
            "homing_events_refused", "Events that changed nothing: stale, late or repeated.", registry=self.registry
        )
        self.events_parked = Gauge(
            "homing_events_parked",
            "Events that could not be recorded and are kept for a version that can; the log says why.",
            registry=self.registry,
        )
        self.records = Gauge(
            "homing_invocations", "Invocations in the store, by state.", ["state"], registry=self.registry
        )
        self.record_drift = Gauge(
            "homing_conservation_record_drift",
            "Invocations ever accepted less those in the store and those removed; not 0 means that records were lost.",
            registry=self.registry,
        )
        self.broker_drift = Gauge(
            "homing_conservation_broker_drift",
            "Invocations that the store believes to be at the broker less those that are there;"
            " not 0 at two settled counts in a row means that messages were lost.",
            ["function"],
            registry=self.registry,
        )
        self.settled = Gauge(
            "homing_conservation_settled_timestamp_seconds",
            "When the last count of the broker began during which nothing moved, so that its drift is exact.",
            registry=self.registry,
        )
        self.workers = Gauge("homing_workers", "Workers that live.", registry=self.registry)
        self.worker_versions = Gauge(
            "homing_worker_versions", "Workers that live, by their version.", ["version"], registry=self.registry
        )
        self.events_waiting = Gauge(
            "homing_events_waiting", "Event messages that wait for the recorder.", registry=self.registry
        )
        self.dispatching = Gauge(
            "homing_dispatching", "Whether this is the server that feeds the broker: 1 or 0.", registry=self.registry
        )
        self.watchers = Gauge("homing_watchers", "Watches that are open.", registry=self.registry)
