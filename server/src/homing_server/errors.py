"""The errors that callers see, apart from how gRPC and HTTP carry them, which the front decides."""

from __future__ import annotations

import enum
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from homing_core.limits import MAX_UPLOADS, MAX_UPLOADS_SIZE

_SHOWN_CHARACTERS = 64
_NAMED_FUNCTIONS = 8
"""So many functions are named where more are meant."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Violation:
    """A field of a request that breaks a rule."""

    field: str
    """The path of the field in the request, for example ``spec.payload.data``; with ``[0]`` after a list for one of its
    items, and ``["key"]`` after a map for one of its entries, see :func:`entry`."""
    description: str
    """The rule, with its limit."""


def entry(field: str, key: str) -> str:
    """Return the path of an entry of a map: its key in brackets, as a JSON string of ASCII characters.

    An entry whose key has more than 64 characters is not told apart: the path is that of the map then.
    """
    return f"{field}[{json.dumps(key)}]" if len(key) <= _SHOWN_CHARACTERS else field


class Code(enum.Enum):
    """What kind of error it is, under the name that gRPC has for it."""

    INVALID_ARGUMENT = enum.auto()
    """The request breaks a rule, whatever the server holds."""
    UNAUTHENTICATED = enum.auto()
    """Nobody knows who calls."""
    PERMISSION_DENIED = enum.auto()
    """Whoever calls may not do that."""
    NOT_FOUND = enum.auto()
    ALREADY_EXISTS = enum.auto()
    ABORTED = enum.auto()
    """Somebody else was faster: what it is about is not any more as the caller has seen it, or not the caller's."""
    FAILED_PRECONDITION = enum.auto()
    """What it is about is in a state that does not allow it."""
    OUT_OF_RANGE = enum.auto()
    """What it would go on from is not there any more."""
    RESOURCE_EXHAUSTED = enum.auto()
    """The caller asks for too much at a time, or reads too slowly."""
    DEADLINE_EXCEEDED = enum.auto()
    UNIMPLEMENTED = enum.auto()
    """This server does not know the call."""
    UNAVAILABLE = enum.auto()
    """It cannot be carried out now; trying again may help."""
    INTERNAL = enum.auto()
    """The server has a fault."""


class ErrorReason(enum.StrEnum):
    """Why a call was refused or failed, as callers are told: homing.v1.ErrorReason says what each of them means."""

    @staticmethod
    def _generate_next_value_(name: str, _start: int, _count: int, _last_values: list[str]) -> str:
        """Return the name itself as the value."""
        return name

    INVALID_REQUEST = enum.auto()
    FUNCTION_NOT_FOUND = enum.auto()
    INVOCATION_NOT_FOUND = enum.auto()
    BLOB_NOT_FOUND = enum.auto()
    SECRET_NOT_FOUND = enum.auto()
    SIGNING_KEY_NOT_FOUND = enum.auto()
    KEY_NOT_FOUND = enum.auto()
    SECRET_EXISTS = enum.auto()
    KEY_EXISTS = enum.auto()
    REQUEST_ID_REUSED = enum.auto()
    SECRET_IN_USE = enum.auto()
    LAST_SIGNING_KEY = enum.auto()
    INVOCATION_ENDED = enum.auto()
    INVOCATION_NOT_ENDED = enum.auto()
    REVISION_MISMATCH = enum.auto()
    BULK_CALL_TAKEN_OVER = enum.auto()
    RESUME_TOKEN_EXPIRED = enum.auto()
    DEADLINE_EXCEEDED = enum.auto()
    SLOW_CONSUMER = enum.auto()
    RATE_LIMITED = enum.auto()
    SERVER_BUSY = enum.auto()
    KEY_MISSING = enum.auto()
    KEY_INVALID = enum.auto()
    KEY_EXPIRED = enum.auto()
    SCOPE_MISSING = enum.auto()
    FUNCTION_NOT_ALLOWED = enum.auto()
    KEY_LIMITED = enum.auto()
    ACCEPT_FAILED = enum.auto()
    STORE_UNAVAILABLE = enum.auto()
    BLOB_UNAVAILABLE = enum.auto()
    DISK_FULL = enum.auto()
    BROKER_UNAVAILABLE = enum.auto()
    BROKER_LOST = enum.auto()
    WORKER_LOST = enum.auto()
    SERVER_STOPPING = enum.auto()
    NOT_SERVED = enum.auto()
    CROSS_SITE = enum.auto()
    PATH_NOT_FOUND = enum.auto()
    INTERNAL = enum.auto()
    KEY_REVOKED = enum.auto()
    TOO_MANY_UPLOADS = enum.auto()


@dataclass(kw_only=True, eq=False)
class ApiError(Exception):
    """A call that is refused or cannot be carried out, with what its caller needs to know."""

    code: Code
    reason: ErrorReason
    message: str
    violations: Sequence[Violation] = ()
    retry_after: float | None = None
    """Seconds after which trying again may help."""
    metadata: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return the message."""
        return self.message


def shown(text: str) -> str:
    """Return a caller's text as errors show it: quoted, and short enough for the headers that errors travel in."""
    return repr(text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…")


def invalid_request(violations: Sequence[Violation], *, more: int = 0) -> ApiError:
    """Return the error of a request with fields that break rules.

    :param more: How many violations there are besides.
    """
    message = "; ".join(f"{violation.field}: {violation.description}" for violation in violations)
    if more:
        message += f"; and {more} more"
    return ApiError(
        code=Code.INVALID_ARGUMENT, reason=ErrorReason.INVALID_REQUEST, message=message, violations=violations
    )


def function_not_found(name: str) -> ApiError:
    """Return the error of a call that names a function which does not exist."""
    return ApiError(
        code=Code.NOT_FOUND,
        reason=ErrorReason.FUNCTION_NOT_FOUND,
        message=f"there is no function {shown(name)}",
        metadata={"function": name[:_SHOWN_CHARACTERS]},
    )


def revision_mismatch(name: str, *, expected: int, actual: int) -> ApiError:
    """Return the error of a call that wants a function to be at another revision than it is.

    :param expected: 0 where it wants that there is none.
    :param actual: 0 where there is none.
    """
    stands = f"is at revision {actual}" if actual else "does not exist"
    wanted = f"revision {expected}" if expected else "none of this name"
    return ApiError(
        code=Code.ABORTED,
        reason=ErrorReason.REVISION_MISMATCH,
        message=f"function {shown(name)} {stands}, expected was {wanted}: nothing was changed",
        metadata={"function": name[:_SHOWN_CHARACTERS], "expected": str(expected), "actual": str(actual)},
    )


def invocation_not_found(invocation_id: str) -> ApiError:
    """Return the error of a call that names an invocation which does not exist."""
    return ApiError(
        code=Code.NOT_FOUND,
        reason=ErrorReason.INVOCATION_NOT_FOUND,
        message=f"there is no invocation {shown(invocation_id)}; records are removed when their retention is over",
        metadata={"invocation": invocation_id[:_SHOWN_CHARACTERS]},
    )


def blob_not_found(blob_id: str) -> ApiError:
    """Return the error of a call that names a stored body which does not exist."""
    return ApiError(
        code=Code.NOT_FOUND,
        reason=ErrorReason.BLOB_NOT_FOUND,
        message=f"there is no stored body {shown(blob_id)}; one that no invocation refers to is removed after an hour",
        metadata={"blob": blob_id[:_SHOWN_CHARACTERS]},
    )


def secret_not_found(name: str) -> ApiError:
    """Return the error of a call that names a secret which does not exist."""
    return ApiError(
        code=Code.NOT_FOUND,
        reason=ErrorReason.SECRET_NOT_FOUND,
        message=f"there is no secret {shown(name)}",
        metadata={"secret": name[:_SHOWN_CHARACTERS]},
    )


def secret_exists(name: str) -> ApiError:
    """Return the error of a call that makes a secret which exists."""
    return ApiError(
        code=Code.ALREADY_EXISTS,
        reason=ErrorReason.SECRET_EXISTS,
        message=f"there is a secret {shown(name)}; UpdateSecret gives it another value",
        metadata={"secret": name},
    )


def secret_in_use(name: str, functions: Sequence[str]) -> ApiError:
    """Return the error of a call that removes a secret which functions name."""
    users = ", ".join(functions[:_NAMED_FUNCTIONS])
    if len(functions) > _NAMED_FUNCTIONS:
        users += f" and {len(functions) - _NAMED_FUNCTIONS} more"
    return ApiError(
        code=Code.FAILED_PRECONDITION,
        reason=ErrorReason.SECRET_IN_USE,
        message=f"secret {shown(name)} is seen by {users}: deploy without it, or remove them, first",
        metadata={"secret": name, "functions": ",".join(functions[:_NAMED_FUNCTIONS])},
    )


def signing_key_not_found(key_id: str) -> ApiError:
    """Return the error of a call that names a signing key which does not exist."""
    return ApiError(
        code=Code.NOT_FOUND,
        reason=ErrorReason.SIGNING_KEY_NOT_FOUND,
        message=f"there is no signing key {shown(key_id)}; of each function and of the server two are kept",
        metadata={"signing_key": key_id[:_SHOWN_CHARACTERS]},
    )


def last_signing_key(key_id: str) -> ApiError:
    """Return the error of a call that would leave deliveries without a signature."""
    return ApiError(
        code=Code.FAILED_PRECONDITION,
        reason=ErrorReason.LAST_SIGNING_KEY,
        message="it is the only signing key of the server: rotate first, so that deliveries stay signed",
        metadata={"signing_key": key_id},
    )


def invocation_ended(invocation_id: str, state: str) -> ApiError:
    """Return the error of a request that only an invocation can take which has not ended."""
    return ApiError(
        code=Code.FAILED_PRECONDITION,
        reason=ErrorReason.INVOCATION_ENDED,
        message=f"invocation {invocation_id!r} has ended: it is {state}",
        metadata={"invocation": invocation_id, "state": state},
    )


def invocation_not_ended(invocation_id: str, state: str) -> ApiError:
    """Return the error of a request that only an invocation can take which has ended."""
    return ApiError(
        code=Code.FAILED_PRECONDITION,
        reason=ErrorReason.INVOCATION_NOT_ENDED,
        message=f"invocation {invocation_id!r} has not ended: it is {state}",
        metadata={"invocation": invocation_id, "state": state},
    )


def request_id_reused(request_id: str, *, invocation_id: str = "") -> ApiError:
    """Return the error of a call whose request id stands for a call with other content.

    :param invocation_id: What that one made; empty where it was no single invocation.
    """
    message = f"request_id {shown(request_id)} was used for another request"
    metadata = {"request_id": request_id}
    if invocation_id:
        message += f"; its invocation is {invocation_id}"
        metadata["invocation"] = invocation_id
    return ApiError(code=Code.ALREADY_EXISTS, reason=ErrorReason.REQUEST_ID_REUSED, message=message, metadata=metadata)


def bulk_call_taken_over(request_id: str) -> ApiError:
    """Return the error that ends a call about many once a later one with its request id goes on."""
    return ApiError(
        code=Code.ABORTED,
        reason=ErrorReason.BULK_CALL_TAKEN_OVER,
        message=f"a later call with the request_id {shown(request_id)} goes on with the work",
        metadata={"request_id": request_id},
    )


def resume_token_expired(why: str) -> ApiError:
    """Return the error of a watch that cannot go on from where its token says."""
    return ApiError(
        code=Code.OUT_OF_RANGE,
        reason=ErrorReason.RESUME_TOKEN_EXPIRED,
        message=f"resume_token cannot be resumed from: {why}",
    )


def slow_consumer(seconds: float) -> ApiError:
    """Return the error that ends a stream that nobody reads.

    :param seconds: For so long.
    """
    return ApiError(
        code=Code.RESOURCE_EXHAUSTED,
        reason=ErrorReason.SLOW_CONSUMER,
        message=f"the stream was not read for {seconds:g} s; a watch resumes after its last token",
        retry_after=1.0,
    )


def unavailable(reason: ErrorReason, message: str, *, retry_after: float = 1.0) -> ApiError:
    """Return the error of a call that cannot be carried out now; trying again may help."""
    return ApiError(code=Code.UNAVAILABLE, reason=reason, message=message, retry_after=retry_after)


def server_busy(message: str, *, retry_after: float = 1.0) -> ApiError:
    """Return the error of a call that comes while too many others are there; the same call passes later."""
    return ApiError(
        code=Code.RESOURCE_EXHAUSTED, reason=ErrorReason.SERVER_BUSY, message=message, retry_after=retry_after
    )


def not_served(method: str) -> ApiError:
    """Return the error of a call that this server does not know, which a later one may."""
    return ApiError(
        code=Code.UNIMPLEMENTED,
        reason=ErrorReason.NOT_SERVED,
        message=f"this server does not serve {shown(method)}",
        metadata={"method": method[:_SHOWN_CHARACTERS]},
    )


def key_missing() -> ApiError:
    """Return the error of a call without a key."""
    return ApiError(
        code=Code.UNAUTHENTICATED,
        reason=ErrorReason.KEY_MISSING,
        message="this server wants an API key: show it as `authorization: Bearer KEY`, in metadata or a header",
    )


def key_missing_for(field: str) -> ApiError:
    """Return the error of a call without a key, of a function that is public, that asks for more than its answer."""
    return ApiError(
        code=Code.UNAUTHENTICATED,
        reason=ErrorReason.KEY_MISSING,
        message=f"{field}: a call without an API key may have the function, payload and http alone",
    )


def key_invalid() -> ApiError:
    """Return the error of a call with a key that is none of this server's. It does not show what was sent."""
    return ApiError(
        code=Code.UNAUTHENTICATED,
        reason=ErrorReason.KEY_INVALID,
        message="the API key is not one of this server's: it has a slip in it, or was revoked",
    )


def key_revoked() -> ApiError:
    """Return the error that ends a stream whose key was revoked."""
    return ApiError(
        code=Code.UNAUTHENTICATED, reason=ErrorReason.KEY_INVALID, message="the API key was revoked meanwhile"
    )


def key_expired(name: str) -> ApiError:
    """Return the error of a call with a key that has ended."""
    return ApiError(
        code=Code.UNAUTHENTICATED,
        reason=ErrorReason.KEY_EXPIRED,
        message=f"the API key {shown(name)} has expired",
        metadata={"key": name},
    )


def key_not_found(key: str) -> ApiError:
    """Return the error of a call that names an API key which is not in force."""
    return ApiError(
        code=Code.NOT_FOUND,
        reason=ErrorReason.KEY_NOT_FOUND,
        message=f"there is no key {shown(key)} in force",
        metadata={"key": key[:_SHOWN_CHARACTERS]},
    )


def key_exists(name: str) -> ApiError:
    """Return the error of a call that makes an API key of a name which one in force has."""
    return ApiError(
        code=Code.ALREADY_EXISTS,
        reason=ErrorReason.KEY_EXISTS,
        message=f"there is a key {shown(name)} in force: revoke it first, or choose another name",
        metadata={"key": name},
    )


def created_key_revoked(request_id: str, name: str) -> ApiError:
    """Return the error of a call that is repeated whose API key was revoked since it was made."""
    return ApiError(
        code=Code.FAILED_PRECONDITION,
        reason=ErrorReason.KEY_REVOKED,
        message=f"the key {shown(name)} that request_id {shown(request_id)} stands for was revoked: choose another id",
        metadata={"request_id": request_id, "key": name},
    )


def scope_missing(what: str, scopes: Sequence[str]) -> ApiError:
    """Return the error of a call that the key does not allow.

    :param scopes: Any of these would allow it.
    """
    return ApiError(
        code=Code.PERMISSION_DENIED,
        reason=ErrorReason.SCOPE_MISSING,
        message=f"{what} needs a key with the scope {' or '.join(scopes)}",
        metadata={"scope": ",".join(scopes)},
    )


def function_not_allowed(function: str) -> ApiError:
    """Return the error of a call that has to do with a function which the key is not for."""
    return ApiError(
        code=Code.PERMISSION_DENIED,
        reason=ErrorReason.FUNCTION_NOT_ALLOWED,
        message=f"the API key is limited to functions, and {shown(function)} is none of them",
        metadata={"function": function[:_SHOWN_CHARACTERS]},
    )


def key_limited(what: str) -> ApiError:
    """Return the error of a call that concerns all functions, with a key that is not for all."""
    return ApiError(
        code=Code.PERMISSION_DENIED,
        reason=ErrorReason.KEY_LIMITED,
        message=f"the API key is limited to functions, and {what} for all of them",
    )


def too_many_uploads(*, number: int, size: int) -> ApiError:
    """Return the error of an upload by who has stored as much as they may that no invocation refers to."""
    return ApiError(
        code=Code.RESOURCE_EXHAUSTED,
        reason=ErrorReason.TOO_MANY_UPLOADS,
        message=f"{number} bodies of {size} bytes were stored that no invocation refers to, of at most {MAX_UPLOADS}"
        f" and {MAX_UPLOADS_SIZE} bytes: invoke with them, or wait until they are removed, an hour after that",
        retry_after=60.0,
    )


def rate_limited(name: str, per_second: float, wait: float) -> ApiError:
    """Return the error of a key that was shown too often lately.

    :param wait: After so many seconds the same call passes.
    """
    return ApiError(
        code=Code.RESOURCE_EXHAUSTED,
        reason=ErrorReason.RATE_LIMITED,
        message=f"the API key {shown(name)} allows {per_second:.12g} calls and invocations in a second",
        # In whole milliseconds, as it is told, and not too early.
        retry_after=math.ceil(wait * 1000) / 1000,
        metadata={"key": name},
    )
