"""Errors as callers are told of them: a google.rpc.Status with an ErrorInfo, and what else may help."""

from __future__ import annotations

from typing import Any, Final

import structlog
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import code_pb2, error_details_pb2, status_pb2

from homing_server.errors import ApiError, Code, ErrorReason

_log = structlog.get_logger(__name__)

DOMAIN: Final = "homing.dev"


def told(error: Exception, method: str) -> ApiError:
    """Return an error as callers may see it. An unexpected one is logged, and no caller sees its text."""
    if isinstance(error, ApiError):
        return error
    _log.error("call_failed", method=method, exc_info=error)
    return ApiError(code=Code.INTERNAL, reason=ErrorReason.INTERNAL, message="the server failed; its log says why")


def status_of(error: ApiError) -> status_pb2.Status:
    """Return an error as messages have it, with its details."""
    status = status_pb2.Status(code=_number(error.code), message=error.message)
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata)
    _add(status, info)
    if error.violations:
        bad = error_details_pb2.BadRequest()
        for violation in error.violations:
            bad.field_violations.add(field=violation.field, description=violation.description)
        _add(status, bad)
    if error.retry_after is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(int(error.retry_after * 1000))
        _add(status, retry)
    return status


def _number(code: Code) -> int:
    return code_pb2.Code.Value(code.name)


def _add(status: status_pb2.Status, detail: Any) -> None:
    packed = AnyMessage()
    packed.Pack(detail)
    status.details.append(packed)
