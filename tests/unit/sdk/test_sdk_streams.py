"""Answers that are read as they come, by both clients, against a server that answers as told."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

import homing
from homing import AsyncClient, Client
from homing.testing import FakeServer
from homing.v1 import invocation_service_pb2 as api
from support import records
from support.scripted_server import Refusal, ScriptedServer

Response = api.InvokeStreamResponse
HEAD = Response(
    head=Response.Head(status_code=201, content_type="text/event-stream", invocation_id=records.INVOCATION_ID)
)
HEAD.head.headers.add(name="x-a", value="1")


def data(*chunks: bytes) -> list[Response]:
    return [Response(data=chunk) for chunk in chunks]


def end(state: str = "SUCCEEDED", **fields: Any) -> Response:
    return Response(invocation=records.invocation(state, **fields))


def test_head_chunks_and_end_come_in_their_order(scripted_server: ScriptedServer) -> None:
    scripted_server.script("InvokeStream", lambda *_: iter([HEAD, *data(b"one", b"two"), end(body=b"")]))
    with (
        Client(scripted_server.target) as client,
        client.invoke_stream("figlet", "x", path="/p", timeout=30, headers={"X": "y"}) as answer,
    ):
        assert (answer.status_code, answer.content_type) == (201, "text/event-stream")
        assert (answer.headers["X-A"], answer.invocation_id) == ("1", records.INVOCATION_ID)
        assert answer.invocation is None
        assert list(answer) == [b"one", b"two"]
        assert answer.invocation is not None
        assert answer.invocation.state is homing.InvocationState.SUCCEEDED
        assert list(answer) == []
    [request] = scripted_server.requests["InvokeStream"]
    assert (request.spec.function, request.spec.http.path) == ("figlet", "/p")
    assert 29 < request.timeout.ToTimedelta().total_seconds() <= 30


async def test_the_asynchronous_client_reads_as_well(scripted_server: ScriptedServer) -> None:
    scripted_server.script("InvokeStream", lambda *_: iter([HEAD, *data(b"one", b"two"), end(body=b"")]))
    async with AsyncClient(scripted_server.target) as client:
        async with client.invoke_stream("figlet", timeout=None) as answer:
            assert [chunk async for chunk in answer] == [b"one", b"two"]
        assert answer.invocation is not None
    assert not scripted_server.requests["InvokeStream"][0].HasField("timeout")


def test_a_failure_before_the_answer_is_raised_on_entering(scripted_server: ScriptedServer) -> None:
    failed = end("FAILED", status_code=500, body=b"it broke")
    scripted_server.script("InvokeStream", lambda *_: iter([failed]))
    with (
        Client(scripted_server.target) as client,
        pytest.raises(homing.FunctionError) as raised,
        client.invoke_stream("figlet"),
    ):
        pytest.fail("it has no answer to read")
    assert raised.value.invocation.id == records.INVOCATION_ID
    assert raised.value.result is not None
    assert raised.value.result.data == b"it broke"


def test_an_answer_that_breaks_off_raises_in_the_iteration(scripted_server: ScriptedServer) -> None:
    scripted_server.script("InvokeStream", lambda *_: iter([HEAD, *data(b"one"), end("FAILED", body=b"one")]))
    read: list[bytes] = []
    with Client(scripted_server.target) as client, client.invoke_stream("figlet") as answer:
        with pytest.raises(homing.FunctionError):
            read.extend(answer)
        assert (read, list(answer)) == ([b"one"], [])


def test_a_lost_server_raises_with_the_id(scripted_server: ScriptedServer) -> None:
    def lost(_: Any, context: grpc.ServicerContext) -> Iterator[Response]:
        yield HEAD
        yield from data(b"one")
        Refusal(code=grpc.StatusCode.UNAVAILABLE, reason="WORKER_LOST").abort(context)

    for answers in (lost, lambda *_: iter([HEAD, *data(b"one")])):
        scripted_server.script("InvokeStream", answers)
        with (
            Client(scripted_server.target) as client,
            client.invoke_stream("figlet") as answer,
            pytest.raises(homing.UnavailableError),
        ):
            list(answer)


def test_an_answer_that_does_not_come_in_time_is_told(scripted_server: ScriptedServer) -> None:
    def late(_: Any, context: grpc.ServicerContext) -> Iterator[Response]:
        Refusal(
            code=grpc.StatusCode.DEADLINE_EXCEEDED, reason="DEADLINE_EXCEEDED", metadata={"invocation": "the-id"}
        ).abort(context)
        yield from ()

    scripted_server.script("InvokeStream", late)
    with (
        Client(scripted_server.target) as client,
        pytest.raises(homing.ResultTimeoutError) as raised,
        client.invoke_stream("figlet", timeout=1),
    ):
        pytest.fail("it has no answer to read")
    assert raised.value.invocation_id == "the-id"


def test_leaving_early_cancels_the_call(scripted_server: ScriptedServer) -> None:
    gone = threading.Event()

    def forever(_: Any, context: grpc.ServicerContext) -> Iterator[Response]:
        context.add_callback(gone.set)
        yield HEAD
        yield from data(b"one")
        gone.wait(30)

    scripted_server.script("InvokeStream", forever)
    with Client(scripted_server.target) as client:
        with client.invoke_stream("figlet") as answer:
            assert next(answer) == b"one"
        assert gone.wait(10)

    async def leave() -> None:
        async with AsyncClient(scripted_server.target) as client, client.invoke_stream("figlet") as answer:
            assert await anext(answer) == b"one"

    gone.clear()
    asyncio.run(leave())
    assert gone.wait(10)


@pytest.mark.parametrize("size", [0, 5, 300_000])
def test_the_fake_server_streams(size: int) -> None:
    with FakeServer() as server, Client(server.target) as client:
        server.function("echo").answers(lambda call: call.payload)
        with client.invoke_stream("echo", b"x" * size) as answer:
            assert answer.status_code == 200
            assert b"".join(answer) == b"x" * size
        assert answer.invocation is not None
        assert answer.invocation.id == answer.invocation_id == server.calls()[0].invocation_id
        server.function("broken").fails(400, "no")
        with pytest.raises(homing.FunctionError, match="400"), client.invoke_stream("broken"):
            pytest.fail("it failed")


def test_a_fake_function_streams_as_it_is_told() -> None:
    with FakeServer() as server, Client(server.target) as client:
        server.function("chat").streams("one", b"two", headers={"X-A": "1"})
        with client.invoke_stream("chat") as answer:
            assert (answer.content_type, answer.headers["x-a"]) == ("text/event-stream", "1")
            assert list(answer) == [b"one", b"two"]
        assert client.invoke("chat").text == "onetwo"

        server.function("chat").streams("one", breaks_off=True)
        read: list[bytes] = []
        with client.invoke_stream("chat") as answer, pytest.raises(homing.FunctionError, match="CONNECTION_LOST"):
            read.extend(answer)
        assert read == [b"one"]
        with pytest.raises(homing.FunctionError) as raised:
            client.invoke("chat")
        assert raised.value.result is not None
        assert (raised.value.result.cut, raised.value.invocation.attempt_count) == (True, 1)
        with pytest.raises(TypeError):
            server.function("chat").streams(1)  # type: ignore[arg-type]  # as somebody may
