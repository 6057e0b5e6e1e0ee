"""Dead letters in the store: made with the end of what came to nothing, and removed when somebody has seen to them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    and_,
    bindparam,
    delete,
    func,
    insert,
    or_,
    select,
    tuple_,
)

from homing.v1.dead_letter_pb2 import (
    DEAD_LETTER_KIND_DELIVERY,
    DEAD_LETTER_KIND_INVOCATION,
    DEAD_LETTER_KIND_UNSPECIFIED,
    DeadLetter,
    DeadLetterFilter,
)
from homing_core import lifecycle
from homing_core.lifecycle import Delivery, Step
from homing_server.store import schema
from homing_server.store.delivery_rows import LIFE, read_delivery, store_deliveries
from homing_server.store.invocation_rows import Change, delivery_of, record_of, timestamp

_dead_letters = schema.dead_letters
_deliveries = schema.deliveries
_invocations = schema.invocations

_insert = insert(_dead_letters)
_select_deliveries = select(_deliveries).where(_deliveries.c.id.in_(bindparam("ids", expanding=True)))
_select_lives = select(_deliveries.c.id, *LIFE).where(_deliveries.c.id.in_(bindparam("ids", expanding=True)))
_select_run_again = select(_invocations.c.rerun_of).where(
    _invocations.c.id.in_(bindparam("ids", expanding=True)), _invocations.c.rerun_of.is_not(None)
)
_select_invocations = select(_invocations).where(_invocations.c.id.in_(bindparam("ids", expanding=True)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A place in the list, which begins with the newest."""

    time_us: int
    id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """A part of the list."""

    dead_letters: Sequence[DeadLetter]
    next: Place | None
    """Where the next page begins; None at the end."""


def add_invocations(connection: Connection, dead: Sequence[Change], *, now_us: int) -> None:
    """Make the dead letters of asynchronous invocations that came to nothing.

    :param now_us: The server's time, which orders them: that of the worker may be another.
    """
    rows = [
        {
            "id": change.row.id,
            "kind": DEAD_LETTER_KIND_INVOCATION,
            "invocation_id": change.row.id,
            "function": change.row.function,
            "time_us": now_us,
        }
        for change in dead
    ]
    connection.execute(_insert, rows)


@dataclass(frozen=True, kw_only=True, slots=True)
class DeadDelivery:
    """A delivery that came to nothing."""

    id: str
    invocation_id: str
    function: str


def add_deliveries(connection: Connection, deliveries: Sequence[DeadDelivery], *, now_us: int) -> None:
    """Make the dead letters of deliveries that are given up."""
    rows = [
        {
            "id": each.id,
            "kind": DEAD_LETTER_KIND_DELIVERY,
            "invocation_id": each.invocation_id,
            "function": each.function,
            "time_us": now_us,
        }
        for each in deliveries
    ]
    if rows:
        connection.execute(_insert, rows)


def page_of(
    connection: Connection, selection: DeadLetterFilter, *, after: Place | None, until_us: int, size: int
) -> Page:
    """Return dead letters that a filter selects, the newest first.

    :param until_us: Those that came later are left out.
    """
    query = (
        select(_dead_letters)
        .where(_selected(selection, until_us))
        .order_by(_dead_letters.c.time_us.desc(), _dead_letters.c.id.desc())
        .limit(size + 1)
    )
    if after is not None:
        query = query.where(tuple_(_dead_letters.c.time_us, _dead_letters.c.id) < tuple_(after.time_us, after.id))
    rows = connection.execute(query).all()
    shown = rows[:size]
    last = shown[-1] if len(rows) > size else None
    return Page(
        dead_letters=_shown(connection, shown),
        next=None if last is None else Place(time_us=last.time_us, id=last.id),
    )


def count(connection: Connection, selection: DeadLetterFilter, *, until_us: int) -> int:
    """Return how many dead letters a filter selects."""
    query = select(func.count()).select_from(_dead_letters).where(_selected(selection, until_us))
    return connection.execute(query).scalar_one()


def count_by_kind(connection: Connection) -> dict[int, int]:
    """Return how many dead letters there are of each kind."""
    query = select(_dead_letters.c.kind, func.count()).group_by(_dead_letters.c.kind)
    return {kind: number for kind, number in connection.execute(query)}  # noqa: C416 rows are no pairs


def remove(connection: Connection, ids: Collection[str]) -> int:
    """Forget dead letters; return how many of them there were."""
    statement = delete(_dead_letters).where(_dead_letters.c.id.in_(bindparam("ids", expanding=True)))
    return connection.execute(statement, {"ids": list(ids)}).rowcount


def remove_cured(connection: Connection, reruns: Collection[str]) -> None:
    """Forget the dead letters of what these ended well for: of what they run again, and what that ran again.

    :param reruns: The ids of invocations that were run again, and succeeded.
    """
    ids = set(reruns)
    while ids:
        remove(connection, ids)
        ids = set(connection.execute(_select_run_again, {"ids": list(ids)}).scalars())


def purge(connection: Connection, selection: DeadLetterFilter, *, until_us: int, most: int) -> int:
    """Forget some that a filter selects; return how many.

    :param until_us: Those that came later are left out.
    :param most: How many at the most.
    """
    some = select(_dead_letters.c.id).where(_selected(selection, until_us)).limit(most)
    return connection.execute(delete(_dead_letters).where(_dead_letters.c.id.in_(some))).rowcount


def redrive(connection: Connection, due_us: dict[str, int]) -> int:
    """Let dead deliveries be made again, where their dead letters are still there; return how many are.

    :param due_us: When each is due.
    """
    forgotten = delete(_dead_letters).where(_dead_letters.c.id.in_(list(due_us))).returning(_dead_letters.c.id)
    keys = connection.execute(forgotten).scalars().all()
    redriven: dict[str, Delivery] = {}
    for key, *life in connection.execute(_select_lives, {"ids": keys}):
        step = lifecycle.delivery.redriven(read_delivery(life), due_us=due_us[key])
        if isinstance(step, Step):
            redriven[key] = step.after
    store_deliveries(connection, redriven)
    return len(redriven)


def _selected(selection: DeadLetterFilter, until_us: int) -> ColumnElement[bool]:
    conditions: list[ColumnElement[bool]] = [_dead_letters.c.time_us <= until_us]
    if selection.ids:
        conditions.append(_dead_letters.c.id.in_(list(selection.ids)))
    if selection.kind != DEAD_LETTER_KIND_UNSPECIFIED:
        conditions.append(_dead_letters.c.kind == selection.kind)
    if selection.functions:
        # One by one, so that each is found by the index.
        conditions.append(or_(*(_dead_letters.c.function == name for name in sorted(set(selection.functions)))))
    if selection.time.HasField("start_time"):
        conditions.append(_dead_letters.c.time_us >= selection.time.start_time.ToMicroseconds())
    if selection.time.HasField("end_time"):
        conditions.append(_dead_letters.c.time_us < selection.time.end_time.ToMicroseconds())
    return and_(*conditions)


def _shown(connection: Connection, rows: Sequence[Row[Any]]) -> list[DeadLetter]:
    asked = {"ids": list({row.invocation_id for row in rows})}
    invocations = {row.id: row for row in connection.execute(_select_invocations, asked)}
    asked = {"ids": [row.id for row in rows if row.kind == DEAD_LETTER_KIND_DELIVERY]}
    deliveries = {row.id: row for row in connection.execute(_select_deliveries, asked)}
    return [_dead_letter(row, invocations[row.invocation_id], deliveries.get(row.id)) for row in rows]


def _dead_letter(row: Row[Any], invocation: Row[Any], delivery: Row[Any] | None) -> DeadLetter:
    dead_letter = DeadLetter(
        id=row.id,
        kind=row.kind,
        invocation_id=row.invocation_id,
        function=row.function,
        state=invocation.state,
        time=timestamp(row.time_us),
    )
    if delivery is None:
        failure = record_of(invocation).failure
        if failure is not None:
            dead_letter.failure.CopyFrom(failure)
    else:
        dead_letter.delivery.CopyFrom(delivery_of(delivery))
        attempts = dead_letter.delivery.attempts
        if attempts and attempts[-1].HasField("failure"):
            dead_letter.failure.CopyFrom(attempts[-1].failure)
    return dead_letter
