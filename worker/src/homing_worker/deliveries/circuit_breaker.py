"""The circuit breaker of one receiver of deliveries.

It is *closed* while the receiver answers. Several attempts in a row without an answer open it: while it is *open*
attempts are rejected, so they fail at once. After a pause it is *half-open*: one attempt, the probe, finds out whether
the receiver is back, and others are rejected meanwhile. An answer closes it; silence opens it for twice as long.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from random import Random
from typing import Final

TRIPS_AFTER: Final = 3
"""So many attempts in a row without an answer open the breaker."""
FIRST_OPEN_SECONDS: Final = 5.0
MAX_OPEN_SECONDS: Final = 300.0
"""It stays open for so long, twice as long each time."""
JITTER: Final = 0.2
"""That is up to so much shorter or longer, as a part of it."""


class BreakerState(enum.Enum):
    """Whether attempts are made."""

    CLOSED = "closed"
    """All are."""
    OPEN = "open"
    """None is."""
    HALF_OPEN = "half-open"
    """One at a time, as a probe."""


class BreakerOpenError(Exception):
    """An attempt was rejected: the breaker is open, or half-open with a probe in flight."""

    def __init__(self, until: float) -> None:
        super().__init__(f"the receiver did not answer {TRIPS_AFTER} others in a row, so this one was not tried")
        self.until = until
        """Until when, by the clock of the breaker."""


class CircuitBreaker:
    """Counts how the attempts at a receiver end, and says whether more are to be made."""

    def __init__(self, clock: Callable[[], float], rng: Random, *, max_open: float = MAX_OPEN_SECONDS) -> None:
        """Make a closed one.

        :param clock: Returns seconds that never go back.
        :param rng: Draws the jitter.
        :param max_open: For how many seconds it stays open at the most.
        """
        self._clock = clock
        self._rng = rng
        self._max_open = max_open
        self._silent = 0
        """Attempts in a row without an answer."""
        self._open_seconds = 0.0
        """For how long it was opened last; 0 while it is closed."""
        self._open_until = 0.0

    @property
    def state(self) -> BreakerState:
        """Whether attempts are made now."""
        if not self._open_seconds:
            return BreakerState.CLOSED
        return BreakerState.OPEN if self._clock() < self._open_until else BreakerState.HALF_OPEN

    @property
    def is_new(self) -> bool:
        """Whether it is as if nothing had ever failed."""
        return not self._silent and not self._open_seconds

    @property
    def retry_at(self) -> float:
        """When, by its clock, an attempt that is rejected now may be made."""
        return max(self._open_until, self._clock() + min(FIRST_OPEN_SECONDS, self._max_open))

    def rejects_attempts(self, *, in_flight: int) -> bool:
        """Return whether an attempt is rejected: while it is open, and half-open while the probe is in flight.

        :param in_flight: How many attempts are being made at the receiver.
        """
        state = self.state
        return state is BreakerState.OPEN or (state is BreakerState.HALF_OPEN and in_flight > 0)

    def answered(self) -> None:
        """Count an attempt that the receiver answered: close."""
        self._silent, self._open_seconds = 0, 0.0

    def not_answered(self) -> bool:
        """Count an attempt that the receiver did not answer; return whether that has opened the breaker."""
        self._silent += 1
        if self._silent < TRIPS_AFTER or self.state is BreakerState.OPEN:
            return False
        self._open_seconds = min(self._max_open, 2 * self._open_seconds or FIRST_OPEN_SECONDS)
        self._open_until = self._clock() + self._open_seconds * self._rng.uniform(1 - JITTER, 1 + JITTER)
        return True
