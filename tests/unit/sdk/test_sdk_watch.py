"""Watching, with both clients, against a real server whose streams break as told."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

import homing
from homing import InvocationState
from homing._core import watch
from homing.v1 import invocation_pb2, invocation_service_pb2
from support.records import CREATED, bookmark, ended, stamp
from support.scripted_server import Refusal, ScriptedServer
from support.sdk_driver import Driver

Message = invocation_service_pb2.WatchResultsResponse
EXPIRED = Refusal(code=grpc.StatusCode.OUT_OF_RANGE, reason="RESUME_TOKEN_EXPIRED", message="the token is too old")


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


def subscribe(driver: Driver, client: Any, **options: Any) -> Any:
    events = client.watch_results(**options)
    return driver.do(events.__aenter__) if driver.asynchronous else events


def tokens(server: ScriptedServer) -> list[str]:
    return [request.resume_token for request in server.requests["WatchResults"]]


def test_events_come_in_order_with_their_results(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    scripted_server.script("WatchResults", Open(bookmark("0"), ended("1", 1), bookmark("2"), ended("3", 2)))
    events = subscribe(driver, client)

    first, second = driver.next(events), driver.next(events)

    assert first.invocation.id.endswith("01")
    assert first.resume_token == "1"
    assert first.result.text == "ok"
    assert first.result.invocation is first.invocation
    assert second.invocation.id.endswith("02")
    assert events.resume_token == "3"


def test_it_is_in_place_when_the_call_returns(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    scripted_server.script("WatchResults", Open(bookmark("0")))

    events = subscribe(driver, client)

    assert len(scripted_server.requests["WatchResults"]) == 1
    assert events.resume_token == "0"


def test_an_asynchronous_watch_can_be_awaited_or_just_iterated(scripted_server: ScriptedServer) -> None:
    driver = Driver(asynchronous=True)
    client = driver.client(scripted_server.target)
    scripted_server.script("WatchResults", Open(bookmark("0"), ended("1")))

    async def awaited() -> Any:
        return await client.watch_results()

    assert driver.do(awaited).resume_token == "0"
    assert driver.next(client.watch_results()).resume_token == "1"
    driver.close()


def test_the_filter_is_sent(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    scripted_server.script("WatchResults", Open(bookmark("0")))

    subscribe(
        driver,
        client,
        function=["a", "b"],
        states=[InvocationState.FAILED, InvocationState.TIMED_OUT],
        labels={"job": "7"},
        id_prefix="0193",
        rerun_of="0192",
        created_since=CREATED,
        resume_token="t",
        include_transitions=True,
    )
    subscribe(driver, client, function="a")

    first, second = scripted_server.requests["WatchResults"]
    assert first == invocation_service_pb2.WatchResultsRequest(
        filter=invocation_pb2.InvocationFilter(
            functions=["a", "b"],
            states=[invocation_pb2.INVOCATION_STATE_FAILED, invocation_pb2.INVOCATION_STATE_TIMED_OUT],
            labels={"job": "7"},
            id_prefix="0193",
            rerun_of="0192",
            create_time=invocation_pb2.TimeRange(start_time=stamp(CREATED)),
        ),
        resume_token="t",
        include_transitions=True,
    )
    assert second.filter.functions == ["a"]


@pytest.mark.parametrize(
    "end",
    [
        None,
        *(
            Refusal(code=grpc.StatusCode[name])
            for name in ("UNAVAILABLE", "CANCELLED", "INTERNAL", "UNKNOWN", "ABORTED")
        ),
        Refusal(code=grpc.StatusCode.RESOURCE_EXHAUSTED, reason="SLOW_CONSUMER", message="read faster"),
    ],
    ids=lambda end: end.code.name if end else "end of stream",
)
def test_a_broken_stream_is_resumed_after_the_last_message(
    driver: Driver, client: Any, scripted_server: ScriptedServer, end: Refusal | None
) -> None:
    scripted_server.script(
        "WatchResults",
        stream(bookmark("0"), ended("1", 1), ended("2", 2), then=end),
        stream(bookmark("2"), bookmark("3"), then=end),
        Open(bookmark("3"), ended("4", 3)),
    )
    events = subscribe(driver, client)

    seen = [driver.next(events).resume_token for _ in range(3)]

    assert seen == ["1", "2", "4"]
    assert tokens(scripted_server) == ["", "2", "3"]


def test_ten_restarts_of_the_server_leave_no_gap_and_no_repeat(
    driver: Driver, client: Any, scripted_server: ScriptedServer
) -> None:
    def after_token(request: Any, context: grpc.ServicerContext) -> Iterator[Message]:
        position = int(request.resume_token or 0)
        yield bookmark(str(position))
        yield from (ended(str(number), number) for number in range(position + 1, position + 11))
        gone = threading.Event()
        context.add_callback(gone.set)
        gone.wait(30)

    scripted_server.script("WatchResults", after_token)
    events = subscribe(driver, client)
    seen = []
    for _ in range(10):
        seen += [driver.next(events).resume_token for _ in range(7)]
        scripted_server.stop()
        scripted_server.start()

    assert seen == [str(number) for number in range(1, 71)]


def test_an_event_before_the_first_bookmark_is_not_lost(
    driver: Driver, client: Any, scripted_server: ScriptedServer
) -> None:
    scripted_server.script("WatchResults", Open(ended("1", 1), ended("2", 2)))
    events = subscribe(driver, client, resume_token="0")

    assert [driver.next(events).resume_token for _ in range(2)] == ["1", "2"]


def test_silence_is_a_broken_stream(
    driver: Driver, client: Any, scripted_server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "SILENCE_LIMIT", 0.4)
    silent = Open(bookmark("0"))
    scripted_server.script("WatchResults", silent, Open(bookmark("0"), ended("1")))
    events = subscribe(driver, client)
    start = time.monotonic()

    event = driver.next(events)

    assert event.resume_token == "1"
    assert 0.3 < time.monotonic() - start < 10
    assert silent.gone.wait(10)
    assert tokens(scripted_server) == ["", "0"]


def test_a_slow_reader_does_not_take_its_own_pause_for_silence(
    driver: Driver, client: Any, scripted_server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "SILENCE_LIMIT", 0.2)
    scripted_server.script("WatchResults", Open(bookmark("0"), ended("1"), ended("2")))
    events = subscribe(driver, client)
    driver.next(events)

    time.sleep(0.6)  # what a reader does between two events takes time

    assert driver.next(events).resume_token == "2"
    assert tokens(scripted_server) == [""]


def test_the_subscription_waits_for_a_server_that_is_away(
    driver: Driver, client: Any, scripted_server: ScriptedServer
) -> None:
    scripted_server.script("WatchResults", Refusal(code=grpc.StatusCode.UNAVAILABLE), Open(bookmark("0"), ended("1")))

    events = subscribe(driver, client)

    assert driver.next(events).resume_token == "1"


def test_the_subscription_gives_up_when_the_time_is_over(
    driver: Driver, client: Any, scripted_server: ScriptedServer
) -> None:
    scripted_server.script("WatchResults", Refusal(code=grpc.StatusCode.UNAVAILABLE, message="not now"))
    with pytest.raises(homing.UnavailableError, match="not now"):
        subscribe(driver, client, timeout=0.5)

    mute = Open()
    scripted_server.script("WatchResults", mute)
    with pytest.raises(homing.UnavailableError, match="nothing came"):
        subscribe(driver, client, timeout=0.3)
    assert mute.gone.wait(10)


def test_a_token_that_is_too_old_is_an_error_at_once(
    driver: Driver, client: Any, scripted_server: ScriptedServer
) -> None:
    scripted_server.script("WatchResults", EXPIRED)

    with pytest.raises(homing.ResumeTokenExpiredError, match="too old"):
        subscribe(driver, client, resume_token="old")

    assert len(tokens(scripted_server)) == 1


def test_a_token_that_grew_too_old_while_away_ends_the_watch(
    driver: Driver, client: Any, scripted_server: ScriptedServer
) -> None:
    scripted_server.script("WatchResults", stream(bookmark("0"), ended("1")), EXPIRED)
    events = subscribe(driver, client)
    driver.next(events)

    with pytest.raises(homing.ResumeTokenExpiredError):
        driver.next(events)

    assert driver.rest(events) == []


@pytest.mark.parametrize("code", ["INVALID_ARGUMENT", "UNAUTHENTICATED", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED"])
def test_what_reconnecting_cannot_cure_is_raised(
    driver: Driver, client: Any, scripted_server: ScriptedServer, code: str
) -> None:
    scripted_server.script("WatchResults", Refusal(code=grpc.StatusCode[code], reason="NO", message="no"))

    with pytest.raises(homing.RequestError, match="no") as caught:
        subscribe(driver, client)

    assert caught.value.code is grpc.StatusCode[code]
    assert len(tokens(scripted_server)) == 1


def test_closing_ends_an_iteration_that_waits(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    server_side = Open(bookmark("0"))
    scripted_server.script("WatchResults", server_side)
    events = subscribe(driver, client)
    driver.later(0.2, events.close)

    assert driver.rest(events) == []
    assert server_side.gone.wait(10)
    assert driver.rest(events) == []


def test_closing_ends_a_wait_for_the_server(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    away = Refusal(code=grpc.StatusCode.UNAVAILABLE, reason="DRAINING", retry_after=30)
    scripted_server.script("WatchResults", stream(bookmark("0")), away)
    events = subscribe(driver, client)
    driver.later(0.8, events.close)
    start = time.monotonic()

    assert driver.rest(events) == []
    assert time.monotonic() - start < 10


def test_closing_the_client_ends_its_watches(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    scripted_server.script("WatchResults", Open(bookmark("0")))
    events = subscribe(driver, client)
    driver.later(0.2, client.close)

    assert driver.rest(events) == []


def test_leaving_the_context_ends_the_watch(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    server_side = Open(bookmark("0"), ended("1"))
    scripted_server.script("WatchResults", server_side)

    async def aio() -> list[str]:
        async with client.watch_results() as events:
            async for event in events:
                return [event.resume_token]
        return []

    def sync() -> list[str]:
        with client.watch_results() as events:
            for event in events:
                return [event.resume_token]
        return []

    assert driver.do(aio if driver.asynchronous else sync) == ["1"]
    assert server_side.gone.wait(10)


def test_a_reader_that_was_cancelled_may_read_on(scripted_server: ScriptedServer) -> None:
    server_side = Open(bookmark("0"), ended("1"))
    scripted_server.script("WatchResults", server_side, Open(bookmark("1"), ended("2")))

    async def main() -> list[str]:
        async with homing.AsyncClient(scripted_server.target) as client, client.watch_results() as events:
            seen = [(await anext(events)).resume_token]
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await anext(events)
            return [*seen, (await anext(events)).resume_token]

    assert asyncio.run(main()) == ["1", "2"]
    assert server_side.gone.wait(10)
    assert tokens(scripted_server) == ["", "1"]


@pytest.mark.parametrize("closing", ["watch", "client"])
def test_a_reader_that_is_cancelled_as_the_watch_is_closed_is_cancelled(
    scripted_server: ScriptedServer, closing: str
) -> None:
    scripted_server.script("WatchResults", Open(bookmark("0")))

    async def main() -> None:
        async with homing.AsyncClient(scripted_server.target) as client:
            events = await client.watch_results()
            reader = asyncio.create_task(events.__anext__())
            for _ in range(100):  # until it waits for the server
                await asyncio.sleep(0)
            closed = asyncio.create_task(events.close() if closing == "watch" else client.close())
            await asyncio.sleep(0)
            reader.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reader
            await closed

    asyncio.run(main())


def test_a_watch_that_nobody_holds_ends(scripted_server: ScriptedServer) -> None:
    server_side = Open(bookmark("0"), ended("1"))
    scripted_server.script("WatchResults", server_side)
    with homing.Client(scripted_server.target) as client:
        for _ in client.watch_results():
            break
        gc.collect()

        assert server_side.gone.wait(10)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"function": 5}, TypeError, "function must be str or several, not int"),
        ({"function": [5]}, TypeError, "function must be str, not int"),
        ({"states": ["FAILED"]}, TypeError, "states must be InvocationState, not str"),
        ({"states": [InvocationState.UNKNOWN]}, homing.InvalidRequestError, "states: UNKNOWN is no state to ask for"),
        ({"labels": {"a": 1}}, TypeError, r"labels\['a'\] must be str"),
        ({"resume_token": 5}, TypeError, "resume_token must be str, not int"),
        ({"timeout": -1}, homing.InvalidRequestError, "timeout: must be more than 0 s"),
    ],
    ids=str,
)
def test_bad_arguments_are_named_at_once(
    client: Any, scripted_server: ScriptedServer, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        client.watch_results(**options)

    assert scripted_server.requests == {}
