"""Records of invocations and functions as a server would send them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from homing.v1 import function_pb2, invocation_pb2, invocation_service_pb2, payload_pb2
from support.http_headers import headers_of

CREATED = datetime(2026, 11, 22, 8, 0, 0, 250_000, tzinfo=UTC)
INVOCATION_ID = "01935000-0000-7000-8000-000000000001"


def stamp(moment: datetime) -> Timestamp:
    """Return a time as a message."""
    message = Timestamp()
    message.FromDatetime(moment)
    return message


def span(seconds: float) -> Duration:
    """Return a duration as a message."""
    message = Duration()
    message.FromTimedelta(timedelta(seconds=seconds))
    return message


def invocation(
    state: str = "SUCCEEDED",
    *,
    number: int = 1,
    function: str = "figlet",
    body: bytes = b"ok",
    content_type: str = "text/plain",
    status_code: int = 200,
) -> invocation_pb2.Invocation:
    """Return a record; an ended one has a result and an attempt, and a failure unless it succeeded."""
    record = invocation_pb2.Invocation(
        id=f"01935000-0000-7000-8000-{number:012d}",
        function=function,
        state=invocation_pb2.InvocationState.Value(f"INVOCATION_STATE_{state}"),
        create_time=stamp(CREATED),
        spec=invocation_pb2.InvocationSpec(function=function, labels={"job": "7"}),
    )
    if state in {"SUCCEEDED", "FAILED", "TIMED_OUT"}:
        record.start_time.CopyFrom(stamp(CREATED + timedelta(seconds=1)))
        record.attempt_count = 1
        attempt = record.attempts.add(
            number=1,
            worker="w1",
            instance="i1",
            function_revision=3,
            image_id="sha256:1",
            start_time=stamp(CREATED + timedelta(seconds=1)),
            end_time=stamp(CREATED + timedelta(seconds=2)),
            outcome=invocation_pb2.AttemptOutcome.Value(f"ATTEMPT_OUTCOME_{state}"),
            status_code=status_code,
        )
        if state != "TIMED_OUT":
            record.result.CopyFrom(
                invocation_pb2.Result(
                    status_code=status_code,
                    headers=headers_of({"x-seen": "yes"}),
                    payload=payload_pb2.Payload(content_type=content_type, data=body),
                )
            )
        if state != "SUCCEEDED":
            record.failure.CopyFrom(
                invocation_pb2.Failure(reason="HTTP_STATUS", message=f"it answered {status_code}", retryable=True)
            )
            attempt.failure.CopyFrom(record.failure)
    if state in {"SUCCEEDED", "FAILED", "TIMED_OUT", "STOPPED", "EXPIRED", "INVALID"}:
        record.end_time.CopyFrom(stamp(CREATED + timedelta(seconds=2)))
    return record


def function(name: str = "figlet", *, revision: int = 1) -> function_pb2.Function:
    """Return a deployed function."""
    return function_pb2.Function(
        name=name, image=f"{name}:1", revision=revision, create_time=stamp(CREATED), update_time=stamp(CREATED)
    )


def accepted(
    record: invocation_pb2.Invocation | None = None, *, duplicate: bool = False
) -> invocation_service_pb2.InvokeAsyncResponse:
    """Return the answer to an accepted InvokeAsync."""
    return invocation_service_pb2.InvokeAsyncResponse(invocation=record or invocation("ENQUEUED"), duplicate=duplicate)


def bookmark(token: str) -> invocation_service_pb2.WatchResultsResponse:
    """Return a message of a watch without an event."""
    return invocation_service_pb2.WatchResultsResponse(
        resume_token=token, bookmark=invocation_service_pb2.Bookmark(time=stamp(CREATED))
    )


def ended(token: str, number: int = 1) -> invocation_service_pb2.WatchResultsResponse:
    """Return a message of a watch with an event."""
    return invocation_service_pb2.WatchResultsResponse(resume_token=token, invocation=invocation(number=number))
