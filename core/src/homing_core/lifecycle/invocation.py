"""The life of an invocation as data and pure functions: given a record and an event, the next record or a refusal.

An invocation is handed over under a fencing token: the store raises its generation before every publish, the broker
raises its delivery count at every redelivery. Events of a lower token than the record's are stale, events of an ended
invocation come too late, and an event that tells nothing new is a duplicate; all three are refused and change nothing.
So events may come twice and in any order, and exactly one end is ever recorded.

Attempts and history entries are the wire's own messages. They are values here: nothing changes one after it was made.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from homing.v1 import invocation_pb2 as api
from homing_core import limits
from homing_core.wire.v1 import AttemptRecord, Event, HistoryEntry
from homing_core.wire.v1 import Token as WireToken


class State(enum.IntEnum):
    """A step in the life of an invocation; the numbers are those of ``homing.v1.InvocationState``."""

    SCHEDULED = api.INVOCATION_STATE_SCHEDULED
    ENQUEUED = api.INVOCATION_STATE_ENQUEUED
    DEQUEUED = api.INVOCATION_STATE_DEQUEUED
    RUNNING = api.INVOCATION_STATE_RUNNING
    RETRYING = api.INVOCATION_STATE_RETRYING
    STOPPING = api.INVOCATION_STATE_STOPPING
    SUCCEEDED = api.INVOCATION_STATE_SUCCEEDED
    FAILED = api.INVOCATION_STATE_FAILED
    TIMED_OUT = api.INVOCATION_STATE_TIMED_OUT
    STOPPED = api.INVOCATION_STATE_STOPPED
    EXPIRED = api.INVOCATION_STATE_EXPIRED
    INVALID = api.INVOCATION_STATE_INVALID


ENDS: Final = frozenset({State.SUCCEEDED, State.FAILED, State.TIMED_OUT, State.STOPPED, State.EXPIRED, State.INVALID})
"""The states that are final."""

ENDS_OF_RUNS: Final = frozenset({State.SUCCEEDED, State.FAILED, State.TIMED_OUT, State.STOPPED})
"""The ends that an invocation may have which has started."""

TRANSITIONS: Final[dict[State, frozenset[State]]] = {
    State.SCHEDULED: frozenset({State.ENQUEUED, State.STOPPING, State.STOPPED, State.EXPIRED, State.INVALID}),
    State.ENQUEUED: frozenset(
        {State.DEQUEUED, State.RUNNING, State.RETRYING, State.STOPPING, State.EXPIRED, State.INVALID} | ENDS_OF_RUNS
    ),
    State.DEQUEUED: frozenset(
        {State.ENQUEUED, State.RUNNING, State.RETRYING, State.STOPPING, State.EXPIRED, State.INVALID} | ENDS_OF_RUNS
    ),
    State.RUNNING: frozenset({State.ENQUEUED, State.DEQUEUED, State.RETRYING, State.STOPPING} | ENDS_OF_RUNS),
    State.RETRYING: frozenset({State.ENQUEUED, State.DEQUEUED, State.RUNNING, State.STOPPING} | ENDS_OF_RUNS),
    State.STOPPING: ENDS_OF_RUNS,
    **dict.fromkeys(ENDS, frozenset[State]()),
}
"""Which state may follow which. Events that were overtaken by later ones make the leaps, ENQUEUED to SUCCEEDED say."""


class Custody(enum.IntEnum):
    """Who holds an invocation that has not ended."""

    NONE = 0
    """Nobody: it has ended."""
    STORE = 1
    """The store: it is to be published when it is due."""
    SENT = 2
    """A dispatcher has published it, or is about to, and has not seen it confirmed."""
    BROKER = 3
    """The broker: waiting in a queue, or in the hand of a worker."""
    LEASE = 4
    """Its worker, for as long as it renews its lease; the broker has no message of it any more."""


class Refusal(enum.Enum):
    """Why an event changes nothing."""

    ENDED = "the invocation has ended"
    STALE = "the event belongs to an earlier hand-over"
    DUPLICATE = "the event tells nothing new"


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Token:
    """Orders the hand-overs of one invocation: the greater one wins."""

    generation: int
    delivery: int

    @classmethod
    def of(cls, token: WireToken) -> Token:
        """Read a token from a message."""
        return cls(generation=token.generation, delivery=token.redelivery_count)


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """What the life cycle knows of an invocation. Times are microseconds since the epoch, 0 where unset."""

    state: State
    token: Token
    custody: Custody
    due_us: int
    """When the next hand-over is due, while the store holds the invocation."""
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


def accepted(*, time_us: int, due_us: int) -> Record:
    """Return the record of an invocation that has just been accepted and is held by the store."""
    return Record(
        state=State.SCHEDULED if due_us > time_us else State.ENQUEUED,
        token=Token(generation=0, delivery=0),
        custody=Custody.STORE,
        due_us=due_us,
        entries=(HistoryEntry(time_us=time_us, type=api.INVOCATION_EVENT_TYPE_ACCEPTED),),
    )


def handed_over(record: Record, *, time_us: int) -> Record | Refusal:
    """Return the record as it must be stored before its work message is published under the new generation."""
    if record.ended:
        return Refusal.ENDED
    return replace(
        record,
        state=State.ENQUEUED,
        token=Token(generation=record.token.generation + 1, delivery=0),
        custody=Custody.SENT,
        due_us=0,
        progress=None,
        attempts=_close_lost(record.attempts, time_us),
        entries=(*record.entries, HistoryEntry(time_us=time_us, type=api.INVOCATION_EVENT_TYPE_ENQUEUED)),
    )


def ended(record: Record, *, state: State, failure: api.Failure, time_us: int) -> Record | Refusal:
    """Return the record of an invocation that ends without its worker's word: expired, invalid, poison or lost."""
    if record.ended:
        return Refusal.ENDED
    if record.state is State.STOPPING:
        return _stop(record, time_us)
    return _end(record, state, failure, None, time_us, worker="")


def stop_requested(record: Record, *, caller: str, reason: str, time_us: int) -> Record | Refusal:
    """Return the record after a request to stop it.

    It is STOPPED where it was never handed over. Else it is STOPPING: whoever has it in hand decides between stop and
    finish, and :func:`stopped` ends it where it turns out that nobody has. What came back to the store is among those:
    a message of an earlier hand-over may linger, and a worker may be about to start it.
    """
    if record.ended:
        return Refusal.ENDED
    if record.state is State.STOPPING:
        return Refusal.DUPLICATE
    request = api.StopRequest(caller=caller, reason=reason)
    request.time.FromMicroseconds(time_us)
    entry = HistoryEntry(time_us=time_us, type=api.INVOCATION_EVENT_TYPE_STOP_REQUESTED, detail=reason)
    asked = replace(record, stop_request=request, entries=(*record.entries, entry))
    if record.custody is not Custody.STORE:
        return replace(asked, state=State.STOPPING)
    if not record.token.generation:
        return _stop(asked, time_us)
    return replace(asked, state=State.STOPPING, custody=Custody.SENT, due_us=0)


def stopped(record: Record, *, time_us: int) -> Record | Refusal:
    """Return the record of an invocation that is STOPPING and that nobody has in hand, or ever will."""
    if record.ended:
        return Refusal.ENDED
    if record.state is not State.STOPPING:
        return Refusal.DUPLICATE
    return _stop(record, time_us)


def lease_ended(record: Record, *, time_us: int) -> Record | Refusal:
    """Return the record of an invocation whose worker has not renewed its lease: it is lost."""
    if record.ended:
        return Refusal.ENDED
    if record.custody is not Custody.LEASE:
        return Refusal.DUPLICATE
    return _let_go(record, time_us=time_us, worker="", reason="LEASE_ENDED")


def reported(record: Record, event: Event) -> Record | Refusal:
    """Return the record after what a worker reported of it."""
    token = Token.of(event.token)
    if record.ended:
        return Refusal.ENDED
    if token < record.token:
        return Refusal.STALE
    kind = event.WhichOneof("kind")
    if token > record.token:
        record = replace(
            record,
            state=_unless_stopping(record, State.ENQUEUED),
            token=token,
            custody=Custody.BROKER,
            due_us=0,
            progress=None,
            attempts=_close_lost(record.attempts, event.time_us),
        )
    elif record.custody is Custody.STORE and kind != "ended":
        # The worker let it go: what it said before that comes too late to matter.
        return Refusal.DUPLICATE
    reaction = _REACTIONS.get(kind or "")
    if reaction is None:
        raise ValueError(f"an event of kind {kind!r} does not belong to the life of an invocation")
    return reaction(record, event)


def _dequeued(record: Record, event: Event) -> Record | Refusal:
    if record.state is not State.ENQUEUED:
        return Refusal.DUPLICATE
    entries = [_entry(event, api.INVOCATION_EVENT_TYPE_DEQUEUED)]
    if event.dequeued.cold_start:
        entries.append(_entry(event, api.INVOCATION_EVENT_TYPE_INSTANCE_STARTING))
    return replace(record, state=State.DEQUEUED, custody=_in_hand(record), entries=(*record.entries, *entries))


def _running(record: Record, event: Event) -> Record | Refusal:
    if _find(record.attempts, event.running) is not None:
        return Refusal.DUPLICATE
    merged = _merge(record, [event.running], event.worker)
    if _key(merged.attempts[-1]) > _key(event.running):
        return merged  # overtaken by a later attempt
    return replace(merged, state=_unless_stopping(record, State.RUNNING), custody=_in_hand(record))


def _attempt_ended(record: Record, event: Event) -> Record | Refusal:
    known = _find(record.attempts, event.attempt_ended)
    if known is not None and known.end_us:
        return Refusal.DUPLICATE
    merged = _merge(record, [event.attempt_ended], event.worker)
    if _key(merged.attempts[-1]) > _key(event.attempt_ended):
        return merged  # overtaken by a later attempt
    if record.state is State.STOPPING:
        return merged
    entry = _entry(event, api.INVOCATION_EVENT_TYPE_RETRYING, attempt=len(merged.attempts))
    return replace(merged, state=State.RETRYING, custody=_in_hand(record), entries=(*merged.entries, entry))


def _deferred(record: Record, event: Event) -> Record:
    merged = _merge(record, event.deferred.attempts, event.worker)
    entry = _entry(event, api.INVOCATION_EVENT_TYPE_RETRYING, attempt=len(merged.attempts))
    result = event.deferred.result if event.deferred.HasField("result") else record.result
    return replace(_keep(merged, event.deferred.due_us, entry), result=result)


def _handed_back(record: Record, event: Event) -> Record:
    merged = _merge(record, event.requeued.attempts, event.worker)
    return _let_go(merged, time_us=event.time_us, worker=event.worker, reason=event.requeued.reason)


def _leased(record: Record, event: Event) -> Record | Refusal:
    leased = record.custody is Custody.LEASE
    if not event.leased.term_us:
        if not leased:
            return Refusal.DUPLICATE
        return _let_go(record, time_us=event.time_us, worker=event.worker, reason="LEASE_RETURNED")
    if leased:
        return Refusal.DUPLICATE  # a renewal: the record does not age, whoever watches over the lease does
    entry = _entry(event, api.INVOCATION_EVENT_TYPE_LEASED, attempt=len(record.attempts))
    return replace(record, custody=Custody.LEASE, entries=(*record.entries, entry))


def _progressed(record: Record, event: Event) -> Record | Refusal:
    told = event.progress
    if record.progress is not None and record.progress.time.ToMicroseconds() >= told.time.ToMicroseconds():
        return Refusal.DUPLICATE
    return replace(record, progress=told)


def _let_go(record: Record, *, time_us: int, worker: str, reason: str) -> Record:
    """Return the record of an invocation that its worker has not finished and does not hold any more."""
    record = replace(record, attempts=_close_lost(record.attempts, time_us))
    if record.lost_starts >= limits.POISON_STARTS and record.state is not State.STOPPING:
        failure = api.Failure(
            reason="POISON",
            message=f"{record.lost_starts} workers were lost while they ran it; it is not started again",
        )
        return _end(record, State.FAILED, failure, None, time_us, worker)
    entry = HistoryEntry(time_us=time_us, type=api.INVOCATION_EVENT_TYPE_REQUEUED, worker=worker, detail=reason)
    return _keep(record, time_us, entry)


def _keep(record: Record, due_us: int, entry: HistoryEntry) -> Record:
    """Return the record back in the store's custody, to be handed over again when it is due, or stopped there."""
    if record.state is State.STOPPING:
        return _stop(replace(record, entries=(*record.entries, entry)), entry.time_us)
    return replace(
        record,
        state=State.RETRYING if record.attempts else State.ENQUEUED,
        custody=Custody.STORE,
        due_us=due_us,
        entries=(*record.entries, entry),
    )


def _ended_by_worker(record: Record, event: Event) -> Record | Refusal:
    end = event.ended
    state = State(end.state)
    if state not in ENDS:
        raise ValueError(f"an event says that the invocation ended {state.name}, which is no end")
    merged = _merge(record, end.attempts, event.worker)
    if merged.attempts and state is State.EXPIRED:
        # It was started in time and its worker was lost: it is late, not expired.
        if record.custody is Custody.STORE:
            return Refusal.DUPLICATE
        return _let_go(merged, time_us=event.time_us, worker=event.worker, reason="STARTED")
    if state is State.STOPPED or (record.state is State.STOPPING and state not in ENDS_OF_RUNS):
        return replace(
            _stop(merged, event.time_us, event.worker),
            result=end.result if end.HasField("result") else record.result,
        )
    if merged.attempts and state is State.INVALID:
        state = State.FAILED
    return _end(
        merged,
        state,
        end.failure if end.HasField("failure") else None,
        end.result if end.HasField("result") else None,
        event.time_us,
        event.worker,
    )


def _stop(record: Record, time_us: int, worker: str = "") -> Record:
    reason = record.stop_request.reason if record.stop_request is not None else ""
    message = f"stopped by request: {reason}" if reason else "stopped by request"
    return _end(record, State.STOPPED, api.Failure(reason="STOPPED", message=message), None, time_us, worker)


def _in_hand(record: Record) -> Custody:
    """Return who has the invocation that a worker speaks of: the broker, unless the worker answers for it."""
    return Custody.LEASE if record.custody is Custody.LEASE else Custody.BROKER


def _unless_stopping(record: Record, state: State) -> State:
    """Return the state that follows, unless a stop is under way: that one stays until an end."""
    return State.STOPPING if record.state is State.STOPPING else state


def _end(  # noqa: PLR0917 private, and every argument is needed
    record: Record,
    state: State,
    failure: api.Failure | None,
    result: api.Result | None,
    time_us: int,
    worker: str,
) -> Record:
    entry = HistoryEntry(
        time_us=time_us,
        type=api.INVOCATION_EVENT_TYPE_ENDED,
        attempt=len(record.attempts),
        worker=worker,
        detail=state.name,
    )
    return replace(
        record,
        state=state,
        custody=Custody.NONE,
        due_us=0,
        end_us=time_us,
        attempts=_close_lost(record.attempts, time_us),
        entries=(*record.entries, entry),
        failure=failure,
        result=record.result if result is None else result,
    )


def _merge(record: Record, attempts: Iterable[AttemptRecord], worker: str) -> Record:
    """Return the record with what is told of attempts, and with history entries for what is new in it."""
    merged = {_key(attempt): attempt for attempt in record.attempts}
    fresh: list[tuple[int, api.InvocationEventType.ValueType, AttemptRecord]] = []
    for attempt in attempts:
        known = merged.get(_key(attempt))
        if known is not None and (known.end_us or not attempt.end_us):
            continue
        if known is None:
            fresh.append((attempt.start_us, api.INVOCATION_EVENT_TYPE_RUNNING, attempt))
        if attempt.end_us:
            fresh.append((attempt.end_us, api.INVOCATION_EVENT_TYPE_ATTEMPT_ENDED, attempt))
        merged[_key(attempt)] = attempt
    if not fresh:
        return record
    keys = sorted(merged)
    entries = tuple(
        HistoryEntry(
            time_us=time_us,
            type=kind,
            attempt=_number(keys, attempt),
            worker=worker,
            detail=attempt.failure.reason if kind == api.INVOCATION_EVENT_TYPE_ATTEMPT_ENDED else "",
        )
        for time_us, kind, attempt in fresh
    )
    return replace(
        record,
        attempts=tuple(merged[key] for key in keys),
        start_us=merged[keys[0]].start_us,
        entries=record.entries + entries,
    )


def _number(keys: Sequence[tuple[int, int, int]], attempt: AttemptRecord) -> int:
    """Return the place of an attempt among all, even where earlier ones of its hand-over are not known yet."""
    token = _key(attempt)[:2]
    return sum(1 for key in keys if key[:2] < token) + attempt.ordinal


def _close_lost(attempts: Sequence[AttemptRecord], time_us: int) -> tuple[AttemptRecord, ...]:
    """Return the attempts with those that have no end marked as lost."""
    return tuple(attempt if attempt.end_us else _lost(attempt, time_us) for attempt in attempts)


def _lost(attempt: AttemptRecord, time_us: int) -> AttemptRecord:
    lost = AttemptRecord()
    lost.CopyFrom(attempt)
    lost.end_us = max(time_us, attempt.start_us)
    lost.outcome = api.ATTEMPT_OUTCOME_LOST
    lost.failure.reason = "WORKER_LOST"
    lost.failure.message = "the worker was not heard of again; whether the attempt finished is unknown"
    lost.failure.retryable = True
    return lost


def _find(attempts: Sequence[AttemptRecord], wanted: AttemptRecord) -> AttemptRecord | None:
    return next((attempt for attempt in attempts if _key(attempt) == _key(wanted)), None)


def _key(attempt: AttemptRecord) -> tuple[int, int, int]:
    return attempt.token.generation, attempt.token.redelivery_count, attempt.ordinal


def _entry(
    event: Event, kind: api.InvocationEventType.ValueType, *, attempt: int = 0, detail: str = ""
) -> HistoryEntry:
    return HistoryEntry(time_us=event.time_us, type=kind, attempt=attempt, worker=event.worker, detail=detail)


_REACTIONS: Final[dict[str, Callable[[Record, Event], Record | Refusal]]] = {
    "dequeued": _dequeued,
    "running": _running,
    "attempt_ended": _attempt_ended,
    "deferred": _deferred,
    "requeued": _handed_back,
    "ended": _ended_by_worker,
    "leased": _leased,
    "progress": _progressed,
}
