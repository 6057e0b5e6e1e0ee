"""Invocations whose outcomes go somewhere, and where their deliveries stand, over the plain API."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

import grpc

from homing.v1 import invocation_pb2 as api
from homing.v1 import invocation_service_pb2 as rpc
from homing.v1.dead_letter_service_pb2_grpc import DeadLetterServiceStub
from homing.v1.function_pb2 import Command, Function
from homing.v1.function_service_pb2 import DeployFunctionRequest
from homing.v1.function_service_pb2_grpc import FunctionServiceStub
from homing.v1.invocation_service_pb2_grpc import InvocationServiceStub
from homing.v1.payload_pb2 import Payload
from homing.v1.policy_pb2 import Destination

PATIENCE = 150.0
_PAUSE = 0.25
_OVER = {api.DELIVERY_STATE_DELIVERED, api.DELIVERY_STATE_DEAD}


def spec_to(
    function: str,
    *,
    callback: str = "",
    on_success: Iterable[str] = (),
    on_failure: Iterable[str] = (),
    data: bytes = b"",
) -> api.InvocationSpec:
    """Return what to run, and where its outcome goes."""
    spec = api.InvocationSpec(
        function=function,
        payload=Payload(content_type="text/plain", data=data),
        on_success=[Destination(uri=uri) for uri in on_success],
        on_failure=[Destination(uri=uri) for uri in on_failure],
    )
    if callback:
        spec.callback.url = callback
    return spec


class Outcomes:
    """Invokes, and looks where the outcomes are."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.stub = InvocationServiceStub(channel)
        self.dead_letters = DeadLetterServiceStub(channel)
        self._functions = FunctionServiceStub(channel)

    async def deploy(self, name: str, command: Sequence[str], *, on_success: Iterable[str] = ()) -> None:
        """Deploy a function whose outcomes go somewhere."""
        function = Function(name=name, command=Command(args=command), max_instances=2)
        function.on_success.extend(Destination(uri=uri) for uri in on_success)
        await self._functions.DeployFunction(DeployFunctionRequest(function=function))

    async def caused_by(self, invocation_id: str) -> api.Invocation:
        """Return the one invocation that the outcome of another caused, once it has ended."""
        selection = api.InvocationFilter(caused_by=invocation_id)
        deadline = time.monotonic() + PATIENCE
        while True:
            request = rpc.ListInvocationsRequest(filter=selection, include_result=True)
            found = (await self.stub.ListInvocations(request, wait_for_ready=True)).invocations
            assert len(found) <= 1, found
            if found and found[0].HasField("end_time"):
                return found[0]
            assert time.monotonic() < deadline, f"{invocation_id} caused nothing that ends: {found}"
            await asyncio.sleep(_PAUSE)

    async def invoke(self, *specs: api.InvocationSpec) -> list[str]:
        """Have invocations accepted; return their ids."""
        requests = [rpc.InvokeAsyncRequest(spec=spec) for spec in specs]
        response = await self.stub.BatchInvokeAsync(rpc.BatchInvokeAsyncRequest(requests=requests))
        assert all(result.HasField("accepted") for result in response.results), response
        return [result.accepted.invocation.id for result in response.results]

    async def get(self, invocation_id: str) -> api.Invocation:
        """Return a record, also while the server is started again."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                request = rpc.GetInvocationRequest(id=invocation_id, include_payload=True)
                return (await self.stub.GetInvocation(request)).invocation
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE or time.monotonic() > deadline:
                    raise
                await asyncio.sleep(_PAUSE)

    async def delivered(self, ids: Sequence[str], *, count: int) -> list[api.Delivery]:
        """Return the deliveries of invocations once each has so many of them and all are over."""
        deadline = time.monotonic() + PATIENCE
        found: list[api.Delivery] = []
        for invocation_id in ids:
            while True:
                deliveries = (await self.get(invocation_id)).deliveries
                if len(deliveries) == count and all(delivery.state in _OVER for delivery in deliveries):
                    found.extend(deliveries)
                    break
                assert time.monotonic() < deadline, f"{invocation_id} is not delivered: {deliveries}"
                await asyncio.sleep(_PAUSE)
        return found


@asynccontextmanager
async def outcomes(target: str) -> AsyncIterator[Outcomes]:
    """Connect."""
    # A server that was killed is asked again soon after it is back.
    options = [("grpc.max_reconnect_backoff_ms", 500)]
    async with grpc.aio.insecure_channel(target, options=options) as channel:
        yield Outcomes(channel)
