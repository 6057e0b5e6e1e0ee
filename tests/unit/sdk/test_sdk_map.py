"""Mapping functions over items, with both clients."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import grpc
import pytest

import homing
from homing.testing import FakeServer
from homing.v1 import invocation_pb2, invocation_service_pb2
from support import records
from support.scripted_server import Refusal, ScriptedServer
from support.sdk_driver import Driver

PATIENCE = 60


class Echo:
    """Accepts every payload and ends its invocation with it, once a test lets it."""

    def __init__(self, server: ScriptedServer) -> None:
        self.submitted: list[str] = []
        self.failing: set[str] = set()
        self.most_at_once = 0
        self._held: dict[str, threading.Event] = {}
        self._waiting = 0
        self._lock = threading.Lock()
        server.script("InvokeAsync", self._accept)
        server.script("WaitInvocation", self._end)

    def hold(self, payload: str) -> threading.Event:
        """Return what ends the invocation of a payload."""
        return self._held.setdefault(payload, threading.Event())

    def _accept(self, request: Any, _: Any) -> invocation_service_pb2.InvokeAsyncResponse:
        with self._lock:
            self.submitted.append(request.spec.payload.data.decode())
            number = len(self.submitted)
        return records.accepted(records.invocation("ENQUEUED", number=number))

    def _end(self, request: Any, _: Any) -> invocation_service_pb2.WaitInvocationResponse:
        number = int(request.id[-12:])
        payload = self.submitted[number - 1]
        with self._lock:
            self._waiting += 1
            self.most_at_once = max(self.most_at_once, self._waiting)
        if payload in self._held:
            self._held[payload].wait(PATIENCE)
        with self._lock:
            self._waiting -= 1
        state = "FAILED" if payload in self.failing else "SUCCEEDED"
        record: invocation_pb2.Invocation = records.invocation(state, number=number, body=payload.encode())
        return invocation_service_pb2.WaitInvocationResponse(invocation=record)


@pytest.fixture
def client(driver: Driver, scripted_server: ScriptedServer) -> Any:
    return driver.client(scripted_server.target)


@pytest.fixture
def echo(scripted_server: ScriptedServer) -> Echo:
    return Echo(scripted_server)


def texts(results: list[Any]) -> list[str]:
    return [result.text for result in results]


def numbers(count: int) -> list[str]:
    return [str(number) for number in range(count)]


def test_results_come_in_the_order_of_the_items(driver: Driver, client: Any, echo: Echo) -> None:
    first = echo.hold("0")
    threading.Timer(0.3, first.set).start()

    assert texts(driver.rest(client.map("figlet", numbers(30), concurrency=5))) == numbers(30)
    assert sorted(echo.submitted, key=int) == numbers(30)


def test_results_may_come_as_they_are_completed(driver: Driver, client: Any, echo: Echo) -> None:
    slow = echo.hold("0")
    results = client.map("figlet", numbers(10), concurrency=3, ordered=False)

    others = [driver.next(results).text for _ in range(9)]
    slow.set()

    assert sorted(others) == numbers(10)[1:]
    assert texts(driver.rest(results)) == ["0"]


def test_no_more_than_agreed_are_under_way(driver: Driver, client: Any, echo: Echo) -> None:
    held = [echo.hold(number) for number in numbers(12)]

    def let_go() -> None:
        for event in held:
            event.set()

    threading.Timer(0.5, let_go).start()

    driver.rest(client.map("figlet", numbers(12), concurrency=4))

    assert echo.most_at_once == 4


def test_a_slow_reader_holds_back_the_items(driver: Driver, client: Any, echo: Echo) -> None:
    endless = (str(number) for number in itertools.count())
    results = client.map("figlet", endless, concurrency=3)

    for _ in range(5):
        driver.next(results)

    assert len(echo.submitted) <= 5 + 2 * 3
    driver.do(results.aclose if driver.asynchronous else results.close)


def test_results_stream_out_while_items_go_in(scripted_server: ScriptedServer, echo: Echo) -> None:
    more = threading.Event()

    def items() -> Iterator[str]:
        yield "first"
        assert more.wait(PATIENCE), "the first result came before the second item"
        yield "second"

    with homing.Client(scripted_server.target) as client:
        results = client.map("figlet", items())
        assert next(results).text == "first"
        more.set()
        assert next(results).text == "second"


def test_async_items_stream_in(scripted_server: ScriptedServer, echo: Echo) -> None:
    async def main() -> None:
        more = asyncio.Event()

        async def items() -> Any:
            yield "first"
            await asyncio.wait_for(more.wait(), PATIENCE)
            yield "second"

        async with homing.AsyncClient(scripted_server.target) as client:
            results = client.map("figlet", items())
            assert (await anext(results)).text == "first"
            more.set()
            assert [result.text async for result in results] == ["second"]

    asyncio.run(main())


def test_the_first_failure_is_raised_in_its_place(driver: Driver, client: Any, echo: Echo) -> None:
    echo.failing = {"3"}
    results = client.map("figlet", numbers(1000), concurrency=2)

    assert [driver.next(results).text for _ in range(3)] == ["0", "1", "2"]
    with pytest.raises(homing.FunctionError):
        driver.next(results)

    submitted = len(echo.submitted)
    assert submitted <= 3 + 2 * 2 + 1
    assert driver.rest(results) == []


def test_after_a_failure_nothing_is_submitted(driver: Driver, client: Any, echo: Echo) -> None:
    echo.failing = {"1"}
    first = echo.hold("0")
    results = client.map("figlet", numbers(1000), concurrency=2, ordered=False)

    with pytest.raises(homing.FunctionError):
        driver.next(results)
    first.set()

    assert set(echo.submitted) <= {"0", "1"}  # the first one may still be on its way


def test_failures_may_be_handed_out(driver: Driver, client: Any, echo: Echo) -> None:
    echo.failing = {"1", "3"}
    bad = {"not": {1}}

    outcomes = driver.rest(client.map("figlet", ["0", "1", "2", "3", bad, "5"], return_exceptions=True))

    assert [type(outcome) for outcome in outcomes] == [
        *(homing.Result, homing.FunctionError, homing.Result, homing.FunctionError, TypeError, homing.Result)
    ]


def test_a_fault_of_the_items_is_raised_after_what_came_before(driver: Driver, client: Any, echo: Echo) -> None:
    def items() -> Iterator[str]:
        yield "0"
        raise LookupError("no more lines")

    results = client.map("figlet", items(), return_exceptions=True)

    assert driver.next(results).text == "0"
    with pytest.raises(LookupError, match="no more lines"):
        driver.next(results)


def test_a_closed_client_ends_even_a_patient_map(driver: Driver, client: Any, echo: Echo) -> None:
    driver.do(client.close)

    with pytest.raises(homing.ClosedClientError):
        driver.rest(client.map("figlet", numbers(9), return_exceptions=True))


def test_each_item_has_its_time(driver: Driver, client: Any, scripted_server: ScriptedServer, echo: Echo) -> None:
    held = echo.hold("0")

    with pytest.raises(homing.ResultTimeoutError):
        driver.rest(client.map("figlet", ["0"], timeout=0.5))
    held.set()

    deadline = scripted_server.deadlines["InvokeAsync"][0]
    assert deadline is not None
    assert deadline <= 0.5


def test_a_lost_accept_is_repeated(driver: Driver, client: Any, scripted_server: ScriptedServer, echo: Echo) -> None:
    scripted_server.script("InvokeAsync", Refusal(code=grpc.StatusCode.UNAVAILABLE), echo._accept)

    assert texts(driver.rest(client.map("figlet", ["0"]))) == ["0"]


def test_no_items_are_no_calls(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    assert driver.rest(client.map("figlet", [])) == []
    assert scripted_server.requests == {}


@pytest.mark.parametrize("concurrency", [0, 1001, -1])
def test_the_concurrency_has_limits(client: Any, concurrency: int) -> None:
    with pytest.raises(homing.InvalidRequestError, match="concurrency: must be from 1 to 1000"):
        client.map("figlet", [], concurrency=concurrency)


def test_an_abandoned_map_leaves_no_threads(scripted_server: ScriptedServer, echo: Echo) -> None:
    with homing.Client(scripted_server.target) as client:
        results = client.map("figlet", (str(number) for number in itertools.count()), concurrency=5)
        next(results)
        workers = [thread for thread in threading.enumerate() if thread.name == "homing-map"]
        results.close()

        assert 1 <= len(workers) <= 5
        assert all(thread.daemon for thread in workers)
        for thread in workers:
            thread.join(PATIENCE)
            assert not thread.is_alive()


def test_each_item_has_the_destinations(driver: Driver, homing_fake: FakeServer) -> None:
    homing_fake.function("f").answers(lambda call: call.text.upper())
    client = driver.client()
    typed = client.function("f", input=str, output=str)
    options = {
        "on_success": ["function:f"],
        "on_failure": "amqp:failed/f",
        "callback_url": "https://example.org/hook",
        "max_age": 60,
    }

    assert [result.text for result in driver.rest(client.map("f", ["a"], **options))] == ["A"]
    assert driver.rest(typed.map(["b"], **options)) == ["B"]

    for call in homing_fake.calls("f"):
        assert (call.on_success, call.on_failure) == (("function:f",), ("amqp:failed/f",))
        assert (call.callback_url, call.max_age) == ("https://example.org/hook", timedelta(minutes=1))
