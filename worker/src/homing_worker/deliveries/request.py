"""What a delivery is, as an HTTP request: its body and its headers."""

from __future__ import annotations

from typing import Final

from yarl import URL

from homing.v1 import invocation_pb2 as api
from homing_core.envelope import duration_of, envelope_body, function_status
from homing_core.guard import GATEWAY, Target, read_target
from homing_core.header_names import NOT_PASSED_ON
from homing_core.wire.v1 import DeliveryMessage
from homing_worker.execution.request import USER_AGENT
from homing_worker.metrics import state_name
from homing_worker.runtime.headers import Headers, overridden, pairs

_SIGNED: Final = "webhook-"
"""Headers that begin so are the signature's alone."""


def url_of(message: DeliveryMessage, target: Target) -> URL:
    """Return where a delivery goes; the host ``gateway`` is the server's own port.

    :param target: What its URL was checked as.
    :raises ValueError: It is no URL.
    """
    url = URL(message.uri)
    if target.host == GATEWAY:
        origin = URL(message.gateway_url)
        return url.with_scheme(origin.scheme).with_host(origin.host or "").with_port(origin.port)
    # What is connected to is what was checked, should the two ever read a URL differently.
    if read_target(str(url)) != target:
        raise ValueError("it can be read in more than one way")
    return url


def body_of(message: DeliveryMessage) -> bytes:
    """Return the body of a delivery that is not stored apart: the function's own, or the envelope."""
    if message.kind == api.DELIVERY_KIND_CALLBACK:
        return message.result.payload.data
    return envelope_body(message, wrapped=True)


def headers_of(message: DeliveryMessage) -> Headers:
    """Return the headers of a delivery, those of its signature apart. A name that homing says is never another's."""
    if message.kind == api.DELIVERY_KIND_CALLBACK:
        return overridden(_callback_headers(message), by=_own_headers(message))
    return [("content-type", "application/json"), *_own_headers(message)]


def _callback_headers(message: DeliveryMessage) -> Headers:
    """Return the function's own headers, those apart that were asked for otherwise."""
    result = message.result
    headers = pairs(result.headers)
    if result.payload.content_type:
        headers = overridden(headers, by=[("content-type", result.payload.content_type)])
    headers = overridden(headers, by=[(name.lower(), value) for name, value in pairs(message.callback.headers)])
    return [(name, value) for name, value in headers if name not in NOT_PASSED_ON and not name.startswith(_SIGNED)]


def _own_headers(message: DeliveryMessage) -> Headers:
    headers = [
        ("user-agent", USER_AGENT),
        ("x-call-id", message.call_id or message.invocation_id),
        ("x-function-name", message.function),
        ("x-function-status", str(function_status(message))),
        ("x-duration-seconds", f"{duration_of(message):f}"),
        ("x-start-time", str(message.start_us * 1000)),
        ("x-homing-state", state_name(message.state)),
        ("x-homing-delivery-id", message.delivery_id),
        ("x-homing-depth", str(message.depth)),
    ]
    if message.call_id:
        headers.append(("x-homing-invocation-id", message.invocation_id))
    if message.traceparent:
        headers.append(("traceparent", message.traceparent))
    return headers


def signature_headers(message: DeliveryMessage, timestamp: int, signature: str) -> Headers:
    """Return the headers by which a receiver verifies and deduplicates: the id is the same in each attempt."""
    return [
        ("webhook-id", message.delivery_id),
        ("webhook-timestamp", str(timestamp)),
        ("webhook-signature", signature),
    ]
