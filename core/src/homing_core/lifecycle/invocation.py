"""The life of an invocation: given its record and what happens to it, the next record or a refusal.

Events of a lower token than the record's are stale, events of an ended invocation come too late, and an event that
tells nothing new is a duplicate; all three are refused and change nothing. So events may come twice and in any order,
and exactly one end is ever recorded.

Attempts and history entries are the wire's own messages. They are values here: nothing changes one after it was made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Final, TypedDict

from homing.v1 import invocation_pb2 as api
from homing_core import limits
from homing_core.lifecycle import custody
from homing_core.lifecycle.attempts import close_lost, find, key_of, merge
from homing_core.lifecycle.custody import Changes, Custody, Held, Token, Transfer
from homing_core.lifecycle.states import DEAD_STATES, ENDS, ENDS_OF_RUNS, State
from homing_core.lifecycle.step import Effect, Refusal, Step
from homing_core.reasons import FailureReason, RequeueReason
from homing_core.wire.v1 import AttemptRecord, Event, HistoryEntry

BEGUN_ANEW: Final = State.ENQUEUED
"""The state of what the store has back from a broker that lost it."""

WITHDRAWN: Final = State.STOPPING
"""What is in this state is not published again: it stays with the broker until nobody can have it in flight."""

CALL_TOKEN: Final = Token(generation=1, redelivery_count=0)
"""The fencing token of a synchronous invocation: it is dispatched once."""

_DISPATCHED: Final = frozenset({Effect.PUBLISH})
_STOP_REQUESTED: Final = frozenset({Effect.WRITE_TOMBSTONE})
_ENDED: Final = frozenset({Effect.MAKE_DELIVERIES})
_ENDED_IN_VAIN: Final = frozenset({Effect.MAKE_DELIVERIES, Effect.MAKE_DEAD_LETTER})


@dataclass(frozen=True, kw_only=True, slots=True)
class Record(Held):
    """What the life cycle knows of an invocation. Times are microseconds since the epoch, 0 where unset."""

    state: State
    start_us: int = 0
    end_us: int = 0
    attempts: tuple[AttemptRecord, ...] = ()
    """In the order of their tokens and ordinals."""
    entries: tuple[HistoryEntry, ...] = ()
    failure: api.Failure | None = None
    result: api.Result | None = None
    """The last answer of the function, where an event brought one since the record was read."""
    stop_request: api.StopRequest | None = None
    progress: api.Progress | None = None

    @property
    def ended(self) -> bool:
        """Whether the record is final."""
        return self.state in ENDS

    @property
    def lost_starts(self) -> int:
        """How many attempts started and were never heard of again."""
        return sum(1 for attempt in self.attempts if attempt.outcome == api.ATTEMPT_OUTCOME_LOST)

    @property
    def counted_attempts(self) -> int:
        """How many attempts count against the retry policy: lost ones do not."""
        return sum(1 for attempt in self.attempts if attempt.end_us and attempt.outcome != api.ATTEMPT_OUTCOME_LOST)


class Merged(TypedDict):
    """The fields that a report of attempts changes."""

    attempts: tuple[AttemptRecord, ...]
    start_us: int
    entries: tuple[HistoryEntry, ...]


def accepted(*, time_us: int, due_us: int) -> Record:
    """Return the record of an invocation that has just been accepted and is held by the store."""
    return Record(
        state=State.SCHEDULED if due_us > time_us else State.ENQUEUED,
        token=Token(generation=0, redelivery_count=0),
        custody=Custody.STORE,
        due_us=due_us,
        entries=(HistoryEntry(time_us=time_us, type=api.INVOCATION_EVENT_TYPE_ACCEPTED),),
    )


def accepted_and_dispatched(*, time_us: int) -> Record:
    """Return the record of an invocation that is accepted and dispatched in one transaction, as most are.

    It is what :func:`dispatched` makes of what :func:`accepted` returns, in one step.
    """
    return Record(
        state=State.ENQUEUED,
        token=Token(generation=1, redelivery_count=0),
        custody=Custody.SENT,
        due_us=0,
        sent_us=time_us,
        entries=(
            HistoryEntry(time_us=time_us, type=api.INVOCATION_EVENT_TYPE_ACCEPTED),
            HistoryEntry(time_us=time_us, type=api.INVOCATION_EVENT_TYPE_ENQUEUED),
        ),
    )


def called(*, time_us: int, lost_us: int) -> Record:
    """Return the record of a synchronous invocation that waits for a worker.

    :param lost_us: When it is lost, unless its end was reported by then.
    """
    return Record(
        state=State.ENQUEUED,
        token=CALL_TOKEN,
        custody=Custody.CALLER,
        due_us=lost_us,
        entries=(HistoryEntry(time_us=time_us, type=api.INVOCATION_EVENT_TYPE_ACCEPTED),),
    )


def dispatched(record: Record, *, time_us: int) -> Step[Record] | Refusal:
    """Return the record as it must be stored before its work message is published under the new generation."""
    if refusal := custody.CLAIM.refuses(record):
        return refusal
    after = replace(
        record,
        state=State.ENQUEUED,
        progress=None,
        attempts=close_lost(record.attempts, time_us),
        entries=(*record.entries, HistoryEntry(time_us=time_us, type=api.INVOCATION_EVENT_TYPE_ENQUEUED)),
        **custody.CLAIM.changes(record, time_us=time_us),
    )
    return Step(after=after, effects=_DISPATCHED)


def taken_back(record: Record, *, generation: int, due_us: int) -> Step[Record] | Refusal:
    """Return the record after a dispatch whose message was not, or perhaps not, published."""
    if record.state is WITHDRAWN:
        return custody.confirmed(record, generation=generation)
    if refusal := custody.TAKE_BACK.refuses(record, generation=generation):
        return refusal
    return Step(after=replace(record, **custody.TAKE_BACK.changes(record, time_us=due_us)))


def broker_lost(record: Record, *, due_us: int) -> Step[Record] | Refusal:
    """Return the record after its broker has lost all messages, and its worker what it ran.

    What is STOPPING is not dispatched again: :func:`stopped` ends it.
    """
    if record.state is WITHDRAWN:
        return Refusal.ELSEWHERE
    if refusal := custody.LOSE.refuses(record):
        return refusal
    return Step(after=replace(record, state=BEGUN_ANEW, **custody.LOSE.changes(record, time_us=due_us)))


def expired(record: Record, *, time_us: int) -> Step[Record] | Refusal:
    """Return the record of an invocation that has waited for its first start longer than its max_age."""
    failure = api.Failure(reason=FailureReason.EXPIRED, message="max_age passed before it started")
    return _end_by_server(record, state=State.EXPIRED, failure=failure, time_us=time_us)


def function_deleted(record: Record, *, function: str, time_us: int) -> Step[Record] | Refusal:
    """Return the record of an invocation whose function is gone: INVALID, or FAILED where it has been started."""
    state = State.FAILED if record.attempts else State.INVALID
    return _end_by_server(record, state=state, failure=deleted(function), time_us=time_us)


def deleted(function: str) -> api.Failure:
    """Return why an invocation failed whose function is gone."""
    return api.Failure(reason=FailureReason.FUNCTION_DELETED, message=f"function {function!r} was deleted")


def given_up(record: Record, *, why: str, time_us: int) -> Step[Record] | Refusal:
    """Return the record of an invocation whose message the broker redelivers no more.

    :param why: The broker's word for it.
    """
    words = f"the broker gave up redelivering it ({why}): too many workers were lost while they had it in flight"
    failure = api.Failure(reason=FailureReason.POISON, message=words)
    return _end_by_server(record, state=State.FAILED, failure=failure, time_us=time_us)


def dropped(record: Record, *, generation: int, why: str, function: str, time_us: int) -> Step[Record] | Refusal:
    """Return the record after the broker has dropped its work message, which no worker will get any more.

    :param generation: The generation of the message.
    :param why: The broker's word for it; empty where the message was in the queue of a deleted function.
    """
    if record.token.generation != generation:
        return Refusal.STALE
    if not why:
        return function_deleted(record, function=function, time_us=time_us)
    if why != "expired":
        return given_up(record, why=why, time_us=time_us)
    if not record.start_us:
        return expired(record, time_us=time_us)
    # It was started in time, and its worker was lost: it goes on.
    refusal = custody.RETURN.refuses(record)
    return refusal or _let_go(
        record, custody.RETURN, time_us=time_us, worker="", reason=RequeueReason.EXPIRED_AFTER_START
    )


def stop_requested(record: Record, *, caller: str, reason: str, time_us: int) -> Step[Record] | Refusal:
    """Return the record after a request to stop it.

    It is STOPPED where it was never dispatched. Else it is STOPPING: whoever has it in flight decides between stop and
    finish, and :func:`stopped` ends it where it turns out that nobody has. What came back to the store is among those:
    a message of an earlier dispatch may linger, and a worker may be about to start it.
    """
    if record.ended:
        return Refusal.ENDED
    if record.state is State.STOPPING:
        return Refusal.DUPLICATE
    request = api.StopRequest(caller=caller, reason=reason)
    request.time.FromMicroseconds(time_us)
    entry = HistoryEntry(time_us=time_us, type=api.INVOCATION_EVENT_TYPE_STOP_REQUESTED, detail=reason)
    asked = replace(record, stop_request=request, entries=(*record.entries, entry))
    if not record.token.generation:
        return _stop(asked, time_us=time_us)
    held_back = custody.HOLD_BACK.changes(record) if record.custody is Custody.STORE else Changes()
    return Step(after=replace(asked, state=State.STOPPING, **held_back), effects=_STOP_REQUESTED)


def stopped(record: Record, *, time_us: int) -> Step[Record] | Refusal:
    """Return the record of an invocation that is STOPPING and that nobody has in flight, or ever will."""
    if record.ended:
        return Refusal.ENDED
    if record.state is not State.STOPPING:
        return Refusal.DUPLICATE
    return _stop(record, time_us=time_us)


def lease_expired(record: Record, *, time_us: int) -> Step[Record] | Refusal:
    """Return the record of an invocation whose worker has not renewed its lease: it is lost."""
    if refusal := custody.EXPIRE_LEASE.refuses(record):
        return refusal
    return _let_go(record, custody.EXPIRE_LEASE, time_us=time_us, worker="", reason=RequeueReason.LEASE_ENDED)


def call_lost(record: Record, *, time_us: int) -> Step[Record] | Refusal:
    """Return the record of a synchronous invocation whose end nobody reports any more.

    It is FAILED where it has started, else EXPIRED: nobody starts it after the deadline of its caller.
    """
    if not record.ended and record.custody is not Custody.CALLER:
        return Refusal.ELSEWHERE
    if not record.attempts:
        failure = api.Failure(reason=FailureReason.EXPIRED, message="its caller waits no more, and it has not started")
        return _end_by_server(record, state=State.EXPIRED, failure=failure, time_us=time_us)
    words = "its worker has not reported how it ended; whether the function finished is unknown"
    failure = api.Failure(reason=FailureReason.WORKER_LOST, message=words)
    return _end_by_server(record, state=State.FAILED, failure=failure, time_us=time_us)


def reported(record: Record, event: Event) -> Step[Record] | Refusal:
    """Return the record after what a worker reported of it."""
    token = Token.of(event.token)
    if record.ended:
        return Refusal.ENDED
    if token < record.token:
        return Refusal.STALE
    kind = event.WhichOneof("kind")
    if token > record.token:
        if refusal := custody.REDELIVER.refuses(record):
            return refusal
        record = replace(
            record,
            state=_unless_stopping(record, State.ENQUEUED),
            progress=None,
            attempts=close_lost(record.attempts, event.time_us),
            **custody.REDELIVER.changes(record, token=token),
        )
    elif record.custody is Custody.STORE and kind != "ended":
        # The worker let it go: what it said before that comes too late to matter.
        return Refusal.DUPLICATE
    reaction = _REACTIONS.get(kind)
    if reaction is None:
        raise ValueError(f"an event of kind {kind!r} does not belong to the life of an invocation")
    return reaction(record, event)


def lets_go(event: Event) -> bool:
    """Tell whether the worker lets its message go once this event is confirmed, whatever the event changes."""
    return event.WhichOneof("kind") in _LAST_KINDS or event.leased.term_us > 0


def _dequeued(record: Record, event: Event) -> Step[Record] | Refusal:
    if record.state is not State.ENQUEUED:
        return Refusal.DUPLICATE
    entries = [_entry(event, api.INVOCATION_EVENT_TYPE_DEQUEUED)]
    if event.dequeued.cold_start:
        entries.append(_entry(event, api.INVOCATION_EVENT_TYPE_INSTANCE_STARTING))
    after = replace(record, state=State.DEQUEUED, entries=(*record.entries, *entries), **_received(record))
    return Step(after=after)


def _running(record: Record, event: Event) -> Step[Record] | Refusal:
    if find(record.attempts, event.running) is not None:
        return Refusal.DUPLICATE
    merged = _merge(record, [event.running], event.worker)
    if key_of(merged["attempts"][-1]) > key_of(event.running):
        return Step(after=replace(record, **merged))  # overtaken by a later attempt
    state = _unless_stopping(record, State.RUNNING)
    return Step(after=replace(record, state=state, **merged, **_received(record)))


def _attempt_ended(record: Record, event: Event) -> Step[Record] | Refusal:
    known = find(record.attempts, event.attempt_ended)
    if known is not None and known.end_us:
        return Refusal.DUPLICATE
    merged = replace(record, **_merge(record, [event.attempt_ended], event.worker))
    if key_of(merged.attempts[-1]) > key_of(event.attempt_ended):
        return Step(after=merged)  # overtaken by a later attempt
    if record.state is State.STOPPING:
        return Step(after=merged)
    entry = _entry(event, api.INVOCATION_EVENT_TYPE_RETRYING, attempt=len(merged.attempts))
    after = replace(merged, state=State.RETRYING, entries=(*merged.entries, entry), **_received(record))
    return Step(after=after)


def _deferred(record: Record, event: Event) -> Step[Record]:
    merged = replace(record, **_merge(record, event.deferred.attempts, event.worker))
    entry = _entry(event, api.INVOCATION_EVENT_TYPE_RETRYING, attempt=len(merged.attempts))
    if event.deferred.HasField("result"):
        merged = replace(merged, result=event.deferred.result)
    return _keep(merged, custody.RETURN, due_us=event.deferred.due_us, entry=entry)


def _requeued(record: Record, event: Event) -> Step[Record]:
    merged = replace(record, **_merge(record, event.requeued.attempts, event.worker))
    reason = event.requeued.reason
    return _let_go(merged, custody.RETURN, time_us=event.time_us, worker=event.worker, reason=reason)


def _leased(record: Record, event: Event) -> Step[Record] | Refusal:
    leased = record.custody is Custody.LEASE
    if not event.leased.term_us:
        if not leased:
            return Refusal.DUPLICATE
        return _let_go(
            record, custody.RETURN, time_us=event.time_us, worker=event.worker, reason=RequeueReason.LEASE_RETURNED
        )
    if leased:
        return Refusal.DUPLICATE  # a renewal: the record does not age, whoever watches over the lease does
    entry = _entry(event, api.INVOCATION_EVENT_TYPE_LEASED, attempt=len(record.attempts))
    return Step(after=replace(record, entries=(*record.entries, entry), **custody.GRANT_LEASE.changes(record)))


def _progressed(record: Record, event: Event) -> Step[Record] | Refusal:
    progress = event.progress
    if record.progress is not None and record.progress.time.ToMicroseconds() >= progress.time.ToMicroseconds():
        return Refusal.DUPLICATE
    return Step(after=replace(record, progress=progress))


def _ended_by_worker(record: Record, event: Event) -> Step[Record] | Refusal:
    end = event.ended
    state = State(end.state)
    if state not in ENDS:
        raise ValueError(f"an event says that the invocation ended {state.name}, which is no end")
    merged = _merge(record, end.attempts, event.worker)
    started = bool(merged["attempts"])
    result = end.result if end.HasField("result") else None
    if started and state is State.EXPIRED:
        # It was started in time and its worker was lost: it is late, not expired.
        if record.custody is Custody.STORE:
            return Refusal.DUPLICATE
        known = replace(record, **merged)
        return _let_go(known, custody.RETURN, time_us=event.time_us, worker=event.worker, reason=RequeueReason.STARTED)
    if state is State.STOPPED or (record.state is State.STOPPING and state not in ENDS_OF_RUNS):
        known = replace(record, **merged)
        # Where nobody asked for it the worker says why: the caller of a synchronous invocation went away.
        why = end.failure.message if record.stop_request is None else ""
        return _stop(known, time_us=event.time_us, worker=event.worker, result=result, why=why)
    if started and state is State.INVALID:
        state = State.FAILED
    failure = end.failure if end.HasField("failure") else None
    return _end(
        record, state, time_us=event.time_us, worker=event.worker, failure=failure, result=result, merged=merged
    )


def _end_by_server(record: Record, *, state: State, failure: api.Failure, time_us: int) -> Step[Record] | Refusal:
    """Return the record of an invocation that ends without its worker's word."""
    if record.ended:
        return Refusal.ENDED
    if record.state is State.STOPPING:
        return _stop(record, time_us=time_us)
    return _end(record, state, time_us=time_us, failure=failure)


def _let_go(record: Record, transfer: Transfer, *, time_us: int, worker: str, reason: str) -> Step[Record]:
    """Return the record of an invocation that its worker has not finished and does not hold any more."""
    record = replace(record, attempts=close_lost(record.attempts, time_us))
    if record.lost_starts >= limits.POISON_STARTS and record.state is not State.STOPPING:
        failure = api.Failure(
            reason=FailureReason.POISON,
            message=f"{record.lost_starts} workers were lost while they ran it; it is not started again",
        )
        return _end(record, State.FAILED, time_us=time_us, worker=worker, failure=failure)
    entry = HistoryEntry(time_us=time_us, type=api.INVOCATION_EVENT_TYPE_REQUEUED, worker=worker, detail=reason)
    return _keep(record, transfer, due_us=time_us, entry=entry)


def _keep(record: Record, transfer: Transfer, *, due_us: int, entry: HistoryEntry) -> Step[Record]:
    """Return the record back in the store's custody, to be dispatched again when it is due, or stopped there."""
    record = replace(record, entries=(*record.entries, entry))
    if record.state is State.STOPPING:
        return _stop(record, time_us=entry.time_us)
    state = State.RETRYING if record.attempts else State.ENQUEUED
    return Step(after=replace(record, state=state, **transfer.changes(record, time_us=due_us)))


def _stop(
    record: Record, *, time_us: int, worker: str = "", result: api.Result | None = None, why: str = ""
) -> Step[Record]:
    reason = record.stop_request.reason if record.stop_request is not None else ""
    message = why or (f"stopped by request: {reason}" if reason else "stopped by request")
    failure = api.Failure(reason=FailureReason.STOPPED, message=message)
    return _end(record, State.STOPPED, time_us=time_us, worker=worker, failure=failure, result=result)


def _end(
    record: Record,
    state: State,
    *,
    time_us: int,
    worker: str = "",
    failure: api.Failure | None = None,
    result: api.Result | None = None,
    merged: Merged | None = None,
) -> Step[Record]:
    known = merged or Merged(attempts=record.attempts, start_us=record.start_us, entries=record.entries)
    entry = HistoryEntry(
        time_us=time_us,
        type=api.INVOCATION_EVENT_TYPE_ENDED,
        attempt=len(known["attempts"]),
        worker=worker,
        detail=state.name,
    )
    after = replace(
        record,
        state=state,
        start_us=known["start_us"],
        end_us=time_us,
        attempts=close_lost(known["attempts"], time_us),
        entries=(*known["entries"], entry),
        failure=failure,
        result=record.result if result is None else result,
        **custody.END.changes(record),
    )
    if record.custody is Custody.CALLER:
        return Step(after=after)  # its caller has the outcome: there is nothing to deliver, and nothing to look after
    return Step(after=after, effects=_ENDED_IN_VAIN if state in DEAD_STATES else _ENDED)


def _received(record: Record) -> Changes:
    """Return what changes when a worker speaks of an invocation: the broker had its message, confirmed or not."""
    return custody.RECEIVE.changes(record) if record.custody is Custody.SENT else Changes()


def _unless_stopping(record: Record, state: State) -> State:
    """Return the state that follows, unless a stop is under way: that one stays until an end."""
    return State.STOPPING if record.state is State.STOPPING else state


def _merge(record: Record, reported: Iterable[AttemptRecord], worker: str) -> Merged:
    """Return what a record knows with what is reported of attempts, with history entries for what is new in it."""
    attempts, entries = merge(record.attempts, reported, worker=worker)
    start_us = attempts[0].start_us if attempts else 0
    return Merged(attempts=attempts, start_us=start_us, entries=record.entries + entries)


def _entry(event: Event, kind: api.InvocationEventType.ValueType, *, attempt: int = 0) -> HistoryEntry:
    return HistoryEntry(time_us=event.time_us, type=kind, attempt=attempt, worker=event.worker)


_REACTIONS: Final[dict[str | None, Callable[[Record, Event], Step[Record] | Refusal]]] = {
    "dequeued": _dequeued,
    "running": _running,
    "attempt_ended": _attempt_ended,
    "deferred": _deferred,
    "requeued": _requeued,
    "ended": _ended_by_worker,
    "leased": _leased,
    "progress": _progressed,
}

_LAST_KINDS: Final = frozenset({"ended", "deferred", "requeued"})
"""What a worker says of an invocation last."""
