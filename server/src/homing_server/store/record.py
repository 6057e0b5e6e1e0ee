"""Records events, many in one transaction; what is stale by its fencing token, or a duplicate, changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Row, bindparam, select, update

from homing_core import lifecycle
from homing_core.clock import now_us
from homing_core.lifecycle import Custody, Effect, Refusal, State, Step
from homing_core.lifecycle.custody import left_broker
from homing_core.lifecycle.invocation import lets_go
from homing_core.wire.v1 import Event
from homing_server.store import dead_letters, delivery_reports, delivery_rows, schema, tombstones
from homing_server.store.accept import (
    insert_invocation,
    insert_label,
    insert_payload,
    label_rows,
    row_of_spec,
)
from homing_server.store.effects import CommitEffects
from homing_server.store.invocation_rows import Change, Values, record_of, record_of_call, values_of
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
    changes = _live(connection, lives, effects)
    store_changes(connection, changes, effects)
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


def _live(connection: Connection, lives: dict[str, list[Event]], effects: CommitEffects) -> list[Change]:
    if not lives:
        return []
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
    return changes


def _record_sync(connection: Connection, events: dict[str, Event], effects: CommitEffects) -> None:
    known = {row.id for row in select_invocations(connection, events)} if events else set()
    fresh = [event for key, event in events.items() if key not in known]
    effects.refused += len(known)
    if not fresh:
        return
    steps = dict.fromkeys((schema.CHANGE_SEQ, schema.RESULT_SEQ, schema.ACCEPTED), len(fresh))
    counted = raise_counters(connection, steps)
    change_seq, result_seq = (counted[name] - len(fresh) for name in (schema.CHANGE_SEQ, schema.RESULT_SEQ))
    rows, payloads, labels = [], [], []
    for offset, event in enumerate(fresh, 1):
        request = event.sync_ended.request
        record = record_of_call(request, _end_of_call(event))
        rows.append(
            row_of_spec(request.spec)
            | values_of(record)
            | {
                "id": event.invocation_id,
                "sync": True,
                "caller": request.caller,
                "create_us": request.create_us,
                "start_by_us": 0,
                "size": 0,
                "traceparent": request.traceparent,
                "depth": 0,
                "change_seq": change_seq + offset,
                "result_seq": result_seq + offset,
            }
        )
        payloads.append(
            {
                "invocation_id": event.invocation_id,
                "request": request.spec.payload.SerializeToString(),
                "result": None if record.result is None else record.result.SerializeToString(),
            }
        )
        labels.extend(label_rows(event.invocation_id, request.spec, request.create_us))
        effects.ended[event.invocation_id] = record.state
    connection.execute(insert_invocation, rows)
    connection.execute(insert_payload, payloads)
    if labels:
        connection.execute(insert_label, labels)
    effects.result_seq = result_seq + len(fresh)
    effects.change_seq = change_seq + len(fresh)


def _end_of_call(event: Event) -> Event:
    end = Event(invocation_id=event.invocation_id, time_us=event.time_us, worker=event.worker)
    end.ended.CopyFrom(event.sync_ended.ended)
    return end
