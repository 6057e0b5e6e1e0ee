"""Synchronous calls that last are seen and stopped while they run, through every server, and end once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from homing import (
    AsyncClient,
    AttemptOutcome,
    FailureReason,
    Invocation,
    InvocationState,
    InvocationStoppedError,
    RequestError,
    ResultTimeoutError,
    WaitReason,
)
from support.fixtures import running_cluster
from support.gauges import settled_gauges
from support.ledger import until
from support.processes import Cluster, Dev, Server
from support.rabbitmq import RabbitNode
from support.sleeper import runs, sleeper, sleepers

LONG = 600.0


@dataclass(frozen=True, kw_only=True)
class System:
    """An installation: calls are made at one server and looked at through another, where there is one."""

    caller: Server
    other: Server
    workers: int


@pytest.fixture(scope="module", params=["rabbitmq", "embedded"])
def system(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("sync")
    if request.param == "embedded":
        dev = Dev(folder, HOMING_CONSERVATION_INTERVAL="0.5")
        dev.start()
        yield System(caller=dev, other=dev, workers=1)
        dev.terminate()
        return
    node: RabbitNode = request.getfixturevalue("rabbit_node")
    url = node.new_vhost()
    with Cluster(url, folder) as cluster:
        servers = cluster.start_server(), cluster.start_server()
        cluster.start_worker()
        cluster.start_worker()
        yield System(caller=servers[0], other=servers[1], workers=2)
    node.leave_vhost(url)


@dataclass(frozen=True, kw_only=True)
class Hold:
    """A function that runs until it is let."""

    folder: Path

    @property
    def command(self) -> list[str]:
        wait = f"while [ ! -e {self.folder}/let ]; do sleep 0.05; done"
        return ["sh", "-c", f"echo x >> {self.folder}/begun; {wait}; echo done"]

    def let(self) -> None:
        (self.folder / "let").touch()


@contextlib.asynccontextmanager
async def clients(caller: Server, other: Server) -> AsyncIterator[tuple[AsyncClient, AsyncClient]]:
    async with AsyncClient(caller.target, timeout=LONG) as one, AsyncClient(other.target, timeout=60) as two:
        yield one, two


async def becomes(client: AsyncClient, function: str, state: InvocationState) -> Invocation:
    """Return the record of a function once it is in a state."""
    async with client.watch_results(include_transitions=True, function=function) as changes:
        async for known in client.list_invocations(function=function):
            if known.state is state:
                return known
        async with asyncio.timeout(60):
            async for change in changes:
                if change.invocation.state is state:
                    return change.invocation
    raise AssertionError("the watch ended")


async def test_a_call_is_seen_while_it_runs_and_has_one_record(system: System, tmp_path: Path) -> None:
    hold = Hold(folder=tmp_path)
    async with clients(system.caller, system.other) as (caller, other):
        await caller.functions.deploy(name="seen", command=hold.command)
        call = asyncio.create_task(caller.invoke("seen", "x", labels={"job": "7"}))
        running = await becomes(other, "seen", InvocationState.RUNNING)
        record = await other.get(running.id, include_payload=True)
        assert (record.sync, record.state, record.attempt_count) == (True, InvocationState.RUNNING, 1)
        assert record.start_time is not None
        assert record.end_time is None
        for found in (
            other.list_invocations(states=[InvocationState.RUNNING], function="seen"),
            other.list_invocations(labels={"job": "7"}),
            other.list_invocations(id_prefix=running.id),
        ):
            assert [each.id async for each in found] == [running.id]
        assert (await other.count(function="seen")).by_state == {InvocationState.RUNNING: 1}

        hold.let()
        assert (await call).text == "done\n"
        assert (await call).invocation.id == running.id
        ended = await other.handle(running.id).wait(timeout=60)
        assert ended.state is InvocationState.SUCCEEDED
        assert [attempt.worker for attempt in ended.attempts] == [record.attempts[0].worker]
        assert [each.id async for each in other.list_invocations(function="seen")] == [running.id]


async def test_a_call_that_runs_is_stopped_by_its_id(system: System, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    async with clients(system.caller, system.other) as (caller, other):
        await caller.functions.deploy(name="stopped", command=sleeper(marker))
        call = asyncio.create_task(caller.invoke("stopped"))
        running = await becomes(other, "stopped", InvocationState.RUNNING)
        await until(marker.exists)
        stopping = await other.stop(running.id, reason="enough")
        assert stopping.state in {InvocationState.STOPPING, InvocationState.STOPPED}
        with pytest.raises(InvocationStoppedError):
            await call
        await until(lambda: not any(map(runs, sleepers(marker))), within=2)
        record = await other.handle(running.id).wait(timeout=60)
        assert record.failure is not None
        assert (record.state, record.failure.message) == (InvocationState.STOPPED, "stopped by request: enough")
        assert record.stop_request is not None
        assert len(record.attempts) == 1
        assert [each.id async for each in other.list_invocations(function="stopped")] == [running.id]


async def test_what_waits_at_workers_and_before_them_is_stopped_and_never_starts(
    system: System, tmp_path: Path
) -> None:
    hold = Hold(folder=tmp_path)
    async with clients(system.caller, system.other) as (caller, other):
        await caller.functions.deploy(name="narrow", command=hold.command, max_instances=1)
        calls = [asyncio.create_task(caller.invoke("narrow")) for _ in range(system.workers + 6)]
        await until_counted(other, "narrow", {InvocationState.RUNNING: system.workers, InvocationState.ENQUEUED: 6})
        stopped = await other.bulk_stop(function="narrow", states=[InvocationState.ENQUEUED])
        assert stopped.matched == 6
        await until_counted(other, "narrow", {InvocationState.RUNNING: system.workers, InvocationState.STOPPED: 6})
        hold.let()
        ends = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(end, InvocationStoppedError) for end in ends) == 6
    assert (tmp_path / "begun").read_text(encoding="utf-8").split() == ["x"] * system.workers
    gauges = await settled_gauges(system.caller)
    assert (gauges.record_drift, gauges.broker_drift) == (0, {})


async def test_what_no_worker_takes_is_seen_and_ends_by_a_stop_with_its_caller_or_at_its_deadline(
    system: System,
) -> None:
    async with clients(system.caller, system.other) as (caller, other):
        # The workers here run no containers.
        await caller.functions.deploy(name="waits", image="homing.invalid/nothing")
        stopped, gone = (asyncio.create_task(caller.invoke("waits", labels={"call": name})) for name in ("a", "b"))
        late = asyncio.create_task(caller.invoke("waits", timeout=3))
        await until_counted(other, "waits", {InvocationState.ENQUEUED: 3})
        (waiting,) = [each async for each in other.list_invocations(labels={"call": "a"})]
        assert (waiting.sync, waiting.attempt_count, waiting.wait_reason) == (True, 0, WaitReason.NO_WORKER)
        await other.stop(waiting.id, reason="enough")
        with pytest.raises(InvocationStoppedError, match="stopped by request: enough"):
            await stopped
        gone.cancel()
        with pytest.raises(ResultTimeoutError):
            await late
        await until_counted(other, "waits", {InvocationState.STOPPED: 2, InvocationState.EXPIRED: 1})


async def until_counted(client: AsyncClient, function: str, wanted: dict[InvocationState, int]) -> None:
    """Wait until so many invocations of a function are in these states, and no others."""
    async with client.watch_results(include_transitions=True, function=function) as changes, asyncio.timeout(60):
        while (await client.count(function=function)).by_state != wanted:
            await anext(changes)


async def test_the_server_is_killed_and_then_the_worker(
    request: pytest.FixtureRequest, broker_url: str, tmp_path: Path
) -> None:
    hold = Hold(folder=tmp_path)
    with running_cluster(request, Cluster(broker_url, tmp_path)) as cluster:
        server, other_server, worker = cluster.start_server(), cluster.start_server(), cluster.start_worker()
        async with clients(server, other_server) as (caller, other):
            await caller.functions.deploy(name="ends", command=hold.command)
            await caller.functions.deploy(name="lost", command=["sleep", "600"])
            calls = [asyncio.create_task(caller.invoke(name)) for name in ("ends", "lost")]
            for name in ("ends", "lost"):
                await becomes(other, name, InvocationState.RUNNING)
            await asyncio.to_thread(server.kill)
            assert all(isinstance(each, RequestError) for each in await asyncio.gather(*calls, return_exceptions=True))
            # Its worker tells how it ended.
            hold.let()
            await becomes(other, "ends", InvocationState.SUCCEEDED)
            assert (await becomes(other, "lost", InvocationState.RUNNING)).end_time is None
            # Nobody will.
            await asyncio.to_thread(worker.kill)
            lost = await becomes(other, "lost", InvocationState.FAILED)
            await becomes(other, "ends", InvocationState.SUCCEEDED)
    assert lost.failure is not None
    assert lost.failure.reason == FailureReason.WORKER_LOST


async def test_all_is_killed_at_once(tmp_path: Path) -> None:
    dev = Dev(tmp_path)
    dev.start()
    try:
        async with AsyncClient(dev.target, timeout=LONG) as client:
            await client.functions.deploy(name="lost", command=["sleep", "600"])
            call = asyncio.create_task(client.invoke("lost"))
            await becomes(client, "lost", InvocationState.RUNNING)
            await asyncio.to_thread(dev.kill)
            with pytest.raises(RequestError):
                await call
            await asyncio.to_thread(dev.start)
            lost = await becomes(client, "lost", InvocationState.FAILED)
    finally:
        dev.terminate()
    assert lost.failure is not None
    assert lost.failure.reason == FailureReason.WORKER_LOST
    assert [attempt.outcome for attempt in lost.attempts] == [AttemptOutcome.LOST]
