"""Callers of synchronous invocations that go away, each in its own way: what they asked for is stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

import homing
from homing import AsyncClient, AttemptOutcome, Client, Invocation, InvocationState
from homing.v1 import invocation_service_pb2, invocation_service_pb2_grpc
from homing_core.broker.rabbitmq import RabbitBroker
from support.docker import docker
from support.ledger import until
from support.processes import Cluster
from support.proxy import TcpProxy
from support.rabbitmq import RabbitNode
from support.sleeper import runs, sleeper, sleepers

SOON = 2.0
"""Seconds within which what runs is gone."""
LONG = 600.0
PATH = "/say/1/600"
"""The odd image says that it has begun, and then sleeps."""

Leave = Callable[[], Awaitable[None]]
Gone = Callable[[], Awaitable[None]]

PROGRAM = """
import signal, sys
import homing
signal.signal(signal.SIGINT, signal.default_int_handler)   # whatever the tests run under
try:
    homing.Client(sys.argv[1]).invoke(sys.argv[2], b"x", path=sys.argv[3], timeout=600)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def cluster(rabbit_node: RabbitNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    url = rabbit_node.new_vhost()
    with Cluster(url, tmp_path_factory.mktemp("callers"), runtime="docker,process") as cluster:
        cluster.start_server()
        cluster.start_worker()
        yield cluster
    rabbit_node.leave_vhost(url)


@pytest.fixture
def shared_cluster(cluster: Cluster) -> Cluster:
    """Have the logs of the cluster shown where a test fails."""
    return cluster


@pytest.fixture
def client(shared_cluster: Cluster) -> Client:
    return shared_cluster.client()


def invoke_request(function: str) -> invocation_service_pb2.InvokeRequest:
    request = invocation_service_pb2.InvokeRequest()
    request.spec.function = function
    request.spec.payload.data = b"x"
    request.spec.http.path = PATH
    return request


@asynccontextmanager
async def calling(target: str, function: str) -> AsyncIterator[tuple[grpc.aio.Channel, Any]]:
    async with grpc.aio.insecure_channel(target) as channel:
        stub = invocation_service_pb2_grpc.InvocationServiceStub(channel)
        yield channel, stub.Invoke(invoke_request(function), timeout=LONG)


@asynccontextmanager
async def cancelled_call(target: str, function: str) -> AsyncIterator[Leave]:
    async with calling(target, function) as (_, call):

        async def leave() -> None:
            call.cancel()

        yield leave


@asynccontextmanager
async def closed_channel(target: str, function: str) -> AsyncIterator[Leave]:
    async with calling(target, function) as (channel, _):
        yield channel.close


@asynccontextmanager
async def cancelled_task(target: str, function: str) -> AsyncIterator[Leave]:
    async with AsyncClient(target) as client:
        task = asyncio.create_task(client.invoke(function, b"x", path=PATH, timeout=LONG))

        async def leave() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        yield leave


@asynccontextmanager
async def closed_client(target: str, function: str) -> AsyncIterator[Leave]:
    client = Client(target)

    def invoke() -> None:
        with contextlib.suppress(homing.ClosedClientError):
            client.invoke(function, b"x", path=PATH, timeout=LONG)

    thread = threading.Thread(target=invoke)
    thread.start()

    async def leave() -> None:
        client.close()

    yield leave
    thread.join()


@asynccontextmanager
async def running_program(target: str, function: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM, target, function, PATH), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        yield process
    finally:
        await process.communicate(b"")


@asynccontextmanager
async def killed_program(target: str, function: str) -> AsyncIterator[Leave]:
    async with running_program(target, function) as process:

        async def leave() -> None:
            process.kill()

        yield leave


@asynccontextmanager
async def interrupted_program(target: str, function: str) -> AsyncIterator[Leave]:
    async with running_program(target, function) as process:

        async def leave() -> None:
            process.send_signal(signal.SIGINT)

        yield leave
        assert process.stdout is not None
        assert await process.stdout.readline() == b"interrupted\n"
        # It lives on, and its connection with it: the call alone was cancelled.
        assert process.returncode is None


WAYS = (cancelled_call, closed_channel, cancelled_task, closed_client, killed_program, interrupted_program)


async def begun_command(client: Client, function: str, folder: Path) -> Gone:
    """Wait until a command runs; return what waits until it is gone, with what it has started."""
    marker = folder / function
    await until(marker.exists)
    pids = sleepers(marker)
    assert all(map(runs, pids))

    async def gone() -> None:
        while any(map(runs, pids)):  # noqa: ASYNC110 nobody tells of it
            await asyncio.sleep(0.02)

    return gone


async def begun_container(client: Client, function: str, folder: Path) -> Gone:
    """Wait until a container serves the call; return what waits until it is gone."""

    def instances() -> list[str]:
        return docker("ps", "--quiet", "--no-trunc", f"--filter=label=dev.homing.function={function}").split()

    await until(lambda: bool(instances()))
    (instance,) = instances()
    await until(lambda: "x 1" in docker("logs", instance))
    waiting = await asyncio.create_subprocess_exec("docker", "wait", instance, stdout=subprocess.PIPE)

    async def gone() -> None:
        await waiting.communicate()

    return gone


async def record_of(client: Client, function: str) -> Invocation:
    """Return the only record of a function once it has ended."""
    await until(lambda: bool(list(client.list_invocations(function=function))))
    (record,) = client.list_invocations(function=function)
    return await asyncio.to_thread(client.handle(record.id).wait, 60)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("begun", [begun_command, begun_container], ids=["command", "container"])
async def test_what_runs_is_stopped(  # noqa: PLR0917 pytest names them
    shared_cluster: Cluster,
    client: Client,
    odd_image: str,
    tmp_path: Path,
    way: Callable[[str, str], contextlib.AbstractAsyncContextManager[Leave]],
    begun: Callable[[Client, str, Path], Awaitable[Gone]],
) -> None:
    name = f"{way.__name__}-{os.urandom(3).hex()}".replace("_", "-")
    if begun is begun_command:
        client.functions.deploy(name=name, command=sleeper(tmp_path / name))
    else:
        client.functions.deploy(name=name, image=odd_image, max_instances=1)

    async with way(shared_cluster.target, name) as leave:
        gone = await begun(client, name, tmp_path)
        left = time.monotonic()
        await leave()
        await gone()
        assert time.monotonic() - left < SOON

    record = await record_of(client, name)
    assert (record.state, [attempt.outcome for attempt in record.attempts]) == (
        InvocationState.STOPPED,
        [AttemptOutcome.STOPPED],
    )
    assert record.failure is not None
    assert (record.failure.reason, record.failure.message) == ("STOPPED", "it was stopped, since its caller went away")
    assert record.stop_request is None


async def test_a_caller_that_falls_silent_is_noticed(shared_cluster: Cluster, client: Client, tmp_path: Path) -> None:
    client.functions.deploy(name="silent", command=sleeper(tmp_path / "silent"))
    host, _, port = shared_cluster.target.rpartition(":")
    async with TcpProxy(host, int(port)) as proxy, AsyncClient(f"127.0.0.1:{proxy.port}") as caller:
        call = asyncio.create_task(caller.invoke("silent", timeout=LONG))
        gone = await begun_command(client, "silent", tmp_path)
        proxy.pause()
        async with asyncio.timeout(60):
            await gone()
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)

    assert (await record_of(client, "silent")).state is InvocationState.STOPPED


async def test_what_waits_behind_others_never_starts(
    rabbit_node: RabbitNode, shared_cluster: Cluster, client: Client, tmp_path: Path
) -> None:
    gate, seen = tmp_path / "gate", tmp_path / "seen"
    code = f"cat >> {seen}; echo >> {seen}; while [ ! -e {gate} ]; do sleep 0.05; done"
    client.functions.deploy(name="narrow", command=["sh", "-c", code], max_instances=1)
    broker = RabbitBroker(shared_cluster.broker_url, name="test")
    await broker.start()

    async def waiting(calls: int) -> None:
        while (await broker.depth("narrow")).sync != calls:  # noqa: ASYNC110 nobody tells of it
            await asyncio.sleep(0.05)

    async with AsyncClient(shared_cluster.target, timeout=LONG) as callers:
        first = asyncio.create_task(callers.invoke("narrow", "first"))
        await until(seen.exists)
        gone = [asyncio.create_task(callers.invoke("narrow", f"gone {number}")) for number in range(5)]
        # The one is at the worker, the others still in the queue.
        await waiting(4)
        last = asyncio.create_task(callers.invoke("narrow", "last"))
        await waiting(5)
        for task in gone:
            task.cancel()
        await asyncio.gather(*gone, return_exceptions=True)
        # The worker has dropped them, and so the last is at the worker.
        await waiting(0)
        gate.touch()
        assert (await first).invocation.state is InvocationState.SUCCEEDED
        assert (await last).invocation.state is InvocationState.SUCCEEDED
    await broker.close()

    assert seen.read_text(encoding="utf-8").split("\n") == ["first", "last", ""]
    succeeded = [InvocationState.SUCCEEDED]
    await until(lambda: len(list(client.list_invocations(function="narrow", states=succeeded))) == 2)


async def test_the_function_runs_on_where_it_is_the_server_that_leaves(cluster: Cluster, tmp_path: Path) -> None:
    gate, done = tmp_path / "gate", tmp_path / "done"
    code = f"touch {done}.begun; while [ ! -e {gate} ]; do sleep 0.05; done; touch {done}"
    server = cluster.start_server(HOMING_DRAIN_TIMEOUT="0.5")
    cluster.client().functions.deploy(name="lasting", command=["sh", "-c", code])

    async with AsyncClient(server.target) as caller:
        call = asyncio.create_task(caller.invoke("lasting", timeout=LONG))
        await until(Path(f"{done}.begun").exists)
        await asyncio.to_thread(server.terminate)
        with pytest.raises(homing.RequestError):
            await call
    gate.touch()

    record = await record_of(cluster.client(), "lasting")
    assert (record.state, done.exists()) == (InvocationState.SUCCEEDED, True)
