"""Retention in the store: removes ended records, and remembers how far: no watch goes on from before that."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, delete, exists, func, select, update

from homing_server.store import schema
from homing_server.store.blobs import release_blobs
from homing_server.store.sequences import raise_counters

_invocations = schema.invocations
_functions = schema.functions

_select_expired = (
    select(_invocations.c.end_us, _invocations.c.id)
    .where(
        schema.ended(_invocations),
        _invocations.c.function == bindparam("function"),
        _invocations.c.end_us < bindparam("ended_before_us"),
        ~exists()
        .where(schema.deliveries.c.invocation_id == _invocations.c.id, schema.deliveries.c.custody > 0)
        .correlate(_invocations),
    )
    .order_by(_invocations.c.end_us)
    .limit(bindparam("most"))
)
_among_these = _invocations.c.id.in_(bindparam("ids", expanding=True))
_select_last = (
    select(_invocations.c.function, func.max(_invocations.c.result_seq), func.max(_invocations.c.change_seq))
    .where(_among_these)
    .group_by(_invocations.c.function)
)
_raise_floor = (
    update(_functions)
    .where(_functions.c.name == bindparam("function"))
    .values(
        removed_result_seq=func.max(_functions.c.removed_result_seq, bindparam("result_seq")),
        removed_change_seq=func.max(_functions.c.removed_change_seq, bindparam("change_seq")),
    )
)
_delete_logs = delete(schema.logs).where(schema.logs.c.invocation_id.in_(bindparam("ids", expanding=True)))
_delete_invocations = delete(_invocations).where(_among_these)


@dataclass(frozen=True, kw_only=True, slots=True)
class Floor:
    """The highest numbers of what was removed of some functions."""

    result_seq: int
    change_seq: int


def expired(connection: Connection, ended_before_us: Mapping[str, int], *, most: int) -> list[str]:
    """Return the ids of records that ended before a time and have nothing to deliver, the oldest first.

    :param ended_before_us: The time for each function.
    :param most: How many of each function at the most.
    """
    found: list[tuple[int, str]] = []
    for function, time_us in ended_before_us.items():
        asked = {"function": function, "ended_before_us": time_us, "most": most}
        found.extend((end_us, key) for end_us, key in connection.execute(_select_expired, asked))
    return [key for _, key in sorted(found)]


def remove(connection: Connection, ids: Collection[str]) -> int:
    """Remove ended records with all that belongs to them; return how many of them there were."""
    asked = {"ids": list(ids)}
    for function, result_seq, change_seq in connection.execute(_select_last, asked).all():
        last = {"function": function, "result_seq": result_seq, "change_seq": change_seq}
        connection.execute(_raise_floor, last)
    connection.execute(_delete_logs, asked)
    release_blobs(connection, ids)
    # Payloads, labels and deliveries go with their invocation.
    count = connection.execute(_delete_invocations, asked).rowcount
    raise_counters(connection, {schema.REMOVED: count})
    return count


def floor_of(connection: Connection, functions: Collection[str]) -> Floor:
    """Return how far these functions' records may have been removed; of all functions where none is named."""
    query = select(func.max(_functions.c.removed_result_seq), func.max(_functions.c.removed_change_seq))
    if functions:
        query = query.where(_functions.c.name.in_(sorted(functions)))
    result_seq, change_seq = connection.execute(query).one()
    return Floor(result_seq=result_seq or 0, change_seq=change_seq or 0)
