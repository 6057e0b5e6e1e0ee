"""The pure parts of the gateway: headers, options and answers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest
from starlette.requests import ClientDisconnect

from homing.v1 import invocation_pb2 as api
from homing.v1.invocation_pb2 import InvocationSpec
from homing.v1.payload_pb2 import Header, Payload
from homing_server.auth.key_format import new_key
from homing_server.errors import Violation, invalid_request
from homing_server.front.http.gateway.answers import answer_of, answer_of_error
from homing_server.front.http.gateway.bodies import Bodies
from homing_server.front.http.gateway.headers import Asked, BadHeaderError, asked_by
from homing_server.front.http.gateway.options import (
    add_async_options,
    add_common_options,
    check_sync_options,
    is_async_by_header,
)
from homing_server.front.http.origins import comes_from_elsewhere

RawHeaders = list[tuple[bytes, bytes]]


def asked(*headers: tuple[bytes, bytes], client: str = "10.0.0.9", needs_keys: bool = False) -> Asked:
    return asked_by(headers, client=client, scheme="http", needs_keys=needs_keys)


# --- Headers


def test_a_key_of_homing_reaches_no_function_and_what_is_the_functions_own_does() -> None:
    key = new_key().text.encode()

    assert asked((b"authorization", b"Bearer " + key), client="").passed_on == [("x-forwarded-proto", "http")]
    assert asked((b"authorization", b"Bearer x"), client="", needs_keys=True).passed_on == [
        ("x-forwarded-proto", "http")
    ]
    assert ("authorization", "Basic YWxpY2U6c2VjcmV0") in asked((b"authorization", b"Basic YWxpY2U6c2VjcmV0")).passed_on


def test_what_proxies_said_is_gone_on_with() -> None:
    passed = dict(
        asked(
            (b"host", b"here:8080"),
            (b"x-forwarded-for", b"1.2.3.4"),
            (b"x-forwarded-for", b"5.6.7.8"),
            (b"x-forwarded-proto", b"https"),
            (b"x-forwarded-host", b"there"),
        ).passed_on
    )

    assert passed == {
        "x-forwarded-for": "1.2.3.4, 5.6.7.8, 10.0.0.9",
        "x-forwarded-proto": "https",
        "x-forwarded-host": "there",
    }


def test_what_connection_names_is_not_passed_on_wherever_it_stands() -> None:
    read = asked((b"x-one", b"1"), (b"connection", b"close, X-One"), (b"connection", b"x-two"), (b"x-two", b"2"))

    assert [name for name, _ in read.passed_on if name.startswith(("x-o", "x-t"))] == []


def test_bytes_that_are_no_text_become_characters() -> None:
    assert asked((b"x-a", b"gr\xfcn"), (b"x-b", "grün".encode())).passed_on[:2] == [("x-a", "grün"), ("x-b", "grün")]


def test_preferences_may_stand_in_several_headers() -> None:
    read = asked((b"prefer", b"respond-async"), (b"prefer", b"wait=7"))

    assert add_async_options(InvocationSpec(), read.options).wait == 7
    assert [value for name, value in read.passed_on if name == "prefer"] == ["respond-async", "wait=7"]


def test_an_empty_callback_is_none() -> None:
    spec = InvocationSpec()
    add_async_options(spec, asked((b"x-callback-url", b"")).options)

    assert not spec.HasField("callback")


def test_an_option_that_is_there_twice_is_refused() -> None:
    with pytest.raises(BadHeaderError, match="x-homing-delay: must be there once"):
        asked((b"x-homing-delay", b"1s"), (b"x-homing-delay", b"2s"))


# --- Options


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5s", 5), ("1m30s", 90), ("90", 90), ("1.5", 1.5), ("250ms", 0.25), ("1h1m1s1ms", 3661.001), ("0", 0)],
)
def test_durations_are_written_as_elsewhere(text: str, seconds: float) -> None:
    spec = InvocationSpec()
    add_async_options(spec, {"x-homing-delay": text})

    assert spec.HasField("delay")
    assert spec.delay.ToTimedelta().total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "s", "5 s", "-5s", "5x", "1e3", "٣s", "5s1", "1d", "9" * 40, ".5", "5.s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(BadHeaderError, match="X-Homing-Max-Age: must be a length of time"):
        add_async_options(InvocationSpec(), {"x-homing-max-age": text})


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        ("wait=5", 5), ("respond-async, wait=10", 10), ("WAIT = 3", 3), ("wait=5;x=1", 5), ("wait=100000", 600),
        ("wait=x", 0), ("wait", 0), ("await=5", 0), ("", 0), ("wait=-1", 0),
    ],
)  # fmt: skip
def test_a_preference_to_wait(prefer: str, seconds: float) -> None:
    assert add_async_options(InvocationSpec(), {"prefer": prefer}).wait == seconds


def test_an_idempotency_key_is_the_request_id_and_an_id_of_a_task_both() -> None:
    spec, named = InvocationSpec(), InvocationSpec(call_id="mine")
    first = add_async_options(spec, {"x-fc-stateful-async-invocation-id": "task"})
    second = add_async_options(named, {"x-fc-async-task-id": "task", "idempotency-key": "key"})

    assert (first.request_id, first.task_id, spec.call_id) == ("task", "task", "task")
    assert (second.request_id, second.task_id, named.call_id) == ("key", "task", "mine")


def test_labels_and_attempts() -> None:
    spec = InvocationSpec()
    add_common_options(spec, {"x-homing-label-job": "7", "x-homing-label-a.b": "", "x-homing-retry-attempts": "3"})

    assert (dict(spec.labels), spec.retry_policy.max_attempts) == ({"job": "7", "a.b": ""}, 3)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("x-homing-dealy", "X-Homing-Delay"), ("x-homing-maxage", "X-Homing-Max-Age"),
        ("x-homing-retry-attempt", "X-Homing-Retry-Attempts"),
        ("x-homing-attempt-time-out", "X-Homing-Attempt-Timeout"),
        ("x-homing-label", "X-Homing-Label-"),
    ],
)  # fmt: skip
def test_a_header_that_is_nearly_an_option_is_told(name: str, meant: str) -> None:
    with pytest.raises(BadHeaderError, match=f"is no header; is {meant} meant?"):
        add_common_options(InvocationSpec(), {name: "1h"})


def test_what_functions_get_may_be_passed_on_with_a_call_of_another() -> None:
    names = (
        "attempt",
        "deadline",
        "progress-url",
        "retry",
        "invocation-id",
        "timeout",
        "delivery-id",
        "depth",
        "state",
    )
    spec = InvocationSpec()
    add_common_options(spec, {f"x-homing-{name}": "1" for name in (*names, "of-mine")})

    assert spec == InvocationSpec()


@pytest.mark.parametrize(("value", "later"), [("Async", True), ("async", True), ("Sync", False)])
def test_function_computes_type_of_invocation(value: str, *, later: bool) -> None:
    assert is_async_by_header({"x-fc-invocation-type": value}) is later
    assert not is_async_by_header({})


@pytest.mark.parametrize("name", ["x-homing-delay", "x-homing-max-age"])
def test_what_is_for_later_is_refused_of_what_is_now(name: str) -> None:
    with pytest.raises(BadHeaderError, match="is for /async-function/ only"):
        check_sync_options({name: "5s"})


# --- Pages


@pytest.mark.parametrize(
    ("headers", "elsewhere"),
    [
        ({}, False),
        ({"origin": "https://evil.example"}, True),
        ({"origin": "null"}, True),
        ({"origin": "http://["}, True),
        ({"origin": "http://127.0.0.1:3000", "sec-fetch-site": "same-site"}, False),
        ({"origin": "http://localhost:3000", "sec-fetch-site": "cross-site"}, False),
        ({"origin": "http://functions.example", "host": "functions.example"}, False),
        ({"origin": "http://functions.example:81", "host": "functions.example"}, True),
        ({"sec-fetch-site": "cross-site"}, True),
        ({"sec-fetch-site": "same-origin"}, False),
        ({"sec-fetch-site": "none"}, False),
    ],
)
def test_which_pages_may_ask(headers: dict[str, str], *, elsewhere: bool) -> None:
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]

    assert comes_from_elsewhere(raw) is elsewhere


# --- Answers


def ended(state: api.InvocationState.ValueType, reason: str = "", status: int = 0) -> api.Invocation:
    invocation = api.Invocation(state=state)
    if reason:
        invocation.failure.reason, invocation.failure.message = reason, "words"
    if status:
        invocation.result.status_code = status
        invocation.result.payload.data = b"body"
    return invocation


@pytest.mark.parametrize(
    ("invocation", "status", "body"),
    [
        (ended(api.INVOCATION_STATE_SUCCEEDED, "", 201), 201, b"body"),
        (ended(api.INVOCATION_STATE_FAILED, "HTTP_STATUS", 404), 404, b"body"),
        (ended(api.INVOCATION_STATE_FAILED, "EXIT_STATUS", 500), 500, b"body"),
        (ended(api.INVOCATION_STATE_FAILED, "CONNECTION_LOST"), 502, b"CONNECTION_LOST: words\n"),
        (ended(api.INVOCATION_STATE_FAILED, "CONNECTION_LOST", 500), 502, b"CONNECTION_LOST: words\n"),
        (ended(api.INVOCATION_STATE_STOPPED, "STOPPED"), 502, b"STOPPED: words\n"),
        (ended(api.INVOCATION_STATE_TIMED_OUT, "TIMEOUT", 500), 504, b"TIMEOUT: words\n"),
        (ended(api.INVOCATION_STATE_EXPIRED, "EXPIRED"), 504, b"EXPIRED: words\n"),
        (ended(api.INVOCATION_STATE_INVALID, "FUNCTION_DELETED"), 404, b"FUNCTION_DELETED: words\n"),
    ],
)
def test_what_a_client_gets_of_an_outcome(invocation: api.Invocation, status: int, body: bytes) -> None:
    answer = answer_of(invocation, asked_type="")

    assert (answer.status, answer.body) == (status, body)


def test_headers_come_back_each_by_itself_and_the_gateways_own_do_not() -> None:
    invocation = ended(api.INVOCATION_STATE_SUCCEEDED, "", 200)
    for name, value in (("set-cookie", "a"), ("x-call-id", "forged"), ("set-cookie", "b"), ("te", "x")):
        invocation.result.headers.append(Header(name=name, value=value))
    headers: RawHeaders = [(b"set-cookie", b"a"), (b"set-cookie", b"b")]

    assert answer_of(invocation, asked_type="").headers == [*headers, (b"content-type", b"text/plain")]
    assert answer_of(invocation, asked_type="a/b").headers == [*headers, (b"content-type", b"a/b")]


@pytest.mark.parametrize(
    ("field", "rule", "status", "told"),
    [
        ("spec.callback.url", "is bad", 400, b"X-Callback-Url: is bad\n"),
        ("request_id", "must have at most 128 characters, has 129", 400, b"Idempotency-Key: must have"),
        ("spec.http.path", "must have at most 2048 characters, has 3000", 414, b"the path: must have"),
        ("spec.http.headers", "must have at most 16384 bytes in all, have 3", 431, b"the headers: must have"),
        ('spec.labels["x"]', "must have a key", 400, b"X-Homing-Label: must have a key\n"),
    ],
)
def test_a_rule_that_is_broken_is_told_by_the_name_of_the_header(
    field: str, rule: str, status: int, told: bytes
) -> None:
    answer = answer_of_error(invalid_request([Violation(field=field, description=rule)]))

    assert isinstance(answer.body, bytes)
    assert (answer.status, answer.body[: len(told)]) == (status, told)


# --- Bodies


async def read(messages: Sequence[Mapping[str, object]]) -> Payload:
    coming = iter(messages)

    async def receive() -> Mapping[str, object]:
        await asyncio.sleep(0)
        return next(coming)

    payload = Payload()
    await Bodies(None, None).read(payload, receive, length=None, caller="")  # type: ignore[arg-type]
    return payload


async def test_a_body_is_read_whole() -> None:
    parts = [{"type": "http.request", "body": part, "more_body": part != b"c"} for part in (b"a", b"b", b"c")]

    assert (await read(parts)).data == b"abc"
    assert (await read([{"type": "http.request", "body": b"one", "more_body": False}])).data == b"one"


async def test_a_body_that_breaks_off_is_none() -> None:
    with pytest.raises(ClientDisconnect):
        await read([{"type": "http.request", "body": b"a", "more_body": True}, {"type": "http.disconnect"}])
