"""Synchronous calls at a worker."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from google.protobuf.duration_pb2 import Duration

from homing.v1 import invocation_pb2 as api
from homing.v1.function_pb2 import Command, Function
from homing.v1.invocation_pb2 import InvocationSpec
from homing.v1.payload_pb2 import Payload
from homing.v1.policy_pb2 import RetryPolicy
from support.fake_server import FakeServer
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
