"""Calls of a server with the generated stubs alone, where a test must see what the SDK makes good."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc

from homing.v1 import (
    function_pb2,
    function_service_pb2,
    function_service_pb2_grpc,
    invocation_pb2,
    invocation_service_pb2_grpc,
    log_service_pb2_grpc,
)
from homing.v1 import invocation_service_pb2 as api
from homing.v1.invocation_pb2 import InvocationSpec
from homing.v1.log_service_pb2 import TailLogsRequest, TailLogsResponse
from homing.v1.payload_pb2 import HttpOptions, Payload
from support.processes import Cluster


class Caller:
    """Calls a server with the generated stubs."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.stub: Any = invocation_service_pb2_grpc.InvocationServiceStub(channel)
        self._logs: Any = log_service_pb2_grpc.LogServiceStub(channel)
        self._functions: Any = function_service_pb2_grpc.FunctionServiceStub(channel)

    async def deploy(self, **fields: Any) -> None:
        """Make a function."""
        function = function_pb2.Function(**fields)
        await self._functions.DeployFunction(function_service_pb2.DeployFunctionRequest(function=function))

    async def send(self, function: str, path: str = "", data: bytes = b"") -> str:
        """Make an asynchronous call; return its id."""
        spec = InvocationSpec(function=function, http=HttpOptions(path=path), payload=Payload(data=data))
        answer = await self.stub.InvokeAsync(api.InvokeAsyncRequest(spec=spec))
        return str(answer.invocation.id)

    async def end(self, id_: str) -> invocation_pb2.Invocation:
        """Return an invocation once it has ended."""
        while True:
            answer: api.WaitInvocationResponse = await self.stub.WaitInvocation(api.WaitInvocationRequest(id=id_))
            if answer.invocation.HasField("end_time"):
                return answer.invocation

    def tail(self, id_: str, *, follow: bool = True) -> Any:
        """Open a tail."""
        return self._logs.TailLogs(TailLogsRequest(id=id_, follow=follow), timeout=60)

    async def log(self, id_: str, *, follow: bool = True) -> list[TailLogsResponse]:
        """Return the lines of a tail until its end."""
        return [line async for line in self.tail(id_, follow=follow)]


@contextlib.asynccontextmanager
async def calling(cluster: Cluster) -> AsyncIterator[Caller]:
    """Yield a caller of a cluster's first server."""
    async with grpc.aio.insecure_channel(cluster.target) as channel:
        yield Caller(channel)
