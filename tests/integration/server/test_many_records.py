"""With very many records a page costs what it shows, not what the store holds. Work is counted in steps of SQLite."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import pytest
from sqlalchemy import Connection

from homing.v1 import invocation_pb2 as api
from homing_core.clock import now_us
from homing_core.lifecycle import State
from homing_server.store import schema
from homing_server.store.engine import Database
from homing_server.store.list_pages import Page, Place, list_invocations
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
