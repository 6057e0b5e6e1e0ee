"""What is in flight for long leaves the broker: what runs is leased, what waits is handed back."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from homing.v1 import invocation_pb2 as api
from homing.v1.function_pb2 import Command, Function
from homing.v1.invocation_pb2 import InvocationSpec
from homing_worker.control.gate import Gate
from support.fake_server import FakeServer
from support.inbox import Inbox, eventually, until
from support.proxy import TcpProxy
from support.rabbitmq import RabbitNode
from support.workers import running_worker

TERM = 1.5
SOON = {"lease_after": 0.5, "lease_term": TERM}
HELD = InvocationSpec(function="held")


def held(gate: Path) -> Function:
    """Return a function that runs until a file is there."""
    code = f"import os, time\nwhile not os.path.exists({str(gate)!r}): time.sleep(0.02)"
    return Function(name="held", command=Command(args=[sys.executable, "-c", code]), max_instances=1)


async def test_what_runs_is_leased_and_what_waits_is_requeued(
    server: FakeServer, broker_url: str, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    await server.deploy(held(gate))

    async with running_worker(server, broker_url, tmp_path, **SOON):
        runs, waits = await server.send_all([HELD] * 2)
        leased = await server.event(runs, "leased")
        requeued = await server.event(waits, "requeued")
        # Both messages are acknowledged, so nothing is in flight, and nothing is redelivered.
        await server.drained("held")
        renewed = await server.event(runs, "leased", number=4)
        gate.touch()
        end = await server.event(runs, "ended")

    assert leased.leased.term_us == TERM * 1e6
    assert (renewed.time_us - leased.time_us) / 1e6 >= TERM * 0.9
    assert requeued.requeued.reason == "WAITED"
    assert not server.of(waits, "running")
    assert end.ended.state == api.INVOCATION_STATE_SUCCEEDED
    assert len(server.of(runs, "running")) == 1
    assert {(event.token.generation, event.token.redelivery_count) for event in server.of(runs)} == {(1, 0)}


async def test_renewals_pause_while_no_server_is_heard(
    server: FakeServer, broker_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Gate.__init__, "__defaults__", (1.0,))
    gate = tmp_path / "gate"
    await server.deploy(held(gate))

    async with running_worker(server, broker_url, tmp_path, **SOON) as worker:
        id_ = await server.send(HELD)
        await server.event(id_, "leased", number=2)
        server.silent = True
        await until(lambda: not worker._gate.open)
        await worker._events.flush()
        await server.status(lambda _: True)
        leases = len(server.of(id_, "leased"))
        # The next status comes after more than a term.
        await server.status(lambda _: True)
        assert len(server.of(id_, "leased")) == leases
        server.silent = False
        await server.event(id_, "leased", number=leases + 1)
        gate.touch()
        await server.end(id_)


async def test_a_message_that_came_again_is_acknowledged_once_its_execution_is_leased(
    server: FakeServer, broker_url: str, tmp_path: Path, rabbit_node: RabbitNode
) -> None:
    gate = tmp_path / "gate"
    await server.deploy(held(gate))

    async with TcpProxy("127.0.0.1", rabbit_node.port) as proxy:
        through = broker_url.replace(f":{rabbit_node.port}/", f":{proxy.port}/")
        async with running_worker(server, through, tmp_path, lease_after=2.0, lease_term=TERM):
            id_ = await server.send(HELD)
            await server.event(id_, "running")
            assert not server.of(id_, "leased")
            await proxy.cut()
            await server.status(lambda status: [load.in_flight for load in status.functions] == [1])
            await server.event(id_, "leased")
            await server.drained("held")
            # A lease outlives the connection as well.
            await proxy.cut()
            await server.event(id_, "leased", number=len(server.distinct(id_, "leased")) + 2)
            gate.touch()
            end = await server.event(id_, "ended")

    assert (end.ended.state, end.token.redelivery_count) == (api.INVOCATION_STATE_SUCCEEDED, 0)
    assert len(server.distinct(id_, "running")) == 1


async def test_a_message_that_somebody_else_had_in_between_is_given_back(
    server: FakeServer, broker_url: str, tmp_path: Path, rabbit_node: RabbitNode
) -> None:
    """The other one may have started it and died: then the end of the first run is stale, and nobody else has it."""
    gate = tmp_path / "gate"
    await server.deploy(held(gate))

    async with TcpProxy("127.0.0.1", rabbit_node.port) as proxy:
        through = broker_url.replace(f":{rabbit_node.port}/", f":{proxy.port}/")
        async with running_worker(server, through, tmp_path):
            id_ = await server.send(HELD)
            await server.event(id_, "running")
            proxy.pause()
            proxy.strand()
            inbox = Inbox()
            consumer = await server.broker.consume_work("held", inbox, prefetch=1)
            elsewhere = await inbox.next()
            await consumer.cancel()

            async def waiting() -> int:
                return (await server.broker.depth("held")).work

            elsewhere.requeue()
            await eventually(waiting, wanted=1)
            await proxy.cut()
            proxy.resume()
            await eventually(waiting, wanted=0)
            gate.touch()
            stale = await server.event(id_, "ended")
            # Delivered so often, the store is asked whether it shall run.
            requeued = await server.event(id_, "requeued")
            await server.drained("held")

    assert (stale.token.redelivery_count, elsewhere.redelivery_count, requeued.token.redelivery_count) == (0, 1, 3)


async def test_a_worker_that_is_stopped_returns_its_leases(server: FakeServer, broker_url: str, tmp_path: Path) -> None:
    await server.deploy(held(tmp_path / "never"))

    async with running_worker(server, broker_url, tmp_path, drain_timeout=0.3, **SOON):
        id_ = await server.send(HELD)
        await server.event(id_, "leased")
        await server.drained("held")
        leases = len(server.of(id_, "leased"))
    last = await server.event(id_, "leased", number=leases + 1)

    assert last.leased.term_us == 0
    assert not server.of(id_, "ended")
    assert (await server.broker.depth("held")).work == 0
