"""Carries errors over HTTP: as a status, a line of text and the headers that tell when to come again, or with what."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from aiohttp import web

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


def refusal(error: ApiError) -> web.Response:
    """Return the answer that tells of an error."""
    status = _INSUFFICIENT_STORAGE if error.reason is ErrorReason.DISK_FULL else _STATUSES[error.code]
    response = web.Response(status=status, text=f"{error}\n")
    if error.code is Code.UNAUTHENTICATED:
        response.headers["WWW-Authenticate"] = "Bearer"
    if error.retry_after is not None:
        response.headers["Retry-After"] = str(max(1, math.ceil(error.retry_after)))
    return response
