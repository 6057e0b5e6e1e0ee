"""Errors as REST tells them: a google.rpc.Status as JSON, as AIP-193 has it, under the status of HTTP that fits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from google.protobuf.json_format import MessageToDict
from starlette.responses import Response

from homing_server.errors import ApiError, Code, ErrorReason
from homing_server.front.api.status import status_of
from homing_server.front.http.status import error_headers, status_code

JSON_TYPE: Final = "application/json"


@dataclass(kw_only=True, eq=False)
class HttpError(ApiError):
    """An error for which HTTP has a status of its own."""

    http_status: int
    headers: Mapping[str, str] = field(default_factory=dict)


def http_error(status: int, message: str) -> HttpError:
    """Return the error of a request that breaks a rule of HTTP's own, for which it has a status."""
    return HttpError(
        code=Code.INVALID_ARGUMENT, reason=ErrorReason.INVALID_REQUEST, message=message, http_status=status
    )


def method_not_allowed(allowed: str) -> HttpError:
    """Return the error of a request with a method that its path does not take.

    :param allowed: Those that it takes, as the header `Allow` has them.
    """
    return HttpError(
        code=Code.UNIMPLEMENTED,
        reason=ErrorReason.NOT_SERVED,
        message=f"this path takes {allowed} alone",
        http_status=405,
        headers={"Allow": allowed},
    )


def described(error: ApiError) -> Mapping[str, Any]:
    """Return the JSON that tells of an error."""
    status = MessageToDict(status_of(error))
    return {
        "error": {
            "code": _status_of(error),
            "message": error.message,
            "status": error.code.name,
            "details": status["details"],
        }
    }


def refusal(error: ApiError) -> Response:
    """Return the answer that tells of an error."""
    headers = {**error_headers(error), **(error.headers if isinstance(error, HttpError) else {})}
    return Response(json.dumps(described(error)), status_code=_status_of(error), headers=headers, media_type=JSON_TYPE)


def _status_of(error: ApiError) -> int:
    return error.http_status if isinstance(error, HttpError) else status_code(error)
