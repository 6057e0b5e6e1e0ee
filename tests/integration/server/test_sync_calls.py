"""Synchronous calls at a server: what it announces when their callers go away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from homing.v1 import invocation_pb2 as api
from homing_core.clock import now_us
from homing_core.reasons import FailureReason
from homing_core.wire.v1 import (
    AttemptRecord,
    CancelledCall,
    Control,
    Ended,
    SyncStarted,
    Tombstones,
    WorkerStatus,
)
from homing_server.errors import ApiError, Code
from homing_server.invocations import sync_calls, sync_records
from homing_server.store import stops
from homing_server.store.engine import StoreUnavailableError
from homing_server.tasks import Tasks
from support.inbox import until
from support.store import opened, read
from support.sync_bench import Bench


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with opened(tmp_path) as database, Tasks() as tasks:
        bench = Bench(database, tasks, tmp_path)
        await bench.broker.start()
        yield bench


async def gone(*calls: asyncio.Task[api.Invocation]) -> None:
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    assert all(call.cancelled() for call in calls)


async def test_calls_whose_callers_go_away_together_are_announced_together(bench: Bench) -> None:
    calls = [await bench.call() for _ in range(20)]
    await gone(*calls)
    await until(lambda: bool(bench.announced))

    requests = bench.broker.sync
    assert bench.announced == [
        [CancelledCall(invocation_id=each.invocation_id, deadline_us=each.deadline_us) for each in requests]
    ]


async def test_what_is_answered_or_at_its_deadline_is_not_announced(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync_calls, "_DEADLINE_MARGIN_SECONDS", 30.0)
    answered, late = await bench.call(), await bench.call(seconds=29.0)
    bench.reply(answered.get_name(), ended=Ended(state=api.INVOCATION_STATE_SUCCEEDED))
    answered.cancel()
    await gone(late)
    await bench.quiet()

    told = {call.invocation_id for calls in bench.announced for call in calls}
    assert not told & {answered.get_name(), late.get_name()}


async def test_an_attempt_that_ran_until_its_callers_deadline_is_told_as_that_deadline(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether its worker is the first to notice, or this server."""
    monkeypatch.setattr(sync_calls, "_LATE_SECONDS", 30.0)
    late, before = await bench.call(seconds=29.0), await bench.call(seconds=60.0)
    for call in (late, before):
        bench.reply(call.get_name(), started=SyncStarted(worker="w"))
        bench.reply(call.get_name(), ended=Ended(state=api.INVOCATION_STATE_TIMED_OUT))

    with pytest.raises(ApiError, match="the deadline passed while the invocation ran") as told:
        await late
    assert told.value.code is Code.DEADLINE_EXCEEDED
    assert (await before).state == api.INVOCATION_STATE_TIMED_OUT


async def test_a_server_that_shuts_down_cuts_calls_off_and_stops_none(bench: Bench) -> None:
    before, after = await bench.call(), await bench.call()
    await gone(before)
    bench.calls.drain()
    await gone(after)
    await until(lambda: bool(bench.announced))

    assert [[call.invocation_id for call in calls] for calls in bench.announced] == [[before.get_name()]]


async def test_a_worker_that_starts_one_all_the_same_hears_of_it_again(bench: Bench) -> None:
    call = await bench.call()
    await gone(call)
    await until(lambda: len(bench.announced) == 1)
    bench.reply("nobody", started=SyncStarted(worker="w"))
    bench.reply(call.get_name(), started=SyncStarted(worker="w"))
    await until(lambda: len(bench.announced) == 2)

    assert bench.announced[0] == bench.announced[1]


async def test_what_nobody_could_hear_of_is_announced_over_the_next_connection(bench: Bench) -> None:
    call = await bench.call()
    bench.broker.up = False
    await gone(call)
    await until(lambda: len(bench.control.cancelled_calls) == 1)
    assert bench.announced == []
    await bench.broker.start()
    await until(lambda: bool(bench.announced))

    assert [[call.invocation_id for call in calls] for calls in bench.announced] == [[call.get_name()]]


async def test_snapshots_have_them_until_their_deadlines(bench: Bench) -> None:
    long, short = await bench.call(), await bench.call(seconds=1.0)
    await gone(long, short)
    await until(lambda: bool(bench.announced))
    deadline_us = bench.broker.sync[1].deadline_us
    await until(lambda: now_us() > deadline_us)
    hello = WorkerStatus(worker="w", control_address="w", hello=True)
    bench.broker.statuses[-1].hand(hello.SerializeToString())

    def snapshots() -> list[Control]:
        told = [Control.FromString(body) for body in bench.broker.control]
        return [control for control in told if control.HasField("snapshot")]

    await until(lambda: bool(snapshots()))
    assert [call.invocation_id for call in snapshots()[0].snapshot.cancelled_calls] == [long.get_name()]


# --- Calls that last


@pytest.fixture
def recording(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Return a server that records calls whenever it is told to, however young they are."""
    monkeypatch.setattr(sync_calls, "_RECORD_SECONDS", 0.0)
    monkeypatch.setattr(sync_records, "_LASTING_SECONDS", 0.0)
    return bench


SUCCEEDED = Ended(state=api.INVOCATION_STATE_SUCCEEDED)


async def test_nothing_is_written_of_a_call_that_is_short(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sync_calls, "_RECORD_SECONDS", 0.0)
    call = await bench.call()
    await bench.record()
    bench.reply(call.get_name(), ended=SUCCEEDED)
    await call
    await bench.record()
    assert (await bench.state_of(call), bench.effects) == ("", [])


async def test_what_lasts_is_recorded_once_and_when_it_starts(recording: Bench) -> None:
    first, second = await recording.call(), await recording.call()
    recording.reply(second.get_name(), started=SyncStarted(worker="w"))
    await recording.record()
    assert [await recording.state_of(call) for call in (first, second)] == ["ENQUEUED", "RUNNING"]
    assert len(recording.effects) == 1, "one transaction for all"
    await recording.record()
    assert len(recording.effects) == 1, "there is nothing new"
    recording.reply(first.get_name(), started=SyncStarted(worker="w"))
    await recording.record()
    assert await recording.state_of(first) == "RUNNING"
    assert (await read(recording.database, first.get_name())).attempts[0].worker == "w"

    for call in (first, second):
        recording.reply(call.get_name(), ended=SUCCEEDED)
        await call
    await recording.record()
    assert [await recording.state_of(call) for call in (first, second)] == ["SUCCEEDED", "SUCCEEDED"]
    assert len(recording.effects) == 3


async def test_a_function_that_leaves_no_records_leaves_none(recording: Bench) -> None:
    call = await recording.call()
    function = await recording.catalog.get("resize")
    function.record_sync = False
    await recording.record()
    assert await recording.state_of(call) == ""
    function.record_sync = True
    await recording.record()
    assert await recording.state_of(call) == "ENQUEUED"


async def test_what_never_starts_ends_with_its_caller_or_at_its_deadline(recording: Bench) -> None:
    gone, late = await recording.call(), await recording.call(seconds=0.5)
    await recording.record()
    await gone_with_error(late, ApiError)
    await gone_with_error(gone, asyncio.CancelledError, cancel=True)
    await recording.record()
    assert [await recording.state_of(call) for call in (gone, late)] == ["STOPPED", "EXPIRED"]
    failures = [(await read(recording.database, call.get_name())).failure for call in (gone, late)]
    assert [failure.message for failure in failures] == [
        "its caller went away before it started",
        "its deadline passed before it started",
    ]


async def test_what_starts_as_its_caller_goes_away_is_ended_by_its_worker(recording: Bench) -> None:
    call = await recording.call()
    await recording.record()
    await gone_with_error(call, asyncio.CancelledError, cancel=True)
    recording.reply(call.get_name(), started=SyncStarted(worker="w"))
    await recording.record()
    assert await recording.state_of(call) == "ENQUEUED"


async def test_what_a_server_cuts_off_as_it_shuts_down_is_ended_by_its_worker(recording: Bench) -> None:
    call = await recording.call()
    await recording.record()
    recording.calls.drain()
    await gone_with_error(call, asyncio.CancelledError, cancel=True)
    await recording.record()
    assert await recording.state_of(call) == "ENQUEUED"


async def test_an_end_that_no_worker_reports_is_told_by_the_server(recording: Bench) -> None:
    call = await recording.call()
    await recording.record()
    ended = Ended(state=api.INVOCATION_STATE_INVALID, failure=api.Failure(reason=FailureReason.FUNCTION_DELETED))
    recording.reply(call.get_name(), ended=ended)
    assert (await call).state == api.INVOCATION_STATE_INVALID
    await recording.record()
    assert await recording.state_of(call) == "INVALID"


async def test_an_end_that_its_worker_reports_is_left_to_it(recording: Bench) -> None:
    for leaves_records, state in ((True, "ENQUEUED"), (False, "SUCCEEDED")):
        call = await recording.call()
        await recording.record()
        (await recording.catalog.get("resize")).record_sync = leaves_records
        ended = Ended(state=api.INVOCATION_STATE_SUCCEEDED, attempts=[AttemptRecord(start_us=1, end_us=2)])
        recording.reply(call.get_name(), ended=ended)
        await call
        await recording.record()
        assert await recording.state_of(call) == state


async def test_what_could_not_be_written_is_written_later(recording: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    call = await recording.call()
    write = recording.database.write

    async def refuse(*_: object, **__: object) -> None:
        await asyncio.sleep(0)
        raise StoreUnavailableError("away")

    async def fail() -> None:
        monkeypatch.setattr(recording.database, "write", refuse)
        with pytest.raises(StoreUnavailableError):
            await recording.record()
        monkeypatch.setattr(recording.database, "write", write)

    await fail()
    assert await recording.state_of(call) == ""
    await recording.record()
    assert await recording.state_of(call) == "ENQUEUED"
    recording.reply(call.get_name(), ended=SUCCEEDED)
    await call
    await fail()
    await recording.record()
    assert await recording.state_of(call) == "SUCCEEDED"


async def test_a_stop_that_no_worker_has_to_carry_out_is_answered_from_the_record(recording: Bench) -> None:
    call, other = await recording.call(), await recording.call()
    await recording.record()
    with recording.database.writing() as connection:
        asked = stops.request_stop(connection, call.get_name(), caller="me", reason="enough", now_us=now_us())
    message = Control(server="other", tombstones=Tombstones(tombstones=asked.stops))
    recording.broker.controls[-1].hand(message.SerializeToString())
    await recording.record()
    assert not call.done(), "it is STOPPING, and somebody may have it"
    with recording.database.writing() as connection:
        stops.stop_all(connection, [call.get_name()], now_us=now_us())
    await recording.record()
    answer = await call
    assert (answer.state, answer.sync, answer.stop_request.caller) == (api.INVOCATION_STATE_STOPPED, True, "me")
    assert answer.failure.message == "stopped by request: enough"
    assert not other.done()
    other.cancel()


async def gone_with_error(
    call: asyncio.Task[api.Invocation], error: type[BaseException], *, cancel: bool = False
) -> None:
    if cancel:
        call.cancel()
    with pytest.raises(error):
        await call
