"""Very many watchers of one server."""

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

BATCH = 100
CHANNELS = 10
"""A server takes 64 calls at a time over each."""
BOOKMARK = 200
"""Bytes: bookmarks have fewer, results more."""


class Watcher:
    """Reads a watch as it travels: all who see the same get the same bytes."""

    def __init__(self, channel: grpc.aio.Channel, results: int) -> None:
        self._results = results
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
            if len(self.seen) == self._results:
                break


def peak_memory(pid: int) -> int:
    """Return how many bytes a process had in memory at the most."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


async def accept(channel: grpc.aio.Channel, results: int) -> list[str]:
    invocations = invocation_service_pb2_grpc.InvocationServiceStub(channel)
    spec = invocation_pb2.InvocationSpec(function="seen", labels={"a": "label"})
    request = invocation_service_pb2.InvokeAsyncRequest(spec=spec)
    ids = []
    for _ in range(results // BATCH):
        answer = await invocations.BatchInvokeAsync(
            invocation_service_pb2.BatchInvokeAsyncRequest(requests=[request] * BATCH)
        )
        ids += [result.accepted.invocation.id for result in answer.results]
    return ids


async def watched_by_many(cluster: Cluster, broker_url: str, *, watchers: int, results: int, within: float) -> int:
    """Let so many watchers see so many results, each once; return how many bytes the server had in memory at most.

    :param within: Seconds that it may take.
    """
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
        ids = await accept(channels[0], results)
        reading = [Watcher(channels[number % CHANNELS], results) for number in range(watchers)]
        async with asyncio.timeout(within), asyncio.TaskGroup() as group:
            for watcher in reading:
                group.create_task(watcher.read())
            for watcher in reading:
                await watcher.subscribed.wait()
            for start in range(0, results, BATCH):
                batch = EventBatch(events=[event for key in ids[start : start + BATCH] for event in life(key)])
                await worker.publish_event(batch.SerializeToString())
        for watcher in reading:
            assert watcher.seen == reading[0].seen
            # As many as there are, in their order, up to the last one: so each was there, and once.
            last = invocation_service_pb2.WatchResultsResponse.FromString(watcher.last)
            assert last.invocation.id == ids[-1]
        assert len(set(reading[0].seen)) == results
    return peak_memory(server.pid)
