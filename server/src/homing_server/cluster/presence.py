"""Which workers live, and what they have in flight, by the status that each reports every few seconds."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from homing_core.limits import CONTROL_INTERVAL, CONTROL_SILENCE
from homing_core.wire.v1 import WorkerStatus

_FORGOTTEN_SECONDS: Final = 10 * CONTROL_SILENCE
"""So long after it fell silent a worker is forgotten: the broker has noticed by then, too."""


@dataclass(frozen=True, slots=True)
class _Report:
    status: WorkerStatus
    functions: frozenset[str]
    at: float


class Presence:
    """The last status of each worker."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._reports: dict[str, _Report] = {}
        self._connected_at = 0.0

    def connected(self) -> None:
        """Take note that statuses come from now on: there is a new connection."""
        self._connected_at = self._clock()

    def on_status(self, status: WorkerStatus) -> None:
        """Take note of a status."""
        functions = frozenset(load.function for load in status.functions)
        self._reports[status.worker] = _Report(status, functions, self._clock())
        for name in [name for name, report in self._reports.items() if self._clock() - report.at > _FORGOTTEN_SECONDS]:
            del self._reports[name]

    def lives(self, worker: str) -> bool:
        """Tell whether a worker has reported lately."""
        report = self._reports.get(worker)
        return report is not None and self._clock() - report.at < CONTROL_SILENCE

    def is_lost(self, worker: str) -> bool:
        """Tell whether a worker has been silent for long, at least since there is a connection."""
        report = self._reports.get(worker)
        heard_at = self._connected_at if report is None else max(self._connected_at, report.at)
        return self._clock() - heard_at > CONTROL_SILENCE

    def serves(self, function: str) -> bool:
        """Tell whether a live worker serves a function."""
        return any(function in report.functions for report in self._live())

    def in_flight(self, function: str) -> int:
        """Return how many work messages of a function the live workers have in flight: unacknowledged."""
        return sum(
            load.in_flight for report in self._live() for load in report.status.functions if load.function == function
        )

    def waiting(self, function: str) -> int:
        """Return how many of these no attempt has begun of."""
        return self.in_flight(function) - sum(
            load.begun for report in self._live() for load in report.status.functions if load.function == function
        )

    def instances(self, function: str) -> int:
        """Return how many instances of a function there are at the live workers."""
        return sum(
            load.instances for report in self._live() for load in report.status.functions if load.function == function
        )

    @property
    def silent(self) -> bool:
        """Whether a worker has fallen silent lately, without a word: the broker may believe yet that it lives."""
        now = self._clock()
        return any(
            CONTROL_SILENCE <= now - report.at < _FORGOTTEN_SECONDS and not report.status.leaving
            for report in self._reports.values()
        )

    def all_reported_since(self, moment: float) -> bool:
        """Tell whether every live worker has reported after a moment, and none is left that may not have reported yet.

        :param moment: A time of the monotonic clock.
        """
        connected_seconds = self._clock() - self._connected_at
        return connected_seconds > 2 * CONTROL_INTERVAL and all(report.at > moment for report in self._live())

    @property
    def workers(self) -> int:
        """How many workers live."""
        return len(self._live())

    def versions(self) -> Counter[str]:
        """Return how many workers live of each version; empty for those that do not tell theirs."""
        return Counter(report.status.version for report in self._live())

    def _live(self) -> list[_Report]:
        now = self._clock()
        return [
            report
            for report in self._reports.values()
            if now - report.at < CONTROL_SILENCE and not (report.status.leaving and not report.status.functions)
        ]
