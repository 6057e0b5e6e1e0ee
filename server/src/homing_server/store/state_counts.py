"""Counts records, by state."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Select, func, literal, select

from homing.v1 import invocation_pb2 as api
from homing_core.lifecycle import State
from homing_server.store import schema
from homing_server.store.filter_sql import IndexedPart, conditions, labelled, span_of, time_index, unindexed

_invocations = schema.invocations


def count_states(connection: Connection) -> dict[State, int]:
    """Return how many invocations are in each state."""
    query = select(_invocations.c.state, func.count()).group_by(_invocations.c.state)
    return {State(state): count for state, count in connection.execute(query)}


def count_functions(connection: Connection) -> dict[str, int]:
    """Return of how many invocations of each function there are records."""
    query = select(_invocations.c.function, func.count()).group_by(_invocations.c.function)
    return dict(connection.execute(query).tuples().all())


def count_selected(connection: Connection, selection: api.InvocationFilter, *, most: int) -> dict[State, int]:
    """Return by state how many records a filter selects; counting stops after so many of a state."""
    index = time_index(connection, selection)
    if index is not None:
        accepted = span_of(selection).of(unindexed(_invocations.c.create_us))
        few = conditions(selection, IndexedPart(), column=unindexed)
        query = select(_invocations.c.state, func.count()).where(*index.of(selection), *few, *accepted)
        counts = _by_state(connection, query)
    elif selection.labels or selection.rerun_of or selection.caused_by or selection.call_id:
        # There are few of them, most often: all are looked at once, whatever their states.
        query = select(_invocations.c.state, func.count()).where(*conditions(selection, IndexedPart()))
        query, label = labelled(query, selection)
        query = query.where(*span_of(selection).of(_invocations.c.create_us if label is None else label.c.create_us))
        counts = _by_state(connection, query)
    else:
        counts = {
            State(state): _count_state(connection, selection, state, most=most)
            for state in set(selection.states) or State
        }
    return {state: min(count, most) for state, count in sorted(counts.items()) if count}


def _by_state(connection: Connection, query: Select[Any]) -> dict[State, int]:
    state = unindexed(_invocations.c.state)
    return {State(number): count for number, count in connection.execute(query.group_by(state))}


def _count_state(connection: Connection, selection: api.InvocationFilter, state: int, *, most: int) -> int:
    accepted = span_of(selection).of(_invocations.c.create_us)
    some = select(literal(1)).where(*conditions(selection, IndexedPart(state=state)), *accepted).limit(most).subquery()
    return connection.execute(select(func.count()).select_from(some)).scalar_one()
