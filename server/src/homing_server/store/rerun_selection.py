"""Finds the ended invocations that one call runs again."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, exists, func, select

from homing.v1 import invocation_pb2 as api
from homing_core.lifecycle import ENDS
from homing_server.store import schema
from homing_server.store.filter_sql import IndexedPart, conditions, labelled, span_of
from homing_server.store.list_pages import Page, Place, list_invocations

_invocations = schema.invocations
_reruns = schema.invocations.alias("reruns")


def count_rerunnable(
    connection: Connection, selection: api.InvocationFilter, *, last_seq: int, include_rerun: bool
) -> int:
    """Return how many a filter selects of the invocations that had ended when a call began.

    :param last_seq: The number of the last result at that time.
    :param include_rerun: Whether those count that were run again before.
    """
    ended = _ended_of(selection)
    if ended is None:
        return 0
    accepted = span_of(ended).of(_invocations.c.create_us)
    query = select(func.count()).select_from(_invocations)
    query = query.where(*conditions(ended, IndexedPart()), *accepted, *_candidates(last_seq, include_rerun))
    count: int = connection.execute(labelled(query, ended)[0]).scalar_one()
    return count


def rerunnable_page(
    connection: Connection,
    selection: api.InvocationFilter,
    *,
    last_seq: int,
    include_rerun: bool,
    after: Place | None,
    size: int,
    max_bytes: int,
) -> Page:
    """Return a page of them with their payloads, the oldest first."""
    ended = _ended_of(selection)
    if ended is None:
        return Page(invocations=[], next=None)
    return list_invocations(
        connection,
        ended,
        oldest_first=True,
        after=after,
        size=size,
        max_bytes=max_bytes,
        include_payload=True,
        include_result=False,
        where=_candidates(last_seq, include_rerun),
    )


def _ended_of(selection: api.InvocationFilter) -> api.InvocationFilter | None:
    """Return the filter of those that have ended; None where it selects none of them."""
    ends = set(selection.states) & ENDS if selection.states else ENDS
    ended = api.InvocationFilter()
    ended.CopyFrom(selection)
    del ended.states[:]
    ended.states.extend(api.InvocationState.ValueType(state) for state in sorted(ends))
    return ended if ends else None


def _candidates(last_seq: int, include_rerun: bool) -> tuple[ColumnElement[bool], ...]:  # noqa: FBT001 it travels on
    # Of a sum no index is used: that of the results has another order than pages have.
    ended = _invocations.c.result_seq + 0 <= last_seq
    # Its re-runs stand for it, as they are among the candidates: else each call would run twice as many as the last.
    return (ended,) if include_rerun else (ended, ~exists().where(_reruns.c.rerun_of == _invocations.c.id))
