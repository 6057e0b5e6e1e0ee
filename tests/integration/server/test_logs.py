"""What functions wrote, in the store and to those who read along."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest
from sqlalchemy import Connection, delete, func, select

from homing.v1.log_service_pb2 import LOG_STREAM_STDERR, LOG_STREAM_STDOUT, TailLogsRequest, TailLogsResponse
from homing_core import limits
from homing_core.clock import now_us
from homing_core.ids import new_id
from homing_core.log_lines import CAPPED
from homing_core.wire.v1 import LogBatch, LogLine, LogMessage
from homing_server.errors import ApiError, Code
from homing_server.logs import ingest, tail
from homing_server.logs.ingest import LogIngest
from homing_server.logs.tail import LogTails
from homing_server.store import schema
from homing_server.store.engine import Database, StoreUnavailableError
from homing_server.store.logs import LogMark, append_logs, remove_orphans
from homing_server.tasks import Tasks
from support.connections import connect
from support.inbox import eventually, until
from support.scripted_broker import Handed, ScriptedBroker
from support.store import accept_sent, life, opened, record

DAY = 24 * 3600 * 1_000_000
PATIENCE = 30.0


def batch(invocation_id: str, texts: Iterable[str]) -> LogBatch:
    lines = [LogLine(time_us=now_us(), stream=LOG_STREAM_STDOUT, text=text) for text in texts]
    return LogBatch(invocation_id=invocation_id, lines=lines)


class Station:
    """A server's part that keeps and shows logs."""

    def __init__(self, database: Database, tasks: Tasks) -> None:
        self.database = database
        self.broker = ScriptedBroker()
        self.store = LogIngest(database, self.broker)
        connect(self.broker, self.store)
        self.tails = LogTails(database, self.store)
        tasks.repeat(self.store.store_group, pause=0.01)

    def write(self, *batches: LogBatch) -> Handed:
        """Hand over lines as a worker sends them."""
        (message,) = self.broker.logs[-1].hand(LogMessage(batches=batches).SerializeToString())
        return message

    async def stored(self, id_: str, *texts: str) -> None:
        """Put lines into the store, as another server does."""
        await self.database.write(append_logs, [batch(id_, texts)], now_us=now_us())

    def tail(self, id_: str, *, follow: bool = False) -> AsyncIterator[TailLogsResponse]:
        return self.tails.tail(TailLogsRequest(id=id_, follow=follow))

    async def read(self, id_: str, *, follow: bool = False) -> list[str]:
        async with asyncio.timeout(PATIENCE):
            return [line.text async for line in self.tail(id_, follow=follow)]


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with opened(tmp_path) as database:
        yield database


@pytest.fixture
async def station(database: Database) -> AsyncIterator[Station]:
    async with Tasks() as tasks:
        station = Station(database, tasks)
        await station.broker.start()
        yield station


async def next_text(lines: AsyncIterator[TailLogsResponse]) -> str:
    async with asyncio.timeout(PATIENCE):
        return (await anext(lines)).text


async def test_what_came_is_kept_in_its_order(station: Station) -> None:
    one, other = await accept_sent(station.database, 2)
    first = station.write(batch(one, ["1", "2"]), batch(other, ["a"]))
    last = station.write(batch(one, ["3"]), batch(one, ["4"]))

    await eventually(lambda: station.read(one), ["1", "2", "3", "4"])
    assert (first.fate, last.fate) == ("acked", "acked")
    assert await station.read(other) == ["a"]


async def test_a_line_is_shown_as_it_was_written(station: Station) -> None:
    (id_,) = await accept_sent(station.database, 1)
    line = LogLine(time_us=1_700_000_000_123_456, stream=LOG_STREAM_STDERR, text="text", shared=True)
    station.write(LogBatch(invocation_id=id_, lines=[line]))

    (seen,) = [await anext(station.tail(id_, follow=True))]

    assert seen.time.ToMicroseconds() == line.time_us
    assert (seen.stream, seen.text, seen.shared) == (line.stream, line.text, line.shared)


@pytest.mark.parametrize(
    ("text", "kept"), [("", limits.MAX_LOG_LINES), ("é" * 8192, limits.MAX_LOG_SIZE // (16 * 1024))]
)
async def test_an_invocation_keeps_so_much_over_all_attempts_and_a_line_says_so(
    station: Station, text: str, kept: int
) -> None:
    (id_,) = await accept_sent(station.database, 1)
    for _ in range(4):
        await station.stored(id_, *[text] * (kept // 2 - 1))

    assert await station.read(id_) == [text] * kept + [CAPPED]


async def test_there_is_no_log_without_a_record(station: Station) -> None:
    id_ = new_id()
    await station.stored(id_, "text")

    with pytest.raises(ApiError) as caught:
        await station.read(id_)

    assert caught.value.code is Code.NOT_FOUND


async def test_a_follower_is_told_at_once_and_leaves_after_the_end(
    station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "_POLL_SECONDS", PATIENCE)
    (id_,) = await accept_sent(station.database, 1)
    await station.stored(id_, "before")
    lines = station.tail(id_, follow=True)
    assert await next_text(lines) == "before"
    waiting = asyncio.create_task(next_text(lines))
    await until(lambda: id_ in station.store._readers)
    station.write(batch(id_, ["live"]))
    assert await waiting == "live"

    monkeypatch.setattr(tail, "_POLL_SECONDS", 0.05)
    await record(station.database, *life(id_))
    waiting = asyncio.create_task(next_text(lines))
    await asyncio.sleep(0.1)
    station.write(batch(id_, ["late"]))

    assert await waiting == "late"
    with pytest.raises(StopAsyncIteration):
        await next_text(lines)
    assert not station.store._readers


async def test_a_follower_hears_of_what_another_server_stores(station: Station) -> None:
    (id_,) = await accept_sent(station.database, 1)
    lines = station.tail(id_, follow=True)
    waiting = asyncio.create_task(next_text(lines))
    await until(lambda: id_ in station.store._readers)
    begun = time.monotonic()
    await station.stored(id_, "elsewhere")

    assert await waiting == "elsewhere"
    assert time.monotonic() - begun < 1.0
    await lines.aclose()  # type: ignore[attr-defined]


async def test_a_follower_of_what_has_long_ended_does_not_wait(
    station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    (id_,) = await accept_sent(station.database, 1)
    await station.stored(id_, *map(str, range(500)))
    for number in range(3 * tail._PAGE_BATCHES):
        await station.stored(id_, f"chunk {number}")
    await record(station.database, *life(id_))
    monkeypatch.setattr(tail, "_GRACE_SECONDS", 0.0)
    monkeypatch.setattr(tail, "_POLL_SECONDS", PATIENCE)

    assert len(await station.read(id_, follow=True)) == 500 + 3 * tail._PAGE_BATCHES


async def test_lines_wait_for_a_store_that_is_away_and_are_told_once(
    station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    (id_,) = await accept_sent(station.database, 1)
    failures = 3

    def fail(*arguments: object, **options: object) -> set[str]:
        nonlocal failures
        failures -= 1
        if not failures:
            monkeypatch.setattr(ingest, "append_logs", append_logs)
        raise StoreUnavailableError("away")

    monkeypatch.setattr(ingest, "append_logs", fail)
    first = station.write(batch(id_, ["1"]))
    await until(lambda: first.fate == "acked")
    station.broker.lose()
    await station.broker.start()
    station.write(batch(id_, ["2"]))

    await eventually(lambda: station.read(id_), ["1", "2"])
    assert not failures


async def test_what_cannot_be_read_is_dropped(station: Station) -> None:
    (message,) = station.broker.logs[-1].hand(b"\xff\xff")

    assert message.fate == "rejected"


async def test_lines_without_a_record_are_removed_page_by_page(database: Database) -> None:
    kept, lost = await accept_sent(database, 1), [new_id() for _ in range(10)]
    now = now_us()
    for number, id_ in enumerate([*lost[:5], *kept, *lost[5:]]):
        await database.write(append_logs, [batch(id_, ["text"])], now_us=now - 2 * DAY + number)
    await database.write(append_logs, [batch(new_id(), ["text"])], now_us=now)

    looked: int | None = 0
    rounds = 0
    while looked is not None:
        looked = await database.write(remove_orphans, after_us=looked, until_us=now - DAY, most=4)
        rounds += 1

    assert rounds == 3
    assert await database.read(_count) == 2


def _count(connection: Connection) -> int:
    return connection.execute(select(func.count()).select_from(schema.logs)).scalar_one()


def of_function(function: str, invocation_id: str, texts: Iterable[str]) -> LogBatch:
    made = batch(invocation_id, texts)
    made.function = function
    return made


async def read_marked(
    station: Station, function: str, *, since_us: int = 0, lines: int = 0, mark: LogMark | None = None
) -> list[tuple[LogMark, str]]:
    async with asyncio.timeout(PATIENCE):
        pages = station.tails.tail_function(function, since_us=since_us, lines=lines, mark=mark)
        return [(mark, each.line.text) async for page in pages for mark, each in page]


async def read_function(station: Station, function: str, *, since_us: int = 0, lines: int = 0) -> list[str]:
    return [text for _, text in await read_marked(station, function, since_us=since_us, lines=lines)]


async def test_a_function_s_log_is_that_of_all_its_invocations_in_their_order(station: Station) -> None:
    one, two, other = await accept_sent(station.database, 3)
    expected = []
    for number in range(50):  # more than a page
        texts = [f"{number}a", f"{number}b"]
        batches = [of_function("f", one if number % 2 else two, texts), of_function("g", other, ["not this"])]
        await station.database.write(append_logs, batches, now_us=now_us())
        expected += texts

    assert await read_function(station, "f") == expected
    assert await read_function(station, "f", lines=5) == expected[-5:]
    assert await read_function(station, "f", lines=1000) == expected
    assert await read_function(station, "nothing") == []


@pytest.mark.parametrize("lines", [0, 7])
async def test_a_function_s_log_goes_on_after_each_of_its_lines(station: Station, lines: int) -> None:
    one, two = await accept_sent(station.database, 2)
    # Two invocations whose times alternate, so that lines of several chunks are mixed.
    for number in range(25):
        batches = [of_function("f", each, [f"{number}{each[-4:]}{part}" for part in "ab"]) for each in (one, two)]
        for each, first in zip(batches, (1, 2), strict=True):
            for place, line in enumerate(each.lines):
                line.time_us = 1000 * number + first + 2 * place
        await station.database.write(append_logs, batches, now_us=1_000_000 + number)
    read = await read_marked(station, "f", lines=lines)
    assert len(read) == (lines or 100)
    # What comes in between changes nothing of what is read on.
    late = of_function("f", one, ["late"])
    await station.database.write(append_logs, [late], now_us=2_000_000)

    for place, (mark, _) in enumerate(read):
        rest = [text for _, text in await read_marked(station, "f", lines=lines, mark=mark)]
        assert rest == [*(text for _, text in read[place + 1 :]), "late"]


async def test_what_was_written_at_one_time_is_in_its_order_and_read_on_after_each_line(station: Station) -> None:
    one, two = await accept_sent(station.database, 2)
    for number in range(4):
        batches = [of_function("f", each, [f"{number}{part}" for part in "ab"]) for each in (one, two)]
        for line in [line for each in batches for line in each.lines]:
            line.time_us = 1_000
        await station.database.write(append_logs, batches, now_us=1_000_000 + number)
    expected = [text for number in range(4) for text in (f"{number}a", f"{number}b") * 2]

    for lines in (0, 5, 16):
        read = await read_marked(station, "f", lines=lines)
        assert [text for _, text in read] == expected[-lines:]
        for place, (mark, _) in enumerate(read):
            rest = [text for _, text in await read_marked(station, "f", lines=lines, mark=mark)]
            assert rest == [text for _, text in read[place + 1 :]]


@pytest.mark.parametrize("lines", [0, 3])
async def test_what_was_read_and_is_removed_takes_nothing_from_what_is_read_on(station: Station, lines: int) -> None:
    one, two = await accept_sent(station.database, 2)
    for number, (each, text) in enumerate([(one, "1"), (two, "2"), (two, "3")], 1):
        made = of_function("f", each, [text])
        made.lines[0].time_us = number
        await station.database.write(append_logs, [made], now_us=number)
    marks = [mark for mark, _ in await read_marked(station, "f", lines=lines)]
    await station.database.write(_remove, one)

    rest = [[text for _, text in await read_marked(station, "f", lines=lines, mark=mark)] for mark in marks]
    assert rest == [["2", "3"], ["3"], []]


def _remove(connection: Connection, invocation_id: str) -> None:
    connection.execute(delete(schema.logs).where(schema.logs.c.invocation_id == invocation_id))


async def test_a_function_s_log_since_a_time_has_no_earlier_lines(station: Station) -> None:
    (one,) = await accept_sent(station.database, 1)
    early, late = batch(one, ["early"]), batch(one, ["late"])
    early.function = late.function = "f"
    early.lines[0].time_us, late.lines[0].time_us = 1_000, 2_000
    both = LogBatch(invocation_id=one, function="f", lines=[*early.lines, *late.lines])
    await station.database.write(append_logs, [both], now_us=3_000)

    for lines in (0, 10):
        assert await read_function(station, "f", since_us=2_000, lines=lines) == ["late"]
        assert await read_function(station, "f", since_us=3_001, lines=lines) == []


async def test_who_follows_a_function_s_log_sees_each_line_once_until_the_server_stops(
    station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "_POLL_SECONDS", 60.0)
    one, two, other = await accept_sent(station.database, 3)
    await station.database.write(append_logs, [of_function("f", one, ["1", "2"])], now_us=now_us())
    pages = station.tails.tail_function("f", lines=1, follow=True)
    async with asyncio.timeout(PATIENCE):
        assert [each.line.text for _, each in await anext(pages)] == ["2"]
        waiting = asyncio.ensure_future(anext(pages))
        station.write(of_function("g", other, ["no"]), of_function("f", two, ["3"]))
        ((_, line),) = await waiting
        assert (line.invocation_id, line.line.text) == (two, "3")
        station.tails.close()
        with pytest.raises(ApiError, match="the server stops"):
            await anext(pages)
