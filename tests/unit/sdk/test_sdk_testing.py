"""The fake server, with both clients."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pydantic
import pytest

import homing
from homing import AsyncClient, Client, InvocationRequest, InvocationState, RetryPolicy
from homing.testing import FakeCall, FakeServer
from support.sdk_driver import Driver


@dataclass
class Size:
    width: int


class Model(pydantic.BaseModel):
    width: int


@pytest.fixture
def client(driver: Driver, homing_fake: FakeServer) -> Any:
    return driver.client()


@pytest.mark.parametrize(
    ("value", "data", "content_type"),
    [
        (None, b"", ""),
        ("text", b"text", "text/plain; charset=utf-8"),
        (b"\x00", b"\x00", "application/octet-stream"),
        ({"a": [1]}, b'{"a":[1]}', "application/json"),
        (Size(width=1), b'{"width":1}', "application/json"),
        (Model(width=1), b'{"width":1}', "application/json"),
    ],
    ids=str,
)
def test_a_function_returns_what_it_is_told(
    homing_fake: FakeServer, value: object, data: bytes, content_type: str
) -> None:
    homing_fake.function("f").returns(value, headers={"X-One": "1", "Set-Cookie": ["a=1", "b=2"]})

    with Client() as client:
        result = client.invoke("f", "in")

    assert (result.status_code, result.data, result.content_type) == (200, data, content_type)
    assert result.headers.pairs == (("x-one", "1"), ("set-cookie", "a=1"), ("set-cookie", "b=2"))
    assert result.invocation.state is InvocationState.SUCCEEDED


def test_what_was_asked_for_is_kept(driver: Driver, client: Any, homing_fake: FakeServer) -> None:
    homing_fake.function("f")
    homing_fake.function("g")

    driver.do(client.invoke, "f", {"a": 1}, headers={"X-One": ["1", "2"]}, method="PUT", path="/x", query="q=1")
    handle = driver.do(client.invoke_async, "f", "later", request_id="r1", labels={"job": "7"}, callback_url="http://h")
    driver.do(client.invoke, "g")

    first, second = homing_fake.calls("f")
    assert (first.json(), first.sync, first.request_id) == ({"a": 1}, True, None)
    assert (first.method, first.path, first.query) == ("PUT", "/x", "q=1")
    assert first.headers.get_all("X-One") == ("1", "2")
    assert (second.text, second.sync, second.request_id) == ("later", False, "r1")
    assert (second.labels, second.callback_url, second.invocation_id) == ({"job": "7"}, "http://h", handle.id)
    assert [call.function for call in homing_fake.calls()] == ["f", "f", "g"]


def test_an_invocation_that_runs_later_has_ended_when_it_is_accepted(
    driver: Driver, client: Any, homing_fake: FakeServer
) -> None:
    homing_fake.function("f").returns("done")

    handle = driver.do(client.invoke_async, "f")

    assert driver.do(handle.done)
    assert driver.do(handle.result).text == "done"
    assert [record.state for record in homing_fake.invocations()] == [InvocationState.SUCCEEDED]


def test_a_callable_answers(driver: Driver, client: Any, homing_fake: FakeServer) -> None:
    def answer(call: FakeCall) -> object:
        if call.text == "bad":
            raise LookupError("no such thing")
        return {"text": call.text, "attempt": call.attempt}

    homing_fake.function("f").answers(answer)

    assert driver.do(client.invoke, "f", "x").json() == {"text": "x", "attempt": 1}
    with pytest.raises(homing.FunctionError) as caught:
        driver.do(client.invoke, "f", "bad")
    assert caught.value.result is not None
    assert (caught.value.result.status_code, caught.value.result.text) == (500, "LookupError: no such thing")


@pytest.mark.parametrize(
    ("policy", "statuses", "state"),
    [
        (None, [503, 503, 200], InvocationState.SUCCEEDED),
        (RetryPolicy(max_attempts=2), [503, 503], InvocationState.FAILED),
        (RetryPolicy(retry_status_codes=[500]), [503], InvocationState.FAILED),
    ],
    ids=str,
)
def test_failures_are_retried_as_by_a_real_server(
    homing_fake: FakeServer, policy: RetryPolicy | None, statuses: list[int], state: InvocationState
) -> None:
    homing_fake.function("f").fails(503, times=2).returns("ok")

    with Client() as client:
        record = client.invoke_async("f", retry_policy=policy).wait()

    assert (record.state, [attempt.status_code for attempt in record.attempts]) == (state, statuses)


def test_some_failures_are_final(driver: Driver, client: Any, homing_fake: FakeServer) -> None:
    homing_fake.function("f").fails(400, times=1).fails(503, {"why": "x"}, retry=False, times=1).times_out()

    with pytest.raises(homing.FunctionError, match="after 1 attempt: it answered 400"):
        driver.do(client.invoke, "f")
    with pytest.raises(homing.FunctionError, match="after 1 attempt: it answered 503"):
        driver.do(client.invoke, "f")
    with pytest.raises(homing.FunctionTimeoutError, match="after 3 attempts"):
        driver.do(client.invoke, "f")


def test_what_is_told_last_holds(driver: Driver, client: Any, homing_fake: FakeServer) -> None:
    homing_fake.function("f").returns("one")
    assert driver.do(client.invoke, "f").text == "one"

    homing_fake.function("f").returns("two")
    assert driver.do(client.invoke, "f").text == "two"


def test_an_unknown_function_is_not_found(driver: Driver, client: Any, homing_fake: FakeServer) -> None:
    for call in (client.invoke, client.invoke_async, client.functions.get):
        with pytest.raises(homing.NotFoundError, match="there is no function 'none'") as caught:
            driver.do(call, "none")
        assert (caught.value.reason, caught.value.metadata) == ("FUNCTION_NOT_FOUND", {"function": "none"})
    with pytest.raises(homing.NotFoundError):
        driver.do(client.get, "none")


def test_functions_can_be_deployed(driver: Driver, client: Any, homing_fake: FakeServer) -> None:
    driver.do(client.functions.deploy, name="f", image="f:1")
    assert driver.do(client.functions.deploy, name="f", image="f:2").revision == 2
    homing_fake.function("a")

    assert [function.name for function in driver.rest(client.functions.list())] == ["a", "f"]
    assert driver.do(client.functions.get, "f").image == "f:2"
    assert driver.do(client.invoke, "f").status_code == 200
    driver.do(client.functions.delete, "f")
    with pytest.raises(homing.NotFoundError):
        driver.do(client.invoke, "f")


def test_request_ids_hold(driver: Driver, client: Any, homing_fake: FakeServer) -> None:
    homing_fake.function("f")

    first = driver.do(client.invoke_async, "f", "x", request_id="r1")
    again = driver.do(client.invoke_async, "f", "x", request_id="r1")

    assert (first.id, first.duplicate, again.duplicate) == (again.id, False, True)
    with pytest.raises(homing.AlreadyExistsError):
        driver.do(client.invoke_async, "f", "y", request_id="r1")
    assert len(homing_fake.calls("f")) == 1


def test_held_invocations_end_when_told(driver: Driver, client: Any, homing_fake: FakeServer) -> None:
    function = homing_fake.function("f").hold().returns("late")
    handle = driver.do(client.invoke_async, "f")

    assert driver.do(handle.describe).state is InvocationState.RUNNING
    with pytest.raises(homing.ResultTimeoutError):
        driver.do(handle.result, timeout=0.3)
    with pytest.raises(homing.ResultTimeoutError) as caught:
        driver.do(client.invoke, "f", timeout=0.5)
    assert caught.value.invocation_id == homing_fake.invocations()[1].id
    threading.Timer(0.3, function.release).start()
    assert driver.do(handle.result, timeout=60).text == "late"


def test_refusals_come_before_any_effect(driver: Driver, client: Any, homing_fake: FakeServer) -> None:
    homing_fake.function("f")
    homing_fake.refuse("InvokeAsync", times=2)
    homing_fake.refuse("Invoke", grpc.StatusCode.PERMISSION_DENIED, reason="NO_RIGHT", message="you may not")

    driver.do(client.invoke_async, "f")
    with pytest.raises(homing.PermissionDeniedError, match="you may not") as caught:
        driver.do(client.invoke, "f")

    assert (caught.value.reason, caught.value.domain) == ("NO_RIGHT", "homing.dev")
    assert len(homing_fake.calls()) == 1


def test_batches_lists_and_maps(driver: Driver, client: Any, homing_fake: FakeServer) -> None:
    homing_fake.function("f").answers(lambda call: call.text.upper())

    handle, refused = driver.do(
        client.invoke_batch,
        [InvocationRequest(function="f", payload="a", labels={"job": "7"}), InvocationRequest(function="none")],
    )
    assert driver.do(handle.result).text == "A"
    assert isinstance(refused, homing.NotFoundError)
    assert [result.text for result in driver.rest(client.map("f", "bcdef", concurrency=1))] == list("BCDEF")

    found = driver.rest(client.list_invocations(page_size=2, include_payload=True, include_result=True))
    assert [record.payload.data for record in found] == [b"f", b"e", b"d", b"c", b"b", b"a"][: len(found)]
    assert len(found) == 6
    oldest = driver.rest(client.list_invocations(order="oldest_first", limit=3))
    assert [record.id for record in oldest] == [record.id for record in reversed(found[3:])]
    assert oldest[0].payload is None
    assert [record.id for record in driver.rest(client.list_invocations(labels={"job": "7"}))] == [oldest[0].id]
    assert driver.rest(client.list_invocations(states=[InvocationState.FAILED])) == []


def test_results_are_watched(driver: Driver, client: Any, homing_fake: FakeServer) -> None:
    homing_fake.function("f")
    homing_fake.function("g")
    driver.do(client.invoke, "f")
    events = client.watch_results(function="f")
    if driver.asynchronous:
        driver.do(events._start)

    driver.do(client.invoke_async, "g")
    first = driver.do(client.invoke_async, "f")
    second = driver.do(client.invoke_async, "f")

    event = driver.next(events)
    assert event.invocation.id == first.id
    assert driver.next(events).invocation.id == second.id
    driver.do(events.close)
    resumed = client.watch_results(function="f", resume_token=event.resume_token)
    assert driver.next(resumed).invocation.id == second.id
    driver.do(resumed.close)


def test_one_fake_serves_threads_and_loops(homing_fake: FakeServer) -> None:
    homing_fake.function("f").returns("ok")

    async def main() -> str:
        async with AsyncClient() as client:
            return (await client.invoke("f")).text

    with Client() as client:
        assert client.invoke("f").text == "ok"
    assert asyncio.run(main()) == "ok"


def test_the_fixtures_work_together(homing_client: Client, homing_fake: FakeServer) -> None:
    homing_fake.function("f").returns("ok")

    assert homing_client.invoke("f").text == "ok"


@pytest.mark.parametrize(
    ("tell", "error", "message"),
    [
        (lambda function: function.returns({1}), TypeError, "payload must be str, bytes or what JSON can carry"),
        (lambda function: function.fails(200), homing.InvalidRequestError, "status: must be that of a failure, is 200"),
        (lambda function: function.fails(503, times=0), homing.InvalidRequestError, "times: must be at least 1, is 0"),
        (lambda function: function.answers("x"), TypeError, "answer must be callable, not str"),
    ],
    ids=["returns", "fails", "times", "answers"],
)
def test_what_cannot_be_answered_is_refused_at_once(
    homing_fake: FakeServer, tell: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        tell(homing_fake.function("f"))


def test_all_that_was_asked_for_is_kept(driver: Driver, client: Any, homing_fake: FakeServer) -> None:
    homing_fake.function("f")
    homing_fake.function("g")
    due = datetime(2026, 1, 1, tzinfo=UTC)
    policy = RetryPolicy(max_attempts=7, retry_status_codes=(503,))

    driver.do(
        client.invoke_async,
        "f",
        schedule_time=due,
        max_age=60,
        attempt_timeout=timedelta(seconds=5),
        retry_policy=policy,
        on_success="function:g",
        on_failure=["amqp:x/y"],
        callback_headers={"X-One": ["1", "2"]},
        callback_url="https://example.org/",
    )
    driver.do(client.invoke_async, "f")
    driver.do(client.invoke_async, "f", delay=90)
    driver.do(client.invoke_async, "f", delay=0)

    full, bare, later, now = homing_fake.calls("f")
    assert (later.delay, later.schedule_time, now.delay) == (timedelta(seconds=90), None, timedelta(0))
    assert (full.schedule_time, full.max_age) == (due, timedelta(minutes=1))
    assert (full.attempt_timeout, full.retry_policy) == (timedelta(seconds=5), policy)
    assert (full.on_success, full.on_failure) == (("function:g",), ("amqp:x/y",))
    assert full.callback_headers.get_all("x-one") == ("1", "2")
    assert {bare.schedule_time, bare.delay, bare.max_age, bare.attempt_timeout, bare.retry_policy} == {None}


def test_what_would_be_delivered_is_kept(driver: Driver, client: Any, homing_fake: FakeServer) -> None:
    homing_fake.function("f").fails(400, {"why": "bad"})
    driver.do(client.functions.deploy, name="f", image="f:1", on_failure="amqp:failures/f")
    handle = driver.do(
        client.invoke_async, "f", b"\x00", callback_url="https://example.org/", callback_headers={"X-Job": "7"}
    )
    driver.do(client.invoke_async, "f", on_failure="https://example.org/failed")

    callback, destination, own = homing_fake.deliveries()
    assert (callback.kind, callback.uri) == (homing.DeliveryKind.CALLBACK, "https://example.org/")
    assert (callback.body, callback.headers["x-job"]) == (b'{"why":"bad"}', "7")
    assert (destination.kind, destination.uri) == (homing.DeliveryKind.ON_FAILURE, "amqp:failures/f")
    assert (destination.invocation_id, destination.envelope.id) == (handle.id, handle.id)
    assert destination.envelope.state is InvocationState.FAILED
    assert destination.envelope.request.value == b"\x00"
    assert destination.envelope.response.value == {"why": "bad"}
    assert homing_fake.deliveries("https://example.org/failed") == (own,)
    assert b'"type":"invocation.failed"' in own.body
    assert [each.uri for each in driver.do(client.get, handle.id).deliveries] == [callback.uri, destination.uri]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "Invok"}, "method: must be the name of a method of the API, is 'Invok': is Invoke meant?"),
        ({"method": "invoke_async"}, "method: must be the name of a method of the API"),
        ({"method": "Invoke", "times": 0}, "times: must be at least 1, is 0"),
    ],
)
def test_a_refusal_that_would_never_come_is_told(
    homing_fake: FakeServer, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(homing.InvalidRequestError) as refused:
        homing_fake.refuse(**arguments)
    assert str(refused.value).startswith(message)
