"""Requests about functions, built from the arguments of the public calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypedDict

from homing._core import check
from homing._core.destinations import Destinations, destination_messages
from homing._core.function import Limits
from homing._core.policy import RetryPolicy
from homing._core.spec import Seconds, duration, policy_message
from homing.v1 import function_pb2, function_service_pb2

_SOURCES: Final = ("image", "command", "http_command", "url")


class FunctionOptions(TypedDict, total=False):
    """What a function is, as described at ``functions.deploy``; of ``functions.update``, what is to change of it."""

    image: str | None
    command: Sequence[str] | None
    http_command: Sequence[str] | None
    url: str | None
    env: Mapping[str, str] | None
    labels: Mapping[str, str] | None
    annotations: Mapping[str, str] | None
    secrets: Sequence[str] | None
    limits: Limits | None
    concurrency: int | None
    min_instances: int | None
    max_instances: int | None
    idle_timeout: Seconds | None
    retry_policy: RetryPolicy | None
    attempt_timeout: Seconds | None
    max_age: Seconds | None
    retention: Seconds | None
    record_sync: bool | None
    on_success: Destinations | None
    on_failure: Destinations | None
    public: bool | None


def deploy_request(
    name: str, options: FunctionOptions, *, expected_revision: int | None, force: bool
) -> function_service_pb2.DeployFunctionRequest:
    """Return the request for a function as a whole.

    :raises TypeError: An argument is of the wrong type.
    :raises InvalidRequestError: An argument breaks a rule.
    """
    request = _request(name, options, expected_revision, force=force)
    if request.function.WhichOneof("source") is None:
        raise check.invalid(", ".join(_SOURCES), "one of them must be given; none is given")
    return request


def update_request(
    name: str, options: FunctionOptions, *, expected_revision: int | None, force: bool
) -> function_service_pb2.DeployFunctionRequest:
    """Return the request to change what is given of a function: to its default where it is None.

    :raises TypeError: An argument is of the wrong type, or there is none of this name.
    :raises InvalidRequestError: An argument breaks a rule, or none is given and it is not rolled out anew.
    """
    request = _request(name, options, expected_revision, force=force)
    if not (options or request.force):
        raise check.invalid("options", "at least one must be given that is to change")
    request.update_mask.SetInParent()
    request.update_mask.paths.extend(options)
    return request


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


def _request(
    name: str, options: FunctionOptions, expected_revision: int | None, *, force: bool
) -> function_service_pb2.DeployFunctionRequest:
    unknown = options.keys() - _MESSAGES.keys()
    if unknown:
        raise TypeError(f"a function has no {min(unknown)!r}")
    sources = [source for source in _SOURCES if options.get(source) is not None]
    if len(sources) > 1:
        raise check.invalid(", ".join(_SOURCES), f"only one of them may be given; {' and '.join(sources)} are given")
    function = function_pb2.Function(
        name=check.text("name", name),
        **{option: _MESSAGES[option](option, value) for option, value in options.items() if value is not None},
    )
    request = function_service_pb2.DeployFunctionRequest(function=function, force=check.flag("force", force))
    if expected_revision is not None:
        request.expected_revision = check.count("expected_revision", expected_revision)
    return request


def _limits(_name: str, limits: object) -> function_pb2.Limits:
    if not isinstance(limits, Limits):
        raise TypeError(f"limits must be Limits, not {type(limits).__name__}")
    return function_pb2.Limits(
        memory_bytes=check.count("limits.memory_bytes", limits.memory_bytes),
        cpu_millis=check.integer("limits.cpu_millis", limits.cpu_millis),
        pids=check.integer("limits.pids", limits.pids),
    )


def _command(name: str, command: object) -> function_pb2.Command:
    return function_pb2.Command(args=check.texts(name, command))


_MESSAGES: Final[Mapping[str, Callable[[str, Any], Any]]] = {
    "image": check.text,
    "command": _command,
    "http_command": _command,
    "url": check.text,
    "env": check.text_map,
    "labels": check.text_map,
    "annotations": check.text_map,
    "secrets": check.texts,
    "limits": _limits,
    "concurrency": check.integer,
    "min_instances": check.integer,
    "max_instances": check.integer,
    "idle_timeout": duration,
    "retry_policy": policy_message,
    "attempt_timeout": duration,
    "max_age": duration,
    "retention": duration,
    "record_sync": check.flag,
    "on_success": destination_messages,
    "on_failure": destination_messages,
    "public": check.flag,
}
"""By option, what checks its value and returns it as the field of the same name has it."""
