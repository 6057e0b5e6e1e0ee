"""The records of a fake server: how they are made, changed and chosen."""

from __future__ import annotations

from datetime import UTC
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from homing._core import convert
from homing._core.headers import headers
from homing.testing._function import FakeCall, Outcome
from homing.v1 import DeadLetter, DeadLetterFilter, InvocationFilter, TimeRange, dead_letter_pb2, invocation_pb2
from homing.v1.invocation_pb2 import Attempt, Invocation, InvocationSpec

ENDS: Final = frozenset(
    {
        invocation_pb2.INVOCATION_STATE_SUCCEEDED,
        invocation_pb2.INVOCATION_STATE_FAILED,
        invocation_pb2.INVOCATION_STATE_TIMED_OUT,
        invocation_pb2.INVOCATION_STATE_STOPPED,
        invocation_pb2.INVOCATION_STATE_EXPIRED,
        invocation_pb2.INVOCATION_STATE_INVALID,
    }
)

DEAD_ENDS: Final = ENDS - {invocation_pb2.INVOCATION_STATE_SUCCEEDED, invocation_pb2.INVOCATION_STATE_STOPPED}
"""The ends that make an asynchronous invocation a dead letter."""


def new_record(number: int, spec: InvocationSpec, *, sync: bool, rerun_of: str = "") -> Invocation:
    """Return the record of an accepted invocation. As with a real server, ids sort by time."""
    record = Invocation(
        id=f"01900000-0000-7000-8000-{number:012x}",
        function=spec.function,
        state=invocation_pb2.INVOCATION_STATE_ENQUEUED,
        spec=spec,
        sync=sync,
        rerun_of=rerun_of,
    )
    record.create_time.GetCurrentTime()
    return record


def slim(record: Invocation, *, payload: bool = False, result: bool = True) -> Invocation:
    """Return a record without what was not asked for."""
    shown = copy(record)
    if not payload:
        shown.spec.payload.ClearField("body")
    if not result:
        shown.result.payload.ClearField("body")
    return shown


def matches(wanted: InvocationFilter, record: Invocation) -> bool:
    """Tell whether a filter selects a record."""
    return (
        (not wanted.functions or record.function in wanted.functions)
        and (not wanted.states or record.state in wanted.states)
        and record.id.startswith(wanted.id_prefix)
        and (not wanted.rerun_of or record.rerun_of == wanted.rerun_of)
        and (not wanted.caused_by or record.caused_by == wanted.caused_by)
        and (not wanted.call_id or (record.spec.call_id or record.id) == wanted.call_id)
        and all(record.spec.labels.get(key) == value for key, value in wanted.labels.items())
        and _within(wanted.create_time, record.create_time)
        and _within(wanted.start_time, record.start_time)
        and _within(wanted.end_time, record.end_time)
    )


def dead_letter(record: Invocation) -> DeadLetter:
    """Return the dead letter of an invocation."""
    return DeadLetter(
        id=record.id,
        kind=dead_letter_pb2.DEAD_LETTER_KIND_INVOCATION,
        invocation_id=record.id,
        function=record.function,
        state=record.state,
        time=record.end_time,
        failure=record.failure if record.HasField("failure") else None,
    )


def matches_dead_letter(wanted: DeadLetterFilter, letter: DeadLetter) -> bool:
    """Tell whether a filter selects a dead letter."""
    return (
        (not wanted.ids or letter.id in wanted.ids)
        and (not wanted.kind or letter.kind == wanted.kind)
        and (not wanted.functions or letter.function in wanted.functions)
        and _within(wanted.time, letter.time)
    )


def _within(bounds: TimeRange, time: Timestamp) -> bool:
    if not (bounds.HasField("start_time") or bounds.HasField("end_time")):
        return True
    moment = time.ToNanoseconds()
    return moment > 0 and not (
        (bounds.HasField("start_time") and moment < bounds.start_time.ToNanoseconds())
        or (bounds.HasField("end_time") and moment >= bounds.end_time.ToNanoseconds())
    )


def copy(record: Invocation) -> Invocation:
    """Return a copy."""
    made = Invocation()
    made.CopyFrom(record)
    return made


def call_of(record: Invocation, request_id: str, body: bytes) -> FakeCall:
    """Return what a test sees of an invocation."""
    spec = record.spec
    asked = convert.invocation(record)
    return FakeCall(
        function=record.function,
        payload=body,
        content_type=spec.payload.content_type,
        headers=headers(spec.http.headers),
        method=spec.http.method or "POST",
        path=spec.http.path or "/",
        query=spec.http.query,
        labels=dict(spec.labels),
        call_id=spec.call_id or record.id,
        callback_url=spec.callback.url or None,
        callback_headers=headers(spec.callback.headers),
        on_success=tuple(destination.uri for destination in spec.on_success),
        on_failure=tuple(destination.uri for destination in spec.on_failure),
        request_id=request_id or None,
        invocation_id=record.id,
        sync=record.sync,
        schedule_time=spec.schedule_time.ToDatetime(tzinfo=UTC) if spec.HasField("schedule_time") else None,
        delay=spec.delay.ToTimedelta() if spec.HasField("delay") else None,
        max_age=asked.max_age,
        attempt_timeout=asked.attempt_timeout,
        retry_policy=asked.retry_policy,
    )


def add_stopped_attempt(record: Invocation) -> None:
    """Add the attempt that a stop ended."""
    _attempt(record, record.attempt_count + 1).outcome = invocation_pb2.ATTEMPT_OUTCOME_STOPPED


def add_attempt(record: Invocation, number: int, outcome: Outcome) -> None:
    """Add an attempt with what came of it."""
    attempt = _attempt(record, number)
    attempt.status_code = outcome.status
    if outcome.timed_out:
        attempt.outcome = invocation_pb2.ATTEMPT_OUTCOME_TIMED_OUT
        attempt.failure.CopyFrom(
            invocation_pb2.Failure(reason="ATTEMPT_TIMEOUT", message="it ran past its time-out", retryable=True)
        )
    elif outcome.succeeded:
        attempt.outcome = invocation_pb2.ATTEMPT_OUTCOME_SUCCEEDED
    else:
        attempt.outcome = invocation_pb2.ATTEMPT_OUTCOME_FAILED
        reason, message = (
            ("CONNECTION_LOST", "the answer broke off")
            if outcome.broke_off
            else ("HTTP_STATUS", f"it answered {outcome.status}")
        )
        attempt.failure.CopyFrom(invocation_pb2.Failure(reason=reason, message=message, retryable=outcome.retry))


def _attempt(record: Invocation, number: int) -> Attempt:
    attempt = record.attempts.add(number=number, worker="fake", instance="fake", function_revision=1)
    attempt.start_time.GetCurrentTime()
    attempt.end_time.GetCurrentTime()
    record.attempt_count = number
    return attempt
