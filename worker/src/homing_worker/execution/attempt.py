"""One attempt that is over: how its record is completed, and what follows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from homing.v1 import invocation_pb2 as api
from homing_core.clock import now_us
from homing_core.reasons import FailureReason
from homing_core.retry import NO_ADVICE, DelayReason, FailedAttempt, RetryAdvice, RetryDecision
from homing_core.wire.v1 import AttemptRecord
from homing_worker.runtime import CallFailedError

BY_REQUEST: Final = "it was stopped by request"
"""Why an invocation is stopped that somebody asked to stop."""
CALLER_GONE: Final = "it was stopped, since its caller went away"
"""Why a synchronous invocation is stopped that nobody waits for."""

_MAX_MESSAGE: Final = 4000
"""Characters of a failure's message that are kept."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AttemptFailure:
    """Why an attempt failed."""

    reason: FailureReason
    message: str
    status_code: int = 0
    """The status of the answer; 0 where there was none."""
    permanent: bool = False
    """Whether another attempt never helps."""
    advice: RetryAdvice = NO_ADVICE
    """What the answer says about another attempt."""
    timed_out: bool = False

    @classmethod
    def of(cls, error: CallFailedError) -> AttemptFailure:
        """Return the failure of a call that brought no answer which can be kept."""
        return cls(reason=error.reason, message=error.message, status_code=error.status_code, permanent=error.permanent)

    @property
    def for_policy(self) -> FailedAttempt:
        """What of it the retry policy looks at."""
        return FailedAttempt(status_code=self.status_code, permanent=self.permanent, advice=self.advice)


@dataclass(frozen=True, kw_only=True, slots=True)
class FinishedAttempt:
    """An attempt that has succeeded or failed."""

    record: AttemptRecord
    decision: RetryDecision | None
    """What follows a failed attempt; None after a success."""

    @property
    def retry_delay(self) -> float | None:
        """Seconds until the next attempt; None: there is none."""
        return self.decision.delay if self.decision is not None else None

    @property
    def end(self) -> tuple[api.InvocationState.ValueType, api.Failure | None]:
        """The state that the invocation ends in where this attempt was the last one, and why."""
        if self.decision is None:
            return api.INVOCATION_STATE_SUCCEEDED, None
        if self.record.outcome == api.ATTEMPT_OUTCOME_TIMED_OUT:
            return api.INVOCATION_STATE_TIMED_OUT, self.record.failure
        return api.INVOCATION_STATE_FAILED, self.record.failure


def succeed(record: AttemptRecord, status_code: int) -> FinishedAttempt:
    """Complete the record of an attempt that the function answered with success."""
    record.end_us = now_us()
    record.outcome = api.ATTEMPT_OUTCOME_SUCCEEDED
    record.status_code = status_code
    return FinishedAttempt(record=record, decision=None)


def fail(
    record: AttemptRecord, failure: AttemptFailure, decision: RetryDecision, *, retryable: bool
) -> FinishedAttempt:
    """Complete the record of an attempt that failed.

    :param retryable: Whether failures of that kind are retried, however many attempts were made.
    """
    record.end_us = now_us()
    record.outcome = api.ATTEMPT_OUTCOME_TIMED_OUT if failure.timed_out else api.ATTEMPT_OUTCOME_FAILED
    record.status_code = failure.status_code
    record.failure.reason = failure.reason
    record.failure.message = failure.message[:_MAX_MESSAGE]
    record.failure.retryable = retryable
    if decision.delay is not None:
        record.next_delay_us = round(decision.delay * 1e6)
        record.delay_reason = DelayReason(decision.reason)
    return FinishedAttempt(record=record, decision=decision)


def stop(record: AttemptRecord, why: str, *, ended: bool) -> None:
    """Complete the record of an attempt that was stopped.

    :param why: In words.
    :param ended: Whether the function surely does not go on with it.
    """
    record.end_us = now_us()
    record.outcome = api.ATTEMPT_OUTCOME_STOPPED
    record.failure.reason = FailureReason.STOPPED
    record.failure.message = why if ended else f"{why}: its call was abandoned, and the function may go on with it"
