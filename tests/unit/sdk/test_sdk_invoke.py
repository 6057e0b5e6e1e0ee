"""Invoking, with both clients, against a real server that answers as told."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import grpc
import pytest

import homing
from homing import RetryPolicy, Violation
from homing.v1 import invocation_pb2, invocation_service_pb2, payload_pb2, policy_pb2
from support import records
from support.http_headers import headers_of
from support.scripted_server import Refusal, ScriptedServer
from support.sdk_driver import Driver

AWAY = Refusal(code=grpc.StatusCode.UNAVAILABLE, reason="BROKER_AWAY", message="the broker is away")


def answer(record: invocation_pb2.Invocation) -> invocation_service_pb2.InvokeResponse:
    return invocation_service_pb2.InvokeResponse(invocation=record)


def waited(record: invocation_pb2.Invocation) -> invocation_service_pb2.WaitInvocationResponse:
    return invocation_service_pb2.WaitInvocationResponse(invocation=record)


@pytest.fixture
def client(driver: Driver, scripted_server: ScriptedServer) -> Any:
    return driver.client(scripted_server.target)


def test_invoke_sends_what_it_is_given_and_returns_the_answer(
    driver: Driver, client: Any, scripted_server: ScriptedServer
) -> None:
    scripted_server.script("Invoke", answer(records.invocation(body=b'{"ok":1}', content_type="application/json")))

    result = driver.do(
        client.invoke,
        "figlet",
        {"a": 1},
        attempt_timeout=timedelta(minutes=2),
        method="PUT",
        path="/x",
        query={"q": "1 2", "r": ["a", "b"]},
        headers={"X-One": "1"},
        labels={"job": "7"},
        retry_policy=RetryPolicy(max_attempts=2, initial_backoff=0.25, retry_status_codes=[503], backoff_multiplier=3),
    )

    assert (result.status_code, result.json(), result.content_type) == (200, {"ok": 1}, "application/json")
    assert result.headers == {"x-seen": "yes"}
    assert result.invocation.id == records.INVOCATION_ID
    [request] = scripted_server.requests["Invoke"]
    assert request.spec == invocation_pb2.InvocationSpec(
        function="figlet",
        payload=payload_pb2.Payload(content_type="application/json", data=b'{"a":1}'),
        http=payload_pb2.HttpOptions(
            method="PUT", path="/x", query="q=1+2&r=a&r=b", headers=headers_of({"X-One": "1"})
        ),
        labels={"job": "7"},
        attempt_timeout=records.span(120),
        retry_policy=policy_pb2.RetryPolicy(
            max_attempts=2, initial_backoff=records.span(0.25), retry_status_codes=[503], backoff_multiplier=3
        ),
    )


def test_a_plain_invoke_leaves_all_to_the_server(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    scripted_server.script("Invoke", answer(records.invocation()))

    driver.do(client.invoke, "figlet")

    [request] = scripted_server.requests["Invoke"]
    assert request.spec == invocation_pb2.InvocationSpec(function="figlet")
    [deadline] = scripted_server.deadlines["Invoke"]
    assert deadline is not None
    assert 50 < deadline < 60.7  # gRPC rounds


@pytest.mark.parametrize("timeout", [5, timedelta(seconds=5), None], ids=str)
def test_the_timeout_is_the_deadline_of_the_call(
    driver: Driver, client: Any, scripted_server: ScriptedServer, timeout: Any
) -> None:
    scripted_server.script("Invoke", answer(records.invocation()))

    driver.do(client.invoke, "figlet", timeout=timeout)

    [deadline] = scripted_server.deadlines["Invoke"]
    if timeout is None:
        assert deadline is None
    else:
        assert deadline is not None
        assert 4 < deadline < 5.1  # gRPC rounds


def test_the_longest_timeout_is_waited_for_and_a_longer_one_named(
    driver: Driver, client: Any, scripted_server: ScriptedServer
) -> None:
    scripted_server.script("Invoke", answer(records.invocation()))

    driver.do(client.invoke, "figlet", timeout=3_155_760_000)
    with pytest.raises(homing.InvalidRequestError, match=r"timeout: must be at most 3155760000 s, is 259200000000 s"):
        driver.do(client.invoke, "figlet", timeout=timedelta(days=3_000_000))

    assert len(scripted_server.deadlines["Invoke"]) == 1


@pytest.mark.parametrize(
    ("state", "error"),
    [
        ("FAILED", homing.FunctionError),
        ("TIMED_OUT", homing.FunctionTimeoutError),
        ("STOPPED", homing.InvocationStoppedError),
        ("EXPIRED", homing.InvocationExpiredError),
        ("INVALID", homing.InvocationInvalidError),
    ],
)
def test_an_end_without_success_is_an_error_of_its_own(
    driver: Driver, client: Any, scripted_server: ScriptedServer, state: str, error: type[homing.InvocationError]
) -> None:
    scripted_server.script("Invoke", answer(records.invocation(state)))

    with pytest.raises(homing.InvocationError) as caught:
        driver.do(client.invoke, "figlet")

    assert type(caught.value) is error
    assert caught.value.invocation.state.value == state
    assert state in str(caught.value)
    assert records.INVOCATION_ID in str(caught.value)


def test_a_failure_tells_of_the_attempt_and_keeps_the_answer(
    driver: Driver, client: Any, scripted_server: ScriptedServer
) -> None:
    scripted_server.script("Invoke", answer(records.invocation("FAILED", status_code=503, body=b"too busy")))

    with pytest.raises(homing.FunctionError) as caught:
        driver.do(client.invoke, "figlet")

    error = caught.value
    assert error.attempt is not None
    assert (error.attempt.number, error.attempt.status_code) == (1, 503)
    assert error.failure is not None
    assert error.failure.reason == "HTTP_STATUS"
    assert error.result is not None
    assert error.result.text == "too busy"
    assert str(error) == (
        "figlet ended FAILED after 1 attempt: it answered 503 [HTTP_STATUS] "
        "(invocation 01935000-0000-7000-8000-000000000001)"
    )


def test_a_deadline_tells_the_id_of_the_invocation(
    driver: Driver, client: Any, scripted_server: ScriptedServer
) -> None:
    release = threading.Event()

    def slow(_: Any, context: grpc.ServicerContext) -> Any:
        context.send_initial_metadata((("homing-invocation-id", "the-id"),))
        release.wait(10)
        return invocation_service_pb2.InvokeResponse()

    scripted_server.script("Invoke", slow)
    with pytest.raises(homing.ResultTimeoutError, match="invocation the-id of figlet did not end in time") as caught:
        driver.do(client.invoke, "figlet", timeout=0.3)
    release.set()

    assert caught.value.invocation_id == "the-id"
    assert isinstance(caught.value, TimeoutError)


def test_a_deadline_before_the_id_is_known(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    release = threading.Event()
    scripted_server.script("Invoke", lambda *_: release.wait(10) and invocation_service_pb2.InvokeResponse())

    with pytest.raises(homing.ResultTimeoutError) as caught:
        driver.do(client.invoke, "figlet", timeout=0.2)
    release.set()

    assert caught.value.invocation_id is None


def test_invoke_is_never_repeated(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    scripted_server.script("Invoke", AWAY, answer(records.invocation()))

    with pytest.raises(homing.UnavailableError, match="the broker is away"):
        driver.do(client.invoke, "figlet")

    assert len(scripted_server.requests["Invoke"]) == 1


def test_invoke_async_sends_what_it_is_given(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    scripted_server.script("InvokeAsync", records.accepted(duplicate=True))
    due = datetime(2026, 12, 1, 9, tzinfo=timezone(timedelta(hours=1)))

    handle = driver.do(
        client.invoke_async,
        "figlet",
        "hello",
        callback_url="https://example.org/hook",
        callback_headers={"X-Key": "1"},
        request_id="r-1",
        max_age=60,
        schedule_time=due,
    )

    assert (handle.id, handle.function, handle.request_id) == (records.INVOCATION_ID, "figlet", "r-1")
    assert handle.duplicate
    [request] = scripted_server.requests["InvokeAsync"]
    assert request.request_id == "r-1"
    assert request.spec == invocation_pb2.InvocationSpec(
        function="figlet",
        payload=payload_pb2.Payload(content_type="text/plain; charset=utf-8", data=b"hello"),
        callback=policy_pb2.Callback(url="https://example.org/hook", headers=headers_of({"X-Key": "1"})),
        max_age=records.span(60),
        schedule_time=records.stamp(datetime(2026, 12, 1, 8, tzinfo=UTC)),
    )


def test_a_delay_travels_as_it_was_said(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    scripted_server.script("InvokeAsync", records.accepted(), records.accepted())

    driver.do(client.invoke_async, "figlet", delay=timedelta(hours=1))
    driver.do(client.invoke_async, "figlet", delay=0)

    hour, none = (request.spec for request in scripted_server.requests["InvokeAsync"])
    assert (hour.delay, hour.HasField("schedule_time")) == (records.span(3600), False)
    assert none.HasField("delay")


def test_an_accept_is_repeated_with_the_same_request_id(
    driver: Driver, client: Any, scripted_server: ScriptedServer
) -> None:
    scripted_server.script("InvokeAsync", AWAY, AWAY, records.accepted())

    handle = driver.do(client.invoke_async, "figlet", delay=1)

    first, second, third = scripted_server.requests["InvokeAsync"]
    assert first == second == third
    assert first.request_id == handle.request_id
    assert len(first.request_id) == 36


def test_two_accepts_have_two_request_ids(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    scripted_server.script("InvokeAsync", records.accepted())

    ids = {driver.do(client.invoke_async, "figlet").request_id for _ in range(2)}

    assert len(ids) == 2


def test_a_lost_accept_tells_its_request_id(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    # It asks for more time than is left, so the call ends with this and not with a last try that misses its deadline.
    away = Refusal(code=grpc.StatusCode.UNAVAILABLE, reason="DRAINING", message="going away", retry_after=1000)
    scripted_server.script("InvokeAsync", away)

    with pytest.raises(homing.UnavailableError) as caught:
        driver.do(client.invoke_async, "figlet")

    assert caught.value.request_id == scripted_server.requests["InvokeAsync"][0].request_id


def test_the_delay_that_the_server_asks_for_is_kept(
    driver: Driver, client: Any, scripted_server: ScriptedServer
) -> None:
    limited = Refusal(code=grpc.StatusCode.RESOURCE_EXHAUSTED, reason="RATE", message="slow down", retry_after=0.4)
    scripted_server.script("InvokeAsync", limited, records.accepted())
    start = time.monotonic()

    driver.do(client.invoke_async, "figlet")

    assert 0.4 <= time.monotonic() - start < 5
    assert len(scripted_server.requests["InvokeAsync"]) == 2


def test_a_delay_that_is_too_long_ends_the_call_at_once(
    driver: Driver, client: Any, scripted_server: ScriptedServer
) -> None:
    busy = Refusal(code=grpc.StatusCode.UNAVAILABLE, reason="DRAINING", message="going away", retry_after=30)
    scripted_server.script("InvokeAsync", busy)
    start = time.monotonic()

    with pytest.raises(homing.UnavailableError, match="going away") as caught:
        driver.do(client.invoke_async, "figlet", timeout=5)

    assert time.monotonic() - start < 3
    assert caught.value.retry_after == 30


@pytest.mark.parametrize(
    "refusal",
    [
        Refusal(code=grpc.StatusCode.RESOURCE_EXHAUSTED, reason="QUOTA", message="no more today"),
        Refusal(code=grpc.StatusCode.INTERNAL),
        Refusal(code=grpc.StatusCode.ALREADY_EXISTS, reason="REQUEST_ID_USED", message="other content"),
    ],
    ids=lambda refusal: refusal.code.name,
)
def test_what_repeating_cannot_cure_is_not_repeated(
    driver: Driver, client: Any, scripted_server: ScriptedServer, refusal: Refusal
) -> None:
    scripted_server.script("InvokeAsync", refusal, records.accepted())

    with pytest.raises(homing.RequestError) as caught:
        driver.do(client.invoke_async, "figlet")

    assert caught.value.code is refusal.code
    assert len(scripted_server.requests["InvokeAsync"]) == 1


def test_a_refusal_names_the_fields(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    scripted_server.script(
        "InvokeAsync",
        Refusal(
            code=grpc.StatusCode.INVALID_ARGUMENT,
            reason="INVALID_REQUEST",
            message="spec.callback.url: must be an absolute http or https URL",
            violations={"spec.callback.url": "must be an absolute http or https URL"},
        ),
    )

    with pytest.raises(homing.InvalidRequestError, match=r"spec\.callback\.url: must be") as caught:
        driver.do(client.invoke_async, "figlet", callback_url="nonsense")

    assert caught.value.violations == (Violation("spec.callback.url", "must be an absolute http or https URL"),)
    assert (caught.value.reason, caught.value.domain) == ("INVALID_REQUEST", "homing.dev")
    assert isinstance(caught.value, ValueError)
    assert not isinstance(caught.value, grpc.RpcError)
    assert isinstance(caught.value.__cause__, grpc.RpcError)


def bad_calls() -> Iterator[tuple[dict[str, Any], type[Exception], str]]:
    yield {"function": 7}, TypeError, "function must be str, not int"
    yield {"function": "\ud800"}, homing.InvalidRequestError, "function: is not valid Unicode text"
    yield {"payload": {1}}, TypeError, "payload must be str, bytes or what JSON can carry"
    yield {"content_type": b"x"}, TypeError, "content_type must be str, not bytes"
    yield {"timeout": -1}, homing.InvalidRequestError, "timeout: must be more than 0 s, is -1 s"
    yield {"timeout": "5"}, TypeError, "timeout must be seconds or a timedelta, not str"
    yield {"timeout": True}, TypeError, "timeout must be seconds or a timedelta, not bool"
    yield {"timeout": float("nan")}, homing.InvalidRequestError, "timeout: must be a finite number of seconds"
    yield {"attempt_timeout": 0}, homing.InvalidRequestError, "attempt_timeout: must be more than 0 s, is 0 s"
    yield {"attempt_timeout": 1e13}, homing.InvalidRequestError, "attempt_timeout: must be at most"
    yield {"max_age": timedelta(-1)}, homing.InvalidRequestError, "max_age: must be more than 0 s, is -86400 s"
    yield {"delay": -1}, homing.InvalidRequestError, "delay: must not be negative, is -1 s"
    yield (
        {"delay": 1, "schedule_time": datetime.now(UTC)},
        homing.InvalidRequestError,
        "delay: cannot be given together",
    )
    yield {"schedule_time": datetime(2026, 1, 1)}, homing.InvalidRequestError, "schedule_time: must have a time zone"  # noqa: DTZ001
    yield {"schedule_time": 5}, TypeError, "schedule_time must be a datetime, not int"
    yield {"callback_url": 5}, TypeError, "callback_url must be str, not int"
    yield {"callback_headers": {"a": "b"}}, homing.InvalidRequestError, "callback_headers: needs a callback_url"
    yield {"labels": {"a": 1}}, TypeError, r"labels\['a'\] must be str, not int"
    yield {"labels": ["a"]}, TypeError, "labels must be a mapping of str to str, not list"
    yield {"headers": {1: "a"}}, TypeError, "a key of headers must be str, not int"
    yield {"query": 5}, TypeError, "query must be str or a mapping, not int"
    yield {"method": 5}, TypeError, "method must be str, not int"
    yield {"path": 5}, TypeError, "path must be str, not int"
    yield {"request_id": 5}, TypeError, "request_id must be str, not int"
    yield {"retry_policy": 3}, TypeError, "retry_policy must be a RetryPolicy, not int"
    yield (
        {"retry_policy": RetryPolicy(max_attempts=2**31)},
        homing.InvalidRequestError,
        r"retry_policy\.max_attempts: must be from",
    )
    yield (
        {"retry_policy": RetryPolicy(max_attempts="3")},  # type: ignore[arg-type]
        TypeError,
        r"retry_policy\.max_attempts must be int, not str",
    )
    yield (
        {"retry_policy": RetryPolicy(initial_backoff=-1)},
        homing.InvalidRequestError,
        r"retry_policy\.initial_backoff: must be more than 0 s",
    )
    yield (
        {"retry_policy": RetryPolicy(backoff_multiplier=float("inf"))},
        homing.InvalidRequestError,
        r"retry_policy\.backoff_multiplier: must be a finite number",
    )


@pytest.mark.parametrize("case", list(bad_calls()), ids=lambda case: case[2])
def test_bad_arguments_are_named_before_anything_is_sent(
    driver: Driver,
    client: Any,
    scripted_server: ScriptedServer,
    case: tuple[dict[str, Any], type[Exception], str],
) -> None:
    options, error, message = case

    with pytest.raises(error, match=message):
        driver.do(client.invoke_async, **{"function": "figlet"} | options)

    assert scripted_server.requests == {}
