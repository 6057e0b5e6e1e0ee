"""Reading the envelopes that destinations get."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

import homing
from homing import InvocationState
from homing.v1 import invocation_pb2
from homing_core.envelope import envelope_body
from homing_core.wire.v1 import DeliveryMessage, EnvelopeBody

END = datetime(2026, 11, 22, 8, 0, 0, 250_000, tzinfo=UTC)


def told(state: str = "SUCCEEDED", **fields: Any) -> DeliveryMessage:
    content: dict[str, Any] = {
        "invocation_id": "i1",
        "function": "figlet",
        "state": invocation_pb2.InvocationState.Value(f"INVOCATION_STATE_{state}"),
        "end_us": int(END.timestamp() * 1e6),
        "attempt_count": 2,
        "depth": 1,
        "function_revision": 3,
        "result": invocation_pb2.Result(status_code=200),
        "request": EnvelopeBody(content_type="application/json", data=b'{"a": [1, null]}', size=16),
        "response": EnvelopeBody(content_type="text/plain", data="schön".encode(), size=6),
    }
    return DeliveryMessage(**content | fields)


@pytest.mark.parametrize("wrapped", [True, False])
def test_an_envelope_is_read_whole(wrapped: bool) -> None:  # noqa: FBT001 - a case
    body = envelope_body(told(call_id="c1"), wrapped=wrapped)

    envelope = homing.parse_envelope(body)

    assert envelope == homing.Envelope(
        call_id="c1",
        id="i1",
        function="figlet",
        state=InvocationState.SUCCEEDED,
        condition="Success",
        type="invocation.succeeded",
        time=END,
        attempt_count=2,
        depth=1,
        status_code=200,
        function_revision=3,
        error=None,
        error_message=None,
        request=homing.EnvelopePayload(
            value={"a": [1, None]}, content_type="application/json", size=16, truncated=False
        ),
        response=homing.EnvelopePayload(value="schön", content_type="text/plain", size=6, truncated=False),
    )
    assert homing.parse_envelope(body.decode()) == homing.parse_envelope(bytearray(body)) == envelope


@pytest.mark.parametrize("state", [state.value for state in InvocationState if state.ended])
@pytest.mark.parametrize("retryable", [True, False])
def test_every_end_is_known(state: str, retryable: bool) -> None:  # noqa: FBT001 - a case
    failure = invocation_pb2.Failure(reason="WHY", message="so it was", retryable=retryable)

    envelope = homing.parse_envelope(envelope_body(told(state, failure=failure), wrapped=True))

    assert (envelope.state, envelope.type) == (InvocationState(state), f"invocation.{state.lower()}")
    assert (envelope.error, envelope.error_message) == ("WHY", "so it was")
    bare = homing.parse_envelope(envelope_body(told(state, failure=failure), wrapped=False))
    assert bare == envelope


def test_where_nothing_ran_there_is_no_answer() -> None:
    message = told("EXPIRED", attempt_count=0, function_revision=0, response=EnvelopeBody(), request=EnvelopeBody())
    message.ClearField("result")

    envelope = homing.parse_envelope(envelope_body(message, wrapped=False))

    assert (envelope.status_code, envelope.function_revision, envelope.attempt_count) == (0, None, 0)
    assert envelope.response == homing.EnvelopePayload(value=None, content_type="", size=0, truncated=False)


def test_bodies_are_json_text_or_bytes() -> None:
    def value(data: bytes, content_type: str, size: int | None = None) -> tuple[Any, bool]:
        carried = EnvelopeBody(content_type=content_type, data=data, size=len(data) if size is None else size)
        payload = homing.parse_envelope(envelope_body(told(response=carried), wrapped=True)).response
        return payload.value, payload.truncated

    assert value(b"\xff\x00", "image/png") == (b"\xff\x00", False)
    assert value(b"null", "application/json") == (None, False)
    assert value(b'"a"', "application/json") == ("a", False)
    assert value(b'{"a": 1', "application/json", 100) == ('{"a": 1', True)
    assert value(b"\xff\xfe", "image/png", 100) == (b"\xff\xfe", True)


def test_conditions_that_are_newer_are_unknown() -> None:
    read = json.loads(envelope_body(told(), wrapped=False))
    read["requestContext"]["condition"] = "Tired"
    read["more"] = True

    envelope = homing.parse_envelope(json.dumps(read))

    assert (envelope.state, envelope.condition) == (InvocationState.UNKNOWN, "Tired")


def changed(**fields: Any) -> str:
    return json.dumps(json.loads(envelope_body(told(), wrapped=False)) | fields)


@pytest.mark.parametrize(
    "body",
    [
        "",
        "hello",
        b"\xff",
        "[" * 100_000,
        "null",
        "[]",
        "{}",
        '{"data": 1}',
        '{"type": "other", "data": {"a": 1}}',
        changed(version="2.0"),
        changed(timestamp="yesterday"),
        changed(requestContext={}),
        changed(responseContext=[]),
        changed(requestPayloadInfo=None),
        changed(responsePayload="?", responsePayloadInfo={"encoding": "base64", "size": 1, "truncated": False}),
    ],
    ids=range(15),
)
def test_what_is_no_envelope_is_refused(body: bytes | str) -> None:
    with pytest.raises(homing.InvalidEnvelopeError) as caught:
        homing.parse_envelope(body)

    assert isinstance(caught.value, ValueError)


def test_other_types_are_refused() -> None:
    with pytest.raises(TypeError, match="body must be bytes or str, not dict"):
        homing.parse_envelope({})  # type: ignore[arg-type]
