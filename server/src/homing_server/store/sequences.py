"""Counters that are raised within transactions: the numbers of results and changes, epochs, versions."""

from __future__ import annotations

from functools import cache

from sqlalchemy import Connection, bindparam, case, select, update
from sqlalchemy.sql.dml import ReturningUpdate

from homing_server.store import schema

_table = schema.counters

# Making a statement costs more than running it: those that run often are made once.
_read = select(_table.c.name, _table.c.value)
_hold_epoch = (
    update(_table)
    .where(_table.c.name == schema.EPOCH, _table.c.value == bindparam("epoch"))
    .values(value=_table.c.value)
)


def raise_counters(connection: Connection, steps: dict[str, int]) -> dict[str, int]:
    """Raise counters by their steps and return their new values.

    Their rows are locked until the transaction ends: what it numbered is seen before what a later one numbered.
    """
    rows = connection.execute(_raise(tuple(sorted(steps))), steps)
    return {row.name: row.value for row in rows}


def read_counters(connection: Connection) -> dict[str, int]:
    """Return all counters."""
    return {row.name: row.value for row in connection.execute(_read)}


def holds_epoch(connection: Connection, epoch: int) -> bool:
    """Tell whether this epoch is still the last one, and keep it so until the transaction ends."""
    return connection.execute(_hold_epoch, {"epoch": epoch}).rowcount == 1


@cache
def _raise(names: tuple[str, ...]) -> ReturningUpdate[str, int]:
    step = case({name: bindparam(name) for name in names}, value=_table.c.name)
    return (
        update(_table)
        .where(_table.c.name.in_(names))
        .values(value=_table.c.value + step)
        .returning(_table.c.name, _table.c.value)
    )
