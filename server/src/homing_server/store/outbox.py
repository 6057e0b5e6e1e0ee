"""The outbox: what was committed as sent, until the broker has confirmed it or it is taken back to be sent again.

Invocations and deliveries go the same way. Many go at once, in a statement that is made from the life cycle's own
transitions: :mod:`homing_core.lifecycle.custody` says who may hold what goes this way, and what changes.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Table, bindparam, case, literal_column, or_, select, update
from sqlalchemy.sql.dml import Update

from homing_core import lifecycle
from homing_core.lifecycle import Custody, Transfer
from homing_core.lifecycle.custody import AT_BROKER, CONFIRM, LOSE, TAKE_BACK
from homing_server.store import schema

Dispatch = tuple[str, int]
"""The id of an invocation or a delivery, and the generation of one of its dispatches."""

_MOST: Final = 1000
"""So many forgotten ones are looked for at a time."""

Assignments = dict[str, Any]


class Outbox:
    """What of one table is on its way to the broker."""

    def __init__(self, table: Table, *, begun_anew: int, withdrawn: int | None = None) -> None:
        """Make the statements once: that costs more than to run them.

        :param begun_anew: The state of what a broker has lost.
        :param withdrawn: The state of what is not sent again: what is taken back in it counts as confirmed.
        """
        self._table = table
        back, lost = _assigned(TAKE_BACK), update(table).where(schema.live(table), held_by(table, LOSE.sources))
        if withdrawn is not None:
            is_withdrawn, instead = table.c.state == withdrawn, _assigned(CONFIRM)
            back = {name: case((is_withdrawn, instead[name]), else_=value) for name, value in back.items()}
            lost = lost.where(~is_withdrawn)
        self._confirm = self._settle(CONFIRM, _assigned(CONFIRM))
        self._take_back = self._settle(TAKE_BACK, back)
        self._take_back_all = lost.values(_assigned(LOSE) | {"state": begun_anew})
        unstarted = held_by(table, AT_BROKER) & (table.c.state == int(lifecycle.State.ENQUEUED))
        self._take_back_unstarted = self._take_back_all.where(unstarted)
        self._take_back_lost = self._take_back_unstarted.where(
            table.c.id == bindparam("key"), table.c.generation == bindparam("dispatch")
        )
        self._select_unstarted = select(table.c.id, table.c.generation).where(
            schema.live(table), unstarted, held_by(table, {Custody.BROKER})
        )
        self._select_forgotten = (
            select(table.c.id, table.c.generation)
            .where(schema.live(table), held_by(table, TAKE_BACK.sources), table.c.sent_us < bindparam("sent_before_us"))
            .limit(_MOST)
        )

    def confirm(self, connection: Connection, dispatches: Collection[Dispatch]) -> None:
        """Note that the broker has confirmed these dispatches, unless they have gone further since."""
        connection.execute(self._confirm, [{"key": key, "dispatch": generation} for key, generation in dispatches])

    def take_back(self, connection: Connection, dispatches: Collection[Dispatch], *, due_us: int) -> None:
        """Return what was not, or perhaps not, published to the store, unless it has gone further since."""
        connection.execute(
            self._take_back,
            [{"key": key, "dispatch": generation, "time_us": due_us} for key, generation in dispatches],
        )

    def take_back_all(self, connection: Connection, *, due_us: int) -> int:
        """Return all that was at a broker which kept nothing, or with its workers, to the store; count it."""
        return connection.execute(self._take_back_all, {"time_us": due_us}).rowcount

    def take_back_unstarted(self, connection: Connection, function: str, *, due_us: int) -> int:
        """Return what a function has at a broker, and that has not started, to the store; count it."""
        statement = self._take_back_unstarted.where(self._table.c.function == function)
        return connection.execute(statement, {"time_us": due_us}).rowcount

    def take_back_lost(self, connection: Connection, dispatches: Collection[Dispatch], *, due_us: int) -> int:
        """Return dispatches that the broker has lost, unless they have gone further since, to the store; count them."""
        rows = [{"key": key, "dispatch": generation, "time_us": due_us} for key, generation in dispatches]
        return connection.execute(self._take_back_lost, rows).rowcount

    def unstarted(self, connection: Connection, function: str) -> set[Dispatch]:
        """Return the dispatches of a function that the broker has confirmed and no worker has started."""
        found = connection.execute(self._select_unstarted.where(self._table.c.function == function))
        return {(key, generation) for key, generation in found}

    def forgotten(self, connection: Connection, *, sent_before_us: int) -> list[Dispatch]:
        """Return dispatches that were committed so long ago that their dispatcher should have seen them confirmed."""
        found = connection.execute(self._select_forgotten, {"sent_before_us": sent_before_us})
        return [(key, generation) for key, generation in found]

    def _settle(self, transfer: Transfer, values: Assignments) -> Update:
        table = self._table
        statement = update(table).where(table.c.id == bindparam("key"), held_by(table, transfer.sources)).values(values)
        return statement.where(table.c.generation == bindparam("dispatch")) if transfer.fenced else statement


def held_by(table: Table, holders: Collection[Custody]) -> ColumnElement[bool]:
    """Return the condition that one of these holds a row."""
    # No IN, which statements for many rows cannot have; SQLite takes it for the same.
    return or_(*(table.c.custody == int(holder) for holder in sorted(holders)))


def _assigned(transfer: Transfer) -> Assignments:
    """Return what a transfer sets; the statement's parameter ``time_us`` is its time."""
    time: ColumnElement[int] = bindparam("time_us")
    # What is the same for all rows is part of the statement: parameters cost more.
    return {
        "custody": literal_column(str(int(transfer.target))),
        "due_us": time if transfer.target is Custody.STORE else literal_column("0"),
        "sent_us": time if transfer.target is Custody.SENT else literal_column("0"),
    }


INVOCATIONS: Final = Outbox(
    schema.invocations, begun_anew=lifecycle.invocation.BEGUN_ANEW, withdrawn=lifecycle.invocation.WITHDRAWN
)
DELIVERIES: Final = Outbox(schema.deliveries, begun_anew=lifecycle.delivery.BEGUN_ANEW)
