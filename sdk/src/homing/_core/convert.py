"""Messages of the API turned into the plain values that the SDK hands out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TypeVar

from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from homing._core.function import Function, Limits
from homing._core.headers import headers
from homing._core.names import (
    AttemptOutcome,
    DeadLetterKind,
    DeliveryKind,
    DeliveryState,
    EventType,
    InvocationState,
    LogStream,
    Scope,
    WaitReason,
)
from homing._core.policy import RetryPolicy
from homing._core.values import (
    Answer,
    Attempt,
    Blob,
    Delivery,
    DeliveryAttempt,
    Event,
    Failure,
    Invocation,
    Payload,
    Progress,
    StopRequest,
)
from homing.v1 import function_pb2, invocation_pb2, log_service_pb2, payload_pb2, policy_pb2

Name = TypeVar(
    "Name",
    InvocationState,
    WaitReason,
    AttemptOutcome,
    EventType,
    DeliveryKind,
    DeliveryState,
    DeadLetterKind,
    LogStream,
    Scope,
)


def numbered(names: type[Name], enum: EnumDescriptor) -> dict[int, Name]:
    """Return the names of an enum of the API by number, without the prefix that all its values share."""
    values = enum.values_by_number
    cut = len(values[0].name) - len("UNSPECIFIED")
    known = {name.value: name for name in names}
    return {number: known[value.name[cut:]] for number, value in values.items() if value.name[cut:] in known}


_ENUMS = invocation_pb2.DESCRIPTOR.enum_types_by_name
_STATES = numbered(InvocationState, _ENUMS["InvocationState"])
_HOLDS = numbered(WaitReason, _ENUMS["WaitReason"])
_OUTCOMES = numbered(AttemptOutcome, _ENUMS["AttemptOutcome"])
_EVENTS = numbered(EventType, _ENUMS["InvocationEventType"])
_KINDS = numbered(DeliveryKind, _ENUMS["DeliveryKind"])
_DELIVERIES = numbered(DeliveryState, _ENUMS["DeliveryState"])
_LOG_STREAMS = numbered(LogStream, log_service_pb2.DESCRIPTOR.enum_types_by_name["LogStream"])


def state(number: int) -> InvocationState:
    """Return the state of a number."""
    return _STATES.get(number, InvocationState.UNKNOWN)


def log_stream(number: int) -> LogStream:
    """Return the stream of a number."""
    return _LOG_STREAMS.get(number, LogStream.UNKNOWN)


def time(message: Message, name: str) -> datetime | None:
    """Return a time of a message; None where it is not set."""
    if not message.HasField(name):
        return None
    stamp: Timestamp = getattr(message, name)
    return stamp.ToDatetime(tzinfo=UTC)


def _duration(message: Message, name: str) -> timedelta | None:
    if not message.HasField(name):
        return None
    duration: Duration = getattr(message, name)
    return duration.ToTimedelta()


def failure(message: Message, name: str = "failure") -> Failure | None:
    """Return a failure of a message; None where it is not set."""
    if not message.HasField(name):
        return None
    sent: invocation_pb2.Failure = getattr(message, name)
    return Failure(reason=sent.reason, message=sent.message, retryable=sent.retryable)


def invocation(message: invocation_pb2.Invocation) -> Invocation:
    """Return the record of an invocation."""
    spec = message.spec
    return Invocation(
        id=message.id,
        function=message.function,
        state=state(message.state),
        wait_reason=_HOLDS.get(message.wait_reason, WaitReason.UNKNOWN) if message.wait_reason else None,
        wait_until=time(message, "wait_until"),
        sync=message.sync,
        caller=message.caller,
        labels=dict(spec.labels),
        payload=(
            Payload(content_type=spec.payload.content_type, data=spec.payload.data, blob=_blob(spec.payload))
            if spec.payload.WhichOneof("body")
            else None
        ),
        retry_policy=_policy(spec.retry_policy) if spec.HasField("retry_policy") else None,
        attempt_timeout=_duration(spec, "attempt_timeout"),
        max_age=_duration(spec, "max_age"),
        schedule_time=time(spec, "schedule_time"),
        callback_url=spec.callback.url if spec.HasField("callback") else None,
        on_success=tuple(destination.uri for destination in spec.on_success),
        on_failure=tuple(destination.uri for destination in spec.on_failure),
        create_time=time(message, "create_time"),
        start_time=time(message, "start_time"),
        end_time=time(message, "end_time"),
        attempt_count=message.attempt_count,
        attempts=tuple(_attempt(item) for item in message.attempts),
        events=tuple(_event(item) for item in message.events),
        deliveries=tuple(delivery(item) for item in message.deliveries),
        result=_answer(message.result) if message.HasField("result") else None,
        failure=failure(message),
        rerun_of=message.rerun_of or None,
        call_id=message.spec.call_id or message.id,
        caused_by=message.caused_by or None,
        depth=message.depth,
        stop_request=_stop_request(message.stop_request) if message.HasField("stop_request") else None,
        progress=_progress(message.progress) if message.HasField("progress") else None,
        message=message,
    )


def _answer(message: invocation_pb2.Result) -> Answer:
    return Answer(
        status_code=message.status_code,
        headers=headers(message.headers),
        content_type=message.payload.content_type,
        data=message.payload.data,
        blob=_blob(message.payload),
        cut=message.cut,
        streamed_size=message.streamed_size,
    )


def _blob(message: payload_pb2.Payload) -> Blob | None:
    if not message.HasField("blob"):
        return None
    return Blob(id=message.blob.id, size=message.blob.size, sha256=message.blob.sha256)


def _attempt(message: invocation_pb2.Attempt) -> Attempt:
    return Attempt(
        number=message.number,
        worker=message.worker,
        instance=message.instance,
        function_revision=message.function_revision,
        image_id=message.image_id,
        start_time=time(message, "start_time"),
        end_time=time(message, "end_time"),
        outcome=_OUTCOMES.get(message.outcome, AttemptOutcome.UNKNOWN) if message.outcome else None,
        status_code=message.status_code,
        failure=failure(message),
        next_delay=_duration(message, "next_delay"),
        delay_reason=message.delay_reason,
    )


def _event(message: invocation_pb2.InvocationEvent) -> Event:
    return Event(
        time=time(message, "time"),
        type=_EVENTS.get(message.type, EventType.UNKNOWN),
        attempt=message.attempt,
        worker=message.worker,
        detail=message.detail,
    )


def delivery(message: invocation_pb2.Delivery) -> Delivery:
    """Return a delivery."""
    return Delivery(
        id=message.id,
        kind=_KINDS.get(message.kind, DeliveryKind.UNKNOWN),
        uri=message.uri,
        state=_DELIVERIES.get(message.state, DeliveryState.UNKNOWN),
        attempts=tuple(
            DeliveryAttempt(
                number=item.number,
                start_time=time(item, "start_time"),
                duration=_duration(item, "duration"),
                status_code=item.status_code,
                failure=failure(item),
            )
            for item in message.attempts
        ),
        create_time=time(message, "create_time"),
        end_time=time(message, "end_time"),
        next_attempt_time=time(message, "next_attempt_time"),
        caused=message.caused or None,
    )


def _stop_request(message: invocation_pb2.StopRequest) -> StopRequest:
    return StopRequest(time=time(message, "time"), caller=message.caller, reason=message.reason)


def _progress(message: invocation_pb2.Progress) -> Progress:
    return Progress(time=time(message, "time"), percent=message.percent, text=message.text)


def _policy(message: policy_pb2.RetryPolicy) -> RetryPolicy:
    return RetryPolicy(
        max_attempts=message.max_attempts if message.HasField("max_attempts") else None,
        initial_backoff=_duration(message, "initial_backoff"),
        backoff_multiplier=message.backoff_multiplier if message.HasField("backoff_multiplier") else None,
        max_backoff=_duration(message, "max_backoff"),
        retry_status_codes=tuple(message.retry_status_codes),
        max_retry_after=_duration(message, "max_retry_after"),
    )


def function(message: function_pb2.Function) -> Function:
    """Return a function."""
    source = message.WhichOneof("source")
    limits = message.limits
    return Function(
        name=message.name,
        image=message.image if source == "image" else None,
        command=tuple(message.command.args) if source == "command" else None,
        http_command=tuple(message.http_command.args) if source == "http_command" else None,
        url=message.url if source == "url" else None,
        env=dict(message.env),
        labels=dict(message.labels),
        annotations=dict(message.annotations),
        secrets=tuple(message.secrets),
        limits=Limits(memory_bytes=limits.memory_bytes, cpu_millis=limits.cpu_millis, pids=limits.pids),
        concurrency=message.concurrency,
        min_instances=message.min_instances,
        max_instances=message.max_instances,
        idle_timeout=_duration(message, "idle_timeout"),
        retry_policy=_policy(message.retry_policy) if message.HasField("retry_policy") else None,
        attempt_timeout=_duration(message, "attempt_timeout"),
        max_age=_duration(message, "max_age"),
        retention=_duration(message, "retention"),
        record_sync=message.record_sync if message.HasField("record_sync") else True,
        on_success=tuple(destination.uri for destination in message.on_success),
        on_failure=tuple(destination.uri for destination in message.on_failure),
        public=message.public,
        paused=message.paused,
        revision=message.revision,
        create_time=time(message, "create_time"),
        update_time=time(message, "update_time"),
        message=message,
    )
