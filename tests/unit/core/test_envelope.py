"""What destinations are told."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homing.v1 import invocation_pb2 as api
from homing_core.envelope import envelope_body, envelope_of
from homing_core.wire.v1 import DeliveryMessage, EnvelopeBody


def message(state: api.InvocationState.ValueType = api.INVOCATION_STATE_SUCCEEDED, **fields: Any) -> DeliveryMessage:
    values: dict[str, Any] = {
        "delivery_id": "d",
        "invocation_id": "0193",
        "function": "figlet",
        "state": state,
        "result": api.Result(status_code=200),
        "end_us": 1_700_000_001_250_999,
        "attempt_count": 2,
        "function_revision": 7,
        "depth": 1,
    }
    return DeliveryMessage(**(values | fields))


def body(data: bytes, content_type: str = "application/json", *, size: int | None = None) -> EnvelopeBody:
    return EnvelopeBody(content_type=content_type, data=data, size=len(data) if size is None else size)


def test_the_envelope_of_a_success() -> None:
    told = envelope_of(message(request=body(b'{"n": 1}'), response=body(b"ART", "text/plain")))

    assert told == {
        "version": "1.0",
        "timestamp": "2023-11-14T22:13:21.250Z",
        "requestContext": {
            "requestId": "0193",
            "callId": "0193",
            "function": "figlet",
            "condition": "Success",
            "approximateInvokeCount": 2,
            "depth": 1,
        },
        "requestPayload": {"n": 1},
        "requestPayloadInfo": {
            "contentType": "application/json",
            "size": 8,
            "encoding": "json",
            "truncated": False,
        },
        "responseContext": {"statusCode": 200, "executedVersion": "7"},
        "responsePayload": "ART",
        "responsePayloadInfo": {"contentType": "text/plain", "size": 3, "encoding": "text", "truncated": False},
    }


@pytest.mark.parametrize(
    ("state", "retryable", "kind", "condition"),
    [
        (api.INVOCATION_STATE_SUCCEEDED, False, "invocation.succeeded", "Success"),
        (api.INVOCATION_STATE_FAILED, True, "invocation.failed", "RetriesExhausted"),
        (api.INVOCATION_STATE_FAILED, False, "invocation.failed", "NonRetryable"),
        (api.INVOCATION_STATE_TIMED_OUT, True, "invocation.timed_out", "TimedOut"),
        (api.INVOCATION_STATE_STOPPED, False, "invocation.stopped", "Stopped"),
        (api.INVOCATION_STATE_EXPIRED, False, "invocation.expired", "EventAgeExceeded"),
        (api.INVOCATION_STATE_INVALID, False, "invocation.invalid", "Invalid"),
    ],
)
def test_each_end_has_a_type_and_a_condition(
    *, state: api.InvocationState.ValueType, retryable: bool, kind: str, condition: str
) -> None:
    failure = api.Failure(reason="WHY", message="in words", retryable=retryable)
    failed = state != api.INVOCATION_STATE_SUCCEEDED
    event = json.loads(envelope_body(message(state, failure=failure if failed else None), wrapped=True))

    assert event["type"] == kind
    assert event["timestamp"] == event["data"]["timestamp"]
    assert event["data"]["requestContext"]["condition"] == condition
    response = event["data"]["responseContext"]
    assert response.get("functionError") == ("WHY" if failed else None)
    assert response.get("functionErrorMessage") == ("in words" if failed else None)


@pytest.mark.parametrize(
    ("shown", "value", "encoding", "truncated"),
    [
        pytest.param(body(b""), None, "none", False, id="nothing"),
        pytest.param(body(b"[1, null]"), [1, None], "json", False, id="JSON"),
        pytest.param(body(b'{"a":1}', "application/vnd.api+json; charset=utf-8"), {"a": 1}, "json", False, id="+json"),
        pytest.param(body(b"[1,", size=9), "[1,", "text", True, id="cut JSON"),
        pytest.param(body(b"{broken"), "{broken", "text", False, id="broken JSON"),
        pytest.param(body(b"NaN"), "NaN", "text", False, id="no JSON"),
        pytest.param(body(b"[1e999]"), "[1e999]", "text", False, id="a number beyond all bounds"),
        pytest.param(body(rb'"\ud800"'), r'"\ud800"', "text", False, id="half of a pair"),
        pytest.param(body(rb'"\ud83d\ude00"'), "\N{GRINNING FACE}", "json", False, id="both halves"),
        pytest.param(body(b"[" * 100_000), "[" * 100_000, "text", False, id="nested without end"),
        pytest.param(body("grün".encode(), "text/plain"), "grün", "text", False, id="text"),
        pytest.param(body("grü".encode()[:-1], "text/plain", size=9), "gr", "text", True, id="cut within a character"),
        pytest.param(
            body(b"\x89PNG\xff", "image/png"), base64.b64encode(b"\x89PNG\xff").decode(), "base64", False, id="bytes"
        ),
        pytest.param(body(b"a\0b"), base64.b64encode(b"a\0b").decode(), "base64", False, id="NUL"),
        pytest.param(body(b"", size=300_000), "", "text", True, id="nothing of what is stored apart"),
    ],
)
def test_bodies_are_shown_as_what_they_are(
    *, shown: EnvelopeBody, value: object, encoding: str, truncated: bool
) -> None:
    told = envelope_of(message(response=shown))

    assert told["responsePayload"] == value
    info = told["responsePayloadInfo"]
    assert (info["encoding"], info["truncated"], info["size"]) == (encoding, truncated, shown.size)


@given(st.binary(max_size=40), st.integers(0, 5), st.sampled_from(["application/json", "text/plain", "", "x;y"]))
def test_whatever_the_body_the_envelope_is_json_and_loses_nothing(data: bytes, more: int, content_type: str) -> None:
    told = json.loads(
        envelope_body(message(response=body(data, content_type, size=len(data) + more)), wrapped=False),
        parse_constant=pytest.fail,
    )

    value, info = told["responsePayload"], told["responsePayloadInfo"]
    assert info["truncated"] is (more > 0)
    match info["encoding"]:
        case "text":
            assert data.startswith(value.encode())
            assert len(data) - len(value.encode()) < 4
            assert more or value.encode() == data
        case "base64":
            assert base64.b64decode(value) == data
        case "json":
            assert value == json.loads(data)
        case "none":
            assert not data
            assert not more


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec=None)), inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
def test_whatever_python_takes_for_json_can_be_sent(value: object) -> None:
    data = json.dumps(value).encode()
    sent = json.loads(envelope_body(message(response=body(data)), wrapped=False), parse_constant=pytest.fail)
    info = sent["responsePayloadInfo"]
    told = sent["responsePayload"]
    assert (json.dumps(told) if info["encoding"] == "json" else told) == data.decode()
