"""How records are laid out in rows, and how rows become the API's invocations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import Row

from homing.v1 import invocation_pb2 as api
from homing.v1 import payload_pb2, policy_pb2
from homing_core import lifecycle
from homing_core.lifecycle import Custody, Effect, Record, State, Step, Token
from homing_core.wire.v1 import AttemptRecord, DeliveryHistory, Ended, Event, History, HistoryEntry, SyncRequest
from homing_core.wire.v1 import Token as WireToken

Values = dict[str, Any]

CALL_TOKEN = WireToken(generation=lifecycle.invocation.CALL_TOKEN.generation)
"""The fencing token of synchronous calls, as events and attempts have it."""
_LOST_AFTER_US = 10_000_000
"""A call whose end was not reported so long after its deadline is lost: attempts do not run past that."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """A row and the record that shall be in its place."""

    row: Row[Any]
    before: Record
    after: Record
    effects: frozenset[Effect] = frozenset()
    """What is to be done besides, in the transaction that stores it."""

    @classmethod
    def of(cls, row: Row[Any], before: Record, step: Step[Record]) -> Change:
        """Return the change that one transition makes."""
        return cls(row=row, before=before, after=step.after, effects=step.effects)

    @property
    def notifies(self) -> bool:
        """Whether watchers are notified of it: not of a lease that was renewed."""
        before, after = self.before, self.after
        return not (
            after.state is before.state
            and after.entries is before.entries
            and after.attempts is before.attempts
            and after.progress is before.progress
        )


def record_of(row: Row[Any]) -> Record:
    """Read the life cycle's record from a row."""
    history = History.FromString(row.history)
    return Record(
        state=State(row.state),
        token=Token(generation=row.generation, redelivery_count=row.redelivery_count),
        custody=Custody(row.custody),
        due_us=row.due_us,
        sent_us=row.sent_us,
        start_us=row.start_us,
        end_us=row.end_us,
        attempts=tuple(history.attempts),
        entries=tuple(history.entries),
        failure=history.failure if history.HasField("failure") else None,
        stop_request=history.stop_request if history.HasField("stop_request") else None,
        progress=history.progress if history.HasField("progress") else None,
    )


def values_of(record: Record) -> Values:
    """Return the columns that hold the life cycle's record."""
    history = History(
        attempts=record.attempts,
        entries=record.entries,
        failure=record.failure,
        stop_request=record.stop_request,
        progress=record.progress,
    )
    return {
        "state": int(record.state),
        "generation": record.token.generation,
        "redelivery_count": record.token.redelivery_count,
        "custody": int(record.custody),
        "due_us": record.due_us,
        "sent_us": record.sent_us,
        "start_us": record.start_us,
        "end_us": record.end_us,
        "history": history.SerializeToString(),
    }


def timestamp(time_us: int) -> Timestamp | None:
    """Return the time as the API has it; None where it is unset."""
    return Timestamp(seconds=time_us // 1_000_000, nanos=time_us % 1_000_000 * 1000) if time_us else None


def invocation_of(
    row: Row[Any],
    *,
    request: bytes | None = None,
    result: bytes | None = None,
    deliveries: Iterable[Row[Any]] = (),
) -> api.Invocation:
    """Return the API's invocation of a row.

    :param request: The stored payload, where it is wanted.
    :param result: The stored result, where there is one and it is wanted.
    :param deliveries: The rows of its deliveries.
    """
    record = record_of(row)
    spec = api.InvocationSpec.FromString(row.spec)
    if request is not None:
        spec.payload.CopyFrom(payload_pb2.Payload.FromString(request))
    invocation = api.Invocation(
        id=row.id,
        function=row.function,
        spec=spec,
        sync=row.sync,
        caller=row.caller,
        create_time=timestamp(row.create_us),
        deliveries=[delivery_of(delivery) for delivery in deliveries],
        result=None if result is None else api.Result.FromString(result),
        rerun_of=row.rerun_of or "",
        caused_by=row.caused_by or "",
        depth=row.depth,
    )
    _show_delay(invocation)
    _show_record(invocation, record)
    _show_deliveries(invocation)
    return invocation


def slim(spec: api.InvocationSpec) -> api.InvocationSpec:
    """Return what was asked without the payload's body."""
    copy = api.InvocationSpec()
    copy.CopyFrom(spec)
    copy.payload.ClearField("body")
    return copy


def accepted_invocation(
    invocation_id: str, record: Record, spec: api.InvocationSpec, *, create_us: int, rerun_of: str
) -> api.Invocation:
    """Return the API's invocation as the answer to its acceptance tells of it, without its history."""
    invocation = api.Invocation(
        id=invocation_id,
        function=spec.function,
        state=api.InvocationState.ValueType(record.state),
        spec=slim(spec),
        create_time=timestamp(create_us),
        rerun_of=rerun_of,
    )
    _show_delay(invocation)
    _show_hold(invocation, record)
    return invocation


def invocation_of_call(request: SyncRequest, ended: Ended, *, time_us: int) -> api.Invocation:
    """Return the API's invocation of a synchronous call that has ended."""
    record = ended_call(request, call_event(request.invocation_id, time_us=time_us, ended=ended))
    invocation = api.Invocation(
        id=request.invocation_id,
        function=request.spec.function,
        spec=slim(request.spec),
        sync=True,
        caller=request.caller,
        create_time=timestamp(request.create_us),
        result=record.result,
    )
    _show_record(invocation, record)
    return invocation


def waiting_call(request: SyncRequest) -> Record:
    """Return the record of a synchronous call that no worker is known to have begun."""
    return lifecycle.invocation.called(time_us=request.create_us, lost_us=request.deadline_us + _LOST_AFTER_US)


def ended_call(request: SyncRequest, event: Event) -> Record:
    """Return the record of a synchronous call of which nothing was recorded before this event, which tells its end."""
    step = lifecycle.invocation.reported(waiting_call(request), event)
    assert isinstance(step, Step), "an end is never refused by a record that has none"
    return step.after


def call_event(
    key: str, *, time_us: int, worker: str = "", running: AttemptRecord | None = None, ended: Ended | None = None
) -> Event:
    """Return what the life cycle is told of a synchronous call: its attempt runs, or it has ended."""
    return Event(invocation_id=key, token=CALL_TOKEN, time_us=time_us, worker=worker, running=running, ended=ended)


def _show_delay(invocation: api.Invocation) -> None:
    spec = invocation.spec
    if spec.HasField("delay"):
        spec.schedule_time.FromMicroseconds(invocation.create_time.ToMicroseconds() + spec.delay.ToMicroseconds())


def _show_record(invocation: api.Invocation, record: Record) -> None:
    invocation.state = api.InvocationState.ValueType(record.state)
    for field, time_us in (("start_time", record.start_us), ("end_time", record.end_us)):
        if time_us:
            getattr(invocation, field).FromMicroseconds(time_us)
    invocation.attempt_count = len(record.attempts)
    invocation.attempts.extend(_attempt_of(number, attempt) for number, attempt in enumerate(record.attempts, 1))
    invocation.events.extend(
        api.InvocationEvent(
            time=timestamp(entry.time_us),
            type=entry.type,
            attempt=entry.attempt,
            worker=entry.worker,
            detail=_detail_of(entry, record),
        )
        for entry in record.entries
    )
    for field, value in (
        ("failure", record.failure),
        ("stop_request", record.stop_request),
        ("progress", record.progress),
    ):
        if value is not None:
            getattr(invocation, field).CopyFrom(value)
    _show_hold(invocation, record)


def _detail_of(entry: HistoryEntry, record: Record) -> str:
    """Return what an entry of the history says more: of an attempt's end also when the next one follows, and why."""
    if entry.type != api.INVOCATION_EVENT_TYPE_ATTEMPT_ENDED or not 1 <= entry.attempt <= len(record.attempts):
        return entry.detail
    attempt = record.attempts[entry.attempt - 1]
    if not attempt.delay_reason:
        return entry.detail
    return f"{entry.detail}; the next one in {attempt.next_delay_us / 1e6:g} s ({attempt.delay_reason})"


def _show_deliveries(invocation: api.Invocation) -> None:
    """Go on with the line of events: deliveries begin when all else has ended."""
    reported = [event for delivery in invocation.deliveries for event in _events_of(delivery)]
    invocation.events.extend(sorted(reported, key=lambda event: event.time.ToNanoseconds()))


def _events_of(delivery: api.Delivery) -> Iterator[api.InvocationEvent]:
    kind = api.DeliveryKind.Name(delivery.kind).removeprefix("DELIVERY_KIND_")
    why = ""
    for attempt in delivery.attempts:
        if attempt.HasField("failure"):
            why = attempt.failure.reason + (f" {attempt.status_code}" if attempt.status_code else "")
            event = api.InvocationEvent(
                type=api.INVOCATION_EVENT_TYPE_DELIVERY_FAILED, detail=f"{kind}, attempt {attempt.number}: {why}"
            )
            event.time.FromNanoseconds(attempt.start_time.ToNanoseconds() + attempt.duration.ToNanoseconds())
            yield event
    match delivery.state:
        case api.DELIVERY_STATE_DELIVERED:
            delivered = api.INVOCATION_EVENT_TYPE_DELIVERED
            yield api.InvocationEvent(time=delivery.end_time, type=delivered, detail=kind)
        case api.DELIVERY_STATE_DEAD:
            dead = api.INVOCATION_EVENT_TYPE_DELIVERY_DEAD
            yield api.InvocationEvent(time=delivery.end_time, type=dead, detail=f"{kind}: {why}" if why else kind)


def _show_hold(invocation: api.Invocation, record: Record) -> None:
    match record.state:
        case State.SCHEDULED:
            invocation.wait_reason = api.WAIT_REASON_SCHEDULED
        case State.RETRYING:
            invocation.wait_reason = api.WAIT_REASON_BACKOFF
        case State.DEQUEUED if record.entries[-1].type == api.INVOCATION_EVENT_TYPE_INSTANCE_STARTING:
            invocation.wait_reason = api.WAIT_REASON_COLD_START
        case State.ENQUEUED | State.DEQUEUED:
            invocation.wait_reason = api.WAIT_REASON_BACKLOG
        case _:
            return
    until_us = record.due_us
    if record.state is State.RETRYING and record.custody is not Custody.STORE:
        # Its worker waits for the next attempt.
        last = record.attempts[-1]
        until_us = last.end_us + last.next_delay_us
    if until_us and record.state in {State.SCHEDULED, State.RETRYING}:
        invocation.wait_until.FromMicroseconds(until_us)


def _attempt_of(number: int, record: AttemptRecord) -> api.Attempt:
    attempt = api.Attempt(
        number=number,
        worker=record.worker,
        instance=record.instance,
        function_revision=record.function_revision,
        image_id=record.image_id,
        start_time=timestamp(record.start_us),
        end_time=timestamp(record.end_us),
        outcome=record.outcome,
        status_code=record.status_code,
        failure=record.failure if record.HasField("failure") else None,
        delay_reason=record.delay_reason,
    )
    if record.delay_reason:
        attempt.next_delay.FromMicroseconds(record.next_delay_us)
    return attempt


def delivery_of(row: Row[Any]) -> api.Delivery:
    """Return the API's delivery of a row."""
    history = DeliveryHistory.FromString(row.history)
    delivery = api.Delivery(
        id=row.id,
        kind=row.kind,
        uri=uri_of(row),
        state=row.state,
        create_time=timestamp(row.create_us),
        end_time=timestamp(row.end_us),
        next_attempt_time=timestamp(row.due_us) if row.custody == int(Custody.STORE) else None,
        caused=history.caused,
    )
    for number, record in enumerate(history.attempts, 1):
        attempt = delivery.attempts.add(
            number=number,
            start_time=timestamp(record.start_us),
            status_code=record.status_code,
            failure=record.failure if record.HasField("failure") else None,
        )
        attempt.duration.FromMicroseconds(record.duration_us)
    return delivery


def uri_of(delivery: Row[Any]) -> str:
    """Return where a delivery goes."""
    if delivery.kind == api.DELIVERY_KIND_CALLBACK:
        return policy_pb2.Callback.FromString(delivery.target).url
    return policy_pb2.Destination.FromString(delivery.target).uri
