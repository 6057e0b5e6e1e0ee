"""Synchronous calls whose callers take the answers as they come, at a server: what is passed on, and when it breaks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from sqlalchemy import select

from homing.v1 import invocation_pb2 as api
from homing.v1.payload_pb2 import Header, Payload
from homing_core.clock import now_us
from homing_core.ids import new_id
from homing_core.wire.v1 import Ended, StreamHead, SyncStarted
from homing_server.auth.identity import EVERYBODY
from homing_server.errors import ApiError, Code
from homing_server.invocations import answer_stream, sync_records
from homing_server.invocations.answer_stream import AnswerStream, BadStreamError, NobodyWaitsError, ReaderGoneError
from homing_server.store import schema
from homing_server.tasks import Tasks
from support.inbox import until
from support.store import make_spec, opened
from support.sync_bench import Bench

HEAD = StreamHead(status_code=201, headers=[Header(name="x-a", value="1")], content_type="text/event-stream")
SUCCEEDED = Ended(state=api.INVOCATION_STATE_SUCCEEDED, result=api.Result(status_code=201, cut=True, streamed_size=9))
FAILED = Ended(state=api.INVOCATION_STATE_FAILED, failure=api.Failure(reason="CONNECTION_LOST"))


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with opened(tmp_path) as database, Tasks() as tasks:
        bench = Bench(database, tasks, tmp_path)
        await bench.broker.start()
        yield bench


def framed(head: StreamHead = HEAD) -> bytes:
    raw = head.SerializeToString()
    return len(raw).to_bytes(4) + raw


class Worker:
    """Streams an answer to the server, as the data port takes it in, part by part as a test says."""

    def __init__(self, bench: Bench, id_: str) -> None:
        self.taken = 0
        self._chunks: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.done = asyncio.ensure_future(bench.calls.receive_stream(id_, self._read()))

    def send(self, *chunks: bytes) -> None:
        for chunk in chunks:
            self._chunks.put_nowait(chunk)

    def finish(self) -> None:
        self.send(b"")

    def break_off(self) -> None:
        self._chunks.put_nowait(None)

    async def _read(self) -> AsyncIterator[bytes]:
        while chunk := await self._chunks.get():
            self.taken += 1
            yield chunk
        if chunk is None:
            raise ConnectionResetError


class Caller:
    """Takes an answer."""

    def __init__(self, bench: Bench, *, seconds: float = 60.0) -> None:
        self.id = new_id()
        self.answer: AnswerStream | None = None
        self.parts: list[bytes] = []
        self.reading = asyncio.Event()
        self.task = asyncio.create_task(self._read(bench, seconds))

    async def _read(self, bench: Bench, seconds: float) -> api.Invocation:
        streaming = bench.calls.stream(self.id, make_spec(), timeout=seconds, caller=EVERYBODY, traceparent="")
        async with streaming as self.answer:
            await self.reading.wait()
            if self.answer.head is not None:
                async with contextlib.aclosing(self.answer.parts()) as parts:
                    async for part in parts:
                        self.parts.append(part)
            return self.answer.invocation

    async def leave(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        assert self.task.cancelled()


async def called(bench: Bench, *, reads: bool = True, seconds: float = 60.0) -> Caller:
    published = len(bench.broker.sync)
    caller = Caller(bench, seconds=seconds)
    if reads:
        caller.reading.set()
    await until(lambda: len(bench.broker.sync) > published)
    return caller


async def test_an_answer_is_passed_on_as_it_comes(bench: Bench) -> None:
    caller = await called(bench)
    url = urlsplit(bench.broker.sync[0].stream_url)
    assert (url.netloc, url.path) == ("127.0.0.1:1", f"/v1/streams/{caller.id}")
    worker = Worker(bench, caller.id)
    raw = framed()
    worker.send(raw[:3], raw[3:9], raw[9:] + b"one")
    await until(lambda: caller.parts == [b"one"])
    assert caller.answer is not None
    assert caller.answer.head == HEAD
    assert caller.answer.ended is None
    worker.send(b"two", b"three")
    await until(lambda: caller.parts == [b"one", b"two", b"three"])
    worker.finish()
    await worker.done
    assert not caller.task.done()
    bench.reply(caller.id, ended=SUCCEEDED)
    assert (await caller.task).state == api.INVOCATION_STATE_SUCCEEDED
    assert not bench.announced


async def test_a_worker_waits_for_the_reader(bench: Bench) -> None:
    caller = await called(bench, reads=False)
    worker = Worker(bench, caller.id)
    worker.send(framed(), *[b"x"] * 50)
    worker.finish()
    await until(lambda: worker.taken == 2)
    for _ in range(100):
        await asyncio.sleep(0)
    assert worker.taken == 2
    caller.reading.set()
    await worker.done
    assert b"".join(caller.parts) == b"x" * 50
    bench.reply(caller.id, ended=SUCCEEDED)
    await caller.task


async def test_an_answer_that_came_whole_is_passed_on_too(bench: Bench) -> None:
    small, large, failed, none = [await called(bench) for _ in range(4)]

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(5):
            yield b"y" * 100_000

    blob = await bench.blobs.write(chunks(), invocation_id=large.id)
    head = {"status_code": 200, "headers": [Header(name="x-b", value="2")]}
    for caller, payload in ((small, Payload(content_type="a/b", data=b"z" * 100_000)), (large, Payload(blob=blob))):
        result = api.Result(payload=payload, **head)  # type: ignore[arg-type]
        bench.reply(caller.id, ended=Ended(state=api.INVOCATION_STATE_SUCCEEDED, result=result))
    result = api.Result(status_code=404, payload=Payload(data=b"no"))
    bench.reply(failed.id, ended=Ended(state=api.INVOCATION_STATE_FAILED, result=result))
    bench.reply(none.id, ended=Ended(state=api.INVOCATION_STATE_TIMED_OUT))

    assert (await small.task).result.payload.data == b"".join(small.parts) == b"z" * 100_000
    assert small.answer is not None
    assert small.answer.head is not None
    assert (small.answer.head.content_type, small.answer.head.headers[0].value) == ("a/b", "2")
    assert (await large.task).result.payload.blob == blob
    assert b"".join(large.parts) == b"y" * 500_000
    assert max(map(len, small.parts + large.parts)) == answer_stream.PART_BYTES
    assert (await failed.task).state == api.INVOCATION_STATE_FAILED
    assert failed.parts == [b"no"]
    assert (await none.task).state == api.INVOCATION_STATE_TIMED_OUT
    assert none.answer is not None
    assert none.answer.head is None


async def test_one_that_breaks_off_ends_as_its_worker_says(bench: Bench) -> None:
    caller = await called(bench)
    worker = Worker(bench, caller.id)
    worker.send(framed() + b"one")
    worker.break_off()
    with pytest.raises(ConnectionResetError):
        await worker.done
    bench.reply(caller.id, ended=FAILED)
    assert (await caller.task).failure.reason == "CONNECTION_LOST"
    assert caller.parts == [b"one"]
    assert not bench.announced


@pytest.mark.parametrize("whole", [True, False])
async def test_one_of_whose_end_its_worker_says_nothing_is_lost(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, *, whole: bool
) -> None:
    monkeypatch.setattr(answer_stream, "_END_SECONDS", 0.05)
    caller = await called(bench)
    worker = Worker(bench, caller.id)
    worker.send(framed() + b"one")
    if whole:
        worker.finish()
    else:
        worker.break_off()
    with pytest.raises(ApiError) as raised:
        await caller.task
    assert (raised.value.code, raised.value.reason) == (Code.UNAVAILABLE, "WORKER_LOST")
    await asyncio.wait({worker.done})
    assert isinstance(worker.done.exception(), ConnectionResetError) is not whole


async def test_a_lost_connection_ends_what_streams(bench: Bench) -> None:
    caller = await called(bench)
    worker = Worker(bench, caller.id)
    worker.send(framed() + b"one")
    await until(lambda: bool(caller.parts))
    bench.calls.lost()
    with pytest.raises(ApiError) as raised:
        await caller.task
    assert raised.value.reason == "BROKER_LOST"
    with pytest.raises(ReaderGoneError):
        await worker.done


async def test_a_caller_that_leaves_stops_it_even_past_its_deadline(bench: Bench) -> None:
    caller = await called(bench, seconds=0.2)
    bench.reply(caller.id, started=SyncStarted(worker="w"))
    worker = Worker(bench, caller.id)
    worker.send(framed() + b"one")
    await until(lambda: bool(caller.parts))
    deadline_us = bench.broker.sync[0].deadline_us
    await until(lambda: now_us() > deadline_us)
    await caller.leave()
    with pytest.raises(ReaderGoneError):
        await worker.done
    await until(lambda: bool(bench.announced))
    [[told]] = bench.announced
    assert told.invocation_id == caller.id
    assert told.deadline_us > now_us()


async def test_the_head_is_waited_for_until_the_deadline(bench: Bench) -> None:
    caller = await called(bench, seconds=0.1)
    with pytest.raises(ApiError) as raised:
        await caller.task
    assert raised.value.code is Code.DEADLINE_EXCEEDED
    with pytest.raises(NobodyWaitsError):
        await Worker(bench, caller.id).done


async def test_only_one_stream_is_taken_and_only_for_who_waits_for_one(bench: Bench) -> None:
    caller = await called(bench)
    first = Worker(bench, caller.id)
    first.send(framed())
    await until(lambda: caller.answer is not None)
    with pytest.raises(NobodyWaitsError):
        await Worker(bench, caller.id).done
    with pytest.raises(NobodyWaitsError):
        await Worker(bench, new_id()).done
    whole = await bench.call()
    with pytest.raises(NobodyWaitsError):
        await Worker(bench, whole.get_name()).done
    await caller.leave()
    whole.cancel()
    with pytest.raises(ReaderGoneError):
        await first.done


@pytest.mark.parametrize("raw", [b"\xff\xff\xff\xffx", b"\x00\x00\x00\x02\xff\xff", b"\x00\x00", b""])
async def test_what_is_no_answer_is_refused(bench: Bench, raw: bytes) -> None:
    caller = await called(bench)
    worker = Worker(bench, caller.id)
    if raw:
        worker.send(raw)
    worker.finish()
    with pytest.raises(BadStreamError):
        await worker.done
    bench.reply(caller.id, ended=FAILED)
    assert (await caller.task).state == api.INVOCATION_STATE_FAILED


async def test_a_record_of_one_that_streams_is_not_lost_at_the_deadline(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync_records, "_LASTING_SECONDS", 0.0)
    caller = await called(bench)
    await bench.record()

    def due_us() -> int:
        with bench.database.reading() as connection:
            query = select(schema.invocations.c.due_us).where(schema.invocations.c.id == caller.id)
            return int(connection.execute(query).scalar_one())

    assert due_us() < now_us() + 100_000_000
    worker = Worker(bench, caller.id)
    worker.send(framed())
    await until(lambda: caller.answer is not None)
    await bench.record()
    assert due_us() > now_us() + 24 * 3600 * 1_000_000
    await caller.leave()
    with pytest.raises(ReaderGoneError):
        await worker.done
