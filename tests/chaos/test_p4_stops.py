"""P4: what was stopped before it started never starts, whatever restarts in between. P2: stop and finish, one wins."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from homing import AsyncClient, RetryPolicy
from homing.v1 import invocation_pb2 as api
from support.fixtures import running_cluster
from support.gauges import settled_gauges
from support.ledger import Ledger, until
from support.processes import Cluster, Dev, HomingProcess, Server
from support.proxy import TcpProxy
from support.rabbitmq import RabbitNode
from support.stops import Stops

STOPPED = api.INVOCATION_STATE_STOPPED


@dataclass(frozen=True, kw_only=True)
class System:
    """All processes of one installation."""

    server: Server
    processes: Sequence[HomingProcess]
    node: RabbitNode | None

    def kill(self) -> None:
        for process in self.processes:
            process.kill()
        if self.node is not None:
            self.node.kill()

    def start(self) -> None:
        if self.node is not None:
            self.node.start()
        for process in self.processes:
            process.start()


@pytest.fixture(params=["rabbitmq", "embedded"])
def system(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[System]:
    with contextlib.ExitStack() as stack:
        if request.param == "rabbitmq":
            url = request.getfixturevalue("broker_url")
            cluster = stack.enter_context(running_cluster(request, Cluster(url, tmp_path)))
            server = cluster.new_server()
            node = request.getfixturevalue("rabbit_node")
            made = System(server=server, processes=[server, cluster.new_worker()], node=node)
        else:
            dev = Dev(tmp_path)
            stack.callback(lambda: dev.terminate() if dev.running else None)
            made = System(server=dev, processes=[dev], node=None)
        for process in made.processes:
            process.start()
        yield made


@dataclass(frozen=True, kw_only=True)
class Hold:
    """A function that notes each run, and runs until it is let."""

    folder: Path

    @property
    def command(self) -> list[str]:
        note = f'echo "$Http_X_Call_Id" >> {self.folder}/runs; while [ ! -e {self.folder}/let ]; do sleep 0.1; done'
        return ["sh", "-c", note]

    def let(self) -> None:
        (self.folder / "let").touch()

    def runs(self) -> list[str]:
        path = self.folder / "runs"
        return path.read_text(encoding="utf-8").split() if path.exists() else []


async def test_p4_stopped_in_each_state_and_never_started_though_everything_is_killed(
    system: System, tmp_path: Path
) -> None:
    hold = Hold(folder=tmp_path)
    ledger = Ledger()
    async with AsyncClient(system.server.target, timeout=60) as client, Stops.at(system.server.target) as stops:
        await client.functions.deploy(name="hold", command=hold.command, max_instances=1)
        # It goes on failing for as long as this takes.
        await client.functions.deploy(name="sad", command=["false"], retry_policy=RetryPolicy(max_attempts=100))
        async with ledger.watching(client):
            queued = await ledger.accept(client, "hold", 30)
            await until(lambda: len(hold.runs()) == 1)
            if system.node is not None:
                await asyncio.to_thread(system.node.sync)
            (running,) = hold.runs()
            waiting = [each for each in queued if each != running]
            scheduled = (await client.invoke_async("hold", delay=3600)).id
            retrying = (await client.invoke_async("sad")).id
            for each in (scheduled, retrying):
                await ledger.note(each, "")

            # What was never dispatched is stopped at once.
            assert (await stops.stop(scheduled, "no more")).state == STOPPED
            # What may be in flight, or at the broker, soon.
            for each in waiting[:10]:
                await stops.stop(each)
            assert (await stops.stop(retrying)).state in {STOPPED, api.INVOCATION_STATE_STOPPING}
            ends = [await stops.end(each) for each in [*waiting[:10], retrying]]
            assert {end.state for end in ends} == {STOPPED}
            assert not any(end.attempts for end in ends[:-1])
            # Killed at the very moment at which the last ones are told to be stopped.
            for each in waiting[10:20]:
                await stops.stop(each)
            for each in waiting[10:20]:
                assert (await stops.end(each)).state == STOPPED
            await asyncio.to_thread(system.kill)
            hold.let()
            await asyncio.to_thread(system.start)
            await ledger.close(client, "hold")

        record = await client.get(scheduled)
        assert [(record.state.name, record.failure and record.failure.message)] == [
            ("STOPPED", "stopped by request: no more")
        ]
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stops.stop(scheduled)
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION

    assert set(hold.runs()) == {*ledger.accepted} - {*waiting[:20], scheduled, retrying}
    gauges = await settled_gauges(system.server)
    assert (gauges.record_drift, gauges.broker_drift) == (0, {})
    assert gauges.records == {"STOPPED": 22, "SUCCEEDED": 11}


async def test_p4_a_worker_that_was_cut_off_during_the_stop_does_not_start_it(
    cluster: Cluster, rabbit_node: RabbitNode, tmp_path: Path
) -> None:
    """It hears nothing of the stop, is given up as lost, and comes back with the message still in its hand."""
    hold = Hold(folder=tmp_path)
    async with TcpProxy("127.0.0.1", rabbit_node.port) as proxy:
        through = cluster.broker_url.replace(f":{rabbit_node.port}/", f":{proxy.port}/")
        await asyncio.to_thread(cluster.start_server)
        await asyncio.to_thread(cluster.start_worker, HOMING_BROKER_URL=through)
        ledger = Ledger()
        async with AsyncClient(cluster.target, timeout=60) as client, Stops.at(cluster.target) as stops:
            await client.functions.deploy(name="hold", command=hold.command, max_instances=1)
            async with ledger.watching(client):
                await ledger.accept(client, "hold", 4)
                await until(lambda: len(hold.runs()) == 1)
                waiting = [each for each in ledger.accepted if each not in hold.runs()]

                proxy.pause()
                asked = time.monotonic()
                for each in waiting:
                    assert (await stops.stop(each, "cut off")).state == api.INVOCATION_STATE_STOPPING
                # It might start them any time now, so far as anybody else knows.
                assert (await stops.end(waiting[0], within=5)).state == api.INVOCATION_STATE_STOPPING
                for each in waiting:
                    assert (await stops.end(each)).state == STOPPED
                assert time.monotonic() - asked > 10
                hold.let()
                proxy.resume()
                await ledger.close(client, "hold")

        assert set(hold.runs()) == {*ledger.accepted} - {*waiting}


async def test_p2_stops_race_finishes(system: System) -> None:
    ledger = Ledger()
    errors: list[grpc.aio.AioRpcError] = []
    async with AsyncClient(system.server.target, timeout=60) as client, Stops.at(system.server.target) as stops:
        await client.functions.deploy(name="nap", command=["sleep", "0.05"], max_instances=4)
        async with ledger.watching(client):

            async def race(numbers: Iterable[int]) -> None:
                for number in numbers:
                    (each,) = await ledger.accept(client, "nap")
                    await asyncio.sleep(number % 10 * 0.02)
                    try:
                        await stops.stop(each)
                    except grpc.aio.AioRpcError as error:
                        errors.append(error)

            numbers = iter(range(200))
            await asyncio.gather(*(race(numbers) for _ in range(8)))
            # Each of them ended once.
            await ledger.close(client, "nap")

    assert {error.code() for error in errors} <= {grpc.StatusCode.FAILED_PRECONDITION}, errors
    states = {state.name: count for state, count in ledger.states().items()}
    assert states.keys() == {"STOPPED", "SUCCEEDED"}
    assert sum(states.values()) == 201


async def test_many_are_stopped_by_filter(system: System, tmp_path: Path) -> None:
    hold = Hold(folder=tmp_path)
    ledger = Ledger()
    async with AsyncClient(system.server.target, timeout=60) as client, Stops.at(system.server.target) as stops:
        for name in ("hold", "other"):
            await client.functions.deploy(name=name, command=hold.command, max_instances=1)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stops.many(reason="all")
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "filter" in str(refused.value.details())
        async with ledger.watching(client):
            ids = await ledger.accept(client, "hold", 700)
            (kept,) = await ledger.accept(client, "other")
            await until(lambda: len(hold.runs()) == 2)
            scheduled = [(await client.invoke_async("hold", delay=3600)).id for _ in range(3)]
            for each in scheduled:
                await ledger.note(each, "hold")

            selection = api.InvocationFilter(functions=["hold"])
            counted = await stops.many(filter=selection, dry_run=True)
            assert (counted.matched, counted.stopped, counted.stopping) == (703, 0, 0)
            done = await stops.many(filter=selection, reason="cleared")
            assert (done.matched, done.stopped + done.stopping) == (703, 703)
            assert done.stopped >= 3
            await ledger.until_ended([*ids, *scheduled])
            hold.let()
            await ledger.close(client, "other")

    assert kept in hold.runs()
    assert {state.name: count for state, count in ledger.states().items()} == {"STOPPED": 703, "SUCCEEDED": 2}
    assert set(hold.runs()) & {*ids} == {*ids} & {*hold.runs()[:2]}
