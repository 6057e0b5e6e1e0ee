"""Requests built from the arguments of the public calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

from google.protobuf.duration_pb2 import Duration

from homing._core import check
from homing._core.destinations import Destinations, destination_messages
from homing._core.function import Limits
from homing._core.headers import HeaderValues, header_messages
from homing._core.payload import encode_payload
from homing._core.policy import RetryPolicy
from homing.v1 import function_pb2, function_service_pb2, invocation_pb2, payload_pb2, policy_pb2

Seconds = float | timedelta
"""A duration: seconds, or a timedelta."""
Query = str | Mapping[str, str | Sequence[str]]
"""A query string without its ``?``, or its parts, which are encoded."""


def duration(name: str, value: Seconds) -> Duration:
    """Return an argument as a message.

    :raises TypeError: It is no duration.
    :raises InvalidRequestError: It is not more than zero.
    """
    seconds = check.seconds(name, value, zero=False)
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
) -> invocation_pb2.InvocationSpec:
    """Return what every invocation says about what to run.

    :raises TypeError: An argument is of the wrong type.
    :raises InvalidRequestError: An argument breaks a rule.
    """
    spec = invocation_pb2.InvocationSpec(
        function=check.text("function", function),
        payload=encode_payload(payload, content_type),
        labels=check.text_map("labels", labels),
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
        due = datetime.now(UTC) + timedelta(seconds=check.seconds("delay", delay))
        spec.schedule_time.FromDatetime(due)
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


def function_message(
    *,
    name: str,
    image: str | None,
    command: Sequence[str] | None,
    url: str | None,
    env: Mapping[str, str] | None,
    labels: Mapping[str, str] | None,
    annotations: Mapping[str, str] | None,
    secrets: Sequence[str] | None,
    limits: Limits | None,
    concurrency: int | None,
    min_instances: int | None,
    max_instances: int | None,
    idle_timeout: Seconds | None,
    retry_policy: RetryPolicy | None,
    attempt_timeout: Seconds | None,
    max_age: Seconds | None,
    retention: Seconds | None,
    record_sync: bool | None,
    on_success: Destinations | None,
    on_failure: Destinations | None,
    public: bool,
) -> function_pb2.Function:
    """Return a function as it shall be deployed.

    :raises TypeError: An argument is of the wrong type.
    :raises InvalidRequestError: An argument breaks a rule.
    """
    message = function_pb2.Function(
        name=check.text("name", name),
        env=check.text_map("env", env),
        labels=check.text_map("labels", labels),
        annotations=check.text_map("annotations", annotations),
        secrets=check.texts("secrets", secrets),
        concurrency=0 if concurrency is None else check.integer("concurrency", concurrency),
        min_instances=0 if min_instances is None else check.integer("min_instances", min_instances),
        max_instances=0 if max_instances is None else check.integer("max_instances", max_instances),
        on_success=destination_messages("on_success", on_success),
        on_failure=destination_messages("on_failure", on_failure),
        public=check.flag("public", public),
    )
    _set_source(message, image, command, url)
    if limits is not None:
        message.limits.CopyFrom(_limits(limits))
    if idle_timeout is not None:
        message.idle_timeout.CopyFrom(duration("idle_timeout", idle_timeout))
    if retry_policy is not None:
        message.retry_policy.CopyFrom(policy_message("retry_policy", retry_policy))
    if attempt_timeout is not None:
        message.attempt_timeout.CopyFrom(duration("attempt_timeout", attempt_timeout))
    if max_age is not None:
        message.max_age.CopyFrom(duration("max_age", max_age))
    if retention is not None:
        message.retention.CopyFrom(duration("retention", retention))
    if record_sync is not None:
        message.record_sync = check.flag("record_sync", record_sync)
    return message


def scale_request(
    name: str, *, min_instances: int | None, max_instances: int | None
) -> function_service_pb2.ScaleFunctionRequest:
    """Return the request for other bounds of the number of instances; what is None stays.

    :raises TypeError: An argument is of the wrong type.
    :raises InvalidRequestError: An argument breaks a rule.
    """
    request = function_service_pb2.ScaleFunctionRequest(name=check.text("name", name))
    if min_instances is not None:
        request.min_instances = check.integer("min_instances", min_instances)
    if max_instances is not None:
        request.max_instances = check.integer("max_instances", max_instances)
    return request


def _query(query: Query | None) -> str:
    if query is None:
        return ""
    if isinstance(query, str):
        return check.text("query", query)
    if not isinstance(query, Mapping):
        raise TypeError(f"query must be str or a mapping, not {type(query).__name__}")
    return urlencode(query, doseq=True)


def _set_source(
    message: function_pb2.Function, image: str | None, command: Sequence[str] | None, url: str | None
) -> None:
    given = [name for name, value in (("image", image), ("command", command), ("url", url)) if value is not None]
    if len(given) != 1:
        named = f"; {' and '.join(given)} are given" if given else "; none is given"
        raise check.invalid("image, command, url", f"exactly one of them must be given{named}")
    if image is not None:
        message.image = check.text("image", image)
    elif command is not None:
        if isinstance(command, (str, bytes)) or not isinstance(command, Sequence):
            raise TypeError(f"command must be a list of str, not {type(command).__name__}")
        message.command.args.extend(check.text("command", argument) for argument in command)
        message.command.SetInParent()
    elif url is not None:
        message.url = check.text("url", url)


def _limits(limits: Limits) -> function_pb2.Limits:
    if not isinstance(limits, Limits):
        raise TypeError(f"limits must be Limits, not {type(limits).__name__}")
    memory = limits.memory_bytes
    if isinstance(memory, bool) or not isinstance(memory, int):
        raise TypeError(f"limits.memory_bytes must be int, not {type(memory).__name__}")
    if not 0 <= memory < 2**63:
        raise check.invalid("limits.memory_bytes", f"must be from 0 to {2**63 - 1}, is {memory}")
    return function_pb2.Limits(
        memory_bytes=memory,
        cpu_millis=check.integer("limits.cpu_millis", limits.cpu_millis),
        pids=check.integer("limits.pids", limits.pids),
    )
