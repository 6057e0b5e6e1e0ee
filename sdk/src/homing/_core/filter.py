"""Which invocations a call concerns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TypedDict

from homing._core import check
from homing._core.names import InvocationState
from homing.v1 import invocation_pb2


class FilterOptions(TypedDict, total=False):
    """Which invocations are meant; all conditions that are given must match. Times are datetimes with a time zone."""

    function: str | Iterable[str] | None
    """The name of a function, or any of several names."""
    states: Iterable[InvocationState] | None
    """Any of these states."""
    labels: Mapping[str, str] | None
    """All of these labels."""
    id_prefix: str | None
    """Ids that start so."""
    rerun_of: str | None
    """Those that run again the invocation of this id."""
    caused_by: str | None
    """Those that the outcome of the invocation of this id caused."""
    call_id: str | None
    """Those that show this call id."""
    created_since: datetime | None
    """Accepted at this time or later."""
    created_until: datetime | None
    """Accepted before this time."""
    started_since: datetime | None
    """Started at this time or later."""
    started_until: datetime | None
    """Started before this time."""
    ended_since: datetime | None
    """Ended at this time or later."""
    ended_until: datetime | None
    """Ended before this time."""


def invocation_filter(
    *,
    function: str | Iterable[str] | None = None,
    states: Iterable[InvocationState] | None = None,
    labels: Mapping[str, str] | None = None,
    id_prefix: str | None = None,
    rerun_of: str | None = None,
    caused_by: str | None = None,
    call_id: str | None = None,
    created_since: datetime | None = None,
    created_until: datetime | None = None,
    started_since: datetime | None = None,
    started_until: datetime | None = None,
    ended_since: datetime | None = None,
    ended_until: datetime | None = None,
) -> invocation_pb2.InvocationFilter:
    """Return FilterOptions as a message.

    :raises TypeError: A condition is of the wrong type, or there is none of this name.
    :raises InvalidRequestError: A time has no time zone, or nothing can lie between two of them.
    """
    return invocation_pb2.InvocationFilter(
        functions=[check.text("function", name) for name in several("function", function)],
        states=[_state(state) for state in several("states", states)],
        labels=check.text_map("labels", labels),
        id_prefix="" if id_prefix is None else check.text("id_prefix", id_prefix),
        rerun_of="" if rerun_of is None else check.text("rerun_of", rerun_of),
        caused_by="" if caused_by is None else check.text("caused_by", caused_by),
        call_id="" if call_id is None else check.text("call_id", call_id),
        create_time=time_range("created_", created_since, created_until),
        start_time=time_range("started_", started_since, started_until),
        end_time=time_range("ended_", ended_since, ended_until),
    )


def time_range(prefix: str, since: datetime | None, until: datetime | None) -> invocation_pb2.TimeRange | None:
    """Return a range of times as a message; None where it has no bound.

    :param prefix: How the names of the arguments begin, before ``since`` and ``until``.
    :raises TypeError: A bound is no datetime.
    :raises InvalidRequestError: A time has no time zone, or nothing can lie between the two.
    """
    if since is None and until is None:
        return None
    message = invocation_pb2.TimeRange()
    if since is not None:
        message.start_time.FromDatetime(check.moment(f"{prefix}since", since))
    if until is not None:
        message.end_time.FromDatetime(check.moment(f"{prefix}until", until))
    if since is not None and until is not None and since >= until:
        raise check.invalid(f"{prefix}until", f"must be later than {prefix}since")
    return message


def several(name: str, value: object) -> list[object]:
    """Return the items of an argument that is one str or several; None is none.

    :raises TypeError: It is neither.
    """
    if value is None:
        return []
    if isinstance(value, str):
        return [value]
    if not isinstance(value, Iterable):
        raise TypeError(f"{name} must be str or several, not {type(value).__name__}")
    return list(value)


def _state(state: object) -> invocation_pb2.InvocationState.ValueType:
    if not isinstance(state, InvocationState):
        raise TypeError(f"states must be InvocationState, not {type(state).__name__}")
    if state is InvocationState.UNKNOWN:
        raise check.invalid("states", "UNKNOWN is no state to ask for")
    return invocation_pb2.InvocationState.Value(f"INVOCATION_STATE_{state.value}")
