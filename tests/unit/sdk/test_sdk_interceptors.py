"""Interceptors, of both clients."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from typing import Any

import grpc
import pytest

import homing
from homing import Call
from homing.v1 import InvokeAsyncRequest, InvokeRequest, invocation_service_pb2
from support import records
from support.scripted_server import Refusal, ScriptedServer
from support.sdk_driver import Driver

ANSWER = invocation_service_pb2.InvokeResponse(invocation=records.invocation())


def interceptor(driver: Driver, before: Callable[[Call], Call], after: Callable[[Any], Any] = lambda x: x) -> Any:
    """Return an interceptor of the driver's kind."""
    if not driver.asynchronous:
        return lambda call, send: after(send(before(call)))

    async def intercept(call: Call, send: Any) -> Any:
        return after(await send(before(call)))

    return intercept


def test_each_call_passes_all_of_them_in_order(driver: Driver, scripted_server: ScriptedServer) -> None:
    scripted_server.script("Invoke", ANSWER)
    seen: list[tuple[str, Call]] = []

    def first(call: Call) -> Call:
        seen.append(("first", call))
        return call.with_metadata("traceparent", "00-1-2-01")

    def second(call: Call) -> Call:
        seen.append(("second", call))
        return call

    client = driver.client(
        scripted_server.target, api_key="k", interceptors=[interceptor(driver, first), interceptor(driver, second)]
    )
    assert driver.do(client.invoke, "figlet", timeout=5).text == "ok"

    assert [name for name, _ in seen] == ["first", "second"]
    call = seen[1][1]
    assert call.method == "Invoke"
    assert isinstance(call.request, InvokeRequest)
    assert call.timeout is not None
    assert 4 < call.timeout <= 5
    assert call.metadata == (("authorization", "Bearer k"), ("traceparent", "00-1-2-01"))
    [metadata] = scripted_server.metadata["Invoke"]
    assert metadata["traceparent"] == "00-1-2-01"


def test_each_try_is_a_call_of_its_own(driver: Driver, scripted_server: ScriptedServer) -> None:
    scripted_server.script("InvokeAsync", Refusal(code=grpc.StatusCode.UNAVAILABLE), records.accepted())
    keys = iter(["old", "new"])
    client = driver.client(
        scripted_server.target,
        interceptors=[interceptor(driver, lambda call: call.with_metadata("authorization", next(keys)))],
    )

    driver.do(client.invoke_async, "figlet")

    assert [metadata["authorization"] for metadata in scripted_server.metadata["InvokeAsync"]] == ["old", "new"]


def test_one_may_change_request_and_response(driver: Driver, scripted_server: ScriptedServer) -> None:
    scripted_server.script("InvokeAsync", records.accepted())

    def relabel(call: Call) -> Call:
        assert isinstance(call.request, InvokeAsyncRequest)
        request = InvokeAsyncRequest()
        request.CopyFrom(call.request)
        request.spec.labels["tenant"] = "t1"
        return replace(call, request=request, timeout=3)

    def rename(response: Any) -> Any:
        response.invocation.id = "other"
        return response

    client = driver.client(scripted_server.target, interceptors=[interceptor(driver, relabel, rename)])

    assert driver.do(client.invoke_async, "figlet").id == "other"
    assert scripted_server.requests["InvokeAsync"][0].spec.labels == {"tenant": "t1"}
    [deadline] = scripted_server.deadlines["InvokeAsync"]
    assert deadline is not None
    assert deadline <= 3.2


def test_one_sees_the_errors_that_users_see(driver: Driver, scripted_server: ScriptedServer) -> None:
    scripted_server.script("Invoke", Refusal(code=grpc.StatusCode.NOT_FOUND, reason="X", message="there is none"))
    seen: list[Exception] = []

    def sync(call: Call, send: Any) -> Any:
        try:
            return send(call)
        except homing.HomingError as error:
            seen.append(error)
            raise

    async def aio(call: Call, send: Any) -> Any:
        try:
            return await send(call)
        except homing.HomingError as error:
            seen.append(error)
            raise

    client = driver.client(scripted_server.target, interceptors=[aio if driver.asynchronous else sync])

    with pytest.raises(homing.NotFoundError) as caught:
        driver.do(client.invoke, "figlet")
    assert seen == [caught.value]


def test_one_may_answer_by_itself(driver: Driver) -> None:
    def sync(_call: Call, _send: Any) -> Any:
        return ANSWER

    async def aio(_call: Call, _send: Any) -> Any:
        return ANSWER

    client = driver.client("127.0.0.1:1", interceptors=[aio if driver.asynchronous else sync])

    assert driver.do(client.invoke, "figlet").text == "ok"


def open_stream(*messages: Any) -> Any:
    def answer(_: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        yield from messages
        gone = threading.Event()
        context.add_callback(gone.set)
        gone.wait(30)

    return answer


def broken_stream(*messages: Any) -> Any:
    def answer(_: Any, __: Any) -> Iterator[Any]:
        yield from messages
        raise Refusal(code=grpc.StatusCode.UNAVAILABLE)

    return answer


def test_streams_pass_too(driver: Driver, scripted_server: ScriptedServer) -> None:
    scripted_server.script(
        "WatchResults",
        broken_stream(records.bookmark("0"), records.ended("1", 1)),
        open_stream(records.bookmark("1"), records.ended("2", 2)),
    )
    calls: list[Call] = []
    seen: list[str] = []

    def sync(call: Call, send: Any) -> Any:
        calls.append(call)

        def each() -> Iterator[Any]:
            for message in send(call):
                seen.append(message.resume_token)
                yield message

        return each()

    async def aio(call: Call, send: Any) -> Any:
        calls.append(call)
        messages = await send(call)

        async def each() -> AsyncIterator[Any]:
            async for message in messages:
                seen.append(message.resume_token)
                yield message

        return each()

    client = driver.client(scripted_server.target, interceptors=[aio if driver.asynchronous else sync])
    events = client.watch_results()

    assert [driver.next(events).resume_token for _ in range(2)] == ["1", "2"]
    driver.do(events.close)
    assert [(call.method, call.timeout) for call in calls] == [("WatchResults", None)] * 2
    assert seen == ["0", "1", "1", "2"]
    assert scripted_server.requests["WatchResults"][1].resume_token == "1"


@pytest.mark.parametrize("interceptors", ["x", 5, [5]])
def test_what_cannot_be_called_is_refused(driver: Driver, interceptors: Any) -> None:
    with pytest.raises(TypeError, match="interceptors"):
        driver.client("127.0.0.1:1", interceptors=interceptors)


def test_a_reader_that_was_cancelled_leaves_the_watch_where_it_was(scripted_server: ScriptedServer) -> None:
    scripted_server.script(
        "WatchResults",
        open_stream(records.bookmark("0")),
        open_stream(records.bookmark("0"), records.ended("1", 1)),
    )

    async def main() -> None:
        async with homing.AsyncClient(scripted_server.target) as client, client.watch_results() as events:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(anext(events), 0.3)
            assert (await anext(events)).resume_token == "1"

    asyncio.run(main())
