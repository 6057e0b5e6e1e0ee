"""P8: a watcher sees every result exactly once, whenever it joins and however slowly it reads."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from sqlalchemy import Connection, update

from homing.v1 import invocation_pb2
from homing.v1 import invocation_service_pb2 as api
from homing_core.clock import now_us
from homing_core.lifecycle import State
from homing_core.wire.v1 import Event
from homing_server.auth.identity import EVERYBODY
from homing_server.cluster.presence import Presence
from homing_server.cluster.wait_reasons import WaitReasons
from homing_server.errors import ApiError, Code
from homing_server.functions.catalog import Catalog
from homing_server.metrics import Metrics
from homing_server.store import read, schema
from homing_server.store.effects import CommitEffects
from homing_server.store.engine import Database
from homing_server.store.invocation_rows import Change, record_of
from homing_server.store.read import Numbered, results_after
from homing_server.store.record import store_changes
from homing_server.watch import feed, service
from homing_server.watch.hub import WatchHub
from homing_server.watch.service import WatchService
from support.inbox import until
from support.reporter import Reporter
from support.store import accept_sent, deploy, life, opened, record, row_of

PATIENCE = 30.0


class Station:
    """A hub that runs, as in a server, and watches of it."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.hub = WatchHub(database)
        self.watching = WatchService(database, self.hub, WaitReasons(Catalog(database), Presence()), Metrics())
        self.ended: list[str] = []
        """All that has ended, in the order of its numbers."""
        self._following: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        await self.hub.open()
        for step in (self.hub.follow_results, self.hub.follow_changes):
            self._following.append(asyncio.create_task(self._follow(step)))

    async def close(self) -> None:
        for task in self._following:
            task.cancel()
        await asyncio.gather(*self._following, return_exceptions=True)

    async def end(self, count: int, *, tell: bool = True, **fields: object) -> list[str]:
        """End so many invocations in one transaction."""
        keys = await accept_sent(self.database, count, **fields)
        await self.record(*(event for key in keys for event in life(key)), tell=tell)
        self.ended += keys
        return keys

    async def record(self, *events: Event, tell: bool = True) -> None:
        """Record events in one transaction."""
        effects = await record(self.database, *events)
        if tell:
            self.hub.notify(result_seq=effects.result_seq, change_seq=effects.change_seq)

    async def watch(
        self, token: str = "", *, transitions: bool = False, **selection: object
    ) -> AsyncGenerator[api.WatchResultsResponse]:
        chosen = invocation_pb2.InvocationFilter(**selection)  # type: ignore[arg-type]
        request = api.WatchResultsRequest(resume_token=token, filter=chosen, include_transitions=transitions)
        messages = self.watching.watch(request, caller=EVERYBODY)
        try:
            async for message in messages:
                yield api.WatchResultsResponse.FromString(message)
        finally:
            await messages.aclose()  # type: ignore[attr-defined]

    @staticmethod
    async def _follow(step: Callable[[], Awaitable[None]]) -> None:
        while True:
            await step()


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with opened(tmp_path) as database:
        yield database


@pytest.fixture
async def station(database: Database) -> AsyncIterator[Station]:
    station = Station(database)
    await station.open()
    yield station
    await station.close()


@pytest.fixture
def small_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "_WINDOW_ITEMS", 8)
    monkeypatch.setattr(feed, "_PAGE_ITEMS", 5)


async def first(messages: AsyncIterator[api.WatchResultsResponse]) -> str:
    """Return the token of the bookmark that comes first."""
    async with asyncio.timeout(PATIENCE):
        message = await anext(messages)
    assert message.WhichOneof("event") == "bookmark"
    return message.resume_token


async def take(messages: AsyncIterator[api.WatchResultsResponse], count: int) -> list[tuple[str, str]]:
    """Return the ids and tokens of the next results."""
    seen: list[tuple[str, str]] = []
    async with asyncio.timeout(PATIENCE):
        while len(seen) < count:
            message = await anext(messages)
            if message.WhichOneof("event") == "invocation":
                seen.append((message.invocation.id, message.resume_token))
    return seen


def ids(seen: list[tuple[str, str]]) -> list[str]:
    return [key for key, _ in seen]


async def test_watch_begins_with_a_bookmark_and_shows_whole_results(station: Station) -> None:
    before = await station.end(3)
    messages = station.watch()
    await first(messages)
    after = await station.end(2)
    message = await anext(messages)
    assert message.invocation.id == after[0] not in before
    assert message.invocation.state == invocation_pb2.INVOCATION_STATE_SUCCEEDED
    assert message.invocation.result.status_code == 200
    assert message.invocation.attempt_count == 1
    assert ids(await take(messages, 1)) == after[1:]


async def test_results_of_another_server_are_found_without_being_told(station: Station) -> None:
    messages = station.watch()
    await first(messages)
    keys = await station.end(3, tell=False)
    assert ids(await take(messages, 3)) == keys


@pytest.mark.usefixtures("small_window")
async def test_p8_every_token_resumes_right_behind_it(station: Station) -> None:
    start = station.watch()
    bookmark = await first(start)
    await station.end(12)
    await station.end(13)
    seen = await take(start, 25)
    assert ids(seen) == station.ended
    for number, (_, token) in enumerate([("", bookmark), *seen[:-1]]):
        rest = station.watch(token)
        await first(rest)
        assert ids(await take(rest, 25 - number)) == station.ended[number:]


@pytest.mark.usefixtures("small_window")
async def test_p8_watchers_come_and_go_while_results_come(station: Station) -> None:
    """Some are slow, some are cut and resume, some join late; the window is far smaller than what passes through it."""
    random = Random(8)
    origin = await first(station.watch())
    total = 300
    seen_by: list[list[str]] = []

    async def producer() -> None:
        while len(station.ended) < total:
            await station.end(min(random.randint(1, 20), total - len(station.ended)), tell=random.random() < 0.8)
            await asyncio.sleep(random.random() * 0.02)

    async def watcher(pace: float, patience: int) -> None:
        seen: list[str] = []
        seen_by.append(seen)
        token = origin
        while len(seen) < total:
            messages = station.watch(token)
            cut = random.randint(1, patience)
            async for message in messages:
                token = message.resume_token
                if message.WhichOneof("event") == "invocation":
                    seen.append(message.invocation.id)
                    cut -= 1
                if pace:
                    await asyncio.sleep(pace * random.random())
                if cut <= 0 or len(seen) >= total:
                    break
            await messages.aclose()

    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
        group.create_task(producer())
        for pace, patience in [(0.0, 1000), (0.0, 3), (0.005, 1000), (0.005, 40), (0.0, 90), (0.002, 7)]:
            group.create_task(watcher(pace, patience))
    assert seen_by == [station.ended] * 6


async def test_p8_no_repeats_after_all_watchers_had_left(station: Station) -> None:
    """Also where the last one left while a page was being read for it."""
    for _ in range(10):
        messages = station.watch()
        token = await first(messages)
        await station.end(2)
        waiting = asyncio.create_task(take(messages, 2))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await messages.aclose()
        await station.end(3)
        again = station.watch(token)
        await first(again)
        await station.end(4)
        assert ids(await take(again, 9)) == station.ended[-9:]
        await again.aclose()


async def test_p8_token_outlives_the_server(database: Database) -> None:
    station = Station(database)
    await station.open()
    messages = station.watch()
    await first(messages)
    await station.end(5)
    (_, token) = (await take(messages, 2))[1]
    await station.close()
    successor = Station(database)
    await successor.end(5, tell=False)
    await successor.open()
    rest = successor.watch(token)
    await first(rest)
    assert ids(await take(rest, 8)) == station.ended[2:] + successor.ended
    await successor.close()


async def test_filter_lets_only_its_own_through_and_tokens_move_on(station: Station) -> None:
    await deploy(station.database, "figlet")
    messages = station.watch(functions=["figlet"], labels={"job": "7"})
    token = await first(messages)
    await station.end(3)
    wanted = await station.end(1, function="figlet", labels={"job": "7"})
    await station.end(2, function="figlet", labels={"job": "8"})
    wanted += await station.end(1, function="figlet", labels={"job": "7", "x": ""})
    assert ids(await take(messages, 2)) == wanted
    rest = station.watch(token, functions=["figlet"])
    await first(rest)
    assert len(await take(rest, 4)) == 4


async def test_bookmarks_come_while_nothing_happens(station: Station, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_BOOKMARK_SECONDS", 0.05)
    messages = station.watch(functions=["figlet"])
    token = await first(messages)
    await station.end(3)
    await until(lambda: station.hub.results.seq == 3)
    later = token
    async with asyncio.timeout(PATIENCE):
        while later == token:
            later = await first(messages)
    rest = station.watch(later)
    await first(rest)
    keys = await station.end(1)
    assert ids(await take(rest, 1)) == keys


async def test_token_of_another_store_is_refused(station: Station, tmp_path: Path) -> None:
    async with opened(tmp_path / "other") as database:
        other = Station(database)
        await other.open()
        token = await first(other.watch())
        await other.close()
    with pytest.raises(ApiError, match="another store") as caught:
        await first(station.watch(token))
    assert (caught.value.code, caught.value.reason) == (Code.OUT_OF_RANGE, "RESUME_TOKEN_EXPIRED")


async def test_token_from_before_a_restore_is_refused(database: Database) -> None:
    """The store was put back to an earlier state: its numbers begin again, and would be taken for seen."""
    station = Station(database)
    await station.open()
    messages = station.watch()
    await first(messages)
    await station.end(3)
    ((_, token),) = (await take(messages, 3))[2:]
    await station.close()
    with database.writing() as connection:
        connection.execute(update(schema.counters).where(schema.counters.c.name == "result_seq").values(value=1))
    restored = Station(database)
    await restored.open()
    with pytest.raises(ApiError, match="not as far any more") as caught:
        await first(restored.watch(token))
    assert caught.value.reason == "RESUME_TOKEN_EXPIRED"
    await restored.close()


async def test_token_that_is_ahead_of_this_server_alone_is_taken(database: Database) -> None:
    """It comes from another server, which has heard more."""
    behind = Station(database)
    await behind.hub.open()
    ahead = Station(database)
    await ahead.open()
    messages = ahead.watch()
    await first(messages)
    await ahead.end(3)
    ((_, token),) = (await take(messages, 3))[2:]
    rest = behind.watch(token)
    assert await first(rest) == token
    await behind.open()
    keys = await ahead.end(2)
    assert ids(await take(rest, 2)) == keys
    await ahead.close()
    await behind.close()


# --- All changes


async def changes(messages: AsyncIterator[api.WatchResultsResponse], count: int) -> list[invocation_pb2.Invocation]:
    """Return what the next messages tell of."""
    seen: list[invocation_pb2.Invocation] = []
    async with asyncio.timeout(PATIENCE):
        while len(seen) < count:
            message = await anext(messages)
            if message.WhichOneof("event") == "invocation":
                seen.append(message.invocation)
    return seen


async def test_every_change_is_told_with_the_whole_invocation_as_it_is_then(station: Station) -> None:
    messages = station.watch(transitions=True)
    await first(messages)
    (key,) = await accept_sent(station.database, 1)
    station.hub.changes.wake()
    (accepted,) = await changes(messages, 1)
    assert (accepted.id, accepted.state) == (key, invocation_pb2.INVOCATION_STATE_ENQUEUED)
    assert accepted.wait_reason == invocation_pb2.WAIT_REASON_NO_WORKER
    worker = Reporter(1, invocation_id=key, time_us=now_us())
    progress = Event(invocation_id=key, token=worker.token, time_us=now_us())
    progress.progress.percent = 40
    progress.progress.time.FromMicroseconds(now_us())
    seen = []
    for event in (worker.dequeued(), worker.running(), progress, worker.attempt_ended(), worker.ended(State.FAILED)):
        await station.record(event)
        seen += await changes(messages, 1)
    assert [State(one.state) for one in seen] == [
        State.DEQUEUED,
        State.RUNNING,
        State.RUNNING,
        State.RETRYING,
        State.FAILED,
    ]
    assert seen[2].progress.percent == 40
    assert seen[-1].result.status_code == 500
    assert seen[-1].attempt_count == len(seen[-1].attempts) == 2
    assert seen[-1].events[0].type == invocation_pb2.INVOCATION_EVENT_TYPE_ACCEPTED


async def test_changes_that_are_recorded_together_are_told_as_one(station: Station) -> None:
    messages = station.watch(transitions=True)
    await first(messages)
    keys = await station.end(3)
    seen = await changes(messages, 3)
    assert [one.id for one in seen] == keys
    assert {State(one.state) for one in seen} == {State.SUCCEEDED}


async def test_a_filter_of_states_is_about_the_state_at_the_change(station: Station) -> None:
    messages = station.watch(transitions=True, states=[invocation_pb2.INVOCATION_STATE_RUNNING])
    await first(messages)
    keys = await accept_sent(station.database, 2)
    for key in keys:
        worker = Reporter(1, invocation_id=key, time_us=now_us())
        for event in (worker.running(), worker.ended(State.SUCCEEDED)):
            await station.record(event)
            if event.HasField("running"):
                (told,) = await changes(messages, 1)
                assert (told.id, told.state) == (key, invocation_pb2.INVOCATION_STATE_RUNNING)


async def cut_and_resume(
    station: Station, token: str, total: int, random: Random, *, pace: float, patience: int
) -> list[tuple[str, int]]:
    """Watch changes until so many invocations have ended; return id and length of the history, as they came."""
    seen: list[tuple[str, int]] = []
    ended = 0
    while ended < total:
        messages = station.watch(token, transitions=True)
        cut = random.randint(1, patience)
        async for message in messages:
            token = message.resume_token
            if message.WhichOneof("event") == "invocation":
                seen.append((message.invocation.id, len(message.invocation.events)))
                ended += message.invocation.HasField("end_time")
                cut -= 1
            await asyncio.sleep(pace * random.random())
            if cut <= 0 or ended == total:
                break
        await messages.aclose()
    return seen


@pytest.mark.usefixtures("small_window")
async def test_p8_watchers_of_changes_come_and_go_while_changes_come(station: Station) -> None:
    """None sees a change twice, or goes back in time, and each sees every invocation as it is in the end."""
    random = Random(9)
    origin = await first(station.watch(transitions=True))
    total = 80

    async def producer() -> None:
        moving: list[list[Event]] = []
        made = 0
        while made < total or moving:
            if made < total:
                (key,) = await accept_sent(station.database, 1)
                worker = Reporter(1, invocation_id=key, time_us=now_us())
                moving.append([worker.dequeued(), worker.running(), worker.ended(State.SUCCEEDED)])
                made += 1
            chosen = random.sample(moving, min(len(moving), random.randint(1, 5)))
            await station.record(*(events.pop(0) for events in chosen), tell=random.random() < 0.8)
            moving = [events for events in moving if events]
            await asyncio.sleep(random.random() * 0.005)

    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
        group.create_task(producer())
        watchers = [
            group.create_task(cut_and_resume(station, origin, total, random, pace=pace, patience=patience))
            for pace, patience in [(0.0, 1000), (0.0, 3), (0.005, 1000), (0.003, 40), (0.0, 7)]
        ]
    for watcher in watchers:
        told: Counter[str] = Counter()
        for key, events in watcher.result():
            assert events > told[key], "none twice, and none goes back"
            told[key] = events
        assert len(told) == total


async def test_tokens_of_results_and_of_changes_do_not_pass_for_each_other(station: Station) -> None:
    for transitions in (False, True):
        token = await first(station.watch(transitions=transitions))
        with pytest.raises(ApiError, match="resume_token: is not a token that this server gave out") as caught:
            await first(station.watch(token, transitions=not transitions))
        assert caught.value.code is Code.INVALID_ARGUMENT


async def test_changes_are_not_read_while_nobody_watches_them(
    station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    after = station.hub.changes._read_after

    def counting(connection: Connection, seq: int, *, most: int) -> Sequence[Numbered]:
        read.append(seq)
        return after(connection, seq, most=most)

    monkeypatch.setattr(station.hub.changes, "_read_after", counting)
    monkeypatch.setattr(feed, "_POLL_SECONDS", 0.01)
    results = station.watch()
    await first(results)
    keys = await station.end(5)
    assert ids(await take(results, 5)) == keys
    await station.end(5, tell=False)
    await take(results, 5)
    assert read == []
    messages = station.watch(transitions=True)
    await first(messages)
    (last,) = await station.end(1)
    assert [one.id for one in await changes(messages, 1)] == [last], "and nothing of what was before"


async def test_a_renewed_lease_is_no_change_to_tell_of(station: Station) -> None:
    (key,) = await accept_sent(station.database, 1)
    row = await row_of(station.database, key)
    before = record_of(row)
    effects = CommitEffects()
    with station.database.writing() as connection:
        renewed = Change(row=row, before=before, after=replace(before, due_us=1))
        store_changes(connection, [renewed], effects)
    after = await row_of(station.database, key)
    assert (after.due_us, after.change_seq, effects.change_seq) == (1, row.change_seq, 0)


async def test_a_page_from_the_store_is_bounded_in_bytes(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "_PAGE_BYTES", 1000)
    station = Station(database)
    await station.end(20)
    with database.reading() as connection:
        page = results_after(connection, 0, most=500)
        assert 500 < sum(item.size for item in page) <= 1000
        assert [item.seq for item in page] == list(range(1, len(page) + 1))


# --- Waiting for one


async def test_wait_returns_at_the_end(station: Station) -> None:
    keys = await accept_sent(station.database, 20)
    waits = [asyncio.create_task(station.hub.wait_ended(key, PATIENCE)) for key in keys for _ in range(2)]
    await asyncio.sleep(0)
    await station.record(*(event for key in keys for event in life(key, State.FAILED)))
    for wait in waits:
        invocation = await wait
        assert invocation is not None
        assert invocation.state == invocation_pb2.INVOCATION_STATE_FAILED
    assert not station.hub._waiters


async def test_wait_returns_what_is_there_after_its_time(station: Station) -> None:
    (key,) = await accept_sent(station.database, 1)
    invocation = await station.hub.wait_ended(key, 0.01)
    assert invocation is not None
    assert invocation.state == invocation_pb2.INVOCATION_STATE_ENQUEUED
    assert await station.hub.wait_ended("no such id", PATIENCE) is None
    (done,) = await station.end(1)
    ended = await station.hub.wait_ended(done, 0)
    assert ended is not None
    assert ended.state == invocation_pb2.INVOCATION_STATE_SUCCEEDED


@pytest.mark.parametrize("transitions", [False, True])
async def test_nobody_who_follows_holds_up_a_server_that_stops(station: Station, *, transitions: bool) -> None:
    watch = station.watch(transitions=transitions)
    await first(watch)
    (waits,) = await accept_sent(station.database, 1)
    next_ = asyncio.create_task(anext(watch))
    waiting = asyncio.create_task(station.hub.wait_ended(waits, PATIENCE))
    await asyncio.sleep(0)

    await station.hub.close()

    async with asyncio.timeout(5):
        with pytest.raises(ApiError) as refused:
            await next_
        answered = await waiting
        asked_later = await station.hub.wait_ended(waits, PATIENCE)
    assert (refused.value.code, refused.value.reason) == (Code.UNAVAILABLE, "SERVER_STOPPING")
    assert answered is not None
    assert not answered.HasField("end_time")
    assert asked_later == answered


async def test_numbers_have_no_gaps_in_what_a_watch_reads(station: Station) -> None:
    await station.end(7)
    with station.database.reading() as connection:
        assert [result.seq for result in results_after(connection, 0, most=100)] == list(range(1, 8))
