"""Reads records as the API shows them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, bindparam, select

from homing.v1 import invocation_pb2 as api
from homing_server.store import schema
from homing_server.store.records import invocation_of

_invocations = schema.invocations

# Making a statement costs more than running it: those that run often are made once.
_ended_after = _invocations.c.result_seq > bindparam("seq")
_select_invocations = (
    select(_invocations, schema.payloads.c.request, schema.payloads.c.result)
    .join(schema.payloads, schema.payloads.c.invocation_id == _invocations.c.id)
    .where(_invocations.c.id.in_(bindparam("ids", expanding=True)))
)
_select_results = (
    select(_invocations, schema.payloads.c.result)
    .join(schema.payloads, schema.payloads.c.invocation_id == _invocations.c.id)
    .where(_ended_after)
    .order_by(_invocations.c.result_seq)
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


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredResult:
    """An invocation that has ended, with its place in the order of results."""

    seq: int
    invocation: api.Invocation


def get_invocations(connection: Connection, ids: Collection[str], *, include_payload: bool) -> list[api.Invocation]:
    """Return those of these invocations that there are, with their results and deliveries."""
    rows = connection.execute(_select_invocations, {"ids": list(ids)}).all()
    deliveries = deliveries_of(connection, [row.id for row in rows])
    return [
        invocation_of(
            row,
            request=row.request if include_payload else None,
            result=row.result,
            deliveries=deliveries[row.id],
        )
        for row in rows
    ]


def results_after(connection: Connection, seq: int, *, most: int) -> list[StoredResult]:
    """Return the results that were numbered after this one, in order."""
    rows = connection.execute(_select_results, {"seq": seq, "most": most}).all()
    deliveries = deliveries_of(connection, [row.id for row in rows])
    return [
        StoredResult(
            seq=row.result_seq, invocation=invocation_of(row, result=row.result, deliveries=deliveries[row.id])
        )
        for row in rows
    ]


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
