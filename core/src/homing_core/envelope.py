"""The envelope: what destinations get of an ended invocation, as JSON.

Its names are those that other systems use for it (Lambda's destinations, Function Compute's), so that what was written
for them finds what it looks for.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from homing.v1 import invocation_pb2 as api
from homing_core.wire.v1 import DeliveryMessage, EnvelopeBody

VERSION: Final = "1.0"

_CONDITIONS: Final[Mapping[int, str]] = {
    api.INVOCATION_STATE_SUCCEEDED: "Success",
    api.INVOCATION_STATE_TIMED_OUT: "TimedOut",
    api.INVOCATION_STATE_STOPPED: "Stopped",
    api.INVOCATION_STATE_EXPIRED: "EventAgeExceeded",
    api.INVOCATION_STATE_INVALID: "Invalid",
}


def event_type(message: DeliveryMessage) -> str:
    """Return the type of the event, as Standard Webhooks have it: ``invocation.succeeded`` and so on."""
    return "invocation." + api.InvocationState.Name(message.state).removeprefix("INVOCATION_STATE_").lower()


def condition_of(message: DeliveryMessage) -> str:
    """Return why the invocation ended as it did, in one word."""
    if message.state == api.INVOCATION_STATE_FAILED:
        return "RetriesExhausted" if message.failure.retryable else "NonRetryable"
    return _CONDITIONS[message.state]


def function_status(message: DeliveryMessage) -> int:
    """Return the status of the function's last answer, or one that stands for its absence."""
    if message.result.status_code:
        return message.result.status_code
    return 504 if message.state == api.INVOCATION_STATE_TIMED_OUT else 500


def duration_of(message: DeliveryMessage) -> float:
    """Return the seconds from the first attempt's start to the end; 0 where there was none."""
    return max(0, message.end_us - message.start_us) / 1e6 if message.start_us else 0.0


def envelope_of(message: DeliveryMessage) -> dict[str, Any]:
    """Return the envelope of an ended invocation."""
    response: dict[str, Any] = {
        "statusCode": message.result.status_code or None,
        "executedVersion": str(message.function_revision) if message.function_revision else None,
    }
    if message.HasField("failure"):
        response |= {"functionError": message.failure.reason, "functionErrorMessage": message.failure.message}
    request_payload, request_info = _shown(message.request)
    response_payload, response_info = _shown(message.response)
    return {
        "version": VERSION,
        "timestamp": _iso(message.end_us),
        "requestContext": {
            "requestId": message.invocation_id,
            "callId": message.call_id or message.invocation_id,
            "function": message.function,
            "condition": condition_of(message),
            "approximateInvokeCount": message.attempt_count,
            "depth": message.depth,
        },
        "requestPayload": request_payload,
        "requestPayloadInfo": request_info,
        "responseContext": response,
        "responsePayload": response_payload,
        "responsePayloadInfo": response_info,
    }


def envelope_body(message: DeliveryMessage, *, wrapped: bool) -> bytes:
    """Return the envelope as JSON.

    :param wrapped: Whether it is the data of an event, as Standard Webhooks have it, and not by itself.
    """
    value = envelope_of(message)
    if wrapped:
        value = {"type": event_type(message), "timestamp": value["timestamp"], "data": value}
    return _dumped(value)


def envelope_around(message: DeliveryMessage) -> tuple[bytes, bytes]:
    """Return what stands before and after the body of the answer in an envelope that has the whole of it, in base64."""
    value = envelope_of(message)
    place = secrets.token_hex(16)
    value["responsePayload"] = place
    value["responsePayloadInfo"] |= {"encoding": "base64", "truncated": False}
    before, _, after = _dumped(value).partition(place.encode())
    return before, after


def _shown(body: EnvelopeBody) -> tuple[Any, dict[str, Any]]:
    """Return what stands for a body, and how it is to be read: as JSON, as text, or as base64."""
    truncated = len(body.data) < body.size
    value: Any = None
    encoding = "none"
    if body.size:
        value, encoding = _encoded(body, truncated=truncated)
    return value, {
        "contentType": body.content_type,
        "size": body.size,
        "encoding": encoding,
        "truncated": truncated,
    }


def _encoded(body: EnvelopeBody, *, truncated: bool) -> tuple[Any, str]:
    text = _text(body.data, truncated=truncated)
    if text is None:
        return base64.b64encode(body.data).decode(), "base64"
    media_type = body.content_type.partition(";")[0].strip().lower()
    if not truncated and (media_type == "application/json" or media_type.endswith("+json")):
        try:
            value = json.loads(text)
            # Python takes NaN, 1e999 and halves of surrogate pairs, which no envelope can pass on.
            _dumped(value)
        except (ValueError, RecursionError):
            return text, "text"
        return value, "json"
    return text, "text"


def _dumped(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _text(data: bytes, *, truncated: bool) -> str | None:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        # What was cut may have been cut within a character.
        if not truncated or error.start < len(data) - 3 or error.reason != "unexpected end of data":
            return None
        text = data[: error.start].decode()
    # A lone NUL is text to Python and to nobody else.
    return None if "\0" in text else text


def _iso(time_us: int) -> str:
    return datetime.fromtimestamp(time_us / 1e6, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
