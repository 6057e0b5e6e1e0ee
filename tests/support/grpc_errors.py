"""What the errors of raw gRPC calls carry."""

from __future__ import annotations

from typing import Any

from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2


def error_info(error: Any) -> error_details_pb2.ErrorInfo:
    """Return the ErrorInfo that every error has."""
    info = error_details_pb2.ErrorInfo()
    assert _unpack(error, info)
    return info


def violated_fields(error: Any) -> list[str]:
    """Return the fields at fault."""
    bad = error_details_pb2.BadRequest()
    return [violation.field for violation in bad.field_violations] if _unpack(error, bad) else []


def violations(error: Any) -> dict[str, str]:
    """Return the rules that were broken, by the path of the field."""
    bad = error_details_pb2.BadRequest()
    return _by_field(bad) if _unpack(error, bad) else {}


def violations_of(status: status_pb2.Status) -> dict[str, str]:
    """Return the same of one request of a batch."""
    bad = error_details_pb2.BadRequest()
    return _by_field(bad) if any(detail.Unpack(bad) for detail in status.details) else {}


def _by_field(bad: error_details_pb2.BadRequest) -> dict[str, str]:
    return {violation.field: violation.description for violation in bad.field_violations}


def _unpack(error: Any, into: Message) -> bool:
    packed = dict(error.trailing_metadata())["grpc-status-details-bin"]
    return any(detail.Unpack(into) for detail in status_pb2.Status.FromString(packed).details)
