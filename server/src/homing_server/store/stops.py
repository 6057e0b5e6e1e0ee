"""Stops in the store: who is to be stopped, which workers may hold work, and whose messages may still be somewhere.

A stop and its tombstone are committed together, and so are a worker's row and the tombstones that it is sent. So
whoever might start an invocation without knowing of its stop was in the table of workers when the stop was committed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, func, or_, select
from sqlalchemy.dialects.sqlite import insert as upsert

from homing.v1 import invocation_pb2 as api
from homing_core import lifecycle
from homing_core.lifecycle import ENDS, Effect, State, Step
from homing_core.wire.v1 import Tombstone
from homing_server.store import schema, tombstones
from homing_server.store.effects import CommitEffects
from homing_server.store.invocation_rows import Change, record_of
from homing_server.store.list_pages import Place, page_query
from homing_server.store.record import select_invocations, store_changes

_invocations = schema.invocations
_workers = schema.workers

_BATCH_SIZE = 500

STOPPABLE = tuple(state for state in State if state not in ENDS and state is not State.STOPPING)
"""The states of invocations that can be stopped."""


@dataclass(kw_only=True, slots=True)
class Requested:
    """What requests to stop have changed."""

    effects: CommitEffects = field(default_factory=CommitEffects)
    states: dict[str, State] = field(default_factory=dict)
    """By id, the state of each invocation that there is: that of before where it had ended or was STOPPING."""
    stops: list[Tombstone] = field(default_factory=list)
    """Those that may be in flight."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UnderWay:
    """The stops that are not certain yet, and the workers that they wait for."""

    stops: Sequence[Tombstone]
    workers: frozenset[str]


def request_stop(connection: Connection, invocation_id: str, *, caller: str, reason: str, now_us: int) -> Requested:
    """Stop one invocation, or ask for it where it may be in flight."""
    rows = select_invocations(connection, [invocation_id])
    return _request(connection, rows, caller=caller, reason=reason, now_us=now_us)


def request_page(
    connection: Connection,
    selection: api.InvocationFilter,
    *,
    after: Place | None,
    accepted_by_us: int,
    caller: str,
    reason: str,
    now_us: int,
) -> tuple[Requested, Place | None]:
    """Stop a page of those that a filter selects; return also where the next page goes on, None at the end."""
    query = page_query(selection, oldest_first=True, after=after, size=_BATCH_SIZE)
    rows = connection.execute(query.where(_invocations.c.create_us <= accepted_by_us)).all()
    more = len(rows) > _BATCH_SIZE
    rows = rows[:_BATCH_SIZE]
    requested = _request(connection, rows, caller=caller, reason=reason, now_us=now_us)
    return requested, Place(create_us=rows[-1].create_us, id=rows[-1].id) if more else None


def count(connection: Connection, selection: api.InvocationFilter, *, accepted_by_us: int) -> int:
    """Count those that a filter selects."""
    query = page_query(selection, oldest_first=True, after=None, size=0).limit(None).order_by(None)
    found = query.where(_invocations.c.create_us <= accepted_by_us).with_only_columns(_invocations.c.id)
    return connection.execute(select(func.count()).select_from(found.subquery())).scalar_one()


def split(selection: api.InvocationFilter, states: Iterable[State]) -> Iterator[api.InvocationFilter]:
    """Split a filter into some that each select one state of one function: an index has these in the order of pages."""
    for state in states:
        if selection.states and int(state) not in map(int, selection.states):
            continue
        for function in selection.functions or [""]:
            one = api.InvocationFilter()
            one.CopyFrom(selection)
            one.ClearField("states")
            one.ClearField("functions")
            one.states.append(api.InvocationState.ValueType(state))
            one.functions.extend([function] if function else [])
            yield one


def enroll(connection: Connection, worker: str, *, now_us: int) -> list[Tombstone]:
    """Note that a worker may hold work from now on; return all that it must know not to start."""
    row = {"name": worker, "hello_us": now_us}
    connection.execute(upsert(_workers).values(row).on_conflict_do_update(index_elements=["name"], set_=row))
    return tombstones.all_stops(connection)


def dismiss(
    connection: Connection, *, left: Collection[str], silent: Collection[str], hello_before_us: int
) -> frozenset[str]:
    """Note that workers hold nothing any more, and return them.

    :param left: Those that said so.
    :param silent: Those that were not heard of, unless they have greeted anew, at another server perhaps.
    """
    gone = or_(_workers.c.name.in_(left), and_(_workers.c.name.in_(silent), _workers.c.hello_us < hello_before_us))
    return frozenset(connection.execute(delete(_workers).where(gone).returning(_workers.c.name)).scalars())


def under_way(connection: Connection, *, most: int) -> UnderWay:
    """Return stops that are not certain yet, and in the same state of the store who may hold work."""
    stopping = (
        select(_invocations.c.id, _invocations.c.generation)
        .where(_invocations.c.state == int(State.STOPPING))
        .limit(most)
    )
    return UnderWay(
        stops=[Tombstone(invocation_id=key, generation=generation) for key, generation in connection.execute(stopping)],
        workers=frozenset(connection.execute(select(_workers.c.name)).scalars()),
    )


def stop_all(connection: Connection, ids: Iterable[str], *, now_us: int) -> CommitEffects:
    """End those that are STOPPING still: they are in flight nowhere, nor ever will be."""
    changes = []
    for row in select_invocations(connection, ids):
        before = record_of(row)
        step = lifecycle.invocation.stopped(before, time_us=now_us)
        if isinstance(step, Step):
            changes.append(Change.of(row, before, step))
    effects = CommitEffects()
    store_changes(connection, changes, effects)
    return effects


def stop_all_lost(connection: Connection, *, now_us: int) -> int:
    """End all stops, as the broker has lost its messages and its workers; tell how many there were."""
    count = 0
    while found := under_way(connection, most=_BATCH_SIZE).stops:
        stop_all(connection, [stop.invocation_id for stop in found], now_us=now_us)
        count += len(found)
    tombstones.forget_all(connection)
    connection.execute(delete(_workers))
    return count


def _request(connection: Connection, rows: Sequence[Row[Any]], *, caller: str, reason: str, now_us: int) -> Requested:
    requested = Requested()
    changes = []
    for row in rows:
        before = record_of(row)
        step = lifecycle.invocation.stop_requested(before, caller=caller, reason=reason, time_us=now_us)
        requested.states[row.id] = before.state
        if isinstance(step, Step):
            changes.append(Change.of(row, before, step))
            requested.states[row.id] = step.after.state
            if Effect.WRITE_TOMBSTONE in step.effects:
                requested.stops.append(Tombstone(invocation_id=row.id, generation=row.generation))
    store_changes(connection, changes, requested.effects)
    return requested
