"""Numbers that are raised within transactions."""

from __future__ import annotations

from sqlalchemy import Connection, case, select, update

from homing_server.store import schema

_table = schema.counters


def raise_counters(connection: Connection, steps: dict[str, int]) -> dict[str, int]:
    """Raise counters by their steps and return their new values.

    Their rows are locked until the transaction ends: what it numbered is seen before what a later one numbered.
    """
    step = case(steps, value=_table.c.name)
    statement = (
        update(_table)
        .where(_table.c.name.in_(sorted(steps)))
        .values(value=_table.c.value + step)
        .returning(_table.c.name, _table.c.value)
    )
    return {row.name: row.value for row in connection.execute(statement)}


def read_counters(connection: Connection) -> dict[str, int]:
    """Return all counters."""
    return {row.name: row.value for row in connection.execute(select(_table))}


def holds_epoch(connection: Connection, epoch: int) -> bool:
    """Tell whether this epoch is still the last one, and keep it so until the transaction ends."""
    statement = update(_table).where(_table.c.name == schema.EPOCH, _table.c.value == epoch).values(value=epoch)
    return connection.execute(statement).rowcount == 1
