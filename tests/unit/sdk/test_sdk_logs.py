"""Reading logs, with both clients, against a real server whose streams break as told."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, timedelta
from typing import Any

import grpc
import pytest

import homing
from homing import LogStream
from homing.v1 import function_service_pb2
from homing.v1 import invocation_service_pb2 as api
from homing.v1 import log_service_pb2 as logs
from homing.v1.log_service_pb2 import LOG_STREAM_STDERR, LOG_STREAM_STDOUT, TailLogsRequest, TailLogsResponse
from support import records
from support.scripted_server import Refusal, ScriptedServer
from support.sdk_driver import Driver

Message = TailLogsResponse
AWAY = Refusal(code=grpc.StatusCode.UNAVAILABLE, reason="DRAINING", message="going away")
RECORD = api.GetInvocationResponse(invocation=records.invocation("RUNNING"))


def line(text: str, *, at: float = 0.0, stream: logs.LogStream.ValueType = LOG_STREAM_STDOUT) -> Message:
    return Message(time=records.stamp(records.CREATED + timedelta(seconds=at)), stream=stream, text=text)


def stream(*messages: Message, then: Refusal | None = None) -> Callable[..., Iterator[Message]]:
    """A stream that sends these messages, and ends."""

    def answer(*_: Any) -> Iterator[Message]:
        yield from messages
        if then is not None:
            raise then

    return answer


class Open:
    """A stream that sends these messages, and stays."""

    def __init__(self, *messages: Message) -> None:
        self._messages = messages
        self.gone = threading.Event()

    def __call__(self, _: Any, context: grpc.ServicerContext) -> Iterator[Message]:
        context.add_callback(self.gone.set)
        yield from self._messages
        self.gone.wait(30)


@pytest.fixture
def client(driver: Driver, scripted_server: ScriptedServer) -> Any:
    return driver.client(scripted_server.target)


def test_lines_come_until_the_end(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    shared = line("two", at=0.5, stream=LOG_STREAM_STDERR)
    shared.shared = True
    scripted_server.script("TailLogs", stream(line("one"), shared))

    lines = driver.rest(client.logs("some-id"))

    assert lines == [
        homing.LogLine(time=records.CREATED, stream=LogStream.STDOUT, text="one", shared=False),
        homing.LogLine(time=records.CREATED + timedelta(seconds=0.5), stream=LogStream.STDERR, text="two", shared=True),
    ]
    driver.rest(client.handle("some-id").logs(follow=True))
    assert scripted_server.requests["TailLogs"] == [
        TailLogsRequest(id="some-id"),
        TailLogsRequest(id="some-id", follow=True),
    ]


def test_a_broken_stream_goes_on_behind_the_last_line(
    driver: Driver, client: Any, scripted_server: ScriptedServer
) -> None:
    # Lines that look the same, and times that are out of order.
    first = [line("a"), line("b", at=2), line("c", at=1)]
    again = [*first, line("c", at=1), line("d", at=3)]
    scripted_server.script("TailLogs", AWAY, stream(*first, then=AWAY), AWAY, stream(*again))
    scripted_server.script("GetInvocation", AWAY, RECORD)

    lines = driver.rest(client.logs("some-id", follow=True))

    assert [one.text for one in lines] == ["a", "b", "c", "c", "d"]
    assert len(scripted_server.requests["TailLogs"]) == 4


def test_lines_of_a_function_go_on_after_the_token_of_the_last_one(
    driver: Driver, client: Any, scripted_server: ScriptedServer
) -> None:
    def of_function(text: str, token: str) -> Any:
        of_invocation = line(text)
        return logs.TailFunctionLogsResponse(
            resume_token=token, invocation_id=f"id-{text}", time=of_invocation.time, stream=LOG_STREAM_STDERR, text=text
        )

    first, second = of_function("a", "t1"), of_function("b", "t2")
    scripted_server.script("TailFunctionLogs", AWAY, stream(first, then=AWAY), stream(second))
    scripted_server.script("GetFunction", function_service_pb2.GetFunctionResponse())

    lines = driver.rest(client.functions.logs("f", tail=2, since=records.CREATED, follow=True))

    assert [(each.invocation_id, each.text, each.stream) for each in lines] == [
        ("id-a", "a", LogStream.STDERR), ("id-b", "b", LogStream.STDERR)
    ]  # fmt: skip
    asked = scripted_server.requests["TailFunctionLogs"]
    assert [each.resume_token for each in asked] == ["", "", "t1"]
    assert {(each.function, each.tail, each.follow, each.since.ToDatetime(UTC)) for each in asked} == {
        ("f", 2, True, records.CREATED)
    }


def test_a_server_that_is_away_for_too_long_is_told(
    driver: Driver, client: Any, scripted_server: ScriptedServer
) -> None:
    scripted_server.script("TailLogs", stream(line("a"), then=AWAY), stream(line("a"), line("b", at=1)))
    scripted_server.script("GetInvocation", AWAY)
    lines = client.logs("some-id", timeout=0.3)

    assert driver.next(lines).text == "a"
    with pytest.raises(homing.UnavailableError):
        driver.next(lines)
    # Who asks on gets on.
    assert [one.text for one in driver.rest(lines)] == ["b"]


def test_what_reconnecting_cannot_cure_is_raised(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    scripted_server.script(
        "TailLogs", Refusal(code=grpc.StatusCode.NOT_FOUND, reason="INVOCATION_NOT_FOUND", message="there is none")
    )
    lines = client.logs("x", follow=True)

    with pytest.raises(homing.NotFoundError, match="there is none"):
        driver.next(lines)
    assert driver.rest(lines) == []
    assert len(scripted_server.requests["TailLogs"]) == 1


@pytest.mark.parametrize("closing", ["lines", "client"])
def test_closing_ends_an_iteration_that_waits(
    driver: Driver, client: Any, scripted_server: ScriptedServer, closing: str
) -> None:
    server_side = Open(line("a"))
    scripted_server.script("TailLogs", server_side)
    lines = client.logs("some-id", follow=True)
    assert driver.next(lines).text == "a"
    driver.later(0.2, lines.close if closing == "lines" else client.close)

    assert driver.rest(lines) == []
    assert server_side.gone.wait(10)
    assert driver.rest(lines) == []


def test_leaving_the_context_ends_the_stream(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    server_side = Open(line("a"))
    scripted_server.script("TailLogs", server_side)

    async def aio() -> list[str]:
        async with client.logs("some-id", follow=True) as lines:
            return [(await lines.__anext__()).text]

    def sync() -> list[str]:
        with client.logs("some-id", follow=True) as lines:
            return [next(lines).text]

    assert driver.do(aio if driver.asynchronous else sync) == ["a"]
    assert server_side.gone.wait(10)


def test_a_reader_that_was_cancelled_may_read_on(scripted_server: ScriptedServer) -> None:
    server_side = Open(line("a"))
    scripted_server.script("TailLogs", server_side, stream(line("a"), line("b", at=1)))

    async def main() -> list[str]:
        async with homing.AsyncClient(scripted_server.target) as client:
            lines = client.logs("some-id", follow=True)
            seen = [(await lines.__anext__()).text]
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(lines.__anext__(), 0.2)
            return seen + [one.text async for one in lines]

    assert asyncio.run(main()) == ["a", "b"]


def test_bad_arguments_are_named_at_once(client: Any, scripted_server: ScriptedServer) -> None:
    with pytest.raises(TypeError, match="follow must be bool, not str"):
        client.logs("some-id", follow="yes")
    with pytest.raises(homing.InvalidRequestError, match="timeout: must be more than 0 s"):
        client.logs("some-id", timeout=0)
