"""Stops by the API as it is on the wire."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import grpc

from homing.v1 import invocation_pb2, invocation_service_pb2_grpc
from homing.v1 import invocation_service_pb2 as api
from support.bulk import outcome


class Stops:
    """Stops invocations and waits for their ends."""

    def __init__(self, stub: invocation_service_pb2_grpc.InvocationServiceAsyncStub) -> None:
        self._stub = stub

    @classmethod
    @contextlib.asynccontextmanager
    async def at(cls, target: str) -> AsyncIterator[Stops]:
        """Connect to a server."""
        async with grpc.aio.insecure_channel(target) as channel:
            yield cls(invocation_service_pb2_grpc.InvocationServiceStub(channel))

    async def stop(self, invocation_id: str, reason: str = "") -> invocation_pb2.Invocation:
        """Ask for a stop; return the record."""
        request = api.StopInvocationRequest(id=invocation_id, reason=reason)
        return (await self._stub.StopInvocation(request, timeout=60)).invocation

    async def many(self, **fields: object) -> api.BulkStopResponse:
        """Ask for many stops."""
        request = api.BulkStopRequest(**fields)  # type: ignore[arg-type]
        return await outcome(self._stub.BulkStop(request, timeout=60))

    async def end(self, invocation_id: str, *, within: int = 60) -> invocation_pb2.Invocation:
        """Return the record once it has ended."""
        request = api.WaitInvocationRequest(id=invocation_id)
        request.timeout.FromSeconds(within)
        return (await self._stub.WaitInvocation(request, timeout=within + 10)).invocation
