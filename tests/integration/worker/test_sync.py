"""Synchronous calls at a worker."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from google.protobuf.duration_pb2 import Duration

from homing.v1 import invocation_pb2 as api
from homing.v1.function_pb2 import Command, Function
from homing.v1.invocation_pb2 import InvocationSpec
from homing.v1.payload_pb2 import HttpOptions, Payload
from homing.v1.policy_pb2 import RetryPolicy
from homing_core.ids import new_id
from support.fake_server import FakeServer
from support.ledger import until
from support.sleeper import runs, sleeper, sleepers
from support.workers import running_worker

UPPER = "import sys; sys.stdout.write(sys.stdin.read().upper())"


def python(name: str, code: str, **fields: Any) -> Function:
    return Function(name=name, command=Command(args=[sys.executable, "-c", code]), **fields)


async def test_a_call_is_answered_and_recorded(server: FakeServer, broker_url: str, tmp_path: Path) -> None:
    await server.deploy(python("upper", UPPER))

    async with running_worker(server, broker_url, tmp_path) as worker:
        id_ = await server.call(InvocationSpec(function="upper", payload=Payload(data=b"now")))
        started = await server.reply(id_, "started")
        ended = (await server.reply(id_)).ended
        recorded = await server.event(id_, "sync_ended")

    assert started.started.worker == worker.name
    assert (ended.state, ended.result.payload.data) == (api.INVOCATION_STATE_SUCCEEDED, b"NOW")
    assert recorded.sync_ended.ended == ended
    assert recorded.sync_ended.request.invocation_id == id_
    assert {event.WhichOneof("kind") for event in server.of(id_)} == {"sync_ended"}


async def test_a_call_leaves_no_record_where_the_function_wants_none(
    server: FakeServer, broker_url: str, tmp_path: Path
) -> None:
    await server.deploy(python("upper", UPPER, record_sync=False))

    async with running_worker(server, broker_url, tmp_path):
        id_ = await server.call(InvocationSpec(function="upper"))
        assert (await server.reply(id_)).ended.state == api.INVOCATION_STATE_SUCCEEDED
        await server.end(await server.send(InvocationSpec(function="upper")))

    assert not server.of(id_)


async def test_calls_go_before_work_that_waits(server: FakeServer, broker_url: str, tmp_path: Path) -> None:
    await server.deploy(python("slow", "import time; time.sleep(0.5)", max_instances=1))

    async with running_worker(server, broker_url, tmp_path):
        work = await server.send_all([InvocationSpec(function="slow")] * 4)
        await server.event(work[0], "running")
        call = await server.call(InvocationSpec(function="slow"))
        called = (await server.reply(call)).ended.attempts[0].start_us
        starts = [(await server.end(id_)).attempts[0].start_us for id_ in work]

    assert sum(start < called for start in starts) <= 2


async def test_a_call_is_retried_within_its_deadline_and_not_beyond(
    server: FakeServer, broker_url: str, tmp_path: Path
) -> None:
    await server.deploy(python("sad", "raise SystemExit(1)"))
    patient = RetryPolicy(initial_backoff=Duration(nanos=1000), max_attempts=3)
    slow = RetryPolicy(initial_backoff=Duration(seconds=100), max_attempts=100, max_backoff=Duration(seconds=100))

    async with running_worker(server, broker_url, tmp_path):
        retried = await server.call(InvocationSpec(function="sad", retry_policy=patient))
        in_vain = await server.call(InvocationSpec(function="sad", retry_policy=slow), seconds=2.0)
        three = (await server.reply(retried)).ended
        few = (await server.reply(in_vain)).ended

    assert (three.state, len(three.attempts)) == (api.INVOCATION_STATE_FAILED, 3)
    assert few.state == api.INVOCATION_STATE_FAILED
    assert few.attempts[-1].end_us - few.attempts[0].start_us < 2_500_000


async def test_an_attempt_does_not_run_past_the_deadline(server: FakeServer, broker_url: str, tmp_path: Path) -> None:
    await server.deploy(python("hang", "import time; time.sleep(3600)"))

    async with running_worker(server, broker_url, tmp_path):
        id_ = await server.call(InvocationSpec(function="hang"), seconds=1.5)
        end = (await server.reply(id_)).ended

    assert end.state == api.INVOCATION_STATE_TIMED_OUT
    assert end.attempts[0].end_us - end.attempts[0].start_us < 2_500_000


async def test_what_has_not_started_by_the_deadline_never_starts(
    server: FakeServer, broker_url: str, tmp_path: Path
) -> None:
    await server.deploy(python("slow", "import time; time.sleep(2)", max_instances=1))

    async with running_worker(server, broker_url, tmp_path):
        first = await server.send(InvocationSpec(function="slow"))
        await server.event(first, "running")
        late = await server.call(InvocationSpec(function="slow"), seconds=0.5)
        await server.end(first)
        after = await server.call(InvocationSpec(function="slow"))
        await server.reply(after)

    assert not server.of(late)
    assert not server.replies(late)


CALLER_GONE = "it was stopped, since its caller went away"


async def test_what_runs_is_stopped_when_its_caller_goes_away(
    server: FakeServer, broker_url: str, tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    await server.deploy(Function(name="sleep", command=Command(args=sleeper(marker))))

    async with running_worker(server, broker_url, tmp_path):
        id_ = await server.call(InvocationSpec(function="sleep"))
        await until(marker.exists)
        await server.cancel(id_)
        async with asyncio.timeout(2.0):
            end = (await server.event(id_, "sync_ended")).sync_ended.ended
        await until(lambda: not any(map(runs, sleepers(marker))), within=2)
        # Said again it changes nothing.
        await server.cancel(id_)

    assert (end.state, end.failure.reason, end.failure.message) == (
        api.INVOCATION_STATE_STOPPED, "STOPPED", CALLER_GONE
    )  # fmt: skip
    (attempt,) = end.attempts
    assert (attempt.outcome, attempt.failure.message) == (api.ATTEMPT_OUTCOME_STOPPED, CALLER_GONE)
    assert len(server.of(id_)) == 1


async def test_a_retry_is_not_made_for_a_caller_that_went_away(
    server: FakeServer, broker_url: str, tmp_path: Path
) -> None:
    seen = tmp_path / "seen"
    await server.deploy(python("sad", f"open({str(seen)!r}, 'a').write('x'); raise SystemExit(1)"))
    slow = RetryPolicy(max_attempts=9, initial_backoff=Duration(seconds=3600), max_backoff=Duration(seconds=3600))

    async with running_worker(server, broker_url, tmp_path):
        id_ = await server.call(InvocationSpec(function="sad", retry_policy=slow), seconds=7200.0)
        await until(seen.exists)
        await server.status(lambda status: True)
        await server.cancel(id_)
        end = (await server.event(id_, "sync_ended")).sync_ended.ended

    assert end.state == api.INVOCATION_STATE_STOPPED
    assert [attempt.outcome for attempt in end.attempts] == [api.ATTEMPT_OUTCOME_FAILED]
    assert seen.read_text(encoding="utf-8") == "x"


def hold(gate: Path, seen: Path) -> Function:
    """Return a function that adds what it is sent to a file and waits for another one, one call at a time."""
    code = (
        "import os, sys, time\n"
        f"open({str(seen)!r}, 'a').write(sys.stdin.read())\n"
        f"while not os.path.exists({str(gate)!r}): time.sleep(0.02)\n"
    )
    return python("hold", code, max_instances=1)


def said(text: str) -> InvocationSpec:
    """Return a call of that function."""
    return InvocationSpec(function="hold", payload=Payload(data=text.encode()))


async def test_a_call_that_waits_for_an_instance_is_dropped_with_its_caller(
    server: FakeServer, broker_url: str, tmp_path: Path
) -> None:
    gate, seen = tmp_path / "gate", tmp_path / "seen"
    await server.deploy(hold(gate, seen))

    async with running_worker(server, broker_url, tmp_path):
        await server.reply(await server.call(said("first ")), "started")
        # The one is at the worker, the other still at the broker.
        gone = [await server.call(said("gone ")) for _ in range(2)]
        await until_sync_depth(server, "hold", 1)
        for id_ in gone:
            await server.cancel(id_)
        gate.touch()
        assert (await server.reply(await server.call(said("last")))).ended.state == api.INVOCATION_STATE_SUCCEEDED
        await until_sync_depth(server, "hold", 0)

    assert seen.read_text(encoding="utf-8") == "first last"
    for id_ in gone:
        assert not server.of(id_)
        assert not server.replies(id_)


async def test_a_call_that_comes_after_the_news_never_starts(
    server: FakeServer, broker_url: str, tmp_path: Path
) -> None:
    await server.deploy(python("upper", UPPER))
    known, told = new_id(), new_id()
    server.cancelled.append(server.cancelled_call(known))

    async with running_worker(server, broker_url, tmp_path):
        await server.cancel(told)
        # Control messages come in order: this one tells that the former has come.
        await server.stop("nobody")
        await server.obeyed("nobody")
        for id_ in (known, told):
            await server.call(InvocationSpec(function="upper"), id_=id_)
        assert (await server.reply(await server.call(InvocationSpec(function="upper")))).HasField("ended")

    for id_ in (known, told):
        assert not server.of(id_)
        assert not server.replies(id_)


BY_REQUEST = "it was stopped by request"


async def test_what_runs_is_stopped_by_request(server: FakeServer, broker_url: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    await server.deploy(Function(name="sleep", command=Command(args=sleeper(marker))))

    async with running_worker(server, broker_url, tmp_path):
        id_ = await server.call(InvocationSpec(function="sleep"))
        await until(marker.exists)
        await server.stop(id_)
        async with asyncio.timeout(2.0):
            end = (await server.event(id_, "sync_ended")).sync_ended.ended
        await until(lambda: not any(map(runs, sleepers(marker))), within=2)
        assert (await server.reply(id_)).ended == end
        # It has it no more.
        await server.stop(id_)
        await server.obeyed(id_)

    assert (end.state, end.failure.reason, end.failure.message) == (
        api.INVOCATION_STATE_STOPPED, "STOPPED", BY_REQUEST
    )  # fmt: skip
    assert [attempt.outcome for attempt in end.attempts] == [api.ATTEMPT_OUTCOME_STOPPED]


async def test_a_call_that_waits_or_comes_later_is_stopped_and_told_so(
    server: FakeServer, broker_url: str, tmp_path: Path
) -> None:
    gate, seen = tmp_path / "gate", tmp_path / "seen"
    await server.deploy(hold(gate, seen))

    async with running_worker(server, broker_url, tmp_path):
        first = await server.call(said("first"))
        await server.reply(first, "started")
        here = await server.call(said("here"))
        later = await server.call(said("later"))
        await until_sync_depth(server, "hold", 1)
        for id_ in (here, later):
            await server.stop(id_)
        await server.obeyed(later)
        ends = [(await server.reply(id_)).ended for id_ in (here, later)]
        gate.touch()
        assert (await server.reply(first)).ended.state == api.INVOCATION_STATE_SUCCEEDED
        recorded = [(await server.event(id_, "sync_ended")).sync_ended.ended for id_ in (here, later)]

    assert recorded == ends
    for end in ends:
        assert (end.state, end.failure.message, list(end.attempts)) == (api.INVOCATION_STATE_STOPPED, BY_REQUEST, [])
    assert seen.read_text(encoding="utf-8") == "first"


async def test_a_call_in_a_container_that_serves_others_is_abandoned_and_says_so(
    server: FakeServer, broker_url: str, tmp_path: Path, odd_image: str
) -> None:
    await server.deploy(Function(name="odd", image=odd_image, max_instances=1, concurrency=2))
    long = InvocationSpec(function="odd", http=HttpOptions(path="/sleep/600"))

    async with running_worker(server, broker_url, tmp_path, runtime="docker"):
        id_ = await server.call(long)
        await server.reply(id_, "started")
        await server.cancel(id_)
        end = (await server.event(id_, "sync_ended")).sync_ended.ended
        other = await server.call(InvocationSpec(function="odd", payload=Payload(data=b"x")))
        assert (await server.reply(other)).ended.result.payload.data == b"x"

    assert end.state == api.INVOCATION_STATE_STOPPED
    (attempt,) = end.attempts
    assert attempt.failure.message.startswith(f"{CALLER_GONE}: its call was abandoned")


async def until_sync_depth(server: FakeServer, function: str, calls: int) -> None:
    async with asyncio.timeout(60):
        while (await server.broker.depth(function)).sync != calls:  # noqa: ASYNC110 nobody tells of it
            await asyncio.sleep(0.05)
