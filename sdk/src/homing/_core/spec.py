"""Requests built from the arguments of the public calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from urllib.parse import urlencode

from google.protobuf.duration_pb2 import Duration

from homing._core import check
from homing._core.destinations import Destinations, destination_messages
from homing._core.headers import HeaderValues, header_messages
from homing._core.payload import encode_payload
from homing._core.policy import RetryPolicy
from homing.v1 import invocation_pb2, payload_pb2, policy_pb2

Seconds = float | timedelta
"""A duration: seconds, or a timedelta."""
Query = str | Mapping[str, str | Sequence[str]]
"""A query string without its ``?``, or its parts, which are encoded."""


def duration(name: str, value: Seconds, *, zero: bool = False) -> Duration:
    """Return an argument as a message.

    :param zero: Whether it may be zero.
    :raises TypeError: It is no duration.
    :raises InvalidRequestError: It is negative, or zero and must not be.
    """
    seconds = check.seconds(name, value, zero=zero)
    message = Duration()
    message.FromNanoseconds(round(seconds * 1e9))
    return message


def invocation_spec(
    *,
    function: str,
    payload: object,
    content_type: str | None,
    method: str | None,
    path: str | None,
    query: Query | None,
    headers: HeaderValues | None,
    labels: Mapping[str, str] | None,
    retry_policy: RetryPolicy | None,
    attempt_timeout: Seconds | None,
    call_id: str | None,
) -> invocation_pb2.InvocationSpec:
    """Return what every invocation says about what to run.

    :raises TypeError: An argument is of the wrong type.
    :raises InvalidRequestError: An argument breaks a rule.
    """
    spec = invocation_pb2.InvocationSpec(
        function=check.text("function", function),
        payload=encode_payload(payload, content_type),
        labels=check.text_map("labels", labels),
        call_id="" if call_id is None else check.text("call_id", call_id),
    )
    if not (method is None and path is None and query is None and headers is None):
        spec.http.CopyFrom(
            payload_pb2.HttpOptions(
                method="" if method is None else check.text("method", method),
                path="" if path is None else check.text("path", path),
                query=_query(query),
                headers=header_messages("headers", headers),
            )
        )
    if retry_policy is not None:
        spec.retry_policy.CopyFrom(policy_message("retry_policy", retry_policy))
    if attempt_timeout is not None:
        spec.attempt_timeout.CopyFrom(duration("attempt_timeout", attempt_timeout))
    return spec


def add_async_options(
    spec: invocation_pb2.InvocationSpec,
    *,
    callback_url: str | None,
    callback_headers: HeaderValues | None,
    on_success: Destinations | None,
    on_failure: Destinations | None,
    max_age: Seconds | None,
    schedule_time: datetime | None,
    delay: Seconds | None,
) -> None:
    """Add what only an asynchronous invocation can ask for.

    :raises TypeError: An argument is of the wrong type.
    :raises InvalidRequestError: An argument breaks a rule.
    """
    if callback_url is not None:
        spec.callback.url = check.text("callback_url", callback_url)
        spec.callback.headers.extend(header_messages("callback_headers", callback_headers))
    elif callback_headers is not None:
        raise check.invalid("callback_headers", "needs a callback_url")
    spec.on_success.extend(destination_messages("on_success", on_success))
    spec.on_failure.extend(destination_messages("on_failure", on_failure))
    if max_age is not None:
        spec.max_age.CopyFrom(duration("max_age", max_age))
    if schedule_time is not None and delay is not None:
        raise check.invalid("delay", "cannot be given together with schedule_time")
    if delay is not None:
        spec.delay.CopyFrom(duration("delay", delay, zero=True))
    if schedule_time is not None:
        spec.schedule_time.FromDatetime(check.moment("schedule_time", schedule_time))


def policy_message(name: str, policy: RetryPolicy) -> policy_pb2.RetryPolicy:
    """Return a retry policy as a message.

    :raises TypeError: It is no RetryPolicy, or holds a wrong type.
    :raises InvalidRequestError: A part of it breaks a rule.
    """
    if not isinstance(policy, RetryPolicy):
        raise TypeError(f"{name} must be a RetryPolicy, not {type(policy).__name__}")
    message = policy_pb2.RetryPolicy(
        retry_status_codes=[check.integer(f"{name}.retry_status_codes", code) for code in policy.retry_status_codes]
    )
    if policy.max_attempts is not None:
        message.max_attempts = check.integer(f"{name}.max_attempts", policy.max_attempts)
    if policy.backoff_multiplier is not None:
        message.backoff_multiplier = check.number(f"{name}.backoff_multiplier", policy.backoff_multiplier)
    if policy.initial_backoff is not None:
        message.initial_backoff.CopyFrom(duration(f"{name}.initial_backoff", policy.initial_backoff))
    if policy.max_backoff is not None:
        message.max_backoff.CopyFrom(duration(f"{name}.max_backoff", policy.max_backoff))
    if policy.max_retry_after is not None:
        message.max_retry_after.CopyFrom(duration(f"{name}.max_retry_after", policy.max_retry_after))
    return message


def _query(query: Query | None) -> str:
    if query is None:
        return ""
    if isinstance(query, str):
        return check.text("query", query)
    if not isinstance(query, Mapping):
        raise TypeError(f"query must be str or a mapping, not {type(query).__name__}")
    parts = {check.text("a key of query", key): _values(f"query[{key!r}]", part) for key, part in query.items()}
    return urlencode(parts, doseq=True)


def _values(name: str, part: object) -> str | list[str]:
    return check.text(name, part) if isinstance(part, str) else check.texts(name, part)
