"""The retry schedule of deliveries: their backoffs, ``Retry-After``, and when one is dead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

DEFAULT_DELAYS: Final = (5.0, 30.0, 120.0, 600.0, 1800.0, 3600.0, 10800.0, 25200.0, 43200.0)
"""Seconds after each failed attempt: ten attempts in all, over a day."""
JITTER: Final = 0.2
"""A delay is up to so much shorter or longer, as a part of it, so that what failed together does not come back
together."""
MAX_RETRY_AFTER: Final = 24 * 3600.0
"""Seconds that a receiver may ask for at the most."""
PAUSE_PART: Final = 0.25
MAX_PAUSE: Final = 3600.0
"""What waits for a receiver that is down waits on for this part of what it has waited, up to so many seconds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """The delays between the attempts of a delivery."""

    delays: Sequence[float] = DEFAULT_DELAYS
    """Seconds after the first failed attempt, after the second, and so on; after the last one it is dead."""

    @property
    def attempts(self) -> int:
        """How many attempts there are in all."""
        return len(self.delays) + 1

    @property
    def duration(self) -> float:
        """How many seconds it takes in all, at the most."""
        return (1 + JITTER) * sum(self.delays)

    def is_last(self, attempt: int) -> bool:
        """Return whether no other attempt follows this one, which is 1 for the first."""
        return attempt >= self.attempts

    def delay(self, attempt: int, *, asked: float | None, rng: Random) -> float:
        """Return the seconds between this failed attempt, which is not the last, and the next one.

        :param asked: What the receiver asked for by ``Retry-After``; obeyed where it is longer.
        """
        planned = self.delays[attempt - 1] * rng.uniform(1 - JITTER, 1 + JITTER)
        return planned if asked is None else max(planned, min(asked, MAX_RETRY_AFTER))

    def pause(self, waited: float, *, rng: Random) -> float:
        """Return the seconds until a receiver that is down is looked at again: no sooner than after a first failure.

        :param waited: For how many seconds the delivery has been on its way.
        """
        planned = max(self.delays[0], min(PAUSE_PART * waited, MAX_PAUSE))
        return planned * rng.uniform(1 - JITTER, 1 + JITTER)
