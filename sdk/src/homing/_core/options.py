"""What a caller may say about an invocation, where it is said of several at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypedDict

from homing._core.destinations import Destinations
from homing._core.headers import HeaderValues
from homing._core.policy import RetryPolicy
from homing._core.request_id import request_id_of
from homing._core.spec import Query, Seconds, add_async_options, invocation_spec
from homing.v1 import invocation_service_pb2


class RunOptions(TypedDict, total=False):
    """How invocations are run: the options that ``invoke`` and ``invoke_async`` share, as described there."""

    attempt_timeout: Seconds | None
    content_type: str | None
    method: str | None
    path: str | None
    query: Query | None
    headers: HeaderValues | None
    labels: Mapping[str, str] | None
    retry_policy: RetryPolicy | None
    call_id: str | None


class AsyncOptions(RunOptions, total=False):
    """Further options of invocations that run later, as described at ``invoke_async``."""

    callback_url: str | None
    callback_headers: HeaderValues | None
    on_success: Destinations | None
    on_failure: Destinations | None
    max_age: Seconds | None
    schedule_time: datetime | None
    delay: Seconds | None


@dataclass(frozen=True, kw_only=True, slots=True)
class InvocationRequest:
    """One of the invocations that ``invoke_batch`` asks for. The fields are the options of ``invoke_async``."""

    function: str
    """The name of the function."""
    payload: object = field(default=None, repr=False)
    """str goes as text, bytes as they are, None as an empty body, all else as JSON; at most 64 MiB."""
    request_id: str | None = None
    """The same id with the same content is the same invocation; by default a new one."""
    callback_url: str | None = None
    """An http or https URL that receives the function's output."""
    callback_headers: HeaderValues | None = None
    """Further headers of the callback."""
    on_success: Destinations | None = None
    """Where the envelope goes when it succeeded, in place of the function's: one URI or several."""
    on_failure: Destinations | None = None
    """Where the envelope goes when it ended otherwise, in place of the function's: one URI or several."""
    max_age: Seconds | None = None
    """How long the invocation may wait for its first start, in seconds or as a timedelta."""
    schedule_time: datetime | None = None
    """When to start it, with a time zone."""
    delay: Seconds | None = None
    """How long from now to start it, in place of schedule_time."""
    attempt_timeout: Seconds | None = None
    """How long one attempt may run."""
    content_type: str | None = None
    """The media type of the payload, where it is not the usual one."""
    method: str | None = None
    """The method of the HTTP request to the function; ``POST`` by default."""
    path: str | None = None
    """Its path; ``/`` by default."""
    query: Query | None = None
    """Its query string, or a mapping of its parts."""
    headers: HeaderValues | None = None
    """Further headers."""
    labels: Mapping[str, str] | None = None
    """Labels to find the invocation by."""
    retry_policy: RetryPolicy | None = None
    """Which failed attempts are made again."""
    call_id: str | None = None
    """What ``X-Call-Id`` shows; by default the id of the invocation."""


def accept_request(request: InvocationRequest) -> invocation_service_pb2.InvokeAsyncRequest:
    """Return a request as a message. It always has a request id, so it is safe to send again.

    :raises TypeError: A field is of the wrong type.
    :raises InvalidRequestError: A field breaks a rule.
    """
    spec = invocation_spec(
        function=request.function,
        payload=request.payload,
        content_type=request.content_type,
        method=request.method,
        path=request.path,
        query=request.query,
        headers=request.headers,
        labels=request.labels,
        retry_policy=request.retry_policy,
        attempt_timeout=request.attempt_timeout,
        call_id=request.call_id,
    )
    add_async_options(
        spec,
        callback_url=request.callback_url,
        callback_headers=request.callback_headers,
        on_success=request.on_success,
        on_failure=request.on_failure,
        max_age=request.max_age,
        schedule_time=request.schedule_time,
        delay=request.delay,
    )
    return invocation_service_pb2.InvokeAsyncRequest(spec=spec, request_id=request_id_of(request.request_id))
