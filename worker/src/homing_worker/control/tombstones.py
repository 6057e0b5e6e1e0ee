"""The hand-overs that must not start, as servers told of them."""

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
        """The generation, and when it was last told."""

    def __len__(self) -> int:
        return len(self._stops)

    def add(self, stops: Iterable[Tombstone]) -> None:
        """Take what servers tell."""
        now = self._clock()
        for stop in stops:
            known, _ = self._stops.get(stop.invocation_id, (0, now))
            self._stops[stop.invocation_id] = max(known, stop.generation), now

    def merge(self, stops: Iterable[Tombstone]) -> None:
        """Take all that there are: the others are forgotten, unless they are news that the answer may not have yet."""
        news_since = self._clock() - limits.CONTROL_SILENCE
        self._stops = {key: value for key, value in self._stops.items() if value[1] >= news_since}
        self.add(stops)

    def covers(self, invocation_id: str, generation: int) -> bool:
        """Tell whether a hand-over must not start."""
        if not self._stops:
            return False
        stop = self._stops.get(invocation_id)
        return stop is not None and generation <= stop[0]
