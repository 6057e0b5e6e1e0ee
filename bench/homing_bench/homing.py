"""What is measured of homing: accepting, executing a backlog, synchronous calls, starting, and callbacks."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable

import grpc

from homing.v1 import invocation_pb2 as api
from homing.v1 import invocation_service_pb2 as rpc
from homing.v1.invocation_service_pb2_grpc import InvocationServiceStub
from homing.v1.payload_pb2 import Payload
from homing_bench.cpu import CpuMeter
from homing_bench.figures import NOTHING, Figure, percentiles, rate
from homing_bench.load import PAYLOAD, Load, call_often, post_often
from homing_bench.measures import (
    ACCEPT,
    ACCEPT_BATCH,
    ACCEPT_HTTP,
    CALLBACKS,
    EXECUTE,
    START,
    START_LOADED,
    SYNC,
    SYNC_HTTP,
    SYNC_MANY,
    SYNC_MANY_HTTP,
    Sizes,
)
from homing_bench.receiver import receiver
from homing_bench.systems import FUNCTION, System
from support.gauges import Gauges, settled_gauges

_SERVICE = "/homing.v1.InvocationService/"
_BATCH = 100
_BATCH_CALLERS = 4
_PATIENCE = 120.0
_POLL = 0.05
_WARM_UP = 200
_CLIENT_OPTIONS = (("grpc.max_receive_message_length", -1),)


class HomingBench:
    """Measures one homing from beginning to end."""

    def __init__(self, system: System, sizes: Sizes, tell: Callable[[Figure], None]) -> None:
        self._system = system
        self._sizes = sizes
        self._tell = tell
        self._invoked = 0
        self._figures: list[Figure] = []
        self._channel = grpc.aio.insecure_channel(system.server.target, options=_CLIENT_OPTIONS)
        self._stub = InvocationServiceStub(self._channel)

    async def run(self) -> list[Figure]:
        """Measure everything; a row that cannot be counted on says why."""
        async with self._channel:
            await self._accept_single()
            await self._accept_over_http()
            await self._accept_batches()
            await self._execute()
            await self._sync()
            await self._sync_over_http(SYNC_HTTP, self._sizes.sync, callers=1)
            await self._sync_many()
            await self._sync_over_http(SYNC_MANY_HTTP, self._sizes.sync_many, callers=32)
            await self._start_idle()
            await self._start_loaded()
            await self._callbacks()
            await self._conserved()
        return self._figures

    async def _accept_single(self) -> None:
        method, request = f"{_SERVICE}InvokeAsync", rpc.InvokeAsyncRequest(spec=_spec())

        async def load(requests: int) -> Load:
            return await call_often(self._system.server.target, method, request, requests=requests, callers=64)

        await self._accept(ACCEPT, load)

    async def _accept_over_http(self) -> None:
        url = f"http://{self._system.server.http}/async-function/{FUNCTION}"

        async def load(requests: int) -> Load:
            return await post_often(url, PAYLOAD, requests=requests, callers=64, status=202)

        await self._accept(ACCEPT_HTTP, load)

    async def _accept(self, measure: str, make: Callable[[int], Awaitable[Load]]) -> None:
        # What is done for the first time costs more.
        await make(_WARM_UP)
        self._invoked += _WARM_UP
        requests = self._sizes.accept
        before = await self._gauges()
        meter = CpuMeter(self._system.roles)
        load = await make(requests)
        cpu = meter.per_operation(requests)
        self._invoked += requests
        missing = _short(requests, _accepted(await self._gauges()) - _accepted(before), "accepted")
        self._add(measure, rate(requests, load.seconds), cpu, missing)

    async def _accept_batches(self) -> None:
        batches = [_batch() for _ in range(self._sizes.accept_batches)]
        before = await self._gauges()
        call = _raw_call(self._channel, "BatchInvokeAsync")
        left = iter(batches)
        answers: list[bytes] = []

        async def caller() -> None:
            for batch in left:
                answer = await call(batch)
                answers.append(answer)

        meter = CpuMeter(self._system.roles)
        start = time.monotonic()
        async with asyncio.TaskGroup() as callers:
            for _ in range(_BATCH_CALLERS):
                callers.create_task(caller())
        seconds = time.monotonic() - start
        requests = len(batches) * _BATCH
        cpu = meter.per_operation(requests)
        self._invoked += requests
        told = sum(
            1
            for answer in answers
            for result in rpc.BatchInvokeAsyncResponse.FromString(answer).results
            if result.HasField("accepted")
        )
        stored = _accepted(await self._gauges()) - _accepted(before)
        missing = _short(requests, told, "told as accepted") or _short(requests, stored, "accepted")
        self._add(ACCEPT_BATCH, rate(requests, seconds), cpu, missing)

    async def _execute(self) -> None:
        before = _ended(await self._gauges())
        await asyncio.to_thread(self._system.begin)
        # Its start is not what is measured.
        await self._wait_until(before + 1)
        meter, start = CpuMeter(self._system.roles), time.monotonic()
        first = _ended(await self._gauges())
        missing = await self._missing_ends()
        seconds = time.monotonic() - start
        executed = self._invoked - first
        cpu = meter.per_operation(executed)
        self._add(EXECUTE, rate(executed, seconds), cpu, missing)

    async def _sync(self) -> None:
        await self._call_sync(SYNC, self._sizes.sync, callers=1)

    async def _sync_many(self) -> None:
        await self._call_sync(SYNC_MANY, self._sizes.sync_many, callers=32)

    async def _call_sync(self, measure: str, requests: int, *, callers: int) -> None:
        method, request = f"{_SERVICE}Invoke", rpc.InvokeRequest(spec=_spec())
        calls = call_often(self._system.server.target, method, request, requests=requests, callers=callers)
        await self._measure_sync(measure, calls, requests, callers=callers)

    async def _sync_over_http(self, measure: str, requests: int, *, callers: int) -> None:
        url = f"http://{self._system.server.http}/function/{FUNCTION}"
        calls = post_often(url, PAYLOAD, requests=requests, callers=callers, status=200)
        await self._measure_sync(measure, calls, requests, callers=callers)

    async def _measure_sync(self, measure: str, calls: Awaitable[Load], requests: int, *, callers: int) -> None:
        meter = CpuMeter(self._system.roles)
        load = await calls
        self._invoked += requests
        missing = await self._missing_ends()
        cpu = meter.per_operation(requests)
        value = percentiles(load.latencies)
        if callers > 1:
            value = f"{rate(requests, load.seconds)}, {value}"
        self._add(measure, value, cpu, missing)

    async def _start_idle(self) -> None:
        """Measure from accept to start, one invocation at a time."""
        meter = CpuMeter(self._system.roles)
        ids = []
        for _ in range(self._sizes.start):
            ids.append(await self._invoke_async())
            await self._stub.WaitInvocation(rpc.WaitInvocationRequest(id=ids[-1]))
        cpu = meter.per_operation(len(ids))
        await self._add_starts(START, ids, cpu)

    async def _start_loaded(self) -> None:
        """Measure from accept to start while invocations come evenly."""
        meter = CpuMeter(self._system.roles)
        interval = 1 / self._sizes.start_rate
        begin = time.monotonic()
        calls: list[asyncio.Task[str]] = []
        for number in range(self._sizes.start_loaded):
            await asyncio.sleep(max(0.0, begin + number * interval - time.monotonic()))
            calls.append(asyncio.create_task(self._invoke_async()))
        ids = await asyncio.gather(*calls)
        await self._missing_ends()
        cpu = meter.per_operation(len(ids))
        await self._add_starts(START_LOADED.format(rate=self._sizes.start_rate), ids, cpu)

    async def _invoke_async(self) -> str:
        self._invoked += 1
        request = rpc.InvokeAsyncRequest(spec=_spec(), request_id=uuid.uuid4().hex)
        return (await self._stub.InvokeAsync(request)).invocation.id

    async def _add_starts(self, measure: str, ids: list[str], cpu: dict[str, float]) -> None:
        missing = await self._missing_ends()
        wanted = set(ids)
        waits = [
            (record.attempts[0].start_time.ToMicroseconds() - record.create_time.ToMicroseconds()) / 1e6
            async for record in self._newest(len(ids))
            if record.id in wanted
        ]
        self._add(measure, percentiles(waits), cpu, missing or _short(len(ids), len(waits), "recorded"))

    async def _callbacks(self) -> None:
        requests = self._sizes.callbacks
        async with receiver() as calls:
            batches = [_batch(callback=calls.url) for _ in range(requests // _BATCH)]
            call = _raw_call(self._channel, "BatchInvokeAsync")
            meter = CpuMeter(self._system.roles)
            start = time.monotonic()
            await asyncio.gather(*(call(batch) for batch in batches))
            self._invoked += requests
            missing = await self._missing_ends()
            await calls.wait_for(requests, _PATIENCE)
            cpu = meter.per_operation(requests)
            missing = missing or _short(requests, calls.received, "called back")
            self._add(CALLBACKS, rate(calls.received, calls.last_at - start), cpu, missing)

    async def _conserved(self) -> None:
        """Check, once nothing moves any more, that the records are complete; what was measured counts only then."""
        gauges = await settled_gauges(self._system.server, within=_PATIENCE)
        waiting = gauges.value("homing_events_waiting")
        wrong = (
            _short(self._invoked, int(sum(gauges.records.values())), "recorded")
            or (f"record drift {gauges.record_drift:g}" if gauges.record_drift else "")
            or (f"broker drift {gauges.broker_drift}" if gauges.broker_drift else "")
            or (f"{waiting:g} event messages wait" if waiting else "")
        )
        if wrong:
            self._add("records at the end", NOTHING, {}, wrong)

    async def _missing_ends(self) -> str:
        """Wait until all have ended and are recorded; tell what is missing: all must have succeeded, too."""
        if missing := _short(self._invoked, await self._wait_until(self._invoked), "ended"):
            return missing
        states = [state for state in api.InvocationState.values() if state and state != api.INVOCATION_STATE_SUCCEEDED]
        request = rpc.ListInvocationsRequest(filter=api.InvocationFilter(states=states), page_size=1)
        response = await self._stub.ListInvocations(request)
        if not response.invocations:
            return ""
        one = response.invocations[0]
        return f"{one.id} is {api.InvocationState.Name(one.state)} {one.failure.reason}".strip()

    async def _wait_until(self, ends: int) -> int:
        """Wait until so many have ended, for as long as is reasonable; return how many have."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            ended = _ended(await self._gauges())
            if ended >= ends or time.monotonic() > deadline:
                return ended
            await asyncio.sleep(_POLL)

    async def _newest(self, count: int) -> AsyncIterator[api.Invocation]:
        request = rpc.ListInvocationsRequest(page_size=1000)
        while count > 0:
            response = await self._stub.ListInvocations(request)
            for invocation in response.invocations:
                yield invocation
            count -= len(response.invocations)
            request.page_token = response.next_page_token
            if not request.page_token:
                return

    async def _gauges(self) -> Gauges:
        return await asyncio.to_thread(self._system.gauges)

    def _add(self, measure: str, value: str, cpu: dict[str, float], missing: str) -> None:
        figure = Figure(measure=measure, system=self._system.name, value=value, cpu=cpu, missing=missing)
        self._figures.append(figure)
        self._tell(figure)


def _raw_call(channel: grpc.aio.Channel, method: str) -> Callable[[bytes], Awaitable[bytes]]:
    """Return a call whose request is serialised already and whose response is left as it came."""
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"{_SERVICE}{method}")
    return call


def _spec(callback: str = "") -> api.InvocationSpec:
    spec = api.InvocationSpec(function=FUNCTION, payload=Payload(content_type="text/plain", data=PAYLOAD))
    if callback:
        spec.callback.url = callback
    return spec


def _batch(callback: str = "") -> bytes:
    """Return a request for many, each with a request id of its own, as the SDK sends it."""
    spec = _spec(callback)
    requests = [rpc.InvokeAsyncRequest(spec=spec, request_id=uuid.uuid4().hex) for _ in range(_BATCH)]
    return rpc.BatchInvokeAsyncRequest(requests=requests).SerializeToString()


def _accepted(gauges: Gauges) -> int:
    return int(gauges.value("homing_invocations_accepted_total"))


def _ended(gauges: Gauges) -> int:
    return int(sum(gauges.all("homing_invocations_ended_total").values()))


def _short(wanted: int, found: int, what: str) -> str:
    return "" if found == wanted else f"{found} of {wanted} {what}"
