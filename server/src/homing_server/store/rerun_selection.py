"""Finds the ended invocations that one call runs again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Connection, and_, func, literal, not_, select

from homing.v1 import invocation_pb2 as api
from homing_core.lifecycle import ENDS
from homing_server.store import schema
from homing_server.store.filter_sql import IndexedPart, conditions, labelled, span_of
from homing_server.store.list_pages import Page, Place, list_invocations

_invocations = schema.invocations


@dataclass(frozen=True, kw_only=True, slots=True)
class Rerunnable:
    """What a filter selects of the invocations that had ended when a call began."""

    selection: api.InvocationFilter
    last_seq: int
    """The number of the last result at that time."""
    caller: str
    request_id: str
    """What this call, before it broke off and was repeated, made itself is left out."""


def rerun_request_id(request_id: str, invocation_id: str) -> str:
    """Return the request id under which a call that runs many again does so with one of them."""
    return f"{request_id}:{invocation_id}" if request_id else ""


def count_rerunnable(connection: Connection, wanted: Rerunnable) -> int:
    """Return how many there are."""
    selection = _ended_of(wanted.selection)
    if selection is None:
        return 0
    accepted = span_of(selection).of(_invocations.c.create_us)
    query = select(func.count()).select_from(_invocations)
    query = query.where(*conditions(selection, IndexedPart()), *accepted, *_where(wanted))
    count: int = connection.execute(labelled(query, selection)[0]).scalar_one()
    return count


def rerunnable_page(
    connection: Connection, wanted: Rerunnable, *, after: Place | None, size: int, max_bytes: int
) -> Page:
    """Return a page of them with their payloads, the oldest first."""
    selection = _ended_of(wanted.selection)
    if selection is None:
        return Page(invocations=[], next=None)
    return list_invocations(
        connection,
        selection,
        oldest_first=True,
        after=after,
        size=size,
        max_bytes=max_bytes,
        include_payload=True,
        include_result=False,
        where=tuple(_where(wanted)),
    )


def _ended_of(selection: api.InvocationFilter) -> api.InvocationFilter | None:
    """Return the filter of those that have ended; None where it selects none of them."""
    ends = set(selection.states) & ENDS if selection.states else ENDS
    ended = api.InvocationFilter()
    ended.CopyFrom(selection)
    del ended.states[:]
    ended.states.extend(api.InvocationState.ValueType(state) for state in sorted(ends))
    return ended if ends else None


def _where(wanted: Rerunnable) -> Iterator[ColumnElement[bool]]:
    # Of a sum no index is used: that of the results has another order than pages have.
    yield _invocations.c.result_seq + 0 <= wanted.last_seq
    if wanted.request_id:
        made = and_(
            _invocations.c.caller == wanted.caller,
            _invocations.c.request_id == literal(f"{wanted.request_id}:") + _invocations.c.rerun_of,
        )
        yield not_(func.coalesce(made, False))
