"""With very many records a page costs what it shows, not what the store holds. Work is counted in steps of SQLite."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import pytest
from sqlalchemy import Connection, select

from homing.v1 import invocation_pb2 as api
from homing_core.clock import now_us
from homing_core.ids import new_id
from homing_core.lifecycle import State
from homing_server.store import filter_sql, schema
from homing_server.store.engine import Database
from homing_server.store.filter_sql import time_index
from homing_server.store.list_pages import Page, Place, list_invocations, page_query
from homing_server.store.retention import expired
from homing_server.store.sequences import read_counters
from homing_server.store.state_counts import count_selected, count_states
from support.many import DAY, FUNCTIONS, fill
from support.store import opened

P = ParamSpec("P")
T = TypeVar("T")

RECORDS = 50_000
PAGE = 50
CHEAP = 40
"""Thousands of steps. A page takes a few; looking at each record takes hundreds."""
COUNTED = 80
"""Thousands of steps that it takes to find that many records are in a range, however many there are."""

FAILED, STOPPED, SCHEDULED = (
    api.INVOCATION_STATE_FAILED,
    api.INVOCATION_STATE_STOPPED,
    api.INVOCATION_STATE_SCHEDULED,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")

    async def prepare() -> None:
        async with opened(folder, functions=FUNCTIONS):
            pass

    asyncio.run(prepare())
    fill(folder / "homing.db", RECORDS)
    return folder


@pytest.fixture
def connection(folder: Path) -> Iterator[Connection]:
    database = Database(f"sqlite:///{folder / 'homing.db'}")
    with database.reading() as connection:
        yield connection
    asyncio.run(database.close())


def cost_of(
    work: Callable[Concatenate[Connection, P], T], connection: Connection, *arguments: P.args, **options: P.kwargs
) -> tuple[int, T]:
    """Return how many thousand steps a piece of work takes, and its outcome."""
    taken = 0

    def count() -> int:
        nonlocal taken
        taken += 1
        return 0

    raw = connection.connection.driver_connection
    assert isinstance(raw, sqlite3.Connection)
    raw.set_progress_handler(count, 1000)
    try:
        outcome = work(connection, *arguments, **options)
    finally:
        raw.set_progress_handler(None, 0)
    return taken, outcome


def page(connection: Connection, selection: api.InvocationFilter, *, oldest_first: bool, after: Place | None) -> Page:
    return list_invocations(
        connection,
        selection,
        oldest_first=oldest_first,
        after=after,
        size=PAGE,
        max_bytes=2**40,
        include_payload=True,
        include_result=True,
    )


def time_range(start_us: int, end_us: int) -> api.TimeRange:
    bounds = api.TimeRange()
    bounds.start_time.FromMicroseconds(start_us)
    bounds.end_time.FromMicroseconds(end_us)
    return bounds


MIDDLE = now_us() - 3 * DAY
NAMED = {
    "nothing": api.InvocationFilter(),
    "a function": api.InvocationFilter(functions=["f03"]),
    "an unknown function": api.InvocationFilter(functions=["none"]),
    "a frequent state": api.InvocationFilter(states=[api.INVOCATION_STATE_SUCCEEDED]),
    "a rare state": api.InvocationFilter(states=[SCHEDULED]),
    "a state that none has": api.InvocationFilter(states=[api.INVOCATION_STATE_RUNNING]),
    "function and state": api.InvocationFilter(functions=["f03"], states=[FAILED]),
    "functions and states": api.InvocationFilter(functions=["f01", "f03", "f09"], states=[FAILED, STOPPED]),
    "rare and missing states": api.InvocationFilter(states=[STOPPED, SCHEDULED, api.INVOCATION_STATE_RUNNING]),
    "all functions and states": api.InvocationFilter(
        functions=FUNCTIONS, states=[state for state in api.InvocationState.values() if state]
    ),
    "time": api.InvocationFilter(create_time=time_range(MIDDLE, MIDDLE + DAY // 10)),
    "function, state and time": api.InvocationFilter(
        functions=["f03"], states=[FAILED], create_time=time_range(MIDDLE, MIDDLE + DAY)
    ),
    "a rare label": api.InvocationFilter(labels={"job": "77"}),
    "a label of many": api.InvocationFilter(labels={"team": "1"}),
    "an id that there is not": api.InvocationFilter(id_prefix="01935000-0000-7000-8000-000000000001"),
    "no id at all": api.InvocationFilter(id_prefix="zz"),
}


@pytest.mark.parametrize("order", ["newest", "oldest"])
@pytest.mark.parametrize("name", NAMED)
def test_every_page_of_a_named_list_is_cheap(connection: Connection, name: str, order: str) -> None:
    place = None
    for number in range(6):
        cost, found = cost_of(page, connection, NAMED[name], oldest_first=order == "oldest", after=place)
        assert cost < CHEAP, f"page {number}"
        place = found.next
        if place is None:
            break


@pytest.mark.parametrize("length", [1, 4, 8, 9, 13, 20, 36])
def test_ids_are_found_at_once(connection: Connection, length: int) -> None:
    some = page(connection, NAMED["time"], oldest_first=True, after=None).invocations[7]
    prefix = api.InvocationFilter(id_prefix=some.id[:length])
    before = Place(create_us=some.create_time.ToMicroseconds(), id="")
    for oldest_first in (False, True):
        for place in (None, before):
            cost, found = cost_of(page, connection, prefix, oldest_first=oldest_first, after=place)
            assert cost < CHEAP
            assert all(one.id.startswith(prefix.id_prefix) for one in found.invocations)
    assert found.invocations[0] == page(connection, NAMED["nothing"], oldest_first=True, after=before).invocations[0]


def test_reruns_are_found_at_once(connection: Connection) -> None:
    query = "SELECT rerun_of FROM invocations WHERE rerun_of IS NOT NULL LIMIT 1 OFFSET 100"
    old: str = connection.exec_driver_sql(query).scalar_one()
    selection = api.InvocationFilter(rerun_of=old, states=[state for state in api.InvocationState.values() if state])
    cost, found = cost_of(page, connection, selection, oldest_first=True, after=None)
    assert cost < CHEAP
    assert {one.rerun_of for one in found.invocations} == {old}


@pytest.mark.parametrize("name", [name for name in NAMED if name != "a label of many"])
def test_counting_stops(connection: Connection, name: str) -> None:
    cost, counts = cost_of(count_selected, connection, NAMED[name], most=100)
    assert cost < CHEAP
    assert all(count <= 100 for count in counts.values())


def test_counts_are_right(connection: Connection) -> None:
    everything = count_states(connection)
    assert count_selected(connection, api.InvocationFilter(), most=RECORDS) == everything
    assert sum(everything.values()) == RECORDS
    counters = read_counters(connection)
    assert counters[schema.ACCEPTED] - counters[schema.REMOVED] == RECORDS
    by_label = [
        count_selected(connection, api.InvocationFilter(labels={"team": str(n)}), most=RECORDS) for n in range(4)
    ]
    assert sum(sum(counts.values()) for counts in by_label) == RECORDS // 5
    failed = [
        count_selected(connection, api.InvocationFilter(functions=[name], states=[FAILED]), most=RECORDS)
        for name in FUNCTIONS
    ]
    assert sum(sum(counts.values()) for counts in failed) == everything[State.FAILED]


def test_what_is_old_enough_to_be_removed_is_found_at_once(connection: Connection) -> None:
    for days, count in ((10, 0), (5, 50), (0, 50)):
        before_us = dict.fromkeys(FUNCTIONS[:2], now_us() - days * DAY)
        cost, found = cost_of(expired, connection, before_us, most=25)
        assert cost < CHEAP
        assert len(found) == count


# --- Times of start and end


NARROW = time_range(MIDDLE, MIDDLE + DAY // 100)
WIDE = time_range(MIDDLE, MIDDLE + 2 * DAY)
BESIDES = {
    "nothing": api.InvocationFilter(),
    "functions": api.InvocationFilter(functions=["f03", "f05"]),
    "states": api.InvocationFilter(states=[FAILED, api.INVOCATION_STATE_SUCCEEDED]),
    "time": api.InvocationFilter(create_time=WIDE),
    "ids": api.InvocationFilter(id_prefix=new_id(MIDDLE)[:5]),
    "a label": api.InvocationFilter(labels={"team": "1"}),
    "labels": api.InvocationFilter(labels={"team": "1", "job": "77"}),
    "a re-run": api.InvocationFilter(rerun_of="none"),
    "a cause": api.InvocationFilter(caused_by="none"),
    "a call id": api.InvocationFilter(call_id="none"),
    "an id as call id": api.InvocationFilter(call_id=new_id(MIDDLE)),
}
CALL_IDS = {"a call id", "an id as call id"}
SORTED = {"a re-run", "a cause", "an id as call id"}
TIMES = {
    "start": api.InvocationFilter(start_time=NARROW),
    "end": api.InvocationFilter(end_time=NARROW),
    "both": api.InvocationFilter(start_time=WIDE, end_time=NARROW),
}
NEVER = api.TimeRange()
NEVER.start_time.FromMicroseconds(now_us() + DAY)


def both(*parts: api.InvocationFilter) -> api.InvocationFilter:
    selection = api.InvocationFilter()
    for part in parts:
        selection.MergeFrom(part)
    return selection


@pytest.mark.parametrize("order", ["newest", "oldest"])
@pytest.mark.parametrize("name", TIMES)
def test_a_range_of_times_in_which_few_are_is_found_at_once(connection: Connection, name: str, order: str) -> None:
    for besides in ("nothing", "functions", "states", "time"):
        selection = both(TIMES[name], BESIDES[besides])
        place, seen = None, []
        while True:
            cost, found = cost_of(page, connection, selection, oldest_first=order == "oldest", after=place)
            assert cost < CHEAP + COUNTED, besides
            seen += [one.id for one in found.invocations]
            place = found.next
            if place is None:
                break
        assert seen == expected(connection, selection, oldest_first=order == "oldest")
        assert (besides == "nothing") <= (len(seen) > PAGE)
        cost, counts = cost_of(count_selected, connection, selection, most=RECORDS)
        assert (cost < CHEAP + COUNTED, sum(counts.values())) == (True, len(seen))


@pytest.mark.parametrize("name", ["start_time", "end_time"])
@pytest.mark.parametrize("oldest_first", [True, False])
def test_a_long_range_costs_what_is_in_it_or_before_it_whichever_is_less(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, name: str, *, oldest_first: bool
) -> None:
    monkeypatch.setattr(filter_sql, "_MANY_IN_RANGE", 100)
    now = now_us()
    # Of six days: early and long, late and short, and all.
    for start_us, end_us in ((now - 6 * DAY, now - DAY), (now - DAY // 4, now), (0, now)):
        selection = api.InvocationFilter(**{name: time_range(start_us, end_us)})  # type: ignore[arg-type]
        place, seen = None, []
        for _ in range(3):
            cost, found = cost_of(page, connection, selection, oldest_first=oldest_first, after=place)
            assert cost < CHEAP + COUNTED, (start_us, end_us)
            seen += [one.id for one in found.invocations]
            place = found.next
        assert seen == expected(connection, selection, oldest_first=oldest_first)[: 3 * PAGE]


@pytest.mark.parametrize("name", ["start_time", "end_time"])
def test_a_time_at_which_nothing_was_is_found_at_once(connection: Connection, name: str) -> None:
    selection = api.InvocationFilter(**{name: NEVER})  # type: ignore[arg-type]
    cost, found = cost_of(page, connection, selection, oldest_first=True, after=None)
    assert (cost < CHEAP, found.invocations) == (True, [])
    cost, counts = cost_of(count_selected, connection, selection, most=9)
    assert (cost < CHEAP, counts) == (True, {})


def expected(connection: Connection, selection: api.InvocationFilter, *, oldest_first: bool) -> list[str]:
    """Return what a filter selects by function, state and times, by looking at each record."""
    table = schema.invocations.c
    ranges = [
        (column, bounds.start_time.ToMicroseconds(), bounds.end_time.ToMicroseconds())
        for column, bounds in (
            ("create_us", selection.create_time),
            ("start_us", selection.start_time),
            ("end_us", selection.end_time),
        )
        if bounds.ByteSize()
    ]
    found = [
        (row.create_us, row.id)
        for row in connection.execute(
            select(table.id, table.function, table.state, table.create_us, table.start_us, table.end_us)
        )
        if all(first <= getattr(row, column) < end for column, first, end in ranges)
        and (not selection.functions or row.function in selection.functions)
        and (not selection.states or row.state in selection.states)
    ]
    return [key for _, key in sorted(found, reverse=not oldest_first)]


@pytest.mark.parametrize("oldest_first", [True, False])
@pytest.mark.parametrize("besides", BESIDES)
@pytest.mark.parametrize("time", ["none", *TIMES, "wide"])
def test_every_filter_is_served_by_an_index(
    connection: Connection, time: str, besides: str, *, oldest_first: bool
) -> None:
    times = TIMES | {"none": api.InvocationFilter(), "wide": api.InvocationFilter(start_time=WIDE, end_time=WIDE)}
    selection = both(times[time], BESIDES[besides])
    for after in (None, Place(create_us=MIDDLE, id="0")):
        index = time_index(connection, selection)
        query = page_query(selection, oldest_first=oldest_first, after=after, size=PAGE, index=index)
        compiled = query.compile(connection, compile_kwargs={"literal_binds": True})
        plan = [row.detail for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}")]
        looked_up = [step for step in plan if re.match(r"(SCAN|SEARCH) (invocations|labels)", step)]
        assert looked_up
        assert all(" INDEX " in step for step in looked_up), plan
        few = time in TIMES and besides not in {"a label", "labels", "a re-run", "a cause", *CALL_IDS}
        name = f"ix_invocations_{'start' if time == 'start' else 'end'}_time"
        assert any(name in step for step in looked_up) is few, plan
        # What is sorted is few: in a range of times, of one cause, or the page that was merged of several parts.
        sorts = any("TEMP B-TREE FOR ORDER BY" in step for step in plan)
        assert not sorts or few or besides in SORTED or "MERGE (UNION ALL)" in plan, plan
