"""Which invocations a filter selects."""

from __future__ import annotations

from collections.abc import Callable

from google.protobuf.timestamp_pb2 import Timestamp

from homing.v1 import invocation_pb2 as api
from homing_server.rules.validation import Checks


def check_filter(checks: Checks, selection: api.InvocationFilter) -> None:
    """Check a filter."""
    checks.function_names("filter.functions", selection.functions)
    for index, state in enumerate(selection.states):
        if state not in api.InvocationState.values() or state == api.INVOCATION_STATE_UNSPECIFIED:
            checks.add(f"filter.states[{index}]", f"{state} is not a state")
    for field in ("create_time", "start_time", "end_time"):
        checks.time_range(f"filter.{field}", getattr(selection, field))
    checks.labels("filter.labels", selection.labels)
    checks.text("filter.id_prefix", selection.id_prefix, 36)
    checks.text("filter.rerun_of", selection.rerun_of, 36)
    checks.text("filter.caused_by", selection.caused_by, 36)
    checks.call_id("filter.call_id", selection.call_id)


def check_bulk_filter(checks: Checks, selection: api.InvocationFilter) -> None:
    """Check the filter of a call that changes all that it selects: it must not select everything by oversight."""
    ranges = (selection.create_time, selection.start_time, selection.end_time)
    bounded = any(bounds.HasField("start_time") or bounds.HasField("end_time") for bounds in ranges)
    if not (
        bounded
        or selection.functions
        or selection.states
        or selection.labels
        or selection.id_prefix
        or selection.rerun_of
        or selection.caused_by
        or selection.call_id
    ):
        checks.add("filter", "must have at least one field set")
    check_filter(checks, selection)


def matcher(selection: api.InvocationFilter) -> Callable[[api.Invocation], bool]:
    """Return a predicate that tells whether a filter selects an invocation."""
    functions = frozenset(selection.functions)
    states = frozenset(selection.states)
    labels = dict(selection.labels)
    ranges = [
        (field, getattr(selection, field))
        for field in ("create_time", "start_time", "end_time")
        if selection.HasField(field)
    ]

    if not selection.ByteSize():
        return lambda _: True

    def matches(invocation: api.Invocation) -> bool:
        return (
            (not functions or invocation.function in functions)
            and (not states or invocation.state in states)
            and invocation.id.startswith(selection.id_prefix)
            and (not selection.rerun_of or invocation.rerun_of == selection.rerun_of)
            and (not selection.caused_by or invocation.caused_by == selection.caused_by)
            and (not selection.call_id or (invocation.spec.call_id or invocation.id) == selection.call_id)
            and all(invocation.spec.labels.get(key) == value for key, value in labels.items())
            and all(_within(invocation, field, bounds) for field, bounds in ranges)
        )

    return matches


def _within(invocation: api.Invocation, field: str, bounds: api.TimeRange) -> bool:
    if not invocation.HasField(field):  # type: ignore[arg-type]  # the names are those of _RANGES
        return False
    moment = _moment(getattr(invocation, field))
    return not (
        (bounds.HasField("start_time") and moment < _moment(bounds.start_time))
        or (bounds.HasField("end_time") and moment >= _moment(bounds.end_time))
    )


def _moment(time: Timestamp) -> tuple[int, int]:
    return time.seconds, time.nanos
