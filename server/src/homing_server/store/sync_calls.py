"""Synchronous calls in the store while they are under way: only those that last are recorded before their end.

Their callers hold them, and so nothing of them is ever published from here. What their workers report wins over what
is written here, in whatever order it comes: a record that has ended does not change.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, select, update

from homing_core import lifecycle
from homing_core.lifecycle import Custody, Step
from homing_core.wire.v1 import Event, History, SyncRequest
from homing_server.store import schema
from homing_server.store.accept import insert_calls
from homing_server.store.effects import CommitEffects
from homing_server.store.invocation_rows import Change, record_of, waiting_call
from homing_server.store.outbox import held_by
from homing_server.store.record import apply_events, known_invocations, select_invocations, store_changes

_invocations = schema.invocations
_select_under_way = select(_invocations.c.id, _invocations.c.due_us, _invocations.c.history).where(
    schema.live(_invocations), held_by(_invocations, [Custody.CALLER])
)

_put_off_loss = (
    update(_invocations)
    .where(_invocations.c.id == bindparam("key"), schema.live(_invocations), held_by(_invocations, [Custody.CALLER]))
    .values(due_us=bindparam("lost_us"))
)


@dataclass(frozen=True, kw_only=True, slots=True)
class CallUnderWay:
    """A synchronous call that has a record and has not ended, as far as is known."""

    id: str
    worker: str
    """Who runs it; empty where it has not started."""
    lost_us: int
    """When it is lost, in microseconds since the epoch."""


def record_calls(connection: Connection, calls: Mapping[str, SyncRequest], events: Sequence[Event]) -> CommitEffects:
    """Record calls, by id, that have no record yet, then what happened to these and to others."""
    effects = CommitEffects()
    known = known_invocations(connection, calls)
    fresh = {key: (request, waiting_call(request)) for key, request in calls.items() if key not in known}
    insert_calls(connection, fresh, effects)
    lives: dict[str, list[Event]] = {}
    for event in events:
        lives.setdefault(event.invocation_id, []).append(event)
    apply_events(connection, lives, effects)
    return effects


def under_way(connection: Connection) -> list[CallUnderWay]:
    """Return all calls that are under way."""
    calls = []
    for key, due_us, history in connection.execute(_select_under_way):
        attempts = History.FromString(history).attempts
        calls.append(CallUnderWay(id=key, worker=attempts[-1].worker if attempts else "", lost_us=due_us))
    return calls


def put_off_loss(connection: Connection, ids: Sequence[str], *, lost_us: int) -> None:
    """Note that calls which are under way are not to end by their deadlines, but by this time."""
    connection.execute(_put_off_loss, [{"key": key, "lost_us": lost_us} for key in ids])


def end_lost(connection: Connection, ids: Collection[str], *, now_us: int) -> CommitEffects:
    """End calls of whose end nobody reports any more, unless they have ended since."""
    changes = []
    for row in select_invocations(connection, ids):
        before = record_of(row)
        step = lifecycle.invocation.call_lost(before, time_us=now_us)
        if isinstance(step, Step):
            changes.append(Change.of(row, before, step))
    effects = CommitEffects()
    store_changes(connection, changes, effects)
    return effects


def end_all_lost(connection: Connection, *, now_us: int) -> int:
    """End all calls, as the broker has lost its messages and its workers; tell how many there were."""
    calls = [call.id for call in under_way(connection)]
    end_lost(connection, calls, now_us=now_us)
    return len(calls)
