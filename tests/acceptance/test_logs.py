"""What functions write, as callers see it: live and stored, whatever restarts meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc

from homing.v1 import (
    function_pb2,
    function_service_pb2,
    function_service_pb2_grpc,
    invocation_pb2,
    invocation_service_pb2_grpc,
)
from homing.v1 import invocation_service_pb2 as api
from homing.v1.invocation_pb2 import InvocationSpec
from homing.v1.payload_pb2 import HttpOptions, Payload
from support.processes import Cluster

STDOUT, STDERR = api.LOG_STREAM_STDOUT, api.LOG_STREAM_STDERR


class Caller:
    """Calls a server with the generated stubs."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.stub: Any = invocation_service_pb2_grpc.InvocationServiceStub(channel)
        self._functions: Any = function_service_pb2_grpc.FunctionServiceStub(channel)

    async def deploy(self, **fields: Any) -> None:
        function = function_pb2.Function(**fields)
        await self._functions.DeployFunction(function_service_pb2.DeployFunctionRequest(function=function))

    async def send(self, function: str, path: str = "", data: bytes = b"") -> str:
        spec = InvocationSpec(function=function, http=HttpOptions(path=path), payload=Payload(data=data))
        answer = await self.stub.InvokeAsync(api.InvokeAsyncRequest(spec=spec))
        return str(answer.invocation.id)

    async def end(self, id_: str) -> invocation_pb2.Invocation:
        while True:
            answer: api.WaitInvocationResponse = await self.stub.WaitInvocation(api.WaitInvocationRequest(id=id_))
            if answer.invocation.HasField("end_time"):
                return answer.invocation

    def tail(self, id_: str, *, follow: bool = True) -> Any:
        return self.stub.TailLogs(api.TailLogsRequest(id=id_, follow=follow), timeout=60)

    async def log(self, id_: str, *, follow: bool = True) -> list[api.TailLogsResponse]:
        return [line async for line in self.tail(id_, follow=follow)]


@contextlib.asynccontextmanager
async def calling(cluster: Cluster) -> AsyncIterator[Caller]:
    async with grpc.aio.insecure_channel(cluster.target) as channel:
        yield Caller(channel)


def texts(lines: list[api.TailLogsResponse]) -> list[tuple[str, int]]:
    return [(line.text, line.stream) for line in lines]


async def test_a_follower_sees_lines_while_they_are_written_and_ends_with_the_invocation(
    docker_cluster: Cluster, odd_image: str
) -> None:
    await asyncio.to_thread(docker_cluster.start_server)
    await asyncio.to_thread(docker_cluster.start_worker)
    async with calling(docker_cluster) as caller:
        await caller.deploy(name="odd", image=odd_image)
        id_ = await caller.send("odd", "/say/6/0.5", b"tick")

        seen: list[api.TailLogsResponse] = []
        async for line in caller.tail(id_):
            seen.append(line)
            assert time.time() - line.time.ToMicroseconds() / 1e6 < 1.0
        ended = (await caller.end(id_)).end_time.ToMicroseconds() / 1e6
        assert time.time() - ended < 2.5

        expected = [(f"tick {number}", STDOUT) for number in range(1, 7)] + [("tick done", STDERR)]
        assert texts(seen) == expected
        assert not any(line.shared for line in seen)
        assert await caller.log(id_, follow=False) == seen
        begun = time.monotonic()
        assert await caller.log(id_, follow=True) == seen
        assert time.monotonic() - begun < 2.0
