"""The promises on both brokers: RabbitMQ between processes, and the embedded one of `homing dev`.

Whatever runs is killed as a whole, in the middle of the work, and started again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from homing import AlreadyExistsError, AsyncClient, InvocationState, RetryPolicy
from support.fixtures import running_cluster
from support.gauges import settled_gauges
from support.ledger import Ledger, until
from support.processes import Cluster, Dev, HomingProcess, Server

CALLS = 500


@dataclass(frozen=True, kw_only=True)
class System:
    """All processes of one installation."""

    server: Server
    processes: Sequence[HomingProcess]

    @property
    def target(self) -> str:
        return self.server.target

    def start(self) -> None:
        for process in self.processes:
            process.start()

    def kill(self) -> None:
        for process in self.processes:
            process.kill()


@pytest.fixture(params=["rabbitmq", "embedded"])
def system(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[System]:
    with contextlib.ExitStack() as stack:
        if request.param == "rabbitmq":
            url = request.getfixturevalue("broker_url")
            cluster = stack.enter_context(running_cluster(request, Cluster(url, tmp_path)))
            server = cluster.new_server(HOMING_RESEND_AFTER="2")
            made = System(server=server, processes=[server, cluster.new_worker()])
        else:
            dev = Dev(tmp_path)
            stack.callback(lambda: dev.terminate() if dev.running else None)
            made = System(server=dev, processes=[dev])
        made.start()
        yield made


async def test_p1_p2_p5_p8_all_that_was_accepted_ends_once_though_everything_is_killed(system: System) -> None:
    ledger = Ledger()
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(AsyncClient(system.target, timeout=60))
        await client.functions.deploy(name="nap", command=["sleep", "0.02"], max_instances=8)
        await stack.enter_async_context(ledger.watching(client))

        async def submit(number: int) -> None:
            handle = await client.invoke_async("nap", str(number), request_id=f"call-{number}")
            await ledger.note(handle.id, "nap")

        submitting = asyncio.gather(*(submit(number) for number in range(CALLS)))
        await until(lambda: len(ledger.seen) >= CALLS // 10)
        await asyncio.to_thread(system.kill)
        await asyncio.to_thread(system.start)
        await submitting
        await ledger.until_ended()
        await ledger.close(client, "nap")

    # The one more is the ledger's own, by which it knows that nothing else comes.
    assert len(ledger.accepted) == CALLS + 1
    gauges = await settled_gauges(system.server)
    assert gauges.record_drift == 0
    assert gauges.broker_drift == {}
    assert gauges.records == {"SUCCEEDED": CALLS + 1}


async def test_p7_a_request_id_is_one_invocation_across_a_kill(system: System) -> None:
    async with AsyncClient(system.target, timeout=60) as client:
        await client.functions.deploy(name="echo", command=["cat"])
        first = await client.invoke_async("echo", "one", request_id="order")
        await asyncio.to_thread(system.kill)
        await asyncio.to_thread(system.start)
        again = await client.invoke_async("echo", "one", request_id="order")
        assert (again.id, again.duplicate) == (first.id, True)
        with pytest.raises(AlreadyExistsError):
            await client.invoke_async("echo", "two", request_id="order")
        assert (await again.result(timeout=60)).text == "one"


async def test_p10_a_function_that_misbehaves_harms_no_other(system: System) -> None:
    once = RetryPolicy(max_attempts=1)
    async with AsyncClient(system.target, timeout=60) as client:
        await client.functions.deploy(name="echo", command=["cat"])
        await client.functions.deploy(name="flood", command=["yes"], retry_policy=once)
        await client.functions.deploy(name="hang", command=["sleep", "600"], retry_policy=once, attempt_timeout=1)
        await client.functions.deploy(name="missing", command=["/no/such/program"], retry_policy=once)
        bad = {name: await client.invoke_async(name, "x") for name in ("flood", "hang", "missing")}
        good = [await client.invoke_async("echo", str(number)) for number in range(20)]

        assert [(await call.result(timeout=60)).text for call in good] == [str(number) for number in range(20)]
        ends = {name: await call.wait(timeout=60) for name, call in bad.items()}

    reasons = {name: (end.state, end.failure.reason if end.failure else "") for name, end in ends.items()}
    assert reasons == {
        "flood": (InvocationState.FAILED, "RESULT_TOO_LARGE"),
        "hang": (InvocationState.TIMED_OUT, "TIMEOUT"),
        "missing": (InvocationState.FAILED, "START_FAILED"),
    }
