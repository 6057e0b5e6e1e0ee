"""All errors that the SDK raises, in one tree.

::

    HomingError
    ├── RequestError                    a call was refused or could not be carried out
    │   ├── InvalidRequestError         also a ValueError
    │   │   └── PayloadTooLargeError
    │   ├── NotFoundError
    │   ├── AlreadyExistsError
    │   ├── FailedPreconditionError
    │   │   ├── InvocationEndedError    it cannot be stopped any more
    │   │   └── InvocationNotEndedError it cannot be run again yet
    │   ├── AbortedError
    │   │   └── RevisionMismatchError   the function is not at the revision that was expected
    │   ├── ResumeTokenExpiredError
    │   ├── RateLimitedError
    │   ├── UnauthenticatedError
    │   ├── PermissionDeniedError
    │   ├── UnimplementedError
    │   ├── UnavailableError
    │   ├── DeadlineExceededError       also a TimeoutError
    │   └── ServerError
    ├── ResultTimeoutError              the wait is over, the invocation is not; also a TimeoutError
    ├── InvalidResultError              a typed function answered what its type does not allow; also a ValueError
    ├── CallbackVerificationError       a callback is not genuine; also a ValueError
    ├── InvalidEnvelopeError            what should be an envelope is none; also a ValueError
    ├── InvocationError                 an invocation ended otherwise than SUCCEEDED
    │   ├── FunctionError               FAILED
    │   │   └── FunctionTimeoutError    TIMED_OUT
    │   ├── InvocationStoppedError      STOPPED
    │   ├── InvocationExpiredError      EXPIRED
    │   └── InvocationInvalidError      INVALID
    └── ClientUseError                  also a RuntimeError
        ├── ClosedClientError
        ├── ForkedClientError
        └── WrongLoopError

Which gRPC status becomes which error:

=================== ==========================================================
status              error
=================== ==========================================================
INVALID_ARGUMENT    InvalidRequestError
NOT_FOUND           NotFoundError
ALREADY_EXISTS      AlreadyExistsError
FAILED_PRECONDITION FailedPreconditionError; by their reasons
                    InvocationEndedError, InvocationNotEndedError
ABORTED             AbortedError; by its reason RevisionMismatchError
OUT_OF_RANGE        ResumeTokenExpiredError
RESOURCE_EXHAUSTED  RateLimitedError; PayloadTooLargeError for a message over
                    the size that gRPC lets pass
UNAUTHENTICATED     UnauthenticatedError
PERMISSION_DENIED   PermissionDeniedError
UNIMPLEMENTED       UnimplementedError
UNAVAILABLE         UnavailableError
DEADLINE_EXCEEDED   DeadlineExceededError; ResultTimeoutError from ``invoke``
all others          ServerError
=================== ==========================================================

A wrong type of an argument is a plain ``TypeError`` that names the argument.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage

from homing._core.names import InvocationState
from homing._core.reasons import ErrorReason
from homing._core.values import Answer, Attempt, Failure, Invocation, Result


class HomingError(Exception):
    """Any error that the SDK raises on purpose. Errors can be copied and pickled, with all that they carry."""

    def __reduce__(self) -> tuple[Callable[..., HomingError], tuple[object, ...]]:
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(kind: type[HomingError], args: tuple[object, ...], state: dict[str, object]) -> HomingError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class Violation(NamedTuple):
    """A field of a request, or an argument, that breaks a rule."""

    field: str
    """The path of the field, for example ``spec.attempt_timeout``, or the name of the argument."""
    description: str
    """The rule, with its limit."""


class RequestError(HomingError):
    """A call was refused or could not be carried out."""

    code: grpc.StatusCode
    """The gRPC status of the call."""
    reason: str
    """What went wrong, for programs, as a rule an ErrorReason; empty where the server did not say."""
    domain: str
    """Whose reason it is: ``homing.dev``, or empty."""
    metadata: Mapping[str, str]
    """What belongs to the reason, for example the name of the function."""
    violations: Sequence[Violation]
    """The fields at fault."""
    retry_after: float | None
    """Seconds after which the same call may succeed, where the server said so."""
    details: Sequence[AnyMessage]
    """All details of the answer, as they came."""
    request_id: str | None
    """The request id of a call that may have had an effect: calling again with it is safe. None where it had none."""
    invocation_id: str | None
    """The id of the invocation that a call of ``invoke`` made before it failed; None where it made none."""

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode,
        reason: str = "",
        domain: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[Violation] = (),
        retry_after: float | None = None,
        details: Sequence[AnyMessage] = (),
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.domain = domain
        self.metadata = metadata or {}
        self.violations = violations
        self.retry_after = retry_after
        self.details = details
        self.request_id = None
        self.invocation_id = None


class InvalidRequestError(RequestError, ValueError):
    """The request breaks a rule, whatever the state of the server; ``violations`` names the fields and limits.

    Raised by the server's answer and by the checks that the SDK makes before it sends anything.
    """


class PayloadTooLargeError(InvalidRequestError):
    """The payload is larger than what is carried."""

    size: int
    """The size of the payload in bytes."""
    limit: int
    """The largest size that is carried, in bytes."""

    def __init__(self, *, size: int, limit: int, field: str = "payload") -> None:
        rule = f"must have at most {limit} bytes ({_shown(limit)}), has {size}"
        super().__init__(
            f"{field}: {rule}",
            code=grpc.StatusCode.INVALID_ARGUMENT,
            reason=ErrorReason.INVALID_REQUEST,
            violations=(Violation(field, rule),),
        )
        self.size = size
        self.limit = limit


class NotFoundError(RequestError):
    """There is no such function, invocation, dead letter or whatever else was named."""


class AlreadyExistsError(RequestError):
    """The ``request_id`` was used before, for something else."""


class FailedPreconditionError(RequestError):
    """What was asked for is not possible in the present state."""


class InvocationEndedError(FailedPreconditionError):
    """The invocation has ended, so it can no longer be stopped."""

    @property
    def state(self) -> InvocationState:
        """Its end."""
        return _state_in(self.metadata)


class InvocationNotEndedError(FailedPreconditionError):
    """The invocation has not ended, so it cannot be run again yet."""

    @property
    def state(self) -> InvocationState:
        """The state it was in."""
        return _state_in(self.metadata)


def _state_in(metadata: Mapping[str, str]) -> InvocationState:
    try:
        return InvocationState(metadata.get("state", ""))
    except ValueError:
        return InvocationState.UNKNOWN


class AbortedError(RequestError):
    """Somebody else was faster: has changed what the call is about, or goes on with the same work."""


class RevisionMismatchError(AbortedError):
    """The function is not at the revision that was expected, so nothing was changed."""

    @property
    def expected(self) -> int:
        """The revision that was expected; 0 where there was to be no function."""
        return int(self.metadata.get("expected", 0))

    @property
    def actual(self) -> int:
        """The revision that it is at; 0 where there is no function."""
        return int(self.metadata.get("actual", 0))


class ResumeTokenExpiredError(RequestError):
    """The resume token of a watch is too old: results that came after it were removed since. Watch anew."""


class RateLimitedError(RequestError):
    """Too much was asked for; see ``retry_after``."""


class UnauthenticatedError(RequestError):
    """The server wants an API key, or another one."""


class PermissionDeniedError(RequestError):
    """The API key does not allow this."""


class UnimplementedError(RequestError):
    """The server does not serve this."""


class UnavailableError(RequestError):
    """The server cannot be reached or cannot answer now. Whether the call had an effect is unknown."""


class DeadlineExceededError(RequestError, TimeoutError):
    """The server did not answer in time. Whether the call had an effect is unknown."""


class ServerError(RequestError):
    """The server, or something on the way to it, failed in an unexpected way."""


class ResultTimeoutError(HomingError, TimeoutError):
    """The wait for a result is over, the invocation is not."""

    invocation_id: str | None
    """The id of the invocation, for ``client.handle``; None where the server had not sent it yet."""

    def __init__(self, message: str, *, invocation_id: str | None) -> None:
        super().__init__(message)
        self.invocation_id = invocation_id


class InvalidResultError(HomingError, ValueError):
    """The invocation succeeded, but its answer is not of the type that the typed function was given."""

    result: Result
    """The answer as it came, with the record of the invocation."""
    violations: Sequence[Violation]
    """The parts of the answer that do not fit, and why."""

    def __init__(self, message: str, *, result: Result, violations: Sequence[Violation]) -> None:
        super().__init__(message)
        self.result = result
        self.violations = violations


class CallbackVerificationError(HomingError, ValueError):
    """A callback is not genuine: it is not signed by a known key, was changed on its way, or is too old.

    The message says which check it failed, and repeats neither keys nor signatures.
    """


class InvalidEnvelopeError(HomingError, ValueError):
    """What should be the envelope of an ended invocation is none."""


class InvocationError(HomingError):
    """An invocation ended otherwise than SUCCEEDED."""

    invocation: Invocation
    """The whole record."""

    def __init__(self, message: str, *, invocation: Invocation) -> None:
        super().__init__(message)
        self.invocation = invocation

    @property
    def failure(self) -> Failure | None:
        """Why it ended so, where the record says."""
        return self.invocation.failure

    @property
    def result(self) -> Answer | None:
        """The last answer of the function, where there was one."""
        return self.invocation.result


class FunctionError(InvocationError):
    """The function failed: its attempts are used up, or it failed in a way that is never retried."""

    @property
    def attempt(self) -> Attempt | None:
        """The attempt that failed, the last one; None where none was made."""
        return self.invocation.attempts[-1] if self.invocation.attempts else None


class FunctionTimeoutError(FunctionError):
    """The last attempt of the function ran past its attempt time-out."""


class InvocationStoppedError(InvocationError):
    """The invocation was stopped by request."""


class InvocationExpiredError(InvocationError):
    """The invocation did not start within its max_age."""


class InvocationInvalidError(InvocationError):
    """The function was removed before the invocation started."""


class ClientUseError(HomingError, RuntimeError):
    """A client was used in a way that cannot work."""


class ClosedClientError(ClientUseError):
    """The client was used after it was closed."""


class ForkedClientError(ClientUseError):
    """The client was made in another process. gRPC connections do not survive a fork: make a client in each process."""


class WrongLoopError(ClientUseError):
    """The AsyncClient was used from another event loop than the one of its first use. Make a client in each loop."""


def _shown(size: int) -> str:
    mebibytes = size / 2**20
    return f"{mebibytes:g} MiB" if mebibytes >= 1 else f"{size / 1024:g} KiB"
