"""How errors of calls are read."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

import homing
from homing import Violation
from homing._core.status import DETAILS_KEY, read_details, request_error

TARGET = "somewhere:50051"


def trailing(*details: Message) -> list[tuple[str, str | bytes]]:
    packed = []
    for detail in details:
        packed.append(AnyMessage())
        packed[-1].Pack(detail)
    status = status_pb2.Status(code=3, message="no", details=packed)
    return [("other", "x"), (DETAILS_KEY, status.SerializeToString())]


def test_all_details_are_read() -> None:
    metadata = trailing(
        error_details_pb2.Help(),
        error_details_pb2.ErrorInfo(reason="TOO_MUCH", domain="homing.dev", metadata={"a": "1", "b": "é"}),
        error_details_pb2.BadRequest(
            field_violations=[
                error_details_pb2.BadRequest.FieldViolation(field="spec.function", description="must be"),
                error_details_pb2.BadRequest.FieldViolation(field="spec.max_age", description="must not"),
            ]
        ),
        error_details_pb2.RetryInfo(retry_delay=Duration(seconds=1, nanos=500_000_000)),
    )

    error = request_error(code=grpc.StatusCode.INVALID_ARGUMENT, message="no", trailing=metadata, target=TARGET)

    assert type(error) is homing.InvalidRequestError
    assert str(error) == "no"
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert (error.reason, error.domain) == ("TOO_MUCH", "homing.dev")
    assert error.metadata == {"a": "1", "b": "é"}
    assert error.violations == (Violation("spec.function", "must be"), Violation("spec.max_age", "must not"))
    assert error.retry_after == 1.5
    assert [detail.type_url for detail in error.details] == [
        f"type.googleapis.com/google.rpc.{name}" for name in ("Help", "ErrorInfo", "BadRequest", "RetryInfo")
    ]


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("INVALID_ARGUMENT", homing.InvalidRequestError),
        ("NOT_FOUND", homing.NotFoundError),
        ("ALREADY_EXISTS", homing.AlreadyExistsError),
        ("FAILED_PRECONDITION", homing.FailedPreconditionError),
        ("OUT_OF_RANGE", homing.ResumeTokenExpiredError),
        ("RESOURCE_EXHAUSTED", homing.RateLimitedError),
        ("UNAUTHENTICATED", homing.UnauthenticatedError),
        ("PERMISSION_DENIED", homing.PermissionDeniedError),
        ("UNIMPLEMENTED", homing.UnimplementedError),
        ("UNAVAILABLE", homing.UnavailableError),
        ("DEADLINE_EXCEEDED", homing.DeadlineExceededError),
        ("INTERNAL", homing.ServerError),
        ("UNKNOWN", homing.ServerError),
        ("CANCELLED", homing.ServerError),
        ("DATA_LOSS", homing.ServerError),
        ("ABORTED", homing.AbortedError),
    ],
)
def test_every_status_has_its_error(code: str, error: type[homing.RequestError]) -> None:
    status = grpc.StatusCode[code]

    found = request_error(code=status, message="", trailing=None, target=TARGET)

    assert type(found) is error
    assert found.code is status
    assert str(found) == f"{TARGET}: {code}"
    assert (found.reason, found.violations, found.retry_after, found.details) == ("", (), None, ())


def test_a_server_that_is_not_there_is_named_in_few_words() -> None:
    error = request_error(
        code=grpc.StatusCode.UNAVAILABLE,
        message="failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: "
        "Failed to connect to remote host: Connection refused",
        trailing=None,
        target=TARGET,
    )

    assert str(error) == f"{TARGET}: cannot connect: Connection refused"


def test_a_server_that_was_lost_in_the_middle_of_a_call_is_unavailable() -> None:
    message = "Stream removed (Metadata keys cannot be zero length)"
    error = request_error(code=grpc.StatusCode.UNKNOWN, message=message, trailing=None, target="here:1")
    assert type(error) is homing.UnavailableError
    assert message in str(error)


def test_a_message_over_the_size_of_grpc_is_a_payload_that_is_too_large() -> None:
    error = request_error(
        code=grpc.StatusCode.RESOURCE_EXHAUSTED,
        message="SERVER: Received message larger than max (4194337 vs. 4194304)",
        trailing=None,
        target=TARGET,
    )

    assert isinstance(error, homing.PayloadTooLargeError)
    assert (error.size, error.limit) == (4_194_337, 4_194_304)


@given(st.binary(max_size=200))
def test_broken_details_break_nothing(data: bytes) -> None:
    read_details([(DETAILS_KEY, data)])

    error = request_error(code=grpc.StatusCode.NOT_FOUND, message="gone", trailing=[(DETAILS_KEY, data)], target=TARGET)

    assert isinstance(error, homing.NotFoundError)
    assert "gone" in str(error)
