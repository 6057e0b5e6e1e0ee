"""Servers and workers of neighbouring versions on one broker, as in the middle of an upgrade: nothing is lost."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from homing import AsyncClient, DeliveryState, InvocationState, RetryPolicy
from support import served
from support.earlier import run_earlier, run_present, unpack
from support.gauges import gauges_after, settled_gauges
from support.inbox import eventually
from support.ledger import Ledger
from support.processes import Cluster
from support.receivers import Receiver, receiving, take

EACH = 30
LARGE = 400_000
"""The size of an answer that workers store at a server, since it is too large for a message."""
FAILS_ONCE = 'if [ "$Http_X_Homing_Attempt" = 1 ]; then exit 1; else cat; fi'
"""A command that fails at its first attempt."""


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(tmp_path_factory.mktemp("earlier"))


class Traffic:
    """Work of every kind that travels between servers and workers, and what came of it."""

    def __init__(self, client: AsyncClient, ledger: Ledger, receiver: Receiver) -> None:
        self.client = client
        self.ledger = ledger
        self._receiver = receiver
        self._with_callback: list[str] = []

    async def deploy(self) -> None:
        retry = RetryPolicy(max_attempts=3, initial_backoff=0.05)
        for name, command in {
            "echo": ["cat"],
            "flaky": ["sh", "-c", FAILS_ONCE],
            "broken": ["sh", "-c", "exit 3"],
            "sleeps": ["sleep", "600"],
            "large": ["head", "-c", str(LARGE), "/dev/zero"],
        }.items():
            await self.client.functions.deploy(name=name, command=command, max_instances=4, retry_policy=retry)

    async def send(self) -> None:
        """Hand over work of every kind."""
        for number in range(EACH):
            call = await self.client.invoke_async("echo", f"{number}", callback_url=self._receiver.url)
            self._with_callback.append(call.id)
            await self.ledger.note(call.id, "echo")
        await self.ledger.accept(self.client, "flaky", EACH)
        await self.ledger.accept(self.client, "broken", EACH // 4)
        await self.ledger.accept(self.client, "large", 3)
        stopped = await self.client.invoke_async("sleeps")
        await self.ledger.note(stopped.id, "sleeps")
        await stopped.stop(reason="enough")

    async def ended(self) -> None:
        """Check that everything that was handed over has ended once, as it should, and is delivered."""
        await self.ledger.close(self.client, "echo")
        for name in ("echo", "flaky", "large"):
            assert self.ledger.states(name).keys() == {InvocationState.SUCCEEDED}
        assert self.ledger.states("broken").keys() == {InvocationState.FAILED}
        assert self.ledger.states("sleeps").keys() == {InvocationState.STOPPED}
        await self._receiver.until(lambda receiver: len(receiver.seen) >= len(self._with_callback))
        called = Counter(request.headers["x-call-id"] for request in self._receiver.requests)
        assert called.keys() == set(self._with_callback)

    async def delivery_states(self) -> set[DeliveryState]:
        """Return the states that the records tell of the callbacks."""
        return {delivery.state for each in self._with_callback for delivery in (await self.client.get(each)).deliveries}


@asynccontextmanager
async def traffic(cluster: Cluster) -> AsyncIterator[Traffic]:
    ledger = Ledger()
    async with receiving(take) as receiver, AsyncClient(cluster.target, timeout=60) as client:
        made = Traffic(client, ledger, receiver)
        await made.deploy()
        async with ledger.watching(client):
            yield made


async def check_conservation(cluster: Cluster) -> None:
    gauges = await gauges_after(cluster.server, lambda gauges: not gauges.broker_drift)
    assert (gauges.record_drift, gauges.broker_drift) == (0, {})
    assert (await settled_gauges(cluster.server)).value("homing_events_parked") == 0


@pytest.mark.parametrize("which", ["server", "worker"])
async def test_p5_nothing_is_lost_between_a_server_and_a_worker_of_two_versions(
    cluster: Cluster, earlier: Path, which: str
) -> None:
    server, worker = cluster.new_server(), cluster.new_worker()
    run_earlier(server if which == "server" else worker, earlier)
    await asyncio.to_thread(server.start)
    await asyncio.to_thread(worker.start)
    async with traffic(cluster) as work:
        await work.send()
        # In the middle of it the worker dies, and comes back.
        await work.ledger.until(lambda ledger: len(ledger.seen) > EACH // 2)
        worker.kill()
        await work.send()
        await asyncio.to_thread(worker.start)
        await work.ended()
        await eventually(work.delivery_states, {DeliveryState.DELIVERED})
        await check_conservation(cluster)


async def test_p5_nothing_is_lost_when_an_installation_is_upgraded_as_it_runs(cluster: Cluster, earlier: Path) -> None:
    """As docs/upgrading.md says: the servers first, then worker by worker; one of each dies on the way."""
    server, worker = cluster.new_server(), cluster.new_worker()
    for process in (server, worker):
        run_earlier(process, earlier)
        await asyncio.to_thread(process.start)
    async with traffic(cluster) as work:
        await work.send()
        server.kill()
        run_present(server)
        await asyncio.to_thread(server.start)
        await work.send()
        later = await asyncio.to_thread(cluster.start_worker)
        assert await asyncio.to_thread(worker.terminate) == 0
        await work.send()
        later.kill()
        await asyncio.to_thread(later.start)
        await work.ended()
        await check_conservation(cluster)


async def test_a_worker_that_does_not_stream_answers_whole(cluster: Cluster, earlier: Path) -> None:
    await asyncio.to_thread(cluster.start_server)
    old = cluster.new_worker()
    run_earlier(old, earlier)
    await asyncio.to_thread(old.start)
    async with AsyncClient(cluster.target, timeout=60) as client:
        for name, size in {"small": 5, "large": LARGE}.items():
            await client.functions.deploy(name=name, command=["head", "-c", str(size), "/dev/zero"])
            async with client.invoke_stream(name) as stream:
                assert b"".join([chunk async for chunk in stream]) == bytes(size)
            assert stream.invocation is not None
            assert stream.invocation.result is not None
            assert (stream.invocation.result.cut, stream.invocation.result.streamed_size) == (False, 0)


async def test_a_function_of_a_kind_that_a_worker_does_not_know_waits_for_one_that_knows_it(
    cluster: Cluster, earlier: Path
) -> None:
    await asyncio.to_thread(cluster.start_server)
    old = cluster.new_worker()
    run_earlier(old, earlier)
    await asyncio.to_thread(old.start)
    async with AsyncClient(cluster.target, timeout=60) as client:
        await client.functions.deploy(name="site", command=["cat"])
        assert (await client.invoke("site", "cat")).text == "cat"
        await client.functions.deploy(name="site", http_command=[sys.executable, served.__file__])
        call = await client.invoke_async("site", "served")
        # What the old worker knows it still does, and by then it has seen the other.
        await client.functions.deploy(name="echo", command=["cat"])
        assert (await client.invoke("echo", "hello")).text == "hello"
        assert not (await client.get(call.id)).attempts

        await asyncio.to_thread(cluster.start_worker)
        record = await call.wait(timeout=60)
    assert (record.state, record.result and record.result.text) == (InvocationState.SUCCEEDED, "served")
