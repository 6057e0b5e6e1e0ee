"""Tombstones: the dispatches of stopped invocations that must not start, for as long as their messages may exist."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import ColumnElement, Connection, and_, bindparam, delete, func, insert, select, update

from homing_core.lifecycle import State
from homing_core.lifecycle.custody import AT_BROKER
from homing_core.wire.v1 import Tombstone
from homing_server.store import schema
from homing_server.store.invocation_rows import Change
from homing_server.store.outbox import Dispatch, held_by

_tombstones = schema.tombstones
_invocations = schema.invocations

_note_gone = (
    update(_tombstones)
    .where(
        _tombstones.c.invocation_id == bindparam("key"),
        _tombstones.c.generation == bindparam("dispatch"),
    )
    .values(gone_us=bindparam("time_us"))
)


def insert_all(connection: Connection, stopping: Sequence[Change], *, now_us: int) -> None:
    """Make the tombstones of invocations that become STOPPING."""
    rows = [
        {
            "invocation_id": change.row.id,
            "function": change.row.function,
            "generation": change.row.generation,
            "size": change.row.size,
            "create_us": now_us,
            # What has a lease, or came back to the store, does not count as a message at the broker.
            "gone_us": 0 if change.before.custody in AT_BROKER else now_us,
        }
        for change in stopping
    ]
    if rows:
        connection.execute(insert(_tombstones), rows)


def all_stops(connection: Connection) -> list[Tombstone]:
    """Return every dispatch that must not start."""
    query = select(_tombstones.c.invocation_id, _tombstones.c.generation)
    return [Tombstone(invocation_id=key, generation=generation) for key, generation in connection.execute(query)]


def note_gone(connection: Connection, dispatches: Collection[Dispatch], *, now_us: int) -> None:
    """Note that the messages of these dispatches were let go.

    Whoever let them go may have died before the broker knew: so the tombstones stay for a while.
    """
    if dispatches:
        gone = [{"key": key, "dispatch": generation, "time_us": now_us} for key, generation in dispatches]
        connection.execute(_note_gone, gone)


def at_broker(connection: Connection) -> dict[str, tuple[int, int]]:
    """Return by function how many messages, and bytes, are to be added to what the custody of records says.

    The message of a stopped invocation stays at the broker until a worker lets it go, whatever has become of the
    record: it counts by its tombstone, and not by the custody of its record.
    """
    there = (
        select(_tombstones.c.function, func.count(), func.sum(_tombstones.c.size))
        .where(_tombstones.c.gone_us == 0)
        .group_by(_tombstones.c.function)
    )
    counted = (
        select(_invocations.c.function, func.count(), func.sum(_invocations.c.size))
        .where(_invocations.c.state == int(State.STOPPING), held_by(_invocations, AT_BROKER))
        .group_by(_invocations.c.function)
    )
    loads: dict[str, tuple[int, int]] = {}
    for sign, query in ((1, there), (-1, counted)):
        for function, messages, size in connection.execute(query):
            others = loads.get(function, (0, 0))
            loads[function] = others[0] + sign * messages, others[1] + sign * size
    return loads


def forgettable(connection: Connection, *, before_us: int) -> list[str]:
    """Return the functions that have tombstones of messages which nobody has heard of since a time."""
    return list(connection.execute(select(_tombstones.c.function).where(_unheard(before_us)).distinct()).scalars())


def forget(connection: Connection, function: str, *, before_us: int) -> None:
    """Remove a function's tombstones whose messages nobody has heard of since a time; STOPPING ones are kept."""
    stopping = select(_invocations.c.id).where(_invocations.c.state == int(State.STOPPING))
    connection.execute(
        delete(_tombstones).where(
            _tombstones.c.function == function, _unheard(before_us), _tombstones.c.invocation_id.not_in(stopping)
        )
    )


def forget_function(connection: Connection, function: str) -> None:
    """Remove all tombstones of a function whose queues are gone."""
    connection.execute(delete(_tombstones).where(_tombstones.c.function == function))


def forget_all(connection: Connection) -> None:
    """Remove all tombstones, as no messages are left."""
    connection.execute(delete(_tombstones))


def _unheard(since_us: int) -> ColumnElement[bool]:
    return and_(_tombstones.c.create_us < since_us, _tombstones.c.gone_us < since_us)
