"""Tombstones: the dispatches that must not start, since their invocation was stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from homing_core import limits
from homing_core.wire.v1 import Tombstone


class Tombstones:
    """Keeps, by invocation, the last generation that must not start."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._stops: dict[str, tuple[int, float]] = {}
        """The generation, and when a server last announced it."""

    def __len__(self) -> int:
        return len(self._stops)

    def add(self, stops: Iterable[Tombstone]) -> None:
        """Take what servers announce."""
        now = self._clock()
        for stop in stops:
            known, _ = self._stops.get(stop.invocation_id, (0, now))
            self._stops[stop.invocation_id] = max(known, stop.generation), now

    def merge(self, stops: Iterable[Tombstone]) -> None:
        """Take a snapshot of all that there are: others are forgotten, unless they are too new to be in it."""
        new_since = self._clock() - limits.CONTROL_SILENCE
        self._stops = {key: value for key, value in self._stops.items() if value[1] >= new_since}
        self.add(stops)

    def covers(self, invocation_id: str, generation: int) -> bool:
        """Return whether a dispatch must not start: there is a tombstone for its generation or a later one."""
        if not self._stops:
            return False
        stop = self._stops.get(invocation_id)
        return stop is not None and generation <= stop[0]
