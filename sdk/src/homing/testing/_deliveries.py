"""What a fake server would deliver: kept for the test to read, and sent to nobody."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any, Final

from homing._core.envelope import Envelope, parse_envelope
from homing._core.headers import Headers
from homing._core.names import DeliveryKind
from homing.v1 import function_pb2, invocation_pb2
from homing.v1.invocation_pb2 import Invocation
from homing.v1.payload_pb2 import Header, Payload

_SHOWN: Final = 64 * 1024
"""So many bytes of a body an envelope shows."""
_CONDITIONS: Final[Mapping[int, str]] = {
    invocation_pb2.INVOCATION_STATE_SUCCEEDED: "Success",
    invocation_pb2.INVOCATION_STATE_TIMED_OUT: "TimedOut",
    invocation_pb2.INVOCATION_STATE_STOPPED: "Stopped",
    invocation_pb2.INVOCATION_STATE_EXPIRED: "EventAgeExceeded",
    invocation_pb2.INVOCATION_STATE_INVALID: "Invalid",
}
_KINDS: Final[Mapping[DeliveryKind, invocation_pb2.DeliveryKind.ValueType]] = {
    DeliveryKind.CALLBACK: invocation_pb2.DELIVERY_KIND_CALLBACK,
    DeliveryKind.ON_SUCCESS: invocation_pb2.DELIVERY_KIND_ON_SUCCESS,
    DeliveryKind.ON_FAILURE: invocation_pb2.DELIVERY_KIND_ON_FAILURE,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class FakeDelivery:
    """What a callback or destination of an ended invocation would have got."""

    kind: DeliveryKind
    """What asked for it."""
    uri: str
    """Where it would have gone."""
    invocation_id: str
    """The invocation whose outcome it is."""
    headers: Headers
    """The headers, as receivers of HTTP get them, but for the signature."""
    body: bytes = field(repr=False)
    """The body: of a callback the function's output; else the envelope, which receivers of HTTP get as an event."""

    @property
    def envelope(self) -> Envelope:
        """What ``parse_envelope`` makes of the body.

        :raises InvalidEnvelopeError: It is a callback.
        """
        return parse_envelope(self.body)


def deliver(
    record: Invocation, function: function_pb2.Function | None, read: Callable[[Payload], bytes]
) -> list[FakeDelivery]:
    """Make the deliveries of an invocation that has ended, and note them in its record.

    :param function: Whose destinations count where the invocation has none; None where it is gone.
    :param read: Returns the whole of a body.
    """
    made = []
    for kind, uri in _receivers(record, function):
        noted = record.deliveries.add(
            id=f"{record.id}-{len(record.deliveries)}",
            kind=_KINDS[kind],
            uri=uri,
            state=invocation_pb2.DELIVERY_STATE_DELIVERED,
            create_time=record.end_time,
            end_time=record.end_time,
        )
        noted.attempts.add(number=1, start_time=record.end_time, status_code=200 if uri.startswith("http") else 0)
        own = _own_headers(record, noted.id)
        if kind is DeliveryKind.CALLBACK:
            body, headers = read(record.result.payload), _callback_headers(record, own)
        else:
            body, headers = _envelope_body(record, read, wrapped=uri.startswith("http")), own
            headers["content-type"] = ["application/json"]
        pairs = [(name, value) for name, values in headers.items() for value in values]
        made.append(FakeDelivery(kind=kind, uri=uri, invocation_id=record.id, headers=Headers(pairs), body=body))
    return made


def _receivers(record: Invocation, function: function_pb2.Function | None) -> Iterator[tuple[DeliveryKind, str]]:
    if record.spec.HasField("callback"):
        yield DeliveryKind.CALLBACK, record.spec.callback.url
    succeeded = record.state == invocation_pb2.INVOCATION_STATE_SUCCEEDED
    name, kind = ("on_success", DeliveryKind.ON_SUCCESS) if succeeded else ("on_failure", DeliveryKind.ON_FAILURE)
    for destination in getattr(record.spec, name) or getattr(function, name, ()):
        yield kind, destination.uri


def _own_headers(record: Invocation, delivery_id: str) -> dict[str, list[str]]:
    timed_out = record.state == invocation_pb2.INVOCATION_STATE_TIMED_OUT
    headers = {
        "x-call-id": [record.spec.call_id or record.id],
        "x-function-name": [record.function],
        "x-function-status": [str(record.result.status_code or (504 if timed_out else 500))],
        "x-homing-state": [_state(record)],
        "x-homing-delivery-id": [delivery_id],
        "x-homing-depth": [str(record.depth)],
    }
    if record.spec.call_id:
        headers["x-homing-invocation-id"] = [record.id]
    return headers


def _callback_headers(record: Invocation, own: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Return the function's headers, those of the callback in place of them, and homing's in place of both."""
    found = _by_name(record.result.headers)
    if record.result.payload.content_type:
        found["content-type"] = [record.result.payload.content_type]
    return {**found, **_by_name(record.spec.callback.headers), **own}


def _by_name(headers: Any) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    header: Header
    for header in headers:
        found.setdefault(header.name.lower(), []).append(header.value)
    return found


def _envelope_body(record: Invocation, read: Callable[[Payload], bytes], *, wrapped: bool) -> bytes:
    value = _envelope(record, read)
    if wrapped:
        event = f"invocation.{_state(record).lower()}"
        value = {"type": event, "timestamp": value["timestamp"], "data": value}
    return _dumped(value)


def _envelope(record: Invocation, read: Callable[[Payload], bytes]) -> dict[str, Any]:
    failed = record.state == invocation_pb2.INVOCATION_STATE_FAILED
    condition = "RetriesExhausted" if record.failure.retryable else "NonRetryable"
    response: dict[str, Any] = {
        "statusCode": record.result.status_code or None,
        "executedVersion": str(record.attempts[-1].function_revision) if record.attempts else None,
    }
    if record.HasField("failure"):
        response |= {"functionError": record.failure.reason, "functionErrorMessage": record.failure.message}
    request_payload, request_info = _shown(record.spec.payload, read)
    response_payload, response_info = _shown(record.result.payload, read)
    time = record.end_time.ToDatetime(tzinfo=UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return {
        "version": "1.0",
        "timestamp": time,
        "requestContext": {
            "requestId": record.id,
            "callId": record.spec.call_id or record.id,
            "function": record.function,
            "condition": condition if failed else _CONDITIONS[record.state],
            "approximateInvokeCount": record.attempt_count,
            "depth": record.depth,
        },
        "requestPayload": request_payload,
        "requestPayloadInfo": request_info,
        "responseContext": response,
        "responsePayload": response_payload,
        "responsePayloadInfo": response_info,
    }


def _shown(payload: Payload, read: Callable[[Payload], bytes]) -> tuple[Any, dict[str, Any]]:
    """Return what stands for a body in an envelope, and how it is to be read."""
    data = read(payload)
    shown = data[:_SHOWN]
    value, encoding = _encoded(shown, payload.content_type, whole=len(shown) == len(data)) if data else (None, "none")
    return value, {
        "contentType": payload.content_type,
        "size": len(data),
        "encoding": encoding,
        "truncated": len(shown) < len(data),
    }


def _encoded(data: bytes, content_type: str, *, whole: bool) -> tuple[Any, str]:
    text = data.decode(errors="strict" if whole else "ignore") if _is_text(data, whole=whole) else None
    if text is None:
        return base64.b64encode(data).decode(), "base64"
    media_type = content_type.partition(";")[0].strip().lower()
    if whole and (media_type == "application/json" or media_type.endswith("+json")):
        try:
            value = json.loads(text)
            _dumped(value)
        except (ValueError, RecursionError):
            return text, "text"
        return value, "json"
    return text, "text"


def _is_text(data: bytes, *, whole: bool) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError as error:
        # What was cut may have been cut within a character.
        return not whole and error.reason == "unexpected end of data" and b"\0" not in data
    return b"\0" not in data


def _dumped(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _state(record: Invocation) -> str:
    return invocation_pb2.InvocationState.Name(record.state).removeprefix("INVOCATION_STATE_")
