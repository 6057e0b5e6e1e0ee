"""What came of one attempt to deliver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from homing.v1 import invocation_pb2 as api
from homing_core.reasons import FailureReason

_GONE: Final = 410


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What came of one attempt."""

    status_code: int = 0
    """0 where there was no answer."""
    failure: api.Failure | None = None
    """None where the receiver took it."""
    retry_after: str = ""

    @property
    def final(self) -> bool:
        """Whether no other attempt is to follow."""
        return self.failure is None or not self.failure.retryable


DELIVERED: Final = Outcome()
"""The receiver took it, and said nothing."""


def answered(status: int, retry_after: str) -> Outcome:
    """Return what an answer means: a 2xx is success, and 410 the wish to hear no more."""
    if 200 <= status < 300:
        return Outcome(status_code=status)
    words = f"the receiver answered with status {status}"
    if 300 <= status < 400:
        words += "; redirects are not followed"
    failure = api.Failure(reason=FailureReason.HTTP_STATUS, message=words, retryable=status != _GONE)
    return Outcome(status_code=status, failure=failure, retry_after=retry_after)


def failed(reason: FailureReason, message: str, *, retryable: bool = True) -> Outcome:
    """Return that there was no answer, and why."""
    text = message[:1000].encode("utf-8", "replace").decode()
    return Outcome(failure=api.Failure(reason=reason, message=text, retryable=retryable))
