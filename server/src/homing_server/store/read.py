"""Reads records as the API shows them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, bindparam, select

from homing.v1 import invocation_pb2 as api
from homing_server.store import schema
from homing_server.store.invocation_rows import invocation_of

_invocations = schema.invocations

# Making a statement costs more than running it: those that run often are made once.
_ended_after = _invocations.c.result_seq > bindparam("seq")
_PAGE_BYTES = 1024 * 1024
"""A page of results or changes ends after about so many bytes: there are many readers, each with a page in memory."""
_of_ids = _invocations.c.id.in_(bindparam("ids", expanding=True))
_bodies_of = schema.payloads.c.invocation_id == _invocations.c.id
_select_invocations = {
    # Bodies that nobody wants are not read: there may be very many, and they are large.
    (): select(_invocations).where(_of_ids),
    ("result",): select(_invocations, schema.payloads.c.result).join(schema.payloads, _bodies_of).where(_of_ids),
    ("request",): select(_invocations, schema.payloads.c.request).join(schema.payloads, _bodies_of).where(_of_ids),
    ("request", "result"): select(_invocations, schema.payloads.c.request, schema.payloads.c.result)
    .join(schema.payloads, _bodies_of)
    .where(_of_ids),
}
"""By the bodies that are wanted."""
_select_results = (
    select(_invocations, schema.payloads.c.result)
    .join(schema.payloads, schema.payloads.c.invocation_id == _invocations.c.id)
    .where(_ended_after)
    .order_by(_invocations.c.result_seq)
    .limit(bindparam("most"))
)
_select_changes = (
    select(_invocations, schema.payloads.c.result)
    .join(schema.payloads, schema.payloads.c.invocation_id == _invocations.c.id)
    .where(_invocations.c.change_seq > bindparam("seq"))
    .order_by(_invocations.c.change_seq)
    .limit(bindparam("most"))
)
_select_ends = (
    select(_invocations.c.result_seq, _invocations.c.id)
    .where(_ended_after)
    .order_by(_invocations.c.result_seq)
    .limit(bindparam("most"))
)
_select_deliveries = (
    select(schema.deliveries)
    .where(schema.deliveries.c.invocation_id.in_(bindparam("ids", expanding=True)))
    .order_by(schema.deliveries.c.id)
)


@dataclass(kw_only=True, slots=True)
class Numbered:
    """An invocation with its place in the order of results, or of changes."""

    seq: int
    invocation: api.Invocation
    size: int
    """Bytes that it takes, about."""
    message: bytes = b""
    """The message to watchers, serialised once for all of them; empty until it is needed."""


def get_invocations(
    connection: Connection, ids: Collection[str], *, include_payload: bool, include_result: bool = True
) -> list[api.Invocation]:
    """Return those of these invocations that there are, with their deliveries."""
    wanted = (("request",) if include_payload else ()) + (("result",) if include_result else ())
    rows = connection.execute(_select_invocations[wanted], {"ids": list(ids)}).all()
    deliveries = deliveries_of(connection, [row.id for row in rows])
    return [
        invocation_of(
            row,
            request=row.request if include_payload else None,
            result=row.result if include_result else None,
            deliveries=deliveries[row.id],
        )
        for row in rows
    ]


def results_after(connection: Connection, seq: int, *, most: int) -> list[Numbered]:
    """Return the results that were numbered after this one, in order."""
    return _page(connection, _select_results, "result_seq", seq=seq, most=most)


def changes_after(connection: Connection, seq: int, *, most: int) -> list[Numbered]:
    """Return the invocations whose last change was numbered after this one, in the order of these changes."""
    return _page(connection, _select_changes, "change_seq", seq=seq, most=most)


def _page(connection: Connection, query: Select[Any], number: str, *, seq: int, most: int) -> list[Numbered]:
    rows, _ = take_page(connection.execute(query, {"seq": seq, "most": most}), size=most, max_bytes=_PAGE_BYTES)
    deliveries = deliveries_of(connection, [row.id for row in rows])
    return [
        Numbered(
            seq=getattr(row, number),
            invocation=invocation_of(row, result=row.result, deliveries=deliveries[row.id]),
            size=size_of(row),
        )
        for row in rows
    ]


def take_page(rows: Iterable[Row[Any]], *, size: int, max_bytes: int) -> tuple[list[Row[Any]], bool]:
    """Return the first rows of invocations, one at least where there is one, and whether others follow.

    :param size: How many at the most.
    :param max_bytes: How many bytes they may take, about. No more than that, and one row, is read into memory.
    """
    page: list[Row[Any]] = []
    room = max_bytes
    for row in rows:
        room -= size_of(row)
        if page and (len(page) == size or room < 0):
            return page, True
        page.append(row)
    return page, False


def size_of(row: Row[Any]) -> int:
    """Return how many bytes an invocation takes with what was read of it, about."""
    bodies = (getattr(row, "request", None), getattr(row, "result", None))
    return len(row.spec) + len(row.history) + sum(len(body) for body in bodies if body is not None)


def ended_after(connection: Connection, seq: int, *, most: int) -> list[tuple[int, str]]:
    """Return number and id of the invocations that ended after this number, in order."""
    rows = connection.execute(_select_ends, {"seq": seq, "most": most})
    return [(number, invocation_id) for number, invocation_id in rows]


def deliveries_of(connection: Connection, ids: Iterable[str]) -> dict[str, Sequence[Row[Any]]]:
    """Return the deliveries of invocations, by invocation, in the order in which they were made."""
    found: dict[str, list[Row[Any]]] = defaultdict(list)
    for row in connection.execute(_select_deliveries, {"ids": list(ids)}):
        found[row.invocation_id].append(row)
    return defaultdict(list, found)
