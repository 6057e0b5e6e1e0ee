"""What headers ask for, said as the spec of an invocation: OpenFaaS's, Function Compute's and homing's own."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from google.protobuf.duration_pb2 import Duration

from homing.v1.invocation_pb2 import InvocationSpec
from homing_server.errors import ApiError
from homing_server.front.http.gateway.headers import HOMING, BadHeaderError
from homing_server.rules.durations import FORM, duration_of

CALLBACK_URL: Final = "x-callback-url"
IDEMPOTENCY_KEY: Final = "idempotency-key"
PREFER: Final = "prefer"
DELAY: Final = HOMING + "delay"
MAX_AGE: Final = HOMING + "max-age"
ATTEMPT_TIMEOUT: Final = HOMING + "attempt-timeout"
RETRY_ATTEMPTS: Final = HOMING + "retry-attempts"
LABEL: Final = HOMING + "label-"
FC_TYPE: Final = "x-fc-invocation-type"
FC_IDS: Final = ("x-fc-async-task-id", "x-fc-stateful-async-invocation-id")
FC_DELAY: Final = "x-fc-async-delay"

_ASKING: Final = (DELAY, MAX_AGE, ATTEMPT_TIMEOUT, RETRY_ATTEMPTS)
_LIKENESS: Final = 0.75
"""Of two names, as difflib measures it: those that homing gives to functions, which may go on with a call, are less."""
_MAX_WAIT: Final = 600.0
_WAIT: Final = re.compile(r"(?:^|,)\s*wait\s*=\s*(\d{1,9})\s*(?=,|;|$)", re.IGNORECASE)
_TASK_ID: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,127}")
_MAX_FC_DELAY: Final = 3600

_HEADERS: Final[Mapping[str, str]] = {
    "spec.callback.url": "X-Callback-Url",
    "spec.call_id": "X-Call-Id",
    "spec.delay": "X-Homing-Delay",
    "spec.max_age": "X-Homing-Max-Age",
    "spec.attempt_timeout": "X-Homing-Attempt-Timeout",
    "spec.retry_policy.max_attempts": "X-Homing-Retry-Attempts",
    "spec.payload.content_type": "Content-Type",
    "spec.http.method": "the method",
    "spec.http.path": "the path",
    "spec.http.query": "the query",
    "spec.http.headers": "the headers",
    "spec.labels": "X-Homing-Label",
    "request_id": "Idempotency-Key",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Acceptance:
    """How an asynchronous invocation is asked for, beyond what is to run."""

    request_id: str
    task_id: str
    """The id by which Function Compute's clients know it, who are told of a second use; empty where there is none."""
    wait: float
    """So many seconds its caller waits for the end; 0 for none."""


_NOTHING_ELSE: Final = Acceptance(request_id="", task_id="", wait=0.0)
"""How most are asked for."""


def is_async_by_header(options: Mapping[str, str]) -> bool:
    """Tell whether a client of Function Compute asks for an asynchronous invocation.

    :raises BadHeaderError: It asks for what there is not.
    """
    kind = options.get(FC_TYPE, "Sync").lower()
    if kind not in {"sync", "async"}:
        raise BadHeaderError("X-Fc-Invocation-Type", "must be Sync or Async")
    return kind == "async"


def add_common_options(spec: InvocationSpec, options: Mapping[str, str]) -> None:
    """Add what every invocation may ask for.

    :raises BadHeaderError: A value is none.
    """
    for name, value in options.items():
        if name == ATTEMPT_TIMEOUT:
            spec.attempt_timeout.CopyFrom(_duration(name, value))
        elif name == RETRY_ATTEMPTS:
            if not value.isascii() or not value.isdigit() or len(value) > 9:
                raise BadHeaderError(_shown(name), f"must be a whole number, is {value[:32]!r}")
            spec.retry_policy.max_attempts = int(value)
        elif name.startswith(LABEL):
            spec.labels[name.removeprefix(LABEL)] = value
        elif name.startswith(HOMING) and name not in _ASKING:
            _check_spelling(name)


def check_sync_options(options: Mapping[str, str]) -> None:
    """Check that a synchronous invocation asks for nothing that is for asynchronous ones.

    :raises BadHeaderError: It does.
    """
    for name in (DELAY, MAX_AGE):
        if name in options:
            raise BadHeaderError(_shown(name), "is for /async-function/ only")


def add_async_options(spec: InvocationSpec, options: Mapping[str, str]) -> Acceptance:
    """Add what an asynchronous invocation may ask for besides.

    :raises BadHeaderError: A value is none.
    """
    if not options:
        return _NOTHING_ELSE
    if options.get(CALLBACK_URL):
        spec.callback.url = options[CALLBACK_URL]
    if DELAY in options:
        spec.delay.CopyFrom(_duration(DELAY, options[DELAY]))
    elif FC_DELAY in options:
        value = options[FC_DELAY]
        if not value.isascii() or not value.isdigit() or len(value) > 9 or int(value) > _MAX_FC_DELAY:
            raise BadHeaderError("X-Fc-Async-Delay", f"must be seconds from 0 to {_MAX_FC_DELAY}, is {value[:32]!r}")
        spec.delay.seconds = int(value)
    if MAX_AGE in options:
        spec.max_age.CopyFrom(_duration(MAX_AGE, options[MAX_AGE]))
    task_id = _task_id(options)
    if task_id and not spec.call_id:
        spec.call_id = task_id
    return Acceptance(
        request_id=options.get(IDEMPOTENCY_KEY, "") or task_id,
        task_id=task_id,
        wait=_wait(options.get(PREFER, "")),
    )


def named_by_headers(error: ApiError) -> str:
    """Return what an error says of fields, said of the headers that they come from."""
    told = []
    for violation in error.violations:
        header = next((shown for field, shown in _HEADERS.items() if violation.field.startswith(field)), "")
        told.append(f"{header or violation.field}: {violation.description}")
    return "; ".join(told) or str(error)


def _task_id(options: Mapping[str, str]) -> str:
    for name in FC_IDS:
        if name in options:
            if not _TASK_ID.fullmatch(options[name]):
                raise BadHeaderError(
                    _shown(name), "must be a letter or _, and then up to 127 letters, digits, hyphens and _"
                )
            return options[name]
    return ""


def _wait(prefer: str) -> float:
    """Return for how many seconds `Prefer` asks to wait. What is no preference of this kind asks for nothing."""
    found = _WAIT.search(prefer)
    return min(float(found[1]), _MAX_WAIT) if found is not None else 0.0


def _check_spelling(name: str) -> None:
    """Check that a header which asks for nothing was not meant to: what was to run later would run now.

    :raises BadHeaderError: It is nearly one that does.
    """
    known = [each.removeprefix(HOMING) for each in (*_ASKING, LABEL)]
    for near in difflib.get_close_matches(name.removeprefix(HOMING), known, n=1, cutoff=_LIKENESS):
        raise BadHeaderError(_shown(name), f"is no header; is {_shown(HOMING + near)} meant?")


def _duration(header: str, text: str) -> Duration:
    """Return a duration: ``90``, ``1.5s`` or ``1m30s``.

    :raises BadHeaderError: It is none.
    """
    duration = duration_of(text)
    if duration is None:
        raise BadHeaderError(_shown(header), f"{FORM}, is {text[:32]!r}")
    return duration


def _shown(header: str) -> str:
    return "-".join(word.capitalize() for word in header.split("-"))
