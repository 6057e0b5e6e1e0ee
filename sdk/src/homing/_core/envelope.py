"""The envelope: what destinations get of an ended invocation, read."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from homing._core.names import InvocationState
from homing.errors import InvalidEnvelopeError

_STATES: Final[Mapping[str, InvocationState]] = {
    "Success": InvocationState.SUCCEEDED,
    "RetriesExhausted": InvocationState.FAILED,
    "NonRetryable": InvocationState.FAILED,
    "TimedOut": InvocationState.TIMED_OUT,
    "EventAgeExceeded": InvocationState.EXPIRED,
    "Stopped": InvocationState.STOPPED,
    "Invalid": InvocationState.INVALID,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class EnvelopePayload:
    """A body in an envelope."""

    value: Any = field(repr=False)
    """What JSON says where it is JSON; str where it is other text, or JSON that was cut or cannot be passed on; else
    bytes; None if empty."""
    content_type: str
    """Its media type; empty where none was given."""
    size: int
    """The size of the whole body in bytes."""
    truncated: bool
    """Whether ``value`` is only its beginning."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Envelope:
    """What a destination gets of an ended invocation."""

    id: str
    """The id of the invocation."""
    call_id: str
    """What ``X-Call-Id`` showed."""
    function: str
    """The name of its function."""
    state: InvocationState
    """How it ended."""
    condition: str
    """Why it ended so: ``Success``, ``RetriesExhausted``, ``NonRetryable``, ``TimedOut``, ``EventAgeExceeded``,
    ``Stopped`` or ``Invalid``."""
    type: str
    """The type of the event: ``invocation.succeeded``, ``invocation.failed`` and so on."""
    time: datetime
    """When it ended; aware and in UTC."""
    attempt_count: int
    """The number of attempts that started."""
    depth: int
    """The length of the chain of invocations that caused it."""
    status_code: int
    """The HTTP status code of the function's last answer; 0 where there was none."""
    function_revision: int | None
    """The revision of the function that ran; None where none did."""
    error: str | None
    """Why it did not succeed, stable and machine-readable, in UPPER_SNAKE case."""
    error_message: str | None
    """The same in words."""
    request: EnvelopePayload
    """The body of the request to the function."""
    response: EnvelopePayload
    """The body of its last answer."""


def parse_envelope(body: bytes | bytearray | str) -> Envelope:
    """Return the envelope that a destination got: by itself, or as the data of an event, as receivers of HTTP get it.

    ::

        envelope = homing.parse_envelope(request.body)
        if envelope.state is homing.InvocationState.SUCCEEDED:
            print(envelope.function, envelope.response.value)

    :param body: The body of the request, or the payload of the function.
    :raises TypeError: The body is neither bytes nor str.
    :raises InvalidEnvelopeError: It is no envelope of version 1.
    """
    if not isinstance(body, (bytes, bytearray, str)):
        raise TypeError(f"body must be bytes or str, not {type(body).__name__}")
    try:
        read = json.loads(body)
    except (ValueError, RecursionError) as err:
        raise InvalidEnvelopeError(f"is not JSON: {err}") from None
    event = read if isinstance(read, dict) and "data" in read and "version" not in read else None
    content = event["data"] if event is not None else read
    if not isinstance(content, dict) or not str(content.get("version", "")).startswith("1."):
        raise InvalidEnvelopeError("is no envelope of version 1")
    try:
        return _envelope(content, event)
    except (KeyError, TypeError, ValueError, AttributeError) as err:
        raise InvalidEnvelopeError(f"is no envelope: {type(err).__name__}: {err}") from None


def _envelope(content: Mapping[str, Any], event: Mapping[str, Any] | None) -> Envelope:
    context, response = content["requestContext"], content["responseContext"]
    condition = str(context["condition"])
    state = _STATES.get(condition, InvocationState.UNKNOWN)
    version = response.get("executedVersion")
    return Envelope(
        id=str(context["requestId"]),
        call_id=str(context.get("callId") or context["requestId"]),
        function=str(context["function"]),
        state=state,
        condition=condition,
        type=str(event["type"]) if event is not None else f"invocation.{state.value.lower()}",
        time=datetime.fromisoformat(str(content["timestamp"])),
        attempt_count=int(context["approximateInvokeCount"]),
        depth=int(context.get("depth", 0)),
        status_code=int(response.get("statusCode") or 0),
        function_revision=int(version) if version is not None else None,
        error=response.get("functionError"),
        error_message=response.get("functionErrorMessage"),
        request=_payload(content["requestPayload"], content["requestPayloadInfo"]),
        response=_payload(content["responsePayload"], content["responsePayloadInfo"]),
    )


def _payload(value: Any, info: Mapping[str, Any]) -> EnvelopePayload:
    return EnvelopePayload(
        value=base64.b64decode(value, validate=True) if info["encoding"] == "base64" else value,
        content_type=str(info.get("contentType", "")),
        size=int(info["size"]),
        truncated=bool(info["truncated"]),
    )
