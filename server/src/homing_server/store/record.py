"""Records events, many in one transaction; what is stale by its fencing token, or a duplicate, changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, bindparam, select, update

from homing_core import lifecycle
from homing_core.clock import now_us
from homing_core.lifecycle import Custody, Effect, Refusal, State, Step
from homing_core.lifecycle.custody import left_broker
from homing_core.lifecycle.invocation import lets_go
from homing_core.wire.v1 import Event
from homing_server.store import dead_letters, delivery_reports, delivery_rows, schema, tombstones
from homing_server.store.accept import insert_calls
from homing_server.store.effects import CommitEffects
from homing_server.store.invocation_rows import Change, Values, call_event, ended_call, record_of, values_of
from homing_server.store.outbox import Dispatch
from homing_server.store.sequences import raise_counters

_RECORD_COLUMNS = (
    "state",
    "generation",
    "redelivery_count",
    "custody",
    "due_us",
    "sent_us",
    "start_us",
    "end_us",
    "history",
)

_select_invocations = select(schema.invocations).where(schema.invocations.c.id.in_(bindparam("ids", expanding=True)))
_select_known = select(schema.invocations.c.id).where(schema.invocations.c.id.in_(bindparam("ids", expanding=True)))
_update_invocation = (
    update(schema.invocations)
    .where(schema.invocations.c.id == bindparam("key"))
    .values({name: bindparam(name) for name in (*_RECORD_COLUMNS, "result_seq", "change_seq")})
)
_update_result = (
    update(schema.payloads)
    .where(schema.payloads.c.invocation_id == bindparam("key"))
    .values(result=bindparam("result"))
)


def record_events(connection: Connection, events: Sequence[Event]) -> CommitEffects:
    """Apply events to the records that they speak of, and make the deliveries of those that end."""
    lives: dict[str, list[Event]] = {}
    sync: dict[str, Event] = {}
    reports: list[Event] = []
    for event in events:
        match event.WhichOneof("kind"):
            case "sync_ended":
                sync.setdefault(event.invocation_id, event)
            case "delivery":
                reports.append(event)
            case _:
                lives.setdefault(event.invocation_id, []).append(event)
    effects = CommitEffects()
    apply_events(connection, lives, effects)
    _record_sync(connection, sync, effects)
    delivery_reports.record_reports(connection, reports, effects)
    return effects


def store_changes(connection: Connection, changes: Sequence[Change], effects: CommitEffects) -> None:
    """Write changed records, number those that ended, and do what else their transitions ask for."""
    if not changes:
        return
    ends = sum(1 for change in changes if change.after.ended)
    news = sum(1 for change in changes if change.notifies)
    counted = raise_counters(connection, {schema.CHANGE_SEQ: news, schema.RESULT_SEQ: ends})
    change_seq = counted[schema.CHANGE_SEQ] - news
    result_seq = counted[schema.RESULT_SEQ] - ends
    rows: list[Values] = []
    for change in changes:
        after = change.after
        change_seq += change.notifies
        if after.ended:
            result_seq += 1
            effects.ended[change.row.id] = after.state
        _note_custody(change, effects)
        rows.append(
            {
                "key": change.row.id,
                **values_of(after),
                "change_seq": change_seq if change.notifies else change.row.change_seq,
                "result_seq": result_seq if after.ended else None,
            }
        )
    connection.execute(_update_invocation, rows)
    results = [
        {"key": change.row.id, "result": change.after.result.SerializeToString()}
        for change in changes
        if change.after.result is not None
    ]
    if results:
        connection.execute(_update_result, results)
    if news:
        effects.change_seq = change_seq
    if ends:
        effects.result_seq = result_seq
    _carry_out(connection, changes, effects)


def _carry_out(connection: Connection, changes: Sequence[Change], effects: CommitEffects) -> None:
    """Do what transitions ask for besides storing the record; to publish is for after the commit."""
    asked: dict[Effect, list[Change]] = {}
    for change in changes:
        for effect in change.effects:
            asked.setdefault(effect, []).append(change)
    now = now_us()
    if stopping := asked.get(Effect.WRITE_TOMBSTONE):
        tombstones.insert_all(connection, stopping, now_us=now)
    if ended := asked.get(Effect.MAKE_DELIVERIES):
        delivery_rows.make(connection, ended, effects)
    cured = {change.row.rerun_of for change in changes if change.after.state is State.SUCCEEDED and change.row.rerun_of}
    if cured:
        dead_letters.remove_cured(connection, cured)
    if dead := asked.get(Effect.MAKE_DEAD_LETTER):
        dead_letters.add_invocations(connection, dead, now_us=now)


def _note_custody(change: Change, effects: CommitEffects) -> None:
    before, after, row = change.before, change.after, change.row
    if left_broker(before, after):
        effects.left_broker.append((row.id, row.function, row.size))
    if after.custody is Custody.STORE:
        due_us = effects.due.get(row.function, after.due_us)
        effects.due[row.function] = min(due_us, after.due_us)


def select_invocations(connection: Connection, ids: Iterable[str]) -> Sequence[Row[Any]]:
    """Read the rows of these invocations."""
    return connection.execute(_select_invocations, {"ids": list(ids)}).all()


def known_invocations(connection: Connection, ids: Iterable[str]) -> set[str]:
    """Return those of these invocations that have a record."""
    return set(connection.execute(_select_known, {"ids": list(ids)}).scalars())


def apply_events(connection: Connection, lives: Mapping[str, Sequence[Event]], effects: CommitEffects) -> None:
    """Apply what happened to invocations, by id, to their records; of one that has none nothing comes."""
    if not lives:
        return
    changes = []
    let_go: list[Dispatch] = []
    for row in select_invocations(connection, lives):
        before = record = record_of(row)
        if before.stop_request is not None:
            let_go.extend((row.id, each.token.generation) for each in lives[row.id] if lets_go(each))
        asked = frozenset[Effect]()
        for event in lives[row.id]:
            step = lifecycle.invocation.reported(record, event)
            if isinstance(step, Step):
                record = step.after
                asked |= step.effects
            if event.HasField("leased") and record.custody is Custody.LEASE and step is not Refusal.STALE:
                effects.leases[row.id] = event.leased.term_us / 1e6
            elif isinstance(step, Refusal):
                effects.refused += 1
        if record is not before:
            changes.append(Change(row=row, before=before, after=record, effects=asked))
    tombstones.note_gone(connection, let_go, now_us=now_us())
    store_changes(connection, changes, effects)


def _record_sync(connection: Connection, events: dict[str, Event], effects: CommitEffects) -> None:
    """Record the ends of synchronous calls: most are over before there is a record of them."""
    if not events:
        return
    ends = {
        key: call_event(key, time_us=event.time_us, worker=event.worker, ended=event.sync_ended.ended)
        for key, event in events.items()
    }
    known = known_invocations(connection, events)
    apply_events(connection, {key: [ends[key]] for key in known}, effects)
    requests = {key: event.sync_ended.request for key, event in events.items() if key not in known}
    calls = {key: (request, ended_call(request, ends[key])) for key, request in requests.items()}
    insert_calls(connection, calls, effects)
