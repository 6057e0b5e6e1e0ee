"""Carries errors over HTTP: as a status, a line of text and the headers that tell when to come again, or with what."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from starlette.responses import PlainTextResponse, Response

from homing_server.errors import ApiError, Code, ErrorReason

_STATUSES: Final[Mapping[Code, int]] = {
    Code.INVALID_ARGUMENT: 400,
    Code.UNAUTHENTICATED: 401,
    Code.PERMISSION_DENIED: 403,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.ABORTED: 409,
    Code.FAILED_PRECONDITION: 400,
    Code.OUT_OF_RANGE: 400,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.DEADLINE_EXCEEDED: 504,
    Code.UNIMPLEMENTED: 501,
    Code.UNAVAILABLE: 503,
    Code.INTERNAL: 500,
}
"""As gRPC's codes are carried over HTTP elsewhere."""
_INSUFFICIENT_STORAGE: Final = 507


def status_code(error: ApiError) -> int:
    """Return the status that tells of an error."""
    return _INSUFFICIENT_STORAGE if error.reason is ErrorReason.DISK_FULL else _STATUSES[error.code]


def error_headers(error: ApiError) -> dict[str, str]:
    """Return the headers that go with an error: how to show a key, or when to come again."""
    headers = {}
    if error.code is Code.UNAUTHENTICATED:
        headers["WWW-Authenticate"] = "Bearer"
    if error.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    if error.reason is ErrorReason.SERVER_STOPPING:
        headers["Connection"] = "close"
    return headers


def refusal(error: ApiError) -> Response:
    """Return the answer that tells of an error in a line of text."""
    return PlainTextResponse(f"{error}\n", status_code=status_code(error), headers=error_headers(error))
