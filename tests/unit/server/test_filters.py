"""A filter selects what all of its fields that are set select."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from homing.v1 import invocation_pb2 as api
from homing_server.errors import ApiError
from homing_server.rules.filters import check_bulk_filter, check_filter, matcher
from homing_server.rules.validation import Checks

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)

# Few values, so that filters and invocations often agree.
names = st.sampled_from(["a", "b", "resize"])
states = st.sampled_from([state for state in api.InvocationState.values() if state])
times = st.builds(lambda number: EPOCH + timedelta(microseconds=number), st.integers(0, 4))
ids = st.sampled_from(["01", "0193", "0194", "019"])
labels = st.dictionaries(st.sampled_from(["job", "team"]), st.sampled_from(["1", "2", ""]))
ranges = st.none() | st.tuples(st.none() | times, st.none() | times)

invocations = st.fixed_dictionaries(
    {"id": ids, "function": names, "state": states, "labels": labels, "rerun_of": st.sampled_from(["", "01"])}
    | {name: st.none() | times for name in ("create_time", "start_time", "end_time")}
)
selections = st.fixed_dictionaries(
    {
        "functions": st.lists(names, max_size=2),
        "states": st.lists(states, max_size=3),
        "labels": labels,
        "id_prefix": st.sampled_from(["", "0", "0193", "2"]),
        "rerun_of": st.sampled_from(["", "01"]),
    }
    | dict.fromkeys(("create_time", "start_time", "end_time"), ranges)
)


def stamp(time: datetime) -> Timestamp:
    value = Timestamp()
    value.FromDatetime(time)
    return value


def make_invocation(fields: dict[str, object]) -> api.Invocation:
    rest = dict(fields)
    made = api.Invocation(spec=api.InvocationSpec(labels=rest.pop("labels")))  # type: ignore[arg-type]
    for name, value in rest.items():
        if isinstance(value, datetime):
            getattr(made, name).CopyFrom(stamp(value))
        elif value is not None:
            setattr(made, name, value)
    return made


def make_filter(fields: dict[str, object]) -> api.InvocationFilter:
    made = api.InvocationFilter()
    for name, value in fields.items():
        if isinstance(value, tuple):
            bounds = getattr(made, name)
            bounds.SetInParent()
            for bound, time in zip((bounds.start_time, bounds.end_time), value, strict=True):
                if time is not None:
                    bound.CopyFrom(stamp(time))
        elif isinstance(value, list):
            getattr(made, name).extend(value)
        elif isinstance(value, dict):
            getattr(made, name).update(value)
        elif value is not None:
            setattr(made, name, value)
    return made


def selects(selection: dict[str, object], invocation: dict[str, object]) -> bool:
    """Tell the same in the plainest way."""
    for name, one in (("functions", "function"), ("states", "state")):
        wanted = selection[name]
        assert isinstance(wanted, list)
        if wanted and invocation[one] not in wanted:
            return False
    for name in ("create_time", "start_time", "end_time"):
        bounds, time = selection[name], invocation[name]
        if isinstance(bounds, tuple):
            if not isinstance(time, datetime):
                return False
            least, end = bounds
            if (least is not None and time < least) or (end is not None and time >= end):
                return False
    wanted_labels, has = selection["labels"], invocation["labels"]
    assert isinstance(wanted_labels, dict)
    assert isinstance(has, dict)
    if not wanted_labels.items() <= has.items():
        return False
    if selection["rerun_of"] and selection["rerun_of"] != invocation["rerun_of"]:
        return False
    return str(invocation["id"]).startswith(str(selection["id_prefix"]))


@given(selections, invocations)
def test_matcher_tells_what_a_filter_says(selection: dict[str, object], invocation: dict[str, object]) -> None:
    assert matcher(make_filter(selection))(make_invocation(invocation)) is selects(selection, invocation)


@given(invocations)
def test_no_filter_selects_everything(invocation: dict[str, object]) -> None:
    assert matcher(api.InvocationFilter())(make_invocation(invocation))


FIRST, THEN, LAST = (Timestamp(seconds=10, nanos=nanos) for nanos in (4, 5, 6))
RECORD = api.Invocation(
    id="0193-7",
    function="resize",
    state=api.INVOCATION_STATE_RUNNING,
    spec=api.InvocationSpec(labels={"job": "1", "team": "2"}, call_id="order-7"),
    rerun_of="0192",
    caused_by="0191",
    create_time=THEN,
    start_time=THEN,
)
RUNNING, FAILED = api.INVOCATION_STATE_RUNNING, api.INVOCATION_STATE_FAILED
OF_IT = [
    api.InvocationFilter(functions=["resize"]),
    api.InvocationFilter(functions=["other", "resize"]),
    api.InvocationFilter(states=[RUNNING]),
    api.InvocationFilter(states=[FAILED, RUNNING]),
    api.InvocationFilter(labels={"job": "1"}),
    api.InvocationFilter(labels={"job": "1", "team": "2"}),
    api.InvocationFilter(id_prefix="0193"),
    api.InvocationFilter(rerun_of="0192"),
    api.InvocationFilter(caused_by="0191"),
    api.InvocationFilter(call_id="order-7"),
    api.InvocationFilter(create_time=api.TimeRange(start_time=THEN)),
    api.InvocationFilter(create_time=api.TimeRange(start_time=FIRST, end_time=LAST)),
    api.InvocationFilter(start_time=api.TimeRange(end_time=LAST)),
    api.InvocationFilter(start_time=api.TimeRange()),
    api.InvocationFilter(start_time=api.TimeRange(end_time=Timestamp(seconds=11))),
    api.InvocationFilter(functions=["resize"], states=[RUNNING], labels={"job": "1"}, rerun_of="0192"),
]
OF_OTHERS = [
    api.InvocationFilter(functions=["other"]),
    api.InvocationFilter(states=[FAILED]),
    api.InvocationFilter(labels={"job": "2"}),
    api.InvocationFilter(labels={"job": "1", "other": "2"}),
    api.InvocationFilter(id_prefix="0194"),
    api.InvocationFilter(rerun_of="0191"),
    api.InvocationFilter(caused_by="0192"),
    api.InvocationFilter(call_id="order-8"),
    api.InvocationFilter(call_id="0193-7"),  # it shows another one
    api.InvocationFilter(create_time=api.TimeRange(start_time=LAST)),
    api.InvocationFilter(create_time=api.TimeRange(end_time=THEN)),
    api.InvocationFilter(create_time=api.TimeRange(start_time=Timestamp(seconds=11))),
    api.InvocationFilter(start_time=api.TimeRange(start_time=FIRST, end_time=THEN)),
    api.InvocationFilter(end_time=api.TimeRange()),  # it has not ended
    api.InvocationFilter(end_time=api.TimeRange(start_time=FIRST)),
    api.InvocationFilter(functions=["resize"], states=[FAILED]),
    api.InvocationFilter(functions=["other"], states=[RUNNING]),
]


@pytest.mark.parametrize("selection", OF_IT, ids=str)
def test_what_a_filter_selects(selection: api.InvocationFilter) -> None:
    assert matcher(selection)(RECORD)


@pytest.mark.parametrize("selection", OF_OTHERS, ids=str)
def test_what_a_filter_does_not_select(selection: api.InvocationFilter) -> None:
    assert not matcher(selection)(RECORD)


@pytest.mark.parametrize("name", ["functions", "states", "labels", "id_prefix", "rerun_of", "caused_by", "call_id"])
def test_one_field_is_enough_for_what_changes_all_that_it_selects(name: str) -> None:
    selection = next(each for each in OF_IT if [field.name for field, _ in each.ListFields()] == [name])
    checks = Checks()
    check_bulk_filter(checks, selection)
    checks.done()


@pytest.mark.parametrize("bound", ["start_time", "end_time"])
@pytest.mark.parametrize("field", ["create_time", "start_time", "end_time"])
def test_so_is_one_bound_of_a_time(field: str, bound: str) -> None:
    checks = Checks()
    check_bulk_filter(checks, api.InvocationFilter(**{field: api.TimeRange(**{bound: THEN})}))  # type: ignore[arg-type]
    checks.done()


@pytest.mark.parametrize(
    "selection", [api.InvocationFilter(), api.InvocationFilter(create_time=api.TimeRange(), end_time=api.TimeRange())]
)
def test_what_would_change_everything_by_oversight_is_refused(selection: api.InvocationFilter) -> None:
    checks = Checks()
    check_bulk_filter(checks, selection)
    with pytest.raises(ApiError) as caught:
        checks.done()
    (violation,) = caught.value.violations
    assert (violation.field, violation.description) == ("filter", "must have at least one field set")


def test_the_rest_of_a_filter_is_checked_there_too() -> None:
    checks = Checks()
    check_bulk_filter(checks, api.InvocationFilter(functions=["A b"]))
    with pytest.raises(ApiError, match=r"filter\.functions\[0\]"):
        checks.done()


def test_an_invocation_without_a_call_id_shows_its_own_id() -> None:
    assert matcher(api.InvocationFilter(call_id="0193-7"))(api.Invocation(id="0193-7"))


def test_label_that_is_empty_is_not_one_that_is_missing() -> None:
    matches = matcher(api.InvocationFilter(labels={"job": ""}))
    assert matches(api.Invocation(spec=api.InvocationSpec(labels={"job": ""})))
    assert not matches(api.Invocation(spec=api.InvocationSpec(labels={"team": ""})))


late, early = stamp(EPOCH + timedelta(seconds=1)), stamp(EPOCH)


@pytest.mark.parametrize(
    ("selection", "field", "rule"),
    [
        (api.InvocationFilter(functions=["A b"]), "filter.functions[0]", "'A b' is not the name of a function"),
        (api.InvocationFilter(states=[0]), "filter.states[0]", "0 is not a state"),  # type: ignore[list-item]
        (api.InvocationFilter(states=[99]), "filter.states[0]", "99 is not a state"),  # type: ignore[list-item]
        (
            api.InvocationFilter(end_time=api.TimeRange(start_time=late, end_time=early)),
            "filter.end_time",
            "must start before it ends",
        ),
        (
            api.InvocationFilter(create_time=api.TimeRange(start_time=early, end_time=early)),
            "filter.create_time",
            "must start before it ends",
        ),
        (api.InvocationFilter(labels={"": "x"}), 'filter.labels[""]', "must have a key of 1 to 63 characters"),
        (api.InvocationFilter(id_prefix="0" * 37), "filter.id_prefix", "must have at most 36 characters, has 37"),
        (api.InvocationFilter(rerun_of="0" * 37), "filter.rerun_of", "must have at most 36 characters, has 37"),
        (api.InvocationFilter(caused_by="0" * 37), "filter.caused_by", "must have at most 36 characters, has 37"),
        (api.InvocationFilter(call_id="0" * 129), "filter.call_id", "must have at most 128 characters, has 129"),
    ],
)
def test_bad_filter_is_refused(selection: api.InvocationFilter, field: str, rule: str) -> None:
    checks = Checks()
    check_filter(checks, selection)
    with pytest.raises(ApiError) as caught:
        checks.done()
    (violation,) = caught.value.violations
    assert (violation.field, violation.description) == (field, rule)


@given(selections)
def test_good_filter_is_taken(selection: dict[str, object]) -> None:
    for name in ("create_time", "start_time", "end_time"):
        bounds = selection[name]
        if isinstance(bounds, tuple) and None not in bounds and bounds[0] >= bounds[1]:
            selection = {**selection, name: None}
    checks = Checks()
    check_filter(checks, make_filter(selection))
    checks.done()


@pytest.mark.parametrize("seconds", [253_402_300_800, -62_135_596_801, 2**62])
@pytest.mark.parametrize("bound", ["start_time", "end_time"])
@pytest.mark.parametrize("field", ["create_time", "start_time", "end_time"])
def test_bounds_that_are_no_times_are_refused(seconds: int, bound: str, field: str) -> None:
    selection = api.InvocationFilter(**{field: api.TimeRange(**{bound: Timestamp(seconds=seconds)})})  # type: ignore[arg-type]
    checks = Checks()
    check_filter(checks, selection)
    with pytest.raises(ApiError) as error:
        checks.done()
    (violation,) = error.value.violations
    assert violation.field == f"filter.{field}.{bound}"
