"""How long calls may take and when they are made again."""

from __future__ import annotations

import enum
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import grpc
from tenacity import RetryCallState, stop_before_delay, stop_never, wait_random_exponential

from homing._core import check
from homing.errors import RateLimitedError, RequestError, ServerError, UnavailableError

log = logging.getLogger("homing")

POLL: Final = 55.0
"""How long one long poll waits for an end, in seconds: less than the minute after which many proxies give up."""
POLL_GRACE: Final = 5.0
"""How much later than the end of its wait a long poll must have answered."""
_LAST_TRY: Final = 0.2
"""A try that has less time than this left is not made: it would only turn the reason into a missed deadline."""
_BACKOFF: Final = wait_random_exponential(multiplier=0.1, max=2.0)


class Unset(enum.Enum):
    """The type of UNSET."""

    UNSET = "unset"


UNSET: Final = Unset.UNSET
"""Stands for "as the client says" where None has a meaning of its own."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """The moment until which a caller waits."""

    at: float | None
    """By the monotonic clock; None for never."""

    @classmethod
    def after(cls, seconds: float | None) -> Deadline:
        """Return the deadline that is some seconds ahead."""
        return cls(None if seconds is None else time.monotonic() + seconds)

    @classmethod
    def of(cls, timeout: float | timedelta | Unset | None, usual: float | None, *, zero: bool = False) -> Deadline:
        """Return the deadline that the argument ``timeout`` of a call means.

        :raises TypeError: It is no duration.
        :raises InvalidRequestError: It is negative, or zero where that makes no sense.
        """
        if isinstance(timeout, Unset):
            return cls.after(usual)
        return cls.after(None if timeout is None else check.timeout(timeout, zero=zero))

    @classmethod
    def earlier(cls, *seconds: float | None) -> Deadline:
        """Return the deadline that comes first of some; None is none."""
        return cls.after(min((one for one in seconds if one is not None), default=None))

    def near(self) -> bool:
        """Tell whether too little time is left for another try."""
        return self.at is not None and self.at - time.monotonic() <= _LAST_TRY

    def remaining(self) -> float | None:
        """Return the seconds that are left, not below zero; None for ever."""
        return None if self.at is None else max(0.0, self.at - time.monotonic())


NEVER: Final = Deadline(None)
"""The deadline of whoever waits for ever."""


def poll_times(deadline: Deadline) -> tuple[float, float]:
    """Return for how long one long poll asks the server to wait, and how long the call may take."""
    remaining = deadline.remaining()
    if remaining is None:
        return POLL, POLL + POLL_GRACE
    return min(remaining, POLL), min(remaining, POLL + POLL_GRACE)


def is_retryable(error: BaseException) -> bool:
    """Tell whether the same call may succeed a little later."""
    if isinstance(error, RateLimitedError):
        return error.retry_after is not None
    # What is cancelled here ends otherwise: so a server or a proxy did it that had no room, or went away.
    return isinstance(error, UnavailableError) or (
        isinstance(error, ServerError) and error.code is grpc.StatusCode.CANCELLED
    )


def wait_before_retry(state: RetryCallState) -> float:
    """Return the seconds to wait: exponential with full jitter, on top of what the server says."""
    return wait_asked_for(state) + _BACKOFF(state)


def wait_asked_for(state: RetryCallState) -> float:
    """Return the seconds that the server says must pass before the next try."""
    error = state.outcome.exception() if state.outcome else None
    return (error.retry_after or 0.0) if isinstance(error, RequestError) else 0.0


def stop_for(deadline: Deadline) -> Callable[[RetryCallState], bool]:
    """Return the rule that stops repeating when the next try would come too late."""
    remaining = deadline.remaining()
    return stop_never if remaining is None else stop_before_delay(max(0.0, remaining - _LAST_TRY))


def log_retry(state: RetryCallState) -> None:
    """Log that a call is going to be made again."""
    error = state.outcome.exception() if state.outcome else None
    log.warning("try %d failed, next in %.1f s: %s", state.attempt_number, state.upcoming_sleep, error)
