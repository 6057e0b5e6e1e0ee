"""Whether and when a failed attempt is made again: the retry policy as data and pure functions. Durations are seconds.

The delay before another attempt is drawn evenly between zero and a bound that grows from attempt to attempt
("full jitter"), unless the answer names its own with ``Retry-After``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import StrEnum
from random import Random
from typing import Final, Literal, Self

from google.protobuf.duration_pb2 import Duration

from homing.v1 import policy_pb2
from homing_core import limits

RETRY_HEADER: Final = "x-homing-retry"
"""An answer with this header set to ``no`` is final."""
CARRIER_HEADER: Final = "x-openfaas-internal"
"""An answer with this header comes from what carries a function, such as a watchdog of OpenFaaS that is at its
``max_inflight``, and not from the function."""


class DelayReason(StrEnum):
    """Where the delay before another attempt comes from."""

    BACKOFF = "BACKOFF"
    RETRY_AFTER = "RETRY_AFTER"


class FinalReason(StrEnum):
    """Why no other attempt is made."""

    ATTEMPTS_USED_UP = "ATTEMPTS_USED_UP"
    """The policy allows no more attempts."""

    NOT_RETRIED = "NOT_RETRIED"
    """The failure is of a kind, or the status one, that is not retried."""

    FUNCTION_REFUSED = "FUNCTION_REFUSED"
    """The function said that another attempt does not help."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryAdvice:
    """What an answer says about another attempt."""

    after: str = ""
    """Its ``Retry-After``; empty where it has none."""

    refused: bool = False
    """Whether it says that another attempt does not help."""

    by_carrier: bool = False
    """Whether it comes from what carries the function: then another attempt is made whatever its status code."""

    @classmethod
    def of(cls, *, after: str, retry: Iterable[str], carrier: str = "") -> Self:
        """Read the headers of an answer.

        :param after: The value of ``Retry-After``.
        :param retry: The values of :data:`RETRY_HEADER`.
        :param carrier: The value of :data:`CARRIER_HEADER`.
        """
        refused = any(value.strip().lower() == "no" for value in retry)
        return cls(after=after, refused=refused, by_carrier=bool(carrier))


NO_ADVICE: Final = RetryAdvice()
"""There was no answer, or it says nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FailedAttempt:
    """What of a failed attempt decides about another one."""

    status_code: int = 0
    """The HTTP status code of the answer; 0 where there was none, as after connection errors and time-outs."""

    permanent: bool = False
    """Whether the failure is of a kind that another attempt never helps."""

    advice: RetryAdvice = NO_ADVICE
    """What the answer says about another attempt."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryDecision:
    """Another attempt after a delay, or none."""

    delay: float | None
    """Seconds until the next attempt; None: there is none."""

    reason: DelayReason | FinalReason
    """Where the delay comes from, or why there is none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RetryPolicy:
    """Which failed attempts are made again, how often and how fast."""

    max_attempts: int = limits.DEFAULT_ATTEMPTS
    """How many attempts there are in all, the first one included."""

    initial_backoff: float = limits.DEFAULT_INITIAL_BACKOFF
    """The bound of the first delay."""

    backoff_multiplier: float = limits.DEFAULT_BACKOFF_MULTIPLIER
    """The factor from one bound to the next."""

    max_backoff: float = limits.DEFAULT_MAX_BACKOFF
    """The greatest bound."""

    retry_status_codes: frozenset[int] = limits.RETRY_STATUS_CODES
    """The HTTP status codes that are retried."""

    max_retry_after: float = limits.DEFAULT_MAX_RETRY_AFTER
    """The longest delay that an answer can ask for; longer ones are cut down to it."""

    @classmethod
    def resolve(cls, spec: policy_pb2.RetryPolicy | None, function: policy_pb2.RetryPolicy | None) -> Self:
        """Return an invocation's policy: each field from its own policy, else its function's, else the default."""
        given = [policy for policy in (spec, function) if policy is not None]

        def seconds(field: Literal["initial_backoff", "max_backoff", "max_retry_after"], default: float) -> float:
            return next((_seconds(getattr(policy, field)) for policy in given if policy.HasField(field)), default)

        return cls(
            max_attempts=next((p.max_attempts for p in given if p.HasField("max_attempts")), limits.DEFAULT_ATTEMPTS),
            initial_backoff=seconds("initial_backoff", limits.DEFAULT_INITIAL_BACKOFF),
            backoff_multiplier=next(
                (p.backoff_multiplier for p in given if p.HasField("backoff_multiplier")),
                limits.DEFAULT_BACKOFF_MULTIPLIER,
            ),
            max_backoff=seconds("max_backoff", limits.DEFAULT_MAX_BACKOFF),
            retry_status_codes=next(
                (frozenset(p.retry_status_codes) for p in given if p.retry_status_codes), limits.RETRY_STATUS_CODES
            ),
            max_retry_after=seconds("max_retry_after", limits.DEFAULT_MAX_RETRY_AFTER),
        )

    def backoff_bound(self, attempts: int) -> float:
        """Return the upper bound of the delay that follows this many attempts."""
        try:
            bound = self.initial_backoff * self.backoff_multiplier ** (attempts - 1)
        except OverflowError:
            return self.max_backoff
        return min(self.max_backoff, bound)

    def is_retried(self, failed: FailedAttempt) -> bool:
        """Return whether failures like this one are retried, however many attempts were made."""
        if failed.permanent or failed.advice.refused:
            return False
        if failed.status_code == 0 or failed.advice.by_carrier:
            return True
        return failed.status_code in self.retry_status_codes

    def decide(self, failed: FailedAttempt, *, attempts: int, now: float, rng: Random) -> RetryDecision:
        """Decide what follows a failed attempt.

        :param attempts: How many attempts were made, the failed one included.
        :param now: The time now in seconds since the Unix epoch, for a ``Retry-After`` that is a date.
        :param rng: Draws the jitter.
        """
        if failed.advice.refused:
            return RetryDecision(delay=None, reason=FinalReason.FUNCTION_REFUSED)
        if not self.is_retried(failed):
            return RetryDecision(delay=None, reason=FinalReason.NOT_RETRIED)
        if attempts >= self.max_attempts:
            return RetryDecision(delay=None, reason=FinalReason.ATTEMPTS_USED_UP)
        asked = parse_retry_after(failed.advice.after, now=now)
        if asked is not None:
            return RetryDecision(delay=min(asked, self.max_retry_after), reason=DelayReason.RETRY_AFTER)
        return RetryDecision(delay=rng.uniform(0.0, self.backoff_bound(attempts)), reason=DelayReason.BACKOFF)


def parse_retry_after(value: str, *, now: float) -> float | None:
    """Return the seconds that a ``Retry-After`` header asks to wait, or None where it makes no sense.

    :param value: Seconds or an HTTP date; a date that has passed means 0.
    :param now: The time now in seconds since the Unix epoch.
    """
    value = value.strip()
    if not value:
        return None
    if value.isascii() and value.isdigit():
        # More digits than this are more seconds than any cap, and would take long to convert.
        return float(value) if len(value) <= 18 else math.inf
    try:
        date = parsedate_to_datetime(value)
        if date.tzinfo is None:
            date = date.replace(tzinfo=UTC)
        return max(0.0, date.timestamp() - now)
    except (ValueError, OverflowError):
        return None


def resolve_attempt_timeout(spec: Duration | None, function: Duration | None) -> float:
    """Return how long one attempt may run: as its invocation says, else as its function says, else the default."""
    return next(
        (_seconds(timeout) for timeout in (spec, function) if timeout is not None), limits.DEFAULT_ATTEMPT_TIMEOUT
    )


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9
