"""Rate limits of keys: a token bucket, which throttles calls beyond a rate and lets short bursts pass."""

from __future__ import annotations

import time
from collections.abc import Callable


class TokenBucket:
    """Allows so many calls in a second, and at once what fits into one second."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tokens: float | None = None
        """None until something is taken: the bucket is full."""
        self._at = 0.0

    def take(self, number: int, *, per_second: float) -> float:
        """Take tokens; return 0, or after how many seconds there will be enough and none was taken.

        What is larger than the bucket passes where the bucket is full, and is worked off afterwards: else no such batch
        would ever pass.
        """
        now = self._clock()
        burst = max(1.0, per_second)
        tokens = burst if self._tokens is None else min(burst, self._tokens + (now - self._at) * per_second)
        self._at = now
        missing = min(float(number), burst) - tokens
        if missing > _ROUNDING_TOKENS:
            self._tokens = tokens
            return missing / per_second
        self._tokens = tokens - number
        return 0.0


_ROUNDING_TOKENS = 1e-6
"""So little is missing by the arithmetic of floats alone."""
