"""Ended records go when their retention is over, with all that belongs to them, and nobody misses one unknowingly."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, insert, select, update

from homing.v1 import function_pb2, invocation_pb2
from homing.v1 import invocation_pb2 as api
from homing.v1 import invocation_service_pb2 as service
from homing_core.clock import now_us
from homing_core.lifecycle import Custody
from homing_server.auth.identity import EVERYBODY
from homing_server.cluster.presence import Presence
from homing_server.cluster.wait_reasons import WaitReasons
from homing_server.errors import ApiError, Code
from homing_server.functions.catalog import Catalog
from homing_server.invocations import retention as retention_module
from homing_server.invocations.retention import Retention
from homing_server.metrics import Metrics
from homing_server.store import schema
from homing_server.store.engine import Database
from homing_server.store.functions import mark_deleted, put_function
from homing_server.store.state_counts import count_states
from homing_server.watch import feed
from homing_server.watch.hub import WatchHub
from homing_server.watch.service import WatchService
from support.store import accept_all, accept_sent, counters, life, make_draft, opened, read, record

DAY = 24 * 3600 * 1_000_000


@pytest.fixture
async def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Database]:
    monkeypatch.setattr(retention_module, "_INTERVAL_SECONDS", 0)
    monkeypatch.setattr(retention_module, "_BATCH_SIZE", 4)
    async with opened(tmp_path, functions=["resize", "figlet"]) as database:
        yield database


async def ended(
    database: Database, count: int, *, days_ago: float, function: str = "resize", **fields: str
) -> list[str]:
    """Make records that ended so long ago."""
    keys = await accept_sent(database, count, function=function, labels={"job": "7"}, **fields)
    await record(database, *(event for key in keys for event in life(key)))
    table = schema.invocations
    with database.writing() as connection:
        end_us = now_us() - int(days_ago * DAY)
        connection.execute(update(table).where(table.c.id.in_(keys)).values(end_us=end_us))
        rows = [
            {"invocation_id": key, "number": 1, "total_lines": 1, "total_size": 1, "lines": b"", "create_us": end_us}
            for key in keys
        ]
        connection.execute(insert(schema.logs), rows)
    return keys


async def kept(database: Database, keys: Collection[str]) -> int:
    """Return how many of these there still are, after all that belongs to the others is gone too."""
    await Retention(database).remove_expired()
    with database.reading() as connection:
        there = set(connection.execute(select(schema.invocations.c.id)).scalars())
        for table in (schema.payloads, schema.labels, schema.deliveries, schema.logs):
            assert set(connection.execute(select(table.c.invocation_id)).scalars()) <= there
        states = count_states(connection)
    counted = await counters(database)
    assert counted[schema.ACCEPTED] - counted[schema.REMOVED] == sum(states.values()), "P5: the drift is 0"
    return len(there & set(keys))


def keep_for(database: Database, function: str, days: float) -> None:
    wanted = function_pb2.Function(name=function, image="x:1")
    wanted.retention.FromTimedelta(timedelta(days=days))
    with database.writing() as connection:
        put_function(connection, wanted, now_us=now_us())


async def test_old_records_go_with_all_that_belongs_to_them(database: Database) -> None:
    old = await ended(database, 11, days_ago=7.1)
    young = await ended(database, 3, days_ago=6.9)
    waiting = make_draft(create_us=now_us() - 30 * DAY)
    await accept_all(database, waiting)
    assert await kept(database, [*old, *young, waiting.id]) == 4
    assert (await counters(database))[schema.REMOVED] == 11
    assert (await read(database, young[0])).spec.labels == {"job": "7"}


async def test_each_function_has_its_own_retention_and_a_deleted_one_keeps_it(database: Database) -> None:
    keep_for(database, "figlet", days=20)
    long, short = [await ended(database, 2, days_ago=15, function=name) for name in ("figlet", "resize")]
    with database.writing() as connection:
        mark_deleted(connection, "figlet")
        mark_deleted(connection, "resize")
    assert (await kept(database, long), await kept(database, short)) == (2, 0)
    keep_for(database, "figlet", days=10)
    assert await kept(database, long) == 0


async def test_p6_a_record_stays_until_its_deliveries_have_ended(database: Database) -> None:
    keys = await ended(database, 6, days_ago=9, callback="http://127.0.0.1/")
    bare = await ended(database, 6, days_ago=8)
    assert await kept(database, [*keys, *bare]) == 6
    with database.writing() as connection:
        of_two = schema.deliveries.c.invocation_id.in_(keys[2:4])
        over = {"custody": int(Custody.NONE), "state": api.DELIVERY_STATE_DEAD}
        connection.execute(update(schema.deliveries).where(of_two).values(over))
    assert await kept(database, keys) == 4
    with database.reading() as connection:
        assert connection.execute(select(func.count()).select_from(schema.deliveries)).scalar_one() == 4


# --- Watches


async def tail(database: Database, hub: WatchHub) -> None:
    """Let the hub take notice of all that has ended."""
    counted = await counters(database)
    hub.notify(result_seq=counted[schema.RESULT_SEQ], change_seq=counted[schema.CHANGE_SEQ])
    await hub.follow_results()
    await hub.follow_changes()


def watching_of(
    database: Database, hub: WatchHub, token: str = "", *functions: str, transitions: bool = False
) -> AsyncIterator[service.WatchResultsResponse]:
    request = service.WatchResultsRequest(
        resume_token=token,
        filter=invocation_pb2.InvocationFilter(functions=functions),
        include_transitions=transitions,
    )
    watching = WatchService(database, hub, WaitReasons(Catalog(database), Presence()), Metrics())
    return (
        service.WatchResultsResponse.FromString(message) async for message in watching.watch(request, caller=EVERYBODY)
    )


@pytest.mark.parametrize("transitions", [False, True])
async def test_p8_a_token_from_before_what_was_removed_is_refused(database: Database, *, transitions: bool) -> None:
    hub = WatchHub(database)
    await hub.open()
    before = (await anext(watching_of(database, hub, transitions=transitions))).resume_token
    await ended(database, 3, days_ago=8)
    await tail(database, hub)
    between = (await anext(watching_of(database, hub, transitions=transitions))).resume_token
    (other,) = await ended(database, 1, days_ago=1, function="figlet")
    (young,) = await ended(database, 1, days_ago=1)
    await kept(database, [])
    hub = WatchHub(database)
    await hub.open()

    for functions in ((), ("resize",), ("figlet", "resize")):
        with pytest.raises(ApiError, match="their retention is over") as caught:
            await anext(watching_of(database, hub, before, *functions, transitions=transitions))
        assert (caught.value.code, caught.value.reason) == (Code.OUT_OF_RANGE, "RESUME_TOKEN_EXPIRED")
    for token, functions, wanted in (
        (before, ("figlet",), [other]),
        (between, (), [other, young]),
        (between, ("resize",), [young]),
    ):
        messages = watching_of(database, hub, token, *functions, transitions=transitions)
        await anext(messages)
        assert [(await anext(messages)).invocation.id for _ in wanted] == wanted


async def test_p8_a_slow_reader_is_told_that_it_missed_something(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that has begun, whose next page was removed from the store and is in memory no more."""
    monkeypatch.setattr(feed, "_PAGE_ITEMS", 2)
    monkeypatch.setattr(feed, "_WINDOW_ITEMS", 2)
    hub = WatchHub(database)
    await hub.open()
    messages = watching_of(database, hub)
    await anext(messages)
    (first,) = await ended(database, 1, days_ago=1)
    await tail(database, hub)
    assert (await anext(messages)).invocation.id == first
    await ended(database, 6, days_ago=8)
    await tail(database, hub)
    await kept(database, [])
    with pytest.raises(ApiError, match="their retention is over"):
        await anext(messages)


async def test_p8_a_hub_that_is_behind_hides_no_gap(database: Database) -> None:
    hub = WatchHub(database)
    await hub.open()
    everything, figlets = watching_of(database, hub), watching_of(database, hub, "", "figlet")
    for messages in (everything, figlets):
        await anext(messages)
    (first,) = await ended(database, 1, days_ago=1, function="figlet")
    await tail(database, hub)
    assert [(await anext(messages)).invocation.id for messages in (everything, figlets)] == [first, first]

    await ended(database, 3, days_ago=8)
    (young,) = await ended(database, 1, days_ago=1, function="figlet")
    await kept(database, [])
    await tail(database, hub)
    assert (await anext(figlets)).invocation.id == young
    with pytest.raises(ApiError, match="their retention is over"):
        await anext(everything)
