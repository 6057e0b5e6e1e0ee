"""Which workers live, and what they have in hand, by their own word."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass

from homing_core.limits import CONTROL_INTERVAL, CONTROL_SILENCE
from homing_core.wire.v1 import WorkerStatus


@dataclass(frozen=True, slots=True)
class _Heard:
    status: WorkerStatus
    functions: frozenset[str]
    at: float


class Presence:
    """Workers that were heard of in the last seconds."""

    def __init__(self) -> None:
        self._heard: dict[str, _Heard] = {}
        self._since = 0.0

    def listen(self) -> None:
        """Take note that workers are heard from now on: there is a new connection."""
        self._since = time.monotonic()

    def hear(self, status: WorkerStatus) -> None:
        """Take note of what a worker says."""
        functions = frozenset(load.function for load in status.functions)
        self._heard[status.worker] = _Heard(status, functions, time.monotonic())
        for name in [name for name, heard in self._heard.items() if time.monotonic() - heard.at > 10 * CONTROL_SILENCE]:
            del self._heard[name]

    def lives(self, worker: str) -> bool:
        """Tell whether a worker was heard of lately."""
        heard = self._heard.get(worker)
        return heard is not None and time.monotonic() - heard.at < CONTROL_SILENCE

    def serves(self, function: str) -> bool:
        """Tell whether a live worker serves a function."""
        return any(function in heard.functions for heard in self._live())

    def in_flight(self, function: str) -> int:
        """Return how many work messages of a function the live workers have in hand."""
        return sum(
            load.in_flight for heard in self._live() for load in heard.status.functions if load.function == function
        )

    def all_heard_since(self, moment: float) -> bool:
        """Tell whether every live worker, and none is left that may be unheard yet, has spoken after a moment.

        :param moment: A time of the monotonic clock.
        """
        listened = time.monotonic() - self._since
        return listened > 2 * CONTROL_INTERVAL and all(heard.at > moment for heard in self._live())

    @property
    def workers(self) -> int:
        """How many workers live."""
        return len(self._live())

    def versions(self) -> Counter[str]:
        """Return how many workers live of each version; empty for those that do not tell theirs."""
        return Counter(heard.status.version for heard in self._live())

    def _live(self) -> list[_Heard]:
        now = time.monotonic()
        return [
            heard
            for heard in self._heard.values()
            if now - heard.at < CONTROL_SILENCE and not (heard.status.leaving and not heard.status.functions)
        ]
