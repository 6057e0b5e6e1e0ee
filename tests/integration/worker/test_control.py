"""How a worker comes, goes, and bears the loss of its broker and its servers."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from homing.v1 import invocation_pb2 as api
from homing.v1.function_pb2 import Command, Function
from homing.v1.invocation_pb2 import InvocationSpec
from homing.v1.payload_pb2 import Payload
from homing.v1.policy_pb2 import RetryPolicy
from homing_core import limits
from homing_core.broker import BrokerError, Consumer, Handler
from homing_core.broker.rabbitmq import RabbitBroker
from homing_worker.app import Worker
from homing_worker.control import gate, link
from homing_worker.settings import WorkerSettings
from support.fake_server import FakeServer
from support.proxy import TcpProxy
from support.rabbitmq import RabbitNode
from support.workers import running_worker

UPPER = "import sys; sys.stdout.write(sys.stdin.read().upper())"


def python(name: str, code: str, **fields: Any) -> Function:
    return Function(name=name, command=Command(args=[sys.executable, "-c", code]), **fields)


def sleeping(seconds: float, **fields: Any) -> Function:
    return python("sleep", f"import time; time.sleep({seconds})", **fields)


def wait_for(path: Path) -> None:
    """Return once a file is there."""
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


async def test_it_says_how_it_is_and_that_it_leaves(server: FakeServer, broker_url: str, tmp_path: Path) -> None:
    await server.deploy(sleeping(1.0, max_instances=1))

    async with running_worker(server, broker_url, tmp_path, worker_name="here") as worker:
        assert worker.name.startswith("here-")
        ids = await server.send_all([InvocationSpec(function="sleep")] * 6)
        status = await server.status(lambda status: any(load.in_flight for load in status.functions))
        for id_ in ids:
            await server.end(id_)

    leaving = [status for status in server.statuses if status.leaving]
    assert status.worker == worker.name
    assert "command" in status.sources
    # Two for each slot and two more are taken at a time.
    assert 0 < status.functions[0].in_flight <= 4
    assert {status.worker for status in leaving} == {worker.name}
    # Its last heartbeat says that nothing of it is in flight any more.
    assert [bool(status.functions) for status in leaving] == [True] * (len(leaving) - 1) + [False]


async def test_it_waits_for_a_server_before_it_takes_work(server: FakeServer, broker_url: str, tmp_path: Path) -> None:
    await server.deploy(python("upper", UPPER))
    server.silent = True
    worker = Worker(
        WorkerSettings(broker_url=broker_url, data_dir=tmp_path, runtime="process", command_users=""),
        lambda name: RabbitBroker(broker_url, name=name),
    )
    stop = asyncio.Event()
    running = asyncio.create_task(worker.run(stop))
    id_ = await server.send(InvocationSpec(function="upper"))
    await server.status(lambda status: status.hello)
    await server.status(lambda status: status.hello)

    assert not worker.ready.is_set()
    assert not server.of(id_)
    server.silent = False
    assert (await server.end(id_)).state == api.INVOCATION_STATE_SUCCEEDED
    stop.set()
    await running


async def test_it_starts_nothing_while_servers_are_silent(
    server: FakeServer, broker_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate.Gate.__init__, "__defaults__", (2.0,))
    await server.deploy(python("upper", UPPER))

    async with running_worker(server, broker_url, tmp_path):
        await server.end(await server.send(InvocationSpec(function="upper")))
        server.silent = True
        silent_since = time.monotonic()
        await server.status(lambda _: time.monotonic() > silent_since + 3.0)
        id_ = await server.send(InvocationSpec(function="upper"))
        await server.status(lambda status: [load.in_flight for load in status.functions] == [1])
        assert not server.of(id_)
        server.silent = False
        assert (await server.end(id_)).state == api.INVOCATION_STATE_SUCCEEDED


async def test_it_learns_what_it_missed_from_a_server_that_comes_anew(
    server: FakeServer, broker_url: str, tmp_path: Path
) -> None:
    await server.deploy(python("upper", UPPER))

    async with running_worker(server, broker_url, tmp_path), FakeServer(broker_url) as other:
        server.silent = True
        other.functions = {"late": server.state(python("late", "print('late')"))}
        await other.broker.open_function("late")
        id_ = await server.send(InvocationSpec(function="late"))
        await asyncio.wait(
            {asyncio.ensure_future(server.end(id_)), asyncio.ensure_future(other.end(id_))},
            return_when=asyncio.FIRST_COMPLETED,
        )

    assert server.of(id_, "ended") or other.of(id_, "ended")


async def test_a_drain_finishes_what_runs_and_gives_back_the_rest(
    server: FakeServer, broker_url: str, tmp_path: Path
) -> None:
    await server.deploy(sleeping(1.5, max_instances=1))

    async with running_worker(server, broker_url, tmp_path):
        ids = await server.send_all([InvocationSpec(function="sleep")] * 4)
        await server.event(ids[0], "running")

    assert (await server.end(ids[0])).state == api.INVOCATION_STATE_SUCCEEDED
    assert not any(server.of(id_, "running") for id_ in ids[1:])
    async with running_worker(server, broker_url, tmp_path):
        ends = [await server.end(id_) for id_ in ids[1:]]
    assert {end.state for end in ends} == {api.INVOCATION_STATE_SUCCEEDED}


async def test_a_drain_that_takes_too_long_is_cut_and_the_work_comes_again(
    server: FakeServer, broker_url: str, tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    code = f"import os, time\nif not os.path.exists({str(marker)!r}):\n open({str(marker)!r}, 'w'); time.sleep(3600)"
    await server.deploy(python("once", code))

    async with running_worker(server, broker_url, tmp_path, drain_timeout=0.5):
        id_ = await server.send(InvocationSpec(function="once"))
        await server.event(id_, "running")
        await asyncio.to_thread(wait_for, marker)
    assert not server.of(id_, "ended")

    async with running_worker(server, broker_url, tmp_path):
        end = await server.event(id_, "ended")

    assert (end.token.generation, end.token.redelivery_count) == (1, 1)
    assert [event.token.redelivery_count for event in server.of(id_, "running")] == [0, 1]


async def test_what_runs_while_the_connection_is_lost_ends_once_and_is_not_run_again(
    server: FakeServer, broker_url: str, tmp_path: Path, rabbit_node: RabbitNode
) -> None:
    await server.deploy(sleeping(3.0, max_instances=2))

    async with TcpProxy("127.0.0.1", rabbit_node.port) as proxy:
        through = broker_url.replace(f":{rabbit_node.port}/", f":{proxy.port}/")
        async with running_worker(server, through, tmp_path):
            ids = await server.send_all([InvocationSpec(function="sleep")] * 5)
            for id_ in ids[:2]:
                await server.event(id_, "running")
            await proxy.cut()
            # All five are in flight again, while two of them run still.
            await server.status(lambda status: [load.in_flight for load in status.functions] == [5])
            assert not any(server.of(id_, "ended") for id_ in ids)
            ends = [await server.event(id_, "ended") for id_ in ids]
            await server.drained("sleep")

    assert all(event.ended.state == api.INVOCATION_STATE_SUCCEEDED for event in ends)
    assert {len(server.distinct(id_, kind)) for id_ in ids for kind in ("running", "ended")} == {1}
    assert [end.token.redelivery_count for end in ends] == [0, 0, 1, 1, 1]


async def test_ten_cuts_under_load_lose_nothing(
    server: FakeServer, broker_url: str, tmp_path: Path, rabbit_node: RabbitNode
) -> None:
    await server.deploy(python("upper", UPPER, max_instances=8))

    async with TcpProxy("127.0.0.1", rabbit_node.port) as proxy:
        through = broker_url.replace(f":{rabbit_node.port}/", f":{proxy.port}/")
        async with running_worker(server, through, tmp_path):
            ids = await server.send_all([InvocationSpec(function="upper", payload=Payload(data=b"x"))] * 200)
            for number in range(10):
                await server.event(ids[number * 15], "ended")
                await proxy.cut()
            for id_ in ids:
                # Poison is only suspected after three hand-outs; the store would hand it out again.
                await server.last_word(id_)
            await server.drained("upper")

    ended = [id_ for id_ in ids if server.of(id_, "ended")]
    assert all(
        event.ended.state == api.INVOCATION_STATE_SUCCEEDED for id_ in ended for event in server.of(id_, "ended")
    )
    assert set(ids) - set(ended) == {id_ for id_ in set(ids) - set(ended) if server.of(id_, "requeued")}


async def test_a_redelivered_message_starts_only_once_its_start_is_recorded(
    server: FakeServer, broker_url: str, tmp_path: Path
) -> None:
    await server.deploy(sleeping(0.2, max_instances=1))
    async with running_worker(server, broker_url, tmp_path, drain_timeout=0.0):
        id_ = await server.send(InvocationSpec(function="sleep", retry_policy=RetryPolicy(max_attempts=1)))
        await server.event(id_, "running")

    async with running_worker(server, broker_url, tmp_path):
        end = await server.event(id_, "ended")

    second = server.of(id_, "running")[-1]
    assert second.token.redelivery_count == end.token.redelivery_count >= 1
    assert server.events.index(second) < server.events.index(end)


async def test_those_that_were_lost_twice_run_one_at_a_time(
    server: FakeServer, broker_url: str, tmp_path: Path
) -> None:
    await server.deploy(sleeping(0.5, max_instances=4))

    async with running_worker(server, broker_url, tmp_path):
        suspects = await server.send_all([InvocationSpec(function="sleep")] * 3, prior_lost_starts=2)
        others = await server.send_all([InvocationSpec(function="sleep")] * 3, prior_lost_starts=1)
        one, two, three = sorted(
            [(await server.end(id_)).attempts[0] for id_ in suspects], key=lambda attempt: attempt.start_us
        )
        beside = [(await server.end(id_)).attempts[0] for id_ in others]

    assert one.end_us <= two.start_us
    assert two.end_us <= three.start_us
    assert min(attempt.start_us for attempt in beside) < one.end_us


async def test_one_function_that_cannot_be_consumed_does_not_keep_the_others_waiting(
    server: FakeServer, broker_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    consume = RabbitBroker.consume_work
    refused = asyncio.Event()

    async def refuse_once(self: RabbitBroker, function: str, handler: Handler, *, prefetch: int) -> Consumer:
        if function == "bad" and not refused.is_set():
            refused.set()
            raise BrokerError("no")
        return await consume(self, function, handler, prefetch=prefetch)

    monkeypatch.setattr(RabbitBroker, "consume_work", refuse_once)
    await server.deploy(python("bad", UPPER))
    await server.deploy(python("upper", UPPER))

    async with running_worker(server, broker_url, tmp_path):
        ends = [await server.end(await server.send(InvocationSpec(function=name))) for name in ("upper", "bad")]

    assert refused.is_set()
    assert {end.state for end in ends} == {api.INVOCATION_STATE_SUCCEEDED}


async def test_min_instances_are_there_before_any_work(server: FakeServer, broker_url: str, tmp_path: Path) -> None:
    await server.deploy(python("upper", UPPER, min_instances=2, idle_timeout=Duration(seconds=1)))

    async with running_worker(server, broker_url, tmp_path):
        await server.status(lambda status: [load.instances for load in status.functions] == [2])
        await server.deploy(python("upper", UPPER, min_instances=3))
        await server.status(lambda status: [load.instances for load in status.functions] == [3])


def test_hellos_come_often_enough() -> None:
    assert limits.CONTROL_INTERVAL < limits.CONTROL_SILENCE / 2
    assert limits.CONTROL_INTERVAL > link._REQUEST_INTERVAL


async def test_a_paused_function_finishes_what_runs_and_gives_back_the_rest(
    server: FakeServer, broker_url: str, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    code = f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.02)"
    await server.deploy(python("gated", code, max_instances=1))

    async with running_worker(server, broker_url, tmp_path):
        running = await server.send(InvocationSpec(function="gated"))
        began = await server.event(running, "running")
        waiting = await server.send(InvocationSpec(function="gated"))
        await server.status(lambda status: [load.in_flight for load in status.functions] == [2])
        await server.deploy(python("gated", code, max_instances=1, paused=True))
        late = await server.send(InvocationSpec(function="gated"))
        call = await server.call(InvocationSpec(function="gated"))
        await server.status(lambda status: [load.in_flight for load in status.functions] == [1])
        gate.touch()
        assert (await server.end(running)).state == api.INVOCATION_STATE_SUCCEEDED
        await server.status(lambda status: [load.in_flight for load in status.functions] == [0])
        depth = await server.broker.depth("gated")
        assert (depth.work, depth.sync) == (2, 1)
        assert not [*server.of(waiting), *server.of(late), *server.replies(call)]

        await server.deploy(python("gated", code, max_instances=1))
        ends = [await server.end(id_) for id_ in (waiting, late)]
        assert (await server.reply(call)).ended.state == api.INVOCATION_STATE_SUCCEEDED
        await server.drained("gated")

    assert {end.state for end in ends} == {api.INVOCATION_STATE_SUCCEEDED}
    assert len(server.of(running, "running")) == 1
    revisions = {end.attempts[0].function_revision for end in ends}
    assert revisions == {began.running.function_revision}, "its instance stayed"


async def test_a_worker_that_comes_to_a_paused_function_leaves_its_work_alone(
    server: FakeServer, broker_url: str, tmp_path: Path
) -> None:
    await server.deploy(python("upper", UPPER, paused=True, min_instances=1))
    id_ = await server.send(InvocationSpec(function="upper"))
    async with running_worker(server, broker_url, tmp_path):
        await server.status(lambda status: [load.function for load in status.functions] == ["upper"])
        status = await server.status(lambda _: True)
        assert (status.functions[0].in_flight, status.functions[0].instances) == (0, 0)
        assert not server.of(id_)
        await server.deploy(python("upper", UPPER, min_instances=1))
        assert (await server.end(id_)).state == api.INVOCATION_STATE_SUCCEEDED
        await server.drained("upper")
