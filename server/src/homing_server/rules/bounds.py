"""How many entries each list and map of a request may have: checked before anything else looks at them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from homing.v1.function_pb2 import Function
from homing.v1.invocation_pb2 import InvocationState
from homing.v1.key_service_pb2 import Scope
from homing_core import limits
from homing_server.errors import Violation, invalid_request

_SPEC: Final = "homing.v1.InvocationSpec"
_FUNCTION: Final = "homing.v1.Function"
_BATCH: Final = "homing.v1.BatchInvokeAsyncRequest.requests"

BOUNDS: Final[Mapping[str, int]] = {
    _BATCH: limits.MAX_BATCH,
    f"{_SPEC}.labels": limits.MAX_LABELS,
    f"{_SPEC}.on_success": limits.MAX_DESTINATIONS,
    f"{_SPEC}.on_failure": limits.MAX_DESTINATIONS,
    "homing.v1.HttpOptions.headers": limits.MAX_HEADERS,
    "homing.v1.Callback.headers": limits.MAX_HEADERS,
    "homing.v1.RetryPolicy.retry_status_codes": limits.MAX_STATUS_CODES,
    "homing.v1.InvocationFilter.functions": limits.MAX_FILTER_FUNCTIONS,
    "homing.v1.InvocationFilter.states": len(InvocationState.values()),
    "homing.v1.InvocationFilter.labels": limits.MAX_LABELS,
    "homing.v1.DeadLetterFilter.ids": limits.MAX_DEAD_LETTER_IDS,
    "homing.v1.DeadLetterFilter.functions": limits.MAX_FILTER_FUNCTIONS,
    "homing.v1.Command.args": limits.MAX_ARGUMENTS,
    f"{_FUNCTION}.env": limits.MAX_ENV,
    f"{_FUNCTION}.secrets": limits.MAX_SECRETS,
    f"{_FUNCTION}.labels": limits.MAX_LABELS,
    f"{_FUNCTION}.annotations": limits.MAX_ANNOTATIONS,
    f"{_FUNCTION}.on_success": limits.MAX_DESTINATIONS,
    f"{_FUNCTION}.on_failure": limits.MAX_DESTINATIONS,
    "homing.v1.Key.scopes": len(Scope.values()),
    "homing.v1.Key.functions": limits.MAX_KEY_FUNCTIONS,
    "google.protobuf.FieldMask.paths": len(Function.DESCRIPTOR.fields),
}
"""The most entries of every list and map that requests of the API have, by the full name of the field."""


def check_bounds(request: Message) -> None:
    """Check the number of entries of all lists and maps of a request.

    The requests of a batch are not looked into: each is checked, and refused, by itself.

    :raises ApiError: INVALID_ARGUMENT.
    """
    plan = _plan(request.DESCRIPTOR)
    if plan is not None:
        violations = list(_violations(request, plan, ""))
        if violations:
            raise invalid_request(violations[:_MOST_VIOLATIONS], more=max(0, len(violations) - _MOST_VIOLATIONS))


_MOST_VIOLATIONS: Final = 8
"""So many are told of: errors travel in headers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Plan:
    """Where the lists and maps of a type of messages are, so that those without any cost nothing."""

    counted: tuple[tuple[str, int], ...]
    inside: tuple[tuple[str, _Plan], ...]
    """Fields that are messages with lists in them, or in what they have."""
    inside_each: tuple[tuple[str, _Plan], ...]
    """Lists of such messages."""


def _violations(message: Message, plan: _Plan, path: str) -> Iterator[Violation]:
    for name, most in plan.counted:
        number = len(getattr(message, name))
        if number > most:
            yield Violation(field=path + name, description=f"must be at most {most}, are {number}")
    for name, inner in plan.inside:
        if message.HasField(name):
            yield from _violations(getattr(message, name), inner, f"{path}{name}.")
    for name, inner in plan.inside_each:
        for index, each in enumerate(getattr(message, name)):
            yield from _violations(each, inner, f"{path}{name}[{index}].")


@cache
def _plan(descriptor: Descriptor) -> _Plan | None:
    counted: list[tuple[str, int]] = []
    inside: list[tuple[str, _Plan]] = []
    inside_each: list[tuple[str, _Plan]] = []
    for field in descriptor.fields:
        if is_repeated(field):
            counted.append((field.name, BOUNDS[field.full_name]))
        if field.message_type is not None and not _is_map(field) and field.full_name != _BATCH:
            inner = _plan(field.message_type)
            if inner is not None:
                (inside_each if is_repeated(field) else inside).append((field.name, inner))
    if not (counted or inside or inside_each):
        return None
    return _Plan(counted=tuple(counted), inside=tuple(inside), inside_each=tuple(inside_each))


def is_repeated(field: FieldDescriptor) -> bool:
    """Tell whether a field is a list or a map."""
    return isinstance(field.default_value, list)  # is_repeated is not in all versions of protobuf


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry
