"""How a worker stops what it has in flight, and does not start what a tombstone covers."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from homing.v1 import invocation_pb2 as api
from homing.v1.function_pb2 import Command, Function
from homing.v1.invocation_pb2 import InvocationSpec
from homing_core.wire.v1 import Ended
from homing_worker.control import gate
from support.docker import FunctionImages, docker
from support.fake_server import FakeServer
from support.ledger import until
from support.sleeper import runs, sleeper, sleepers
from support.workers import running_worker

SOON = 2.0
"""Seconds within which what runs is gone."""


def python(name: str, code: str, **fields: Any) -> Function:
    return Function(name=name, command=Command(args=[sys.executable, "-c", code]), **fields)


def sleeping(marker: Path, **fields: Any) -> Function:
    """Return a function that tells its process and its child's, and never ends."""
    return Function(name="sleep", command=Command(args=sleeper(marker)), **fields)


def check_stopped(end: Ended, *outcomes: str) -> None:
    assert end.state == api.INVOCATION_STATE_STOPPED
    names = [api.AttemptOutcome.Name(attempt.outcome).removeprefix("ATTEMPT_OUTCOME_") for attempt in end.attempts]
    assert names == list(outcomes)
    assert all(attempt.end_us >= attempt.start_us > 0 for attempt in end.attempts)


async def test_a_running_command_is_killed_with_what_it_started(
    server: FakeServer, broker_url: str, tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    await server.deploy(sleeping(marker))

    async with running_worker(server, broker_url, tmp_path):
        id_ = await server.send(InvocationSpec(function="sleep"))
        await until(marker.exists)
        pids = sleepers(marker)
        assert all(map(runs, pids))
        await server.stop(id_)
        async with asyncio.timeout(SOON):
            end = await server.end(id_)
        await until(lambda: not any(map(runs, pids)), within=2)
        check_stopped(end, "STOPPED")
        assert end.attempts[0].failure.reason == "STOPPED"
        await server.drained("sleep")
        # It acknowledges the tombstone of what it does not hold any more, whenever it comes.
        await server.stop(id_)
        await server.obeyed(id_)


async def test_what_waits_behind_a_busy_instance_is_dropped_and_does_not_start(
    server: FakeServer, broker_url: str, tmp_path: Path
) -> None:
    gate_file, runs_file = tmp_path / "gate", tmp_path / "runs"
    code = (
        "import os, sys, time\n"
        f"open({str(runs_file)!r}, 'a').write(os.environ['Http_X_Call_Id'] + ' ')\n"
        f"while not os.path.exists({str(gate_file)!r}): time.sleep(0.02)\n"
    )
    await server.deploy(python("hold", code, max_instances=1))

    async with running_worker(server, broker_url, tmp_path):
        ids = await server.send_all([InvocationSpec(function="hold")] * 8)
        await server.event(ids[0], "running")
        # Four are in flight; the others are still at the broker.
        await server.status(lambda status: [load.in_flight for load in status.functions] == [4])
        for id_ in (ids[2], ids[7]):
            await server.stop(id_)
        check_stopped(await server.end(ids[2]))
        # Of what it does not hold it says so, and keeps its word when it comes.
        await server.obeyed(ids[7])
        assert not server.of(ids[7])
        gate_file.touch()
        check_stopped(await server.end(ids[7]))
        for id_ in ids[:2] + ids[3:7]:
            assert (await server.end(id_)).state == api.INVOCATION_STATE_SUCCEEDED
        await server.drained("hold")

    assert sorted(runs_file.read_text(encoding="utf-8").split()) == sorted(ids[:2] + ids[3:7])


async def test_a_retry_that_is_waited_for_here_is_given_up(server: FakeServer, broker_url: str, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    code = f"import os, sys; open({str(marker)!r}, 'a').write('x'); sys.exit(1)"
    await server.deploy(python("sad", code))
    policy = api.InvocationSpec(function="sad")
    policy.retry_policy.max_attempts = 50
    policy.retry_policy.initial_backoff.FromMilliseconds(1900)
    policy.retry_policy.max_backoff.FromMilliseconds(1900)

    async with running_worker(server, broker_url, tmp_path):
        id_ = await server.send(policy)
        await server.event(id_, "attempt_ended")
        await server.stop(id_)
        async with asyncio.timeout(1.0):
            end = await server.end(id_)
        await server.drained("sad")

    assert end.state == api.INVOCATION_STATE_STOPPED
    assert [attempt.outcome for attempt in end.attempts[:1]] == [api.ATTEMPT_OUTCOME_FAILED]
    assert len(marker.read_text(encoding="utf-8")) == len(end.attempts)


async def test_what_a_snapshot_tells_is_not_started_and_an_earlier_generation_neither(
    server: FakeServer, broker_url: str, tmp_path: Path
) -> None:
    await server.deploy(python("echo", "print('x')"))
    ids = await server.send_all([InvocationSpec(function="echo")] * 3)
    await server.stop(ids[0], generation=1)
    await server.stop(ids[1], generation=7)
    await server.stop(ids[2], generation=0)

    async with running_worker(server, broker_url, tmp_path):
        for id_ in ids[:2]:
            check_stopped(await server.end(id_))
        # The tombstone does not cover a later dispatch.
        assert (await server.end(ids[2])).state == api.INVOCATION_STATE_SUCCEEDED

    assert not server.of(ids[0], "running")


async def test_one_that_missed_a_stop_in_a_silence_asks_before_it_starts_anything(
    server: FakeServer, broker_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate.Gate.__init__, "__defaults__", (2.0,))
    await server.deploy(python("echo", "print('x')"))

    async with running_worker(server, broker_url, tmp_path):
        server.silent = True
        since = time.monotonic()
        await server.status(lambda _: time.monotonic() > since + 3.0)
        stopped, other = await server.send_all([InvocationSpec(function="echo")] * 2)
        await server.status(lambda status: [load.in_flight for load in status.functions] == [2])
        # The tombstone is not announced: it is in the next snapshot alone.
        server.remember(stopped)
        server.silent = False
        check_stopped(await server.end(stopped))
        assert (await server.end(other)).state == api.INVOCATION_STATE_SUCCEEDED

    assert not server.of(stopped, "running")


async def test_stops_race_finishes_and_each_has_one_end(server: FakeServer, broker_url: str, tmp_path: Path) -> None:
    await server.deploy(python("nap", "import time; time.sleep(0.05)", max_instances=4))

    async with running_worker(server, broker_url, tmp_path):
        ids = await server.send_all([InvocationSpec(function="nap")] * 200)

        async def stop(id_: str) -> None:
            await server.event(id_, "running")
            await asyncio.sleep((sum(id_.encode()) % 20) * 0.01)
            await server.stop(id_)

        stops = asyncio.gather(*(stop(id_) for id_ in ids[::2]))
        for id_ in ids:
            await server.end(id_)
        stops.cancel()
        await server.drained("nap")

    assert {len(server.of(id_, "ended")) for id_ in ids} == {1}
    ends = [server.of(id_, "ended")[0].ended for id_ in ids]
    states = {end.state for end in ends}
    assert states == {api.INVOCATION_STATE_SUCCEEDED, api.INVOCATION_STATE_STOPPED}
    for end in ends:
        if end.state == api.INVOCATION_STATE_STOPPED:
            check_stopped(end, "STOPPED")


def living(function_images: FunctionImages) -> Callable[[], list[str]]:
    return lambda: docker("ps", "-q", "--filter", f"ancestor={function_images.long_task}").split()


async def test_a_container_that_serves_one_call_is_killed_and_replaced(
    server: FakeServer, broker_url: str, tmp_path: Path, function_images: FunctionImages
) -> None:
    containers = living(function_images)
    await server.deploy(Function(name="long", image=function_images.long_task, min_instances=1, max_instances=1))
    spec = InvocationSpec(function="long")
    spec.payload.data = b'{"seconds": 600}'

    async with running_worker(server, broker_url, tmp_path, runtime="docker"):
        id_ = await server.send(spec)
        await server.event(id_, "running")
        (before,) = containers()
        await server.stop(id_)
        async with asyncio.timeout(SOON):
            end = await server.end(id_)
        assert before not in containers()
        check_stopped(end, "STOPPED")
        assert "abandoned" not in end.attempts[0].failure.message
        await until(lambda: len(containers()) == 1)
        await server.drained("long")


async def test_a_call_that_is_not_alone_is_abandoned_and_says_so(
    server: FakeServer, broker_url: str, tmp_path: Path, function_images: FunctionImages
) -> None:
    containers = living(function_images)
    await server.deploy(Function(name="long", image=function_images.long_task, max_instances=1, concurrency=2))
    specs = [InvocationSpec(function="long"), InvocationSpec(function="long")]
    specs[0].payload.data = b'{"seconds": 600}'
    specs[1].payload.data = b'{"seconds": 2}'

    async with running_worker(server, broker_url, tmp_path, runtime="docker"):
        stopped, other = await server.send_all(specs)
        for id_ in (stopped, other):
            await server.event(id_, "running")
        before = containers()
        await server.stop(stopped)
        async with asyncio.timeout(SOON):
            end = await server.end(stopped)
        check_stopped(end, "STOPPED")
        assert "abandoned" in end.attempts[0].failure.message
        assert (await server.end(other)).state == api.INVOCATION_STATE_SUCCEEDED
        assert containers() == before
