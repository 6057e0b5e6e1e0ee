"""The retry policy of functions and invocations."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryPolicy:
    """Which failed attempts are made again, how often and how fast. What is None takes the server's default.

    Durations are seconds or timedeltas; in policies that the server returned, timedeltas. The delay before attempt
    n+1 is drawn evenly between zero and ``min(max_backoff, initial_backoff * backoff_multiplier ** (n - 1))``.
    """

    max_attempts: int | None = None
    """The number of attempts in all, the first one included, 1 to 100; 3 by default, 1 means no retry."""
    initial_backoff: float | timedelta | None = None
    """The upper bound of the first delay; 1 s by default."""
    backoff_multiplier: float | None = None
    """The factor from one bound to the next, at least 1; 2 by default."""
    max_backoff: float | timedelta | None = None
    """The largest bound of a delay; 5 min by default."""
    retry_status_codes: Collection[int] = ()
    """The HTTP status codes that are retried; if empty 408, 425, 429, 500, 502, 503 and 504."""
    max_retry_after: float | timedelta | None = None
    """The longest ``Retry-After`` of an answer that is obeyed in place of the computed delay; 5 min by default."""
