"""Synchronous calls whose callers went away, each remembered until its deadline: after that nobody would start it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from homing_core.clock import now_us
from homing_core.limits import MAX_CANCELLED_CALLS
from homing_core.wire.v1 import CancelledCall


class CancelledCalls:
    """A bounded memory: where it is full those go whose deadlines have passed, else the oldest."""

    def __init__(self, *, most: int = MAX_CANCELLED_CALLS, clock: Callable[[], int] = now_us) -> None:
        """Remember nothing yet.

        :param clock: Returns the time in microseconds since the epoch.
        """
        self._most = most
        self._clock = clock
        self._calls: dict[str, CancelledCall] = {}
        """By invocation, the oldest first."""

    def __iter__(self) -> Iterator[CancelledCall]:
        """Iterate over those that could be started still."""
        now = self._clock()
        return iter([call for call in self._calls.values() if call.deadline_us > now])

    def __len__(self) -> int:
        return len(self._calls)

    def get(self, invocation_id: str) -> CancelledCall | None:
        """Return a call; None where its caller is not known to have gone away."""
        return self._calls.get(invocation_id)

    def add(self, calls: Iterable[CancelledCall]) -> None:
        """Remember calls."""
        self._calls.update((call.invocation_id, call) for call in calls)
        if len(self._calls) > self._most:
            # A part at a time, so that it is not gone through for each call.
            left = list(self)[-(self._most - self._most // 10) :]
            self._calls = {call.invocation_id: call for call in left}
