"""gRPC errors turned into the SDK's own. Their details travel as a google.rpc.Status in trailing metadata."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, cast

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from homing import errors
from homing._core import check
from homing._core.reasons import ErrorReason

DETAILS_KEY: Final = "grpc-status-details-bin"
INVOCATION_ID_KEY: Final = "homing-invocation-id"
"""Initial metadata of ``Invoke``."""

_BY_CODE: Final[Mapping[grpc.StatusCode, type[errors.RequestError]]] = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidRequestError,
    grpc.StatusCode.NOT_FOUND: errors.NotFoundError,
    grpc.StatusCode.ALREADY_EXISTS: errors.AlreadyExistsError,
    grpc.StatusCode.FAILED_PRECONDITION: errors.FailedPreconditionError,
    grpc.StatusCode.ABORTED: errors.AbortedError,
    grpc.StatusCode.OUT_OF_RANGE: errors.ResumeTokenExpiredError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.RateLimitedError,
    grpc.StatusCode.UNAUTHENTICATED: errors.UnauthenticatedError,
    grpc.StatusCode.PERMISSION_DENIED: errors.PermissionDeniedError,
    grpc.StatusCode.UNIMPLEMENTED: errors.UnimplementedError,
    grpc.StatusCode.UNAVAILABLE: errors.UnavailableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineExceededError,
}
_BY_REASON: Final[Mapping[str, type[errors.RequestError]]] = {
    ErrorReason.INVOCATION_ENDED: errors.InvocationEndedError,
    ErrorReason.INVOCATION_NOT_ENDED: errors.InvocationNotEndedError,
    ErrorReason.REVISION_MISMATCH: errors.RevisionMismatchError,
}
"""What is told apart further than by its status."""
_CODES: Final[Mapping[int, grpc.StatusCode]] = {code.value[0]: code for code in grpc.StatusCode}
_NO_CONNECTION: Final = re.compile(r"failed to connect to all addresses; last error: .*: ([^:]+)")
_CUT_OFF: Final = "Stream removed"
"""What gRPC may say, beside the honest UNAVAILABLE, where a server was lost in the middle of a call."""
_NO_TLS: Final = "WRONG_VERSION_NUMBER"
"""What gRPC says among other things where the other side answers its handshake with something else."""
_TOO_LARGE: Final = re.compile(r"larger than max \((\d+) vs\. (\d+)\)")

Metadata = Iterable[tuple[str, str | bytes]]


@dataclass(kw_only=True, slots=True)
class Details:
    """What the google.rpc messages of an error say."""

    reason: str = ""
    domain: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    violations: list[errors.Violation] = field(default_factory=list)
    retry_after: float | None = None
    messages: list[AnyMessage] = field(default_factory=list)


def request_error(
    *, code: grpc.StatusCode, message: str, trailing: Metadata | None, target: str
) -> errors.RequestError:
    """Return the error of a call that ended with a status other than OK."""
    details = read_details(trailing)
    too_large = _TOO_LARGE.search(message) if code is grpc.StatusCode.RESOURCE_EXHAUSTED else None
    if too_large and not details.reason:
        return errors.PayloadTooLargeError(size=int(too_large[1]), limit=int(too_large[2]), field="message")
    if not details.reason and code is grpc.StatusCode.UNKNOWN and message.startswith(_CUT_OFF):
        code = grpc.StatusCode.UNAVAILABLE
    if not details.reason and _NO_TLS in message:  # waiting mends nothing
        return check.invalid("target", f"the server there speaks no TLS; without it the target is {target}")
    if not details.reason:  # it comes from gRPC itself, which says nothing of what it was about
        refused = _NO_CONNECTION.fullmatch(message)
        message = f"{target}: " + (f"cannot connect: {refused[1]}" if refused else message or code.name)
    return _error(code, message, details)


def _error(code: grpc.StatusCode, message: str, details: Details) -> errors.RequestError:
    kind = _BY_REASON.get(details.reason) or _BY_CODE.get(code, errors.ServerError)
    return kind(
        message,
        code=code,
        reason=details.reason,
        domain=details.domain,
        metadata=details.metadata,
        violations=tuple(details.violations),
        retry_after=details.retry_after,
        details=tuple(details.messages),
    )


def error_of(message: status_pb2.Status) -> errors.RequestError:
    """Return the error that a single call would have raised, for one call of a batch that was refused."""
    details = Details()
    _read_status(message, details)
    return _error(_CODES.get(message.code, grpc.StatusCode.UNKNOWN), message.message, details)


def read_details(trailing: Metadata | None) -> Details:
    """Return the details in trailing metadata; empty where there are none that can be read."""
    details = Details()
    for key, value in trailing or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            try:
                _read_status(status_pb2.Status.FromString(value), details)
            except DecodeError:  # what is broken tells nothing; the status still does
                return Details()
    return details


def invocation_id(error: errors.RequestError) -> str | None:
    """Return the id of the invocation that a call of ``Invoke`` made before it failed; None where it is not known."""
    if not isinstance(error.__cause__, grpc.RpcError):
        return None
    call = cast("grpc.Call", error.__cause__)  # the errors that stubs raise tell of their calls
    for key, value in call.initial_metadata() or ():
        if key == INVOCATION_ID_KEY:
            return value if isinstance(value, str) else value.decode()
    return error.metadata.get("invocation")


def _read_status(message: status_pb2.Status, details: Details) -> None:
    for detail in message.details:
        details.messages.append(detail)
        read = _READERS.get(detail.type_url.rpartition("/")[2])
        if read is not None:
            read(detail.value, details)


def _read_error_info(data: bytes, details: Details) -> None:
    info = error_details_pb2.ErrorInfo.FromString(data)
    details.reason = info.reason
    details.domain = info.domain
    details.metadata.update(info.metadata)


def _read_bad_request(data: bytes, details: Details) -> None:
    for violation in error_details_pb2.BadRequest.FromString(data).field_violations:
        details.violations.append(errors.Violation(violation.field, violation.description))


def _read_retry_info(data: bytes, details: Details) -> None:
    delay = error_details_pb2.RetryInfo.FromString(data).retry_delay
    details.retry_after = max(0.0, delay.seconds + delay.nanos / 1e9)


_READERS: Final = {
    "google.rpc.ErrorInfo": _read_error_info,
    "google.rpc.BadRequest": _read_bad_request,
    "google.rpc.RetryInfo": _read_retry_info,
}
