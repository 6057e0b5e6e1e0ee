"""What annotations and labels of a function ask for that are OpenFaaS's, or that say in its files what is ours.

A file for `faas-cli`, or a deployment that it makes, has no other place for them. They count however a function is
deployed; what the deployment says itself goes before them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Final

from google.protobuf.duration_pb2 import Duration

from homing.v1.function_pb2 import Function
from homing.v1.policy_pb2 import Destination
from homing_server.errors import ApiError, Violation, invalid_request
from homing_server.rules.durations import FORM, duration_of


class _BadValueError(ValueError):
    """A value is none of its kind; says what it must be."""


_Apply = Callable[[Function, str], None]


def _number(text: str) -> int:
    text = text.strip()
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise _BadValueError("must be a whole number")
    return int(text)


def _decimal(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise _BadValueError("must be a number") from None


def _duration(text: str) -> Duration:
    found = duration_of(text)
    if found is None:
        raise _BadValueError(FORM)
    return found


def _boolean(text: str) -> bool:
    known = {"true": True, "1": True, "false": False, "0": False}
    if text.strip().lower() not in known:
        raise _BadValueError("must be true or false")
    return known[text.strip().lower()]


def _destinations(text: str) -> list[Destination]:
    return [Destination(uri=uri.strip()) for uri in text.split(",") if uri.strip()]


def _attempts(function: Function, text: str) -> None:
    function.retry_policy.max_attempts = max(1, _number(text))


def _codes(function: Function, text: str) -> None:
    function.retry_policy.retry_status_codes[:] = [_number(code) for code in text.split(",") if code.strip()]


def _min_instances(function: Function, text: str) -> None:
    function.min_instances = _number(text)


def _max_instances(function: Function, text: str) -> None:
    function.max_instances = _number(text)


def _zero(function: Function, text: str) -> None:
    if _boolean(text):
        function.min_instances = 0


def _concurrency(function: Function, text: str) -> None:
    function.concurrency = _number(text)


def _record_sync(function: Function, text: str) -> None:
    function.record_sync = _boolean(text)


def _public(function: Function, text: str) -> None:
    function.public = _boolean(text)


def _multiplier(function: Function, text: str) -> None:
    function.retry_policy.backoff_multiplier = _decimal(text)


_ANNOTATIONS: Final[Mapping[str, tuple[str, _Apply]]] = {
    "com.openfaas.retry.attempts": ("retry_policy.max_attempts", _attempts),
    "com.openfaas.retry.codes": ("retry_policy.retry_status_codes", _codes),
    "com.openfaas.retry.min_wait": (
        "retry_policy.initial_backoff",
        lambda function, text: function.retry_policy.initial_backoff.CopyFrom(_duration(text)),
    ),
    "com.openfaas.retry.max_wait": (
        "retry_policy.max_backoff",
        lambda function, text: function.retry_policy.max_backoff.CopyFrom(_duration(text)),
    ),
    "dev.homing.retry.multiplier": ("retry_policy.backoff_multiplier", _multiplier),
    "dev.homing.retry.max-retry-after": (
        "retry_policy.max_retry_after",
        lambda function, text: function.retry_policy.max_retry_after.CopyFrom(_duration(text)),
    ),
    "dev.homing.concurrency": ("concurrency", _concurrency),
    "dev.homing.min-instances": ("min_instances", _min_instances),
    "dev.homing.max-instances": ("max_instances", _max_instances),
    "dev.homing.idle-timeout": (
        "idle_timeout",
        lambda function, text: function.idle_timeout.CopyFrom(_duration(text)),
    ),
    "dev.homing.attempt-timeout": (
        "attempt_timeout",
        lambda function, text: function.attempt_timeout.CopyFrom(_duration(text)),
    ),
    "dev.homing.max-age": ("max_age", lambda function, text: function.max_age.CopyFrom(_duration(text))),
    "dev.homing.retention": ("retention", lambda function, text: function.retention.CopyFrom(_duration(text))),
    "dev.homing.record-sync": ("record_sync", _record_sync),
    "dev.homing.public": ("public", _public),
    "dev.homing.on-success": ("on_success", lambda function, text: function.on_success.extend(_destinations(text))),
    "dev.homing.on-failure": ("on_failure", lambda function, text: function.on_failure.extend(_destinations(text))),
}
"""By the name of an annotation the field that it sets, and how."""
_LABELS: Final[Mapping[str, tuple[str, _Apply]]] = {
    "com.openfaas.scale.min": ("min_instances", _min_instances),
    "com.openfaas.scale.max": ("max_instances", _max_instances),
    # After the least number, which is for what does not scale to zero.
    "com.openfaas.scale.zero": ("min_instances", _zero),
    "com.openfaas.scale.zero-duration": (
        "idle_timeout",
        lambda function, text: function.idle_timeout.CopyFrom(_duration(text)),
    ),
}
"""The same of labels: OpenFaaS has its scaling there."""


def applied(wanted: Function, paths: Collection[str] | None) -> tuple[Function, Collection[str] | None]:
    """Return a deployment with what its annotations and labels ask for, where it does not say it itself.

    :param paths: The fields that it sets; None where it sets the function as a whole.
    :returns: What is to be deployed, and the fields that it sets.
    :raises ApiError: INVALID_ARGUMENT: a value cannot be read.
    """
    said = _said(wanted, paths)
    asked = _asked(wanted, said)
    if not asked:
        return wanted, paths
    function = Function()
    function.CopyFrom(wanted)
    violations = []
    for where, name, text in asked:
        try:
            where[name][1](function, text)
        except _BadValueError as error:
            violations.append(Violation(field=_place(where, name), description=str(error)))
    if violations:
        raise invalid_request(violations)
    return function, None if paths is None else said | {_top(where[name][0]) for where, name, _ in asked}


def named_as_written(error: ApiError, wanted: Function, paths: Collection[str] | None) -> ApiError:
    """Return the error of a deployment with the names of annotations and labels in place of the fields that they set.

    :param wanted: The deployment as it came, before they were :func:`applied`.
    :param paths: The fields that it sets, in the same way.
    """
    asked = _asked(wanted, _said(wanted, paths))
    # What scales to zero sets nothing that could be wrong.
    written = {where[name][0]: _place(where, name) for where, name, _ in asked if where[name][1] is not _zero}
    violations, message = [], error.message
    for violation in error.violations:
        field = next(
            (written[path] for path in written if _is_in(violation.field, f"function.{path}")), violation.field
        )
        violations.append(replace(violation, field=field))
        message = message.replace(f"{violation.field}: ", f"{field}: ", 1)
    return replace(error, violations=violations, message=message)


def _said(wanted: Function, paths: Collection[str] | None) -> set[str]:
    """Return the fields that a deployment sets itself."""
    return {field.name for field, _ in wanted.ListFields()} if paths is None else set(paths)


def _asked(wanted: Function, said: Collection[str]) -> list[tuple[Mapping[str, tuple[str, _Apply]], str, str]]:
    """Return those that ask for something else, in the order of the tables: with the table, the name and the value."""
    return [
        (table, name, given[name])
        for table, given in ((_LABELS, wanted.labels), (_ANNOTATIONS, wanted.annotations))
        for name in table
        if name in given and _top(table[name][0]) not in said
    ]


def _top(path: str) -> str:
    return path.partition(".")[0]


def _is_in(field: str, path: str) -> bool:
    return field == path or field.startswith((f"{path}[", f"{path}."))


def _place(table: Mapping[str, tuple[str, _Apply]], name: str) -> str:
    field = "annotations" if table is _ANNOTATIONS else "labels"
    return f"function.{field}[{json.dumps(name)}]"
