"""What a type checker sees of the public calls. Never run, only checked."""

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, assert_type

import grpc

from homing import (
    Answer,
    AsyncClient,
    AsyncFunctions,
    AsyncInvocationHandle,
    AsyncResultWatch,
    Attempt,
    Client,
    Delivery,
    Event,
    Failure,
    Function,
    FunctionError,
    Functions,
    InvalidRequestError,
    Invocation,
    InvocationHandle,
    InvocationState,
    Limits,
    Payload,
    Result,
    ResultTimeoutError,
    ResultWatch,
    RetryPolicy,
    Violation,
    WatchEvent,
)


def sync(client: Client) -> None:
    with Client("localhost:50051", api_key="k", tls_ca="ca.pem", timeout=timedelta(seconds=5)) as opened:
        assert_type(opened, Client)

    assert_type(client.invoke("f", {"a": 1}, timeout=5, retry_policy=RetryPolicy(max_attempts=1)), Result)
    assert_type(client.invoke("f", b"", timeout=None, query={"a": ["b", "c"]}, headers={"a": "b"}), Result)
    handle = client.invoke_async("f", "x", delay=5, callback_url="http://localhost", max_age=timedelta(hours=1))
    assert_type(handle, InvocationHandle)
    assert_type(client.handle("id"), InvocationHandle)
    assert_type(client.get("id", include_payload=True), Invocation)
    assert_type(handle.id, str)
    assert_type(handle.function, str | None)
    assert_type(handle.request_id, str | None)
    assert_type(handle.duplicate, bool)
    assert_type(handle.result(timeout=5), Result)
    assert_type(handle.wait(), Invocation)
    assert_type(handle.describe(), Invocation)
    assert_type(handle.done(), bool)

    assert_type(client.functions, Functions)
    assert_type(client.functions.deploy(name="f", image="f:1", limits=Limits(pids=5), idle_timeout=5.0), Function)
    assert_type(client.functions.deploy(name="f", command=["cat"]), Function)
    assert_type(client.functions.get("f"), Function)
    assert_type(client.functions.list(), Iterator[Function])
    assert_type(client.functions.delete("f"), int)

    with client.watch_results(function=["a"], states=[InvocationState.FAILED], labels={"a": "b"}) as events:
        assert_type(events, ResultWatch)
        assert_type(events.resume_token, str)
        for event in events:
            assert_type(event, WatchEvent)
            assert_type(event.result.text, str)
            assert_type(event.resume_token, str)


async def aio(client: AsyncClient) -> None:
    async with AsyncClient("localhost:50051") as opened:
        assert_type(opened, AsyncClient)

    assert_type(await client.invoke("f", {"a": 1}, timeout=5), Result)
    handle = await client.invoke_async("f", "x", schedule_time=datetime.now().astimezone())
    assert_type(handle, AsyncInvocationHandle)
    assert_type(client.handle("id"), AsyncInvocationHandle)
    assert_type(await client.get("id"), Invocation)
    assert_type(handle.id, str)
    assert_type(await handle.result(timeout=5), Result)
    assert_type(await handle.wait(), Invocation)
    assert_type(await handle.describe(include_payload=True), Invocation)
    assert_type(await handle.done(), bool)

    assert_type(client.functions, AsyncFunctions)
    assert_type(await client.functions.deploy(name="f", url="http://localhost"), Function)
    assert_type(await client.functions.get("f"), Function)
    assert_type(client.functions.list(), AsyncIterator[Function])
    assert_type(await client.functions.delete("f"), int)

    assert_type(await client.watch_results(), AsyncResultWatch)
    async with client.watch_results(function="a") as events:
        assert_type(events, AsyncResultWatch)
        async for event in events:
            assert_type(event, WatchEvent)


def values(invocation: Invocation, result: Result, attempt: Attempt, function: Function) -> None:
    assert_type(invocation.state, InvocationState)
    assert_type(invocation.ended, bool)
    assert_type(invocation.attempts, Sequence[Attempt])
    assert_type(invocation.events, Sequence[Event])
    assert_type(invocation.deliveries, Sequence[Delivery])
    assert_type(invocation.result, Answer | None)
    assert_type(invocation.failure, Failure | None)
    assert_type(invocation.payload, Payload | None)
    assert_type(invocation.labels, Mapping[str, str])
    assert_type(invocation.end_time, datetime | None)
    assert_type(invocation.attempt_timeout, timedelta | None)
    assert_type(result.invocation, Invocation)
    assert_type(result.data, bytes)
    assert_type(result.text, str)
    assert_type(result.json(), Any)
    assert_type(result.status_code, int)
    assert_type(result.headers, Mapping[str, str])
    assert_type(attempt.next_delay, timedelta | None)
    assert_type(function.image, str | None)
    assert_type(function.command, Sequence[str] | None)
    assert_type(function.idle_timeout, timedelta | None)


def errors(client: Client) -> None:
    try:
        client.invoke("f")
    except FunctionError as error:
        assert_type(error.invocation, Invocation)
        assert_type(error.attempt, Attempt | None)
        assert_type(error.result, Answer | None)
    except InvalidRequestError as error:
        assert_type(error.violations, Sequence[Violation])
        assert_type(error.violations[0].field, str)
        assert_type(error.code, grpc.StatusCode)
        assert_type(error.retry_after, float | None)
    except ResultTimeoutError as error:
        assert_type(error.invocation_id, str | None)
