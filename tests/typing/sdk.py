"""What a type checker sees of the public calls. Never run, only checked."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.message import Message
from typing import Any, TypedDict, assert_type

import grpc

from homing import (
    Answer,
    AsyncClient,
    AsyncDeadLetterList,
    AsyncDeadLetters,
    AsyncFunctions,
    AsyncInterceptor,
    AsyncInvocationHandle,
    AsyncInvocationList,
    AsyncLogTail,
    AsyncResultWatch,
    AsyncTypedFunction,
    Attempt,
    BulkRerun,
    BulkStopped,
    Call,
    Client,
    DeadLetter,
    DeadLetterKind,
    DeadLetterList,
    DeadLetterOptions,
    DeadLetters,
    Delivery,
    Envelope,
    EnvelopePayload,
    Event,
    Failure,
    FilterOptions,
    Function,
    FunctionError,
    FunctionLogLine,
    Functions,
    Headers,
    Interceptor,
    InvalidRequestError,
    InvalidResultError,
    Invocation,
    InvocationCounts,
    InvocationEndedError,
    InvocationHandle,
    InvocationList,
    InvocationRequest,
    InvocationState,
    Limits,
    LogLine,
    LogStream,
    LogTail,
    Payload,
    Progress,
    Purged,
    Redriven,
    RequestError,
    Result,
    ResultTimeoutError,
    ResultWatch,
    RetryPolicy,
    StopRequest,
    TypedFunction,
    VerifiedCallback,
    Violation,
    WatchEvent,
    parse_envelope,
    verify_callback,
)
from homing.testing import FakeCall, FakeFunction, FakeServer


def sync(client: Client) -> None:
    with Client("localhost:50051", api_key="k", tls_ca="ca.pem", timeout=timedelta(seconds=5)) as opened:
        assert_type(opened, Client)

    assert_type(client.invoke("f", {"a": 1}, timeout=5, retry_policy=RetryPolicy(max_attempts=1)), Result)
    assert_type(client.invoke("f", b"", timeout=None, query={"a": ["b", "c"]}, headers={"a": "b"}), Result)
    handle = client.invoke_async("f", "x", delay=5, callback_url="http://localhost", max_age=timedelta(hours=1))
    assert_type(handle, InvocationHandle)
    assert_type(handle, InvocationHandle[Result])
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
    assert_type(client.functions.deploy(name="f", image="f:1", expected_revision=0), Function)
    assert_type(client.functions.update("f", image="f:2", env=None, expected_revision=3), Function)
    client.functions.update("f", imgae="f:2")  # type: ignore[call-arg]
    client.functions.update("f", public="yes")  # type: ignore[arg-type]
    assert_type(client.functions.get("f"), Function)
    assert_type(client.functions.list(), Iterator[Function])
    assert_type(client.functions.delete("f"), int)
    assert_type(client.functions.pause("f"), Function)
    assert_type(client.functions.resume("f"), Function)
    assert_type(client.functions.scale("f", min_instances=1, max_instances=5), Function)

    with client.watch_results(include_transitions=True, rerun_of="id") as changes:
        assert_type(changes, ResultWatch)
    with client.watch_results(function=["a"], states=[InvocationState.FAILED], labels={"a": "b"}) as events:
        assert_type(events, ResultWatch)
        assert_type(events.resume_token, str)
        for event in events:
            assert_type(event, WatchEvent)
            assert_type(event.result.text, str)
            assert_type(event.resume_token, str)


class In(TypedDict):
    width: int


@dataclass(frozen=True)
class Out:
    size: int


def many(client: Client) -> None:
    assert_type(client.invoke_batch("f", ["x"], labels={"a": "b"}), list[InvocationHandle[Result] | RequestError])
    assert_type(
        client.invoke_batch([InvocationRequest(function="f", max_age=5)]), list[InvocationHandle | RequestError]
    )

    found = client.list_invocations(
        function="f", states=[InvocationState.FAILED], created_since=datetime.now().astimezone(), order="oldest_first"
    )
    assert_type(found, InvocationList)
    for invocation in found:
        assert_type(invocation, Invocation)
    assert_type(found.current_page, Sequence[Invocation] | None)
    assert_type(found.next_page_token, str | None)
    assert_type(found.fetch_next_page(page_size=5), Sequence[Invocation])

    assert_type(client.map("f", ["x"], concurrency=5, ordered=False), Generator[Result, None, None])
    assert_type(client.map("f", ["x"], return_exceptions=True), Generator[Result | Exception, None, None])
    assert_type(client.map("f", ["x"], timeout=5, attempt_timeout=5), Generator[Result, None, None])
    assert_type(client.map("f", ["x"], on_success="function:g", max_age=60), Generator[Result, None, None])


def typed(client: Client) -> None:
    resize = client.function("resize", input=In, output=Out)
    assert_type(resize, TypedFunction[In, Out])
    assert_type(resize.name, str)
    assert_type(resize({"width": 5}, timeout=5, labels={"a": "b"}), Out)
    handle = resize.invoke_async({"width": 5}, callback_url="http://localhost", request_id="r")
    assert_type(handle, InvocationHandle[Out])
    assert_type(handle.result(), Out)
    assert_type(handle.wait(), Invocation)
    assert_type(resize.invoke_batch([{"width": 5}]), list[InvocationHandle[Out] | RequestError])
    assert_type(resize.map([{"width": 5}]), Generator[Out, None, None])
    assert_type(resize.map([{"width": 5}], return_exceptions=True), Generator[Out | Exception, None, None])
    items: list[In] = [{"width": 5}]
    assert_type(client.map(resize, items), Generator[Out, None, None])
    assert_type(client.handle("id", output=Out), InvocationHandle[Out])
    assert_type(client.function("f", input=str, output=list[int])("x"), list[int])
    assert_type(client.function("f", input=object, output=Result)(5), Result)


def controlled(client: Client) -> None:
    handle = client.function("f", input=In, output=Out).invoke_async({"width": 5})
    assert_type(handle.stop(reason="enough"), Invocation)
    assert_type(handle.rerun(payload={"width": 6}, request_id="r"), InvocationHandle[Out])
    assert_type(client.stop("id", timeout=5), Invocation)
    assert_type(client.rerun("id", payload=None), InvocationHandle[Result])
    with handle.logs(follow=True) as lines:
        assert_type(lines, LogTail[LogLine])
        for line in lines:
            assert_type(line, LogLine)
            assert_type(line.stream, LogStream)
            assert_type(line.time, datetime | None)
    assert_type(client.logs("id", timeout=timedelta(seconds=5)), LogTail[LogLine])
    assert_type(client.functions.logs("f", tail=3), LogTail[FunctionLogLine])

    conditions: FilterOptions = {"function": ["a"], "labels": {"a": "b"}}
    assert_type(client.bulk_stop(reason="enough", dry_run=True, **conditions), BulkStopped)
    client.bulk_stop(function="f", request_id="r", on_progress=lambda progress: assert_type(progress, BulkStopped))
    client.bulk_rerun(function="f", on_progress=lambda progress: assert_type(progress, BulkRerun))
    assert_type(client.bulk_rerun(max_per_second=5, states=[InvocationState.FAILED]), BulkRerun)
    counts = client.count(id_prefix="0193")
    assert_type(counts, InvocationCounts)
    assert_type(counts.by_state, Mapping[InvocationState, int])
    assert_type(counts.more, frozenset[InvocationState])
    assert_type(counts.total, int)


async def controlled_async(client: AsyncClient) -> None:
    handle = client.handle("id", output=Out)
    assert_type(await handle.stop(), Invocation)
    assert_type(await handle.rerun(), AsyncInvocationHandle[Out])
    assert_type(await client.stop("id", reason="enough"), Invocation)
    assert_type(await client.rerun("id"), AsyncInvocationHandle[Result])
    async with client.logs("id", follow=True) as lines:
        assert_type(lines, AsyncLogTail[LogLine])
        async for line in lines:
            assert_type(line, LogLine)
    assert_type(await client.bulk_stop(function="f"), BulkStopped)
    assert_type(await client.bulk_rerun(function="f", dry_run=True), BulkRerun)
    assert_type(await client.count(), InvocationCounts)


def trace(call: Call, send: Callable[[Call], Any]) -> Any:
    assert_type(call.method, str)
    assert_type(call.timeout, float | None)
    assert_type(call.with_metadata("traceparent", "00-…"), Call)
    return send(call)


async def trace_async(call: Call, send: Callable[[Call], Awaitable[Any]]) -> Any:
    return await send(call)


def intercepted() -> None:
    interceptor: Interceptor = trace
    aio_interceptor: AsyncInterceptor = trace_async
    assert_type(Client(interceptors=[interceptor, trace]), Client)
    assert_type(AsyncClient(interceptors=[aio_interceptor, trace_async]), AsyncClient)


def faked(fake: FakeServer) -> None:
    with FakeServer() as opened:
        assert_type(opened, FakeServer)
    assert_type(fake.target, str)
    assert_type(fake.function("f").fails(503, times=2).returns({"a": 1}), FakeFunction)
    assert_type(fake.function("f").answers(lambda call: call.json()).hold().release(), FakeFunction)
    assert_type(fake.function("f").logs("one", "two", stderr=True), FakeFunction)
    assert_type(fake.calls("f"), Sequence[FakeCall])
    assert_type(fake.invocations(), Sequence[Invocation])


async def many_async(client: AsyncClient) -> None:
    outcomes = await client.invoke_batch("f", ["x"])
    assert_type(outcomes, list[AsyncInvocationHandle[Result] | RequestError])
    found = client.list_invocations(limit=5)
    assert_type(found, AsyncInvocationList)
    async for invocation in found:
        assert_type(invocation, Invocation)
    assert_type(await found.fetch_next_page(), Sequence[Invocation])
    assert_type(client.map("f", ["x"]), AsyncGenerator[Result, None])
    assert_type(client.map("f", ["x"], return_exceptions=True), AsyncGenerator[Result | Exception, None])

    resize = client.function("resize", input=In, output=Out)
    assert_type(resize, AsyncTypedFunction[In, Out])
    assert_type(await resize({"width": 5}), Out)
    handle = await resize.invoke_async({"width": 5})
    assert_type(handle, AsyncInvocationHandle[Out])
    assert_type(await handle.result(), Out)
    assert_type(await resize.invoke_batch([{"width": 5}]), list[AsyncInvocationHandle[Out] | RequestError])
    async for out in resize.map([{"width": 5}]):
        assert_type(out, Out)
    items: list[In] = [{"width": 5}]
    assert_type(client.map(resize, items), AsyncGenerator[Out, None])
    assert_type(await client.handle("id", output=Out).result(), Out)


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
    assert_type(await client.functions.update("f", max_instances=None), Function)
    assert_type(await client.functions.get("f"), Function)
    assert_type(client.functions.list(), AsyncIterator[Function])
    assert_type(await client.functions.delete("f"), int)
    assert_type(await client.functions.pause("f"), Function)
    assert_type(await client.functions.resume("f"), Function)
    assert_type(await client.functions.scale("f", max_instances=5), Function)

    assert_type(await client.watch_results(), AsyncResultWatch)
    async with client.watch_results(function="a") as events:
        assert_type(events, AsyncResultWatch)
        async for event in events:
            assert_type(event, WatchEvent)


def dead_letters(client: Client) -> None:
    assert_type(client.dead_letters, DeadLetters)
    found = client.dead_letters.list(function="f", kind=DeadLetterKind.DELIVERY, limit=5)
    assert_type(found, DeadLetterList)
    for letter in found:
        assert_type(letter, DeadLetter)
        assert_type(letter.delivery, Delivery | None)
        assert_type(letter.failure, Failure | None)
    assert_type(found.fetch_next_page(), Sequence[DeadLetter])
    assert_type(client.dead_letters.get("id"), DeadLetter)
    where: DeadLetterOptions = {"ids": ["a"], "since": datetime.now().astimezone()}
    assert_type(client.dead_letters.redrive(**where, max_per_second=5), Redriven)
    client.dead_letters.redrive(**where, on_progress=lambda progress: assert_type(progress, Redriven))
    client.dead_letters.purge(ids="a", on_progress=lambda progress: assert_type(progress, Purged), request_id="r")
    assert_type(client.dead_letters.purge(**where, dry_run=True), Purged)


async def dead_letters_async(client: AsyncClient) -> None:
    assert_type(client.dead_letters, AsyncDeadLetters)
    found = client.dead_letters.list()
    assert_type(found, AsyncDeadLetterList)
    async for letter in found:
        assert_type(letter, DeadLetter)
    assert_type(await found.fetch_next_page(), Sequence[DeadLetter])
    assert_type(await client.dead_letters.get("id"), DeadLetter)
    assert_type(await client.dead_letters.redrive(ids="a"), Redriven)
    assert_type(await client.dead_letters.purge(function=["a", "b"]), Purged)


def delivered(client: Client, message: Message, body: bytes) -> None:
    client.invoke_async("f", callback_url="https://x", callback_headers={"a": "b"}, on_success="function:g")
    client.invoke_batch("f", ["x"], on_failure=["function:g", "amqp:e/k"])
    client.functions.deploy(name="f", image="f:1", on_success=("function:g",), on_failure="amqp:/q", public=True)
    assert_type(verify_callback({"webhook-id": "x"}, body, "whsec_x"), VerifiedCallback)
    assert_type(
        verify_callback(message, body, ["whsec_x", "whsec_y"], tolerance=timedelta(minutes=1)), VerifiedCallback
    )
    envelope = parse_envelope(body)
    assert_type(envelope, Envelope)
    assert_type(envelope.state, InvocationState)
    assert_type(envelope.response, EnvelopePayload)
    assert_type(envelope.error, str | None)


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
    assert_type(invocation.rerun_of, str | None)
    assert_type(invocation.caused_by, str | None)
    assert_type(invocation.depth, int)
    assert_type(invocation.on_success, Sequence[str])
    assert_type(invocation.deliveries[0].caused, str | None)
    assert_type(invocation.deliveries[0].next_attempt_time, datetime | None)
    assert_type(function.on_failure, Sequence[str])
    assert_type(invocation.progress, Progress | None)
    assert_type(invocation.stop_request, StopRequest | None)
    assert_type(invocation.attempt_timeout, timedelta | None)
    assert_type(result.invocation, Invocation)
    assert_type(result.data, bytes)
    assert_type(result.text, str)
    assert_type(result.json(), Any)
    assert_type(result.status_code, int)
    assert_type(result.headers, Headers)
    assert_type(attempt.next_delay, timedelta | None)
    assert_type(function.image, str | None)
    assert_type(function.command, Sequence[str] | None)
    assert_type(function.idle_timeout, timedelta | None)
    assert_type(function.retention, timedelta | None)
    assert_type(function.paused, bool)


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
    except InvalidResultError as error:
        assert_type(error.result, Result)
        assert_type(error.violations, Sequence[Violation])
    except InvocationEndedError as error:
        assert_type(error.state, InvocationState)
    except ResultTimeoutError as error:
        assert_type(error.invocation_id, str | None)
