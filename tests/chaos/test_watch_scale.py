"""Five hundred watchers of one server see every result once, and the server stays small."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterable
from pathlib import Path
from typing import Any

import grpc

from homing.v1 import (
    function_pb2,
    function_service_pb2,
    function_service_pb2_grpc,
    invocation_pb2,
    invocation_service_pb2,
    invocation_service_pb2_grpc,
)
from homing_core.broker.rabbitmq import RabbitBroker
from homing_core.wire.v1 import EventBatch
from support.processes import Cluster
from support.store import life

WATCHERS = 500
RESULTS = 200
BATCH = 100
CHANNELS = 8
BOOKMARK = 200
"""Bytes: bookmarks have fewer, results more."""
PATIENCE = 120.0
MOST_MEMORY = 300 * 1024 * 1024


class Watcher:
    """Reads a watch as it travels: all who see the same get the same bytes."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.subscribed = asyncio.Event()
        self.seen: list[bytes] = []
        """Digests of the results, in order."""
        self.last = b""
        call: Any = channel.unary_stream(
            "/homing.v1.InvocationService/WatchResults",
            request_serializer=invocation_service_pb2.WatchResultsRequest.SerializeToString,
        )
        self._messages: AsyncIterable[bytes] = call(invocation_service_pb2.WatchResultsRequest())

    async def read(self) -> None:
        """Read until there were as many results as there are."""
        async for message in self._messages:
            if len(message) > BOOKMARK:
                self.seen.append(hashlib.sha256(message).digest())
            self.last = message
            self.subscribed.set()
            if len(self.seen) == RESULTS:
                break


def peak_memory(pid: int) -> int:
    """Return how many bytes a process had in memory at the most."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


async def accept(channel: grpc.aio.Channel) -> list[str]:
    invocations = invocation_service_pb2_grpc.InvocationServiceStub(channel)
    spec = invocation_pb2.InvocationSpec(function="seen", labels={"a": "label"})
    request = invocation_service_pb2.InvokeAsyncRequest(spec=spec)
    ids = []
    for _ in range(RESULTS // BATCH):
        answer = await invocations.BatchInvokeAsync(
            invocation_service_pb2.BatchInvokeAsyncRequest(requests=[request] * BATCH)
        )
        ids += [result.accepted.invocation.id for result in answer.results]
    return ids


async def test_p8_five_hundred_watchers_see_every_result_once(cluster: Cluster, broker_url: str) -> None:
    server = cluster.start_server()
    worker = RabbitBroker(broker_url, name="worker")
    await worker.start()
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(worker.close)
        channels = [
            # Each with a connection of its own.
            await stack.enter_async_context(
                grpc.aio.insecure_channel(server.target, options=[("grpc.use_local_subchannel_pool", 1)])
            )
            for _ in range(CHANNELS)
        ]
        functions = function_service_pb2_grpc.FunctionServiceStub(channels[0])
        await functions.DeployFunction(
            function_service_pb2.DeployFunctionRequest(
                function=function_pb2.Function(name="seen", url="http://127.0.0.1:1/")
            )
        )
        ids = await accept(channels[0])
        watchers = [Watcher(channels[number % CHANNELS]) for number in range(WATCHERS)]
        async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
            for watcher in watchers:
                group.create_task(watcher.read())
            for watcher in watchers:
                await watcher.subscribed.wait()
            for start in range(0, RESULTS, BATCH):
                batch = EventBatch(events=[event for key in ids[start : start + BATCH] for event in life(key)])
                await worker.publish_event(batch.SerializeToString())
        for watcher in watchers:
            assert watcher.seen == watchers[0].seen
            # As many as there are, in their order, up to the last one: so each was there, and once.
            last = invocation_service_pb2.WatchResultsResponse.FromString(watcher.last)
            assert last.invocation.id == ids[-1]
        assert len(set(watchers[0].seen)) == RESULTS
    assert peak_memory(server.pid) < MOST_MEMORY
