"""How messages become values."""

from __future__ import annotations

import dataclasses
import pickle
from datetime import UTC, datetime, timedelta
from enum import Enum

import pytest
from google.protobuf.descriptor import EnumDescriptor

import homing
from homing import InvocationState
from homing._core import convert
from homing._core.headers import Headers
from homing._core.values import result_of
from homing.v1 import function_pb2, invocation_pb2
from support import records


@pytest.mark.parametrize(
    ("names", "enum"),
    [
        (homing.InvocationState, "InvocationState"),
        (homing.WaitReason, "WaitReason"),
        (homing.AttemptOutcome, "AttemptOutcome"),
        (homing.EventType, "InvocationEventType"),
        (homing.DeliveryKind, "DeliveryKind"),
        (homing.DeliveryState, "DeliveryState"),
    ],
)
def test_the_names_are_those_of_the_api(names: type[Enum], enum: str) -> None:
    descriptor: EnumDescriptor = invocation_pb2.DESCRIPTOR.enum_types_by_name[enum]
    cut = len(descriptor.values[0].name) - len("UNSPECIFIED")

    assert [name.value for name in names] == ["UNKNOWN", *(value.name[cut:] for value in descriptor.values[1:])]


def test_an_end_is_an_end() -> None:
    ends = [state.value for state in InvocationState if state.ended]

    assert ends == ["SUCCEEDED", "FAILED", "TIMED_OUT", "STOPPED", "EXPIRED", "INVALID"]
    assert f"{InvocationState.FAILED}" == str(InvocationState.FAILED) == "FAILED"


def test_an_invocation_is_told_in_full() -> None:
    message = records.invocation("FAILED", status_code=503)
    message.wait_reason = invocation_pb2.WAIT_REASON_BACKOFF
    message.wait_until.CopyFrom(records.stamp(records.CREATED))
    message.spec.payload.data = b"in"
    message.spec.payload.content_type = "text/plain"
    message.spec.retry_policy.max_attempts = 5
    message.spec.retry_policy.initial_backoff.CopyFrom(records.span(0.5))
    message.spec.attempt_timeout.CopyFrom(records.span(90))
    message.spec.max_age.CopyFrom(records.span(3600))
    message.spec.schedule_time.CopyFrom(records.stamp(records.CREATED))
    message.spec.callback.url = "http://127.0.0.1/hook"
    message.attempts[0].next_delay.CopyFrom(records.span(0.75))
    message.attempts[0].delay_reason = "BACKOFF"
    message.events.add(
        time=records.stamp(records.CREATED), type=invocation_pb2.INVOCATION_EVENT_TYPE_RUNNING, attempt=1, worker="w1"
    )
    delivery = message.deliveries.add(
        id="d1",
        kind=invocation_pb2.DELIVERY_KIND_CALLBACK,
        uri="http://127.0.0.1/hook",
        state=invocation_pb2.DELIVERY_STATE_DEAD,
        create_time=records.stamp(records.CREATED),
    )
    message.rerun_of = "0192"
    message.caused_by = "0191"
    message.depth = 2
    message.spec.on_success.add(uri="function:next")
    message.spec.on_failure.add(uri="amqp:failures/figlet")
    delivery.next_attempt_time.CopyFrom(records.stamp(records.CREATED))
    delivery.caused = "0193"
    message.stop_request.CopyFrom(
        invocation_pb2.StopRequest(time=records.stamp(records.CREATED), caller="me", reason="enough")
    )
    message.progress.CopyFrom(
        invocation_pb2.Progress(time=records.stamp(records.CREATED), percent=12.5, text="page 1 of 8")
    )
    delivery.attempts.add(number=1, duration=records.span(0.2), status_code=500)

    record = convert.invocation(message)

    assert (record.id, record.function, record.state) == (records.INVOCATION_ID, "figlet", InvocationState.FAILED)
    assert record.ended
    assert record.wait_reason is homing.WaitReason.BACKOFF
    assert record.wait_until == records.CREATED
    assert record.payload == homing.Payload(content_type="text/plain", data=b"in")
    assert record.labels == {"job": "7"}
    assert record.retry_policy == homing.RetryPolicy(max_attempts=5, initial_backoff=timedelta(seconds=0.5))
    assert record.attempt_timeout == timedelta(seconds=90)
    assert record.max_age == timedelta(hours=1)
    assert record.schedule_time == record.create_time == records.CREATED
    assert record.create_time is not None
    assert record.create_time.tzinfo is not None
    assert record.callback_url == "http://127.0.0.1/hook"
    assert record.attempts == (
        homing.Attempt(
            number=1,
            worker="w1",
            instance="i1",
            function_revision=3,
            image_id="sha256:1",
            start_time=records.CREATED + timedelta(seconds=1),
            end_time=records.CREATED + timedelta(seconds=2),
            outcome=homing.AttemptOutcome.FAILED,
            status_code=503,
            failure=homing.Failure(reason="HTTP_STATUS", message="it answered 503", retryable=True),
            next_delay=timedelta(seconds=0.75),
            delay_reason="BACKOFF",
        ),
    )
    assert [(event.type, event.attempt, event.worker) for event in record.events] == [
        (homing.EventType.RUNNING, 1, "w1")
    ]
    assert record.deliveries[0].state is homing.DeliveryState.DEAD
    assert record.deliveries[0].attempts[0].duration == timedelta(seconds=0.2)
    assert record.deliveries[0].attempts[0].failure is None
    assert record.deliveries[0].end_time is None
    assert record.failure == homing.Failure(reason="HTTP_STATUS", message="it answered 503", retryable=True)
    assert record.result is not None
    assert (record.result.status_code, record.result.text) == (503, "ok")
    assert record.rerun_of == "0192"
    assert (record.caused_by, record.depth) == ("0191", 2)
    assert (record.on_success, record.on_failure) == (("function:next",), ("amqp:failures/figlet",))
    assert (record.deliveries[0].next_attempt_time, record.deliveries[0].caused) == (records.CREATED, "0193")
    assert record.stop_request == homing.StopRequest(time=records.CREATED, caller="me", reason="enough")
    assert record.progress == homing.Progress(time=records.CREATED, percent=12.5, text="page 1 of 8")


def test_what_is_not_set_is_none() -> None:
    record = convert.invocation(invocation_pb2.Invocation(id="x"))

    assert [field.name for field in dataclasses.fields(record) if getattr(record, field.name) is None] == [
        "wait_reason",
        "wait_until",
        "payload",
        "retry_policy",
        "attempt_timeout",
        "max_age",
        "schedule_time",
        "callback_url",
        "create_time",
        "start_time",
        "end_time",
        "result",
        "failure",
        "rerun_of",
        "caused_by",
        "stop_request",
        "progress",
    ]


def test_names_newer_than_the_sdk_are_unknown() -> None:
    message = invocation_pb2.Invocation(id="x")
    message.state = 99  # type: ignore[assignment]
    message.wait_reason = 99  # type: ignore[assignment]

    record = convert.invocation(message)

    assert record.state is InvocationState.UNKNOWN
    assert record.wait_reason is homing.WaitReason.UNKNOWN
    assert not record.ended


def test_a_function_is_told_in_full() -> None:
    message = function_pb2.Function(
        name="f",
        command=function_pb2.Command(args=["cat", "-"]),
        env={"A": "1"},
        limits=function_pb2.Limits(memory_bytes=2**33, cpu_millis=500, pids=10),
        concurrency=2,
        idle_timeout=records.span(60),
        retention=records.span(86400),
        record_sync=False,
        paused=True,
        revision=4,
        update_time=records.stamp(datetime(2026, 1, 2, tzinfo=UTC)),
    )

    function = convert.function(message)

    assert (function.image, function.command, function.url) == (None, ("cat", "-"), None)
    assert function.http_command is None
    served = convert.function(function_pb2.Function(http_command=function_pb2.Command(args=["node", "site.js"])))
    assert (served.command, served.http_command) == (None, ("node", "site.js"))
    assert function.limits == homing.Limits(memory_bytes=2**33, cpu_millis=500, pids=10)
    assert function.idle_timeout == timedelta(minutes=1)
    assert (function.record_sync, function.retry_policy, function.revision) == (False, None, 4)
    assert (function.retention, function.paused) == (timedelta(days=1), True)
    assert function.update_time == datetime(2026, 1, 2, tzinfo=UTC)
    assert convert.function(function_pb2.Function()).record_sync is True


def test_the_text_of_an_answer_is_read_in_its_charset() -> None:
    def text(content_type: str, data: bytes) -> str:
        return homing.Answer(status_code=200, headers=Headers(), content_type=content_type, data=data).text

    assert text("text/plain; charset=latin-1", b"gr\xfc\xdfe") == "grüße"
    assert text('text/plain; charset="UTF-8"', "grüße".encode()) == "grüße"
    assert text("text/plain; charset=nonsense", "grüße".encode()) == "grüße"
    assert text("", b"\xff") == "\N{REPLACEMENT CHARACTER}"


def test_the_json_of_an_answer() -> None:
    answer = homing.Answer(status_code=200, headers=Headers(), content_type="", data=b'{"a": 1}')

    assert answer.json() == {"a": 1}
    with pytest.raises(ValueError, match="Expecting value"):
        homing.Answer(status_code=200, headers=Headers(), content_type="", data=b"<a/>").json()


def test_an_invocation_without_an_answer_has_an_empty_result() -> None:
    result = result_of(convert.invocation(records.invocation("EXPIRED")))

    assert (result.status_code, result.data, result.text) == (0, b"", "")
    assert result.invocation.state is InvocationState.EXPIRED


def test_values_are_frozen_and_can_be_pickled() -> None:
    record = convert.invocation(records.invocation())

    assert pickle.loads(pickle.dumps(record)) == record
    with pytest.raises(dataclasses.FrozenInstanceError):
        record.id = "other"  # type: ignore[misc]
