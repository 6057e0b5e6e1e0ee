"""Filters as the database understands them: which conditions select what a filter does, so that indexes serve them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    FromClause,
    Select,
    UnaryExpression,
    and_,
    func,
    literal,
    or_,
    select,
)
from sqlalchemy.sql import operators

from homing.v1 import invocation_pb2 as api
from homing_core.ids import ID_LENGTH, times_of_ids
from homing_server.store import schema

T = TypeVar("T")

_invocations = schema.invocations
_MAX_INDEXED_PARTS = 200
_MANY_IN_RANGE = 10_000
"""So many records in a range of start or end times are many."""
_LARGER = 4
"""By how much more is counted where both were too many to be counted."""
_FOREVER_US = 2**63 - 1
_ID_SLACK_US = 60 * 1_000_000
"""An id tells the time of acceptance; that of a synchronous call is made a moment before."""


@dataclass(frozen=True, kw_only=True, slots=True)
class IndexedPart:
    """A part of what a filter selects: one of its functions and one of its states; None for all of them."""

    function: str | None = None
    state: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """A range of times of acceptance, in microseconds since the epoch: by these all indexes are in order.

    There is one lower and one upper bound, since SQLite makes use of one.
    """

    first: int = 0
    end: int = _FOREVER_US

    def __and__(self, other: Span) -> Span:
        """Return what is in both."""
        return Span(first=max(self.first, other.first), end=min(self.end, other.end))

    def of(self, create_us: ColumnElement[int]) -> Iterator[ColumnElement[bool]]:
        """Yield what is true of a time in the range."""
        if self.first:
            yield create_us >= self.first
        if self.end < _FOREVER_US:
            yield create_us < self.end


def span_of(selection: api.InvocationFilter) -> Span:
    """Return when what a filter selects was accepted, as far as the filter tells."""
    span = Span()
    bounds = selection.create_time
    if bounds.HasField("start_time"):
        span &= Span(first=_ceiling_us(bounds.start_time))
    # Nothing starts or ends before it was accepted.
    for bounds in (selection.create_time, selection.start_time, selection.end_time):
        if bounds.HasField("end_time"):
            span &= Span(end=_ceiling_us(bounds.end_time))
    if selection.id_prefix:
        # Ids tell the time. What is no beginning of an id selects nothing.
        first, end = times_of_ids(selection.id_prefix) or (0, 0)
        span &= Span(first=first - _ID_SLACK_US, end=end + _ID_SLACK_US)
    return span


def indexed_parts(selection: api.InvocationFilter) -> list[IndexedPart]:
    """Return what to look for one by one: an index has the order of one function and one state, not of several."""
    if selection.labels or selection.rerun_of or selection.caused_by or selection.call_id:
        return [IndexedPart()]
    functions: Sequence[str | None] = sorted(set(selection.functions)) or [None]
    states: Sequence[int | None] = sorted(set(selection.states)) or [None]
    if len(functions) * len(states) > _MAX_INDEXED_PARTS:
        states = [None]
    return [IndexedPart(function=function, state=state) for function in functions for state in states]


@dataclass(frozen=True, kw_only=True, slots=True)
class TimeIndex:
    """An index by the time of start or end, for a range in which few records are."""

    field: str
    column: Column[int]

    def of(self, selection: api.InvocationFilter) -> Iterator[ColumnElement[bool]]:
        """Yield what is true of the records in the range that a filter has."""
        yield schema.known(self.column)  # type: ignore[misc]  # a text is a condition
        yield from _within(self.column, getattr(selection, self.field))


_TIME_INDEXES: Final = (
    TimeIndex(field="start_time", column=_invocations.c.start_us),
    TimeIndex(field="end_time", column=_invocations.c.end_us),
)


def time_index(
    connection: Connection, selection: api.InvocationFilter, *, oldest_first: bool = False, after_us: int = 0
) -> TimeIndex | None:
    """Return the index that a filter is served by best where few records started, or ended, in its range; else None.

    Where many did, a page is soon full of them in the order of acceptance, for which there are other indexes: newest
    first it begins at the end of the range. Oldest first it may lead through more before the range than are in it: to
    find out costs about as much as to count the fewer of both.

    :param after_us: The time of acceptance at which the page begins, oldest first.
    """
    if selection.labels or selection.rerun_of or selection.caused_by or selection.call_id:
        return None
    indexes = [index for index in _TIME_INDEXES if selection.HasField(index.field)]  # type: ignore[arg-type]
    begin_us = max((_ceiling_us(getattr(selection, index.field).start_time) for index in indexes), default=0)
    before = Span(first=max(after_us, span_of(selection).first), end=begin_us)
    most = _MANY_IN_RANGE
    while indexes:
        for index in indexes:
            if _count(connection, index.of(selection), most) < most:
                return index
        # Functions and states have indexes that leave out most of what was before.
        leads_past = oldest_first and not (selection.functions or selection.states)
        if not leads_past or _count(connection, before.of(_invocations.c.create_us), most) < most:
            break
        most *= _LARGER
    return None


def _count(connection: Connection, of: Iterable[ColumnElement[bool]], most: int) -> int:
    some = select(literal(1)).select_from(_invocations).where(*of).limit(most).subquery()
    count: int = connection.execute(select(func.count()).select_from(some)).scalar_one()
    return count


def unindexed(column: ColumnElement[T]) -> ColumnElement[T]:
    """Return a column as SQLite looks it up in no index."""
    return UnaryExpression(column, operator=operators.custom_op("+"), type_=column.type)


def _as_it_is(column: ColumnElement[T]) -> ColumnElement[T]:
    return column


def conditions(
    selection: api.InvocationFilter, part: IndexedPart, *, column: Callable[[Any], Any] = _as_it_is
) -> Iterator[ColumnElement[bool]]:
    """Yield what is true of the records that a filter selects, the times of acceptance and labels apart.

    :param column: Returns how a column is looked up.
    """
    function, state = column(_invocations.c.function), column(_invocations.c.state)
    if part.function is not None:
        yield function == part.function
    elif selection.functions:
        yield function.in_(sorted(selection.functions))
    if part.state is not None:
        yield state == part.state
    elif selection.states:
        yield state.in_(sorted(selection.states))
    for index in _TIME_INDEXES:
        if selection.HasField(index.field):  # type: ignore[arg-type]  # the names are those of fields
            yield from _within(column(index.column), getattr(selection, index.field))
    if selection.id_prefix:
        yield func.substr(_invocations.c.id, 1, len(selection.id_prefix)) == selection.id_prefix
    yield from _belonging(selection)


def labelled(query: Select[Any], selection: api.InvocationFilter) -> tuple[Select[Any], FromClause | None]:
    """Return the query of those that carry the labels of a filter, and the first of these."""
    first = None
    for key, value in sorted(selection.labels.items()):
        label = schema.labels.alias()
        query = query.join(label, label.c.invocation_id == _invocations.c.id)
        query = query.where(label.c.key == key, label.c.value == value)
        first = label if first is None else first
    return query, first


def _belonging(selection: api.InvocationFilter) -> Iterator[ColumnElement[bool]]:
    """Yield what is true of the records that belong to others as a filter says."""
    if selection.rerun_of:
        yield _invocations.c.rerun_of == selection.rerun_of
    if selection.caused_by:
        yield _invocations.c.caused_by == selection.caused_by
    if selection.call_id:
        yield _shows(selection.call_id)


def _shows(call_id: str) -> ColumnElement[bool]:
    """Return what is true of the records that show a call id: they bear it, or bear none and it is their own id."""
    bears_it = _invocations.c.call_id == call_id
    if len(call_id) != ID_LENGTH or times_of_ids(call_id) is None:
        # It is no id, so one index finds them, which has the order of lists.
        return bears_it
    return or_(bears_it, and_(_invocations.c.id == call_id, _invocations.c.call_id.is_(None)))


def _within(column: ColumnElement[int], bounds: api.TimeRange) -> Iterator[ColumnElement[bool]]:
    yield column >= (_ceiling_us(bounds.start_time) if bounds.HasField("start_time") else 1)
    if bounds.HasField("end_time"):
        yield column < _ceiling_us(bounds.end_time)


def _ceiling_us(time: Timestamp) -> int:
    """Return the first microsecond that is not before a time, which may be finer."""
    return time.seconds * 1_000_000 + -(-time.nanos // 1000)
