"""The metrics of a server, as Prometheus would read them."""

from __future__ import annotations

import asyncio
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from support.processes import Server

PATIENCE = 90.0
PAUSE = 0.25


@dataclass(frozen=True, slots=True)
class Gauges:
    """What a server measured at one moment."""

    samples: dict[tuple[str, str], float]
    """By name and the value of the one label, empty where there is none."""

    @classmethod
    def read(cls, server: Server) -> Gauges:
        """Ask a server."""
        with urllib.request.urlopen(f"http://{server.http}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        return cls(
            {
                (sample.name, next(iter(sample.labels.values()), "")): sample.value
                for family in text_string_to_metric_families(text)
                for sample in family.samples
            }
        )

    def value(self, name: str, label: str = "") -> float:
        """Return one value, 0 where there is none."""
        return self.samples.get((name, label), 0.0)

    def all(self, name: str) -> dict[str, float]:
        """Return the values of a name that are not 0, by label."""
        return {label: value for (each, label), value in self.samples.items() if each == name and value}

    @property
    def records(self) -> dict[str, float]:
        """How many invocations the store holds, by state."""
        return self.all("homing_invocations")

    @property
    def record_drift(self) -> float:
        """Invocations that were accepted and are neither there nor removed."""
        return self.value("homing_conservation_record_drift")

    @property
    def broker_drift(self) -> dict[str, float]:
        """By function, what should be at the broker less what is there, where that is not 0."""
        return self.all("homing_conservation_broker_drift")

    @property
    def settled(self) -> float:
        """When the last exact count of the broker began, in seconds since the epoch."""
        return self.value("homing_conservation_settled_timestamp_seconds")


async def settled_gauges(server: Server, *, within: float = PATIENCE) -> Gauges:
    """Return what a server measured in a count that began after this call."""
    begun = time.time()
    return await gauges_when(server, lambda gauges: gauges.settled > begun, within=within)


async def gauges_after(server: Server, condition: Callable[[Gauges], bool], *, within: float = PATIENCE) -> Gauges:
    """Return what a server measures as soon as a condition holds, all of it measured after this call."""
    # What is measured first may be a little older than the beginning of the count.
    first = await settled_gauges(server, within=within)
    return await gauges_when(server, lambda gauges: gauges.settled > first.settled and condition(gauges), within=within)


async def gauges_when(server: Server, condition: Callable[[Gauges], bool], *, within: float = PATIENCE) -> Gauges:
    """Return what a server measures as soon as a condition holds."""
    deadline = time.monotonic() + within
    while True:
        gauges = await asyncio.to_thread(Gauges.read, server)
        if condition(gauges):
            return gauges
        if time.monotonic() > deadline:
            raise AssertionError(f"not so within {within:g} s: {gauges.samples}")
        await asyncio.sleep(PAUSE)
