"""What the fields of requests must be like. A rule that is broken is named, with its field and its limit."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from homing.v1 import function_pb2, invocation_pb2, payload_pb2, policy_pb2
from homing_core import limits
from homing_core.destinations import DestinationError, check_destination
from homing_core.guard import ForbiddenTargetError, Guard
from homing_server.errors import Violation, entry, invalid_request, shown

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_METHOD = re.compile(r"[A-Z]{1,16}")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_RESERVED_HEADERS = frozenset(
    {
        "connection",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "traceparent",
        "transfer-encoding",
        "upgrade",
        "x-call-id",
        "x-start-time",
    }
)
_BREAK = re.compile(r"[\r\n\0]")
_CALL_ID = re.compile(r"[!-~]+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_LINES = str.maketrans(dict.fromkeys("\t\n\r"))
_DAY_SECONDS = 24 * 3600.0
_KNOWN_LENGTH: Final = 64
"""Names of headers are remembered that are no longer: others are few, or would take memory."""
FIRST_SECOND = -62_135_596_800
LAST_SECOND = 253_402_300_799
"""The first and the last second that a Timestamp may have."""
_VIOLATIONS_BYTES = 1200
"""About so many bytes of an error may tell of violations: it travels in headers, of which gRPC takes 8 KiB in all."""


class Checks:
    """Collects the violations of one request."""

    def __init__(self) -> None:
        self._violations: list[Violation] = []
        self._room = _VIOLATIONS_BYTES
        self._more = 0

    def add(self, field: str, description: str) -> None:
        """Note that a field breaks a rule."""
        size = len(field.encode()) + len(description.encode())
        if self._violations and size > self._room:
            self._more += 1
            return
        self._room -= size
        self._violations.append(Violation(field=field, description=description))

    def done(self) -> None:
        """Raise the error that tells of the violations, if there are any, and of the first ones of very many.

        :raises ApiError: INVALID_ARGUMENT.
        """
        if self._violations:
            raise invalid_request(self._violations, more=self._more)

    def integer(self, field: str, value: int, least: int, most: int) -> None:
        """Check that a number lies between two bounds, both allowed."""
        if not least <= value <= most:
            self.add(field, f"must be from {least} to {most}, is {value}")

    def duration(self, field: str, value: Duration, least: float, most: float) -> None:
        """Check that a duration lies between two bounds in seconds: above the least, up to the most."""
        if abs(value.nanos) >= 10**9 or value.seconds * value.nanos < 0:
            self.add(field, "must have nanos of less than a second, and of the sign of its seconds")
            return
        seconds = value.seconds + value.nanos / 1e9
        if not (least <= seconds <= most and seconds > 0):
            bound = f"at least {least:g} s" if least else "more than 0 s"
            self.add(field, f"must be {bound} and at most {most:.12g} s, is {seconds:.12g} s")

    def time(self, field: str, value: Timestamp) -> bool:
        """Check that a moment is one, and tell whether it is."""
        good = FIRST_SECOND <= value.seconds <= LAST_SECOND and 0 <= value.nanos < 10**9
        if not good:
            self.add(field, "must be from the year 1 to the year 9999, with 0 to 999999999 nanos")
        return good

    def time_range(self, field: str, value: invocation_pb2.TimeRange) -> None:
        """Check that a range of times has bounds that are times, and that it starts before it ends."""
        moments = []
        for name in ("start_time", "end_time"):
            if value.HasField(name):
                moment: Timestamp = getattr(value, name)
                if self.time(f"{field}.{name}", moment):
                    moments.append((moment.seconds, moment.nanos))
        if len(moments) == 2 and moments[0] >= moments[1]:
            self.add(field, "must start before it ends")

    def text(self, field: str, value: str, most: int) -> None:
        """Check that a text is printable and not too long."""
        if len(value) > most:
            self.add(field, f"must have at most {most} characters, has {len(value)}")
        elif not value.isprintable():
            self.add(field, "must have printable characters only")

    def content(self, field: str, value: str, most: int) -> None:
        """Check that a text which a program is given is not too long and has no NUL, which would end it."""
        if len(value) > most:
            self.add(field, f"must have at most {most} characters, has {len(value)}")
        elif "\0" in value:
            self.add(field, "must not have NUL in it")

    def request_id(self, value: str) -> None:
        """Check the id of the caller's choice that makes a call idempotent; empty where there is none."""
        self.text("request_id", value, limits.MAX_REQUEST_ID)
        if value.isprintable() and not value.isascii():
            self.add("request_id", "must have ASCII characters only")

    def call_id(self, field: str, value: str) -> None:
        """Check what shows which calls belong together; empty where there is none."""
        if len(value) > limits.MAX_CALL_ID:
            self.add(field, f"must have at most {limits.MAX_CALL_ID} characters, has {len(value)}")
        elif value and not _CALL_ID.fullmatch(value):
            self.add(field, "must have printable ASCII characters only, and no spaces")

    def headers(self, field: str, headers: Sequence[payload_pb2.Header]) -> None:
        """Check the names, values and size of HTTP headers."""
        pairs = [(header.name, header.value) for header in headers]
        size = sum([len(name) + len(value.encode()) for name, value in pairs])
        if size > limits.MAX_HEADERS_SIZE:
            self.add(field, f"must have at most {limits.MAX_HEADERS_SIZE} bytes in all, have {size}")
        for index, (name, value) in enumerate(pairs):
            broken = _rule_of_known(name) if len(name) <= _KNOWN_LENGTH else _rule_of_header(name)
            if broken:
                self.add(f"{field}[{index}].name", f"{shown(name)} {broken}")
            # What is printable, as most is, has none of these; that is known in a tenth of the time.
            if not value.isprintable() and _BREAK.search(value):
                self.add(f"{field}[{index}].value", "must not have line breaks or NUL in it")

    def labels(self, field: str, labels: Mapping[str, str]) -> None:
        """Check the keys and values of labels."""
        for key, value in labels.items():
            self._key(field, key, limits.MAX_LABEL_KEY)
            if len(value) > limits.MAX_LABEL_VALUE:
                self.add(entry(field, key), f"must have a value of at most {limits.MAX_LABEL_VALUE} characters")
            elif _CONTROL.search(value):
                self.add(entry(field, key), "must not have control characters in its value")

    def annotations(self, field: str, annotations: Mapping[str, str]) -> None:
        """Check the keys and values of annotations, which may be texts of several lines."""
        for key, value in annotations.items():
            self._key(field, key, limits.MAX_ANNOTATION_KEY)
            if len(value) > limits.MAX_ANNOTATION_VALUE:
                self.add(entry(field, key), f"must have a value of at most {limits.MAX_ANNOTATION_VALUE} characters")
            elif _CONTROL.search(value.translate(_LINES)):
                self.add(entry(field, key), "must not have control characters but tabs and line breaks in its value")

    def _key(self, field: str, key: str, most: int) -> None:
        if not 1 <= len(key) <= most:
            self.add(entry(field, key), f"must have a key of 1 to {most} characters")
        elif not key.isprintable():
            self.add(entry(field, key), "must have a key of printable characters")

    def command(self, field: str, command: function_pb2.Command) -> None:
        """Check that a command names a program, and its arguments."""
        if not command.args or not command.args[0]:
            self.add(f"{field}.args", "must name a program")
        for index, argument in enumerate(command.args):
            self.content(f"{field}.args[{index}]", argument, limits.MAX_ARGUMENT)

    def url(self, field: str, url: str, guard: Guard) -> None:
        """Check that a URL is not too long and may lead where it says that it does."""
        if len(url) > limits.MAX_URL:
            self.add(field, f"must have at most {limits.MAX_URL} characters, has {len(url)}")
            return
        try:
            guard.check_url(url)
        except ForbiddenTargetError as error:
            self.add(field, str(error))

    def function_names(self, field: str, names: Sequence[str]) -> None:
        """Check the names of functions."""
        for index, name in enumerate(names):
            if not limits.FUNCTION_NAME.fullmatch(name):
                self.add(f"{field}[{index}]", f"{shown(name)} is not the name of a function")

    def function_name(self, field: str, name: str) -> None:
        """Check the name of a function."""
        if not limits.FUNCTION_NAME.fullmatch(name):
            self.add(field, f"must match {limits.FUNCTION_NAME.pattern}, is {shown(name)}")

    def destinations(self, field: str, destinations: Sequence[policy_pb2.Destination], guard: Guard) -> None:
        """Check destinations, each as far as can be told by itself."""
        for number, destination in enumerate(destinations):
            try:
                check_destination(destination.uri, guard)
            except DestinationError as error:
                self.add(f"{field}[{number}].uri", str(error))

    def secret_name(self, field: str, name: str) -> None:
        """Check the name of a secret."""
        if not limits.SECRET_NAME.fullmatch(name):
            self.add(field, f"must match {limits.SECRET_NAME.pattern}, is {shown(name)}")


def _rule_of_header(name: str) -> str:
    """Return which rule the name of a header breaks; empty where it breaks none."""
    lower = name.lower()
    if not _HEADER_NAME.fullmatch(name):
        return "is not a valid header name"
    if lower in _RESERVED_HEADERS or lower.startswith("x-homing-"):
        return "is set by homing itself"
    if lower == "proxy":
        return "is not passed on: functions would take it for their own proxy"
    return ""


_rule_of_known: Final = lru_cache(maxsize=1024)(_rule_of_header)
"""The same, for the few names that come again and again."""


def check_retry_policy(checks: Checks, field: str, policy: policy_pb2.RetryPolicy) -> None:
    """Check a retry policy."""
    if policy.HasField("max_attempts"):
        checks.integer(f"{field}.max_attempts", policy.max_attempts, 1, limits.MAX_ATTEMPTS)
    if policy.HasField("initial_backoff"):
        checks.duration(f"{field}.initial_backoff", policy.initial_backoff, 0, limits.MAX_BACKOFF)
    if policy.HasField("max_backoff"):
        checks.duration(f"{field}.max_backoff", policy.max_backoff, 0, limits.MAX_BACKOFF)
    if policy.HasField("max_retry_after"):
        checks.duration(f"{field}.max_retry_after", policy.max_retry_after, 0, limits.MAX_BACKOFF)
    if policy.HasField("backoff_multiplier") and not 1 <= policy.backoff_multiplier <= 100:
        checks.add(f"{field}.backoff_multiplier", f"must be from 1 to 100, is {policy.backoff_multiplier:.12g}")
    for index, code in enumerate(policy.retry_status_codes):
        checks.integer(f"{field}.retry_status_codes[{index}]", code, 300, 599)


def check_spec(checks: Checks, spec: invocation_pb2.InvocationSpec, *, sync: bool, now_us: int, guard: Guard) -> None:
    """Check what a caller asks to run, whether its function exists apart.

    :param guard: Decides where its outcome may be delivered to.
    """
    checks.function_name("spec.function", spec.function)
    check_payload(checks, "spec.payload", spec.payload)
    if spec.HasField("http"):
        _check_http(checks, spec.http)
    checks.labels("spec.labels", spec.labels)
    checks.call_id("spec.call_id", spec.call_id)
    if spec.HasField("retry_policy"):
        check_retry_policy(checks, "spec.retry_policy", spec.retry_policy)
    if spec.HasField("attempt_timeout"):
        checks.duration("spec.attempt_timeout", spec.attempt_timeout, 0, limits.MAX_ATTEMPT_TIMEOUT)
    if spec.HasField("max_age"):
        checks.duration("spec.max_age", spec.max_age, limits.MIN_MAX_AGE, limits.MAX_MAX_AGE)
    if spec.HasField("callback"):
        _check_callback(checks, spec.callback, guard)
    checks.destinations("spec.on_success", spec.on_success, guard)
    checks.destinations("spec.on_failure", spec.on_failure, guard)
    if sync:
        for name in ("schedule_time", "delay", "callback", "max_age"):
            if spec.HasField(name):
                checks.add(f"spec.{name}", "is for asynchronous invocations only")
        for name in ("on_success", "on_failure"):
            if getattr(spec, name):
                checks.add(f"spec.{name}", "is for asynchronous invocations only")
    if spec.HasField("schedule_time"):
        _check_schedule(checks, spec.schedule_time, now_us)
    if spec.HasField("delay"):
        # None is a delay too: it starts at once.
        if spec.delay != Duration():
            checks.duration("spec.delay", spec.delay, 0, limits.MAX_DELAY)
        if spec.HasField("schedule_time"):
            checks.add("spec.delay", "cannot be given together with schedule_time")


def check_function(checks: Checks, function: function_pb2.Function, *, urls: Guard, deliveries: Guard) -> None:
    """Check a function that shall be deployed.

    :param urls: Decides where it may be, if it is a URL.
    :param deliveries: Decides where the outcomes of its invocations may be delivered to.
    """
    checks.function_name("function.name", function.name)
    match function.WhichOneof("source"):
        case "image":
            if not function.image or len(function.image) > 512 or not function.image.isprintable():
                checks.add("function.image", "must be the name of an image, of 1 to 512 printable characters")
        case "command":
            checks.command("function.command", function.command)
        case "http_command":
            checks.command("function.http_command", function.http_command)
        case "url":
            checks.url("function.url", function.url, urls)
            if "?" in function.url or "#" in function.url:
                checks.add("function.url", "must not have a query or a fragment; calls bring their own")
        case _:
            checks.add("function", "must have one source: image, command, http_command or url")
    for name, value in function.env.items():
        field = entry("function.env", name)
        if len(name) > limits.MAX_ENV_NAME or not _ENV_NAME.fullmatch(name):
            rule = f"must have a name of at most {limits.MAX_ENV_NAME} characters that matches {_ENV_NAME.pattern}"
            checks.add(field, rule)
        checks.content(field, value, limits.MAX_ENV_VALUE)
    checks.labels("function.labels", function.labels)
    checks.annotations("function.annotations", function.annotations)
    _check_secrets(checks, function)
    checks.destinations("function.on_success", function.on_success, deliveries)
    checks.destinations("function.on_failure", function.on_failure, deliveries)
    if function.HasField("retention"):
        checks.duration("function.retention", function.retention, limits.MIN_RETENTION, limits.MAX_RETENTION)
    if function.limits.memory_bytes and function.limits.memory_bytes < limits.MIN_MEMORY:
        checks.add("function.limits.memory_bytes", f"must be 0 or at least {limits.MIN_MEMORY}")
    checks.integer("function.limits.cpu_millis", function.limits.cpu_millis, 0, 1_000_000)
    checks.integer("function.limits.pids", function.limits.pids, 0, 1_000_000)
    checks.integer("function.concurrency", function.concurrency, 0, limits.MAX_CONCURRENCY)
    check_instances(checks, function, field="function.")
    if function.HasField("idle_timeout"):
        checks.duration(
            "function.idle_timeout", function.idle_timeout, limits.MIN_IDLE_TIMEOUT, limits.MAX_IDLE_TIMEOUT
        )
    check_retry_policy(checks, "function.retry_policy", function.retry_policy)
    if function.HasField("attempt_timeout"):
        checks.duration("function.attempt_timeout", function.attempt_timeout, 0, limits.MAX_ATTEMPT_TIMEOUT)
    if function.HasField("max_age"):
        checks.duration("function.max_age", function.max_age, limits.MIN_MAX_AGE, limits.MAX_MAX_AGE)
    size = function.ByteSize()
    if size > limits.MAX_FUNCTION:
        checks.add("function", f"must have at most {limits.MAX_FUNCTION} bytes (256 KiB) in all, has {size}")


def _check_secrets(checks: Checks, function: function_pb2.Function) -> None:
    """Check the secrets that a function names, whether they exist apart."""
    names = function.secrets
    if names and function.WhichOneof("source") == "url":
        checks.add("function.secrets", "are for images and commands only: what a URL leads to runs elsewhere")
    for index, name in enumerate(names):
        checks.secret_name(f"function.secrets[{index}]", name)
    if len(set(names)) < len(names):
        checks.add("function.secrets", "must not name a secret twice")


def check_instances(checks: Checks, function: function_pb2.Function, *, field: str = "") -> None:
    """Check how many instances of a function each worker shall keep and start.

    :param field: What goes before the names of the bounds.
    """
    checks.integer(f"{field}max_instances", function.max_instances, 0, limits.MAX_INSTANCES)
    most = function.max_instances or limits.DEFAULT_MAX_INSTANCES
    checks.integer(f"{field}min_instances", function.min_instances, 0, max(0, most))


def check_payload(checks: Checks, field: str, payload: payload_pb2.Payload) -> None:
    """Check the body of a request to a function."""
    checks.text(f"{field}.content_type", payload.content_type, 255)
    if payload.WhichOneof("body") == "blob":
        if not payload.blob.id:
            checks.add(f"{field}.blob.id", "must not be empty")
    elif len(payload.data) > limits.MAX_INLINE_PAYLOAD:
        checks.add(
            f"{field}.data",
            f"must have at most {limits.MAX_INLINE_PAYLOAD} bytes (256 KiB), has {len(payload.data)};"
            " a larger body goes by WritePayload",
        )


def _check_callback(checks: Checks, callback: policy_pb2.Callback, guard: Guard) -> None:
    checks.url("spec.callback.url", callback.url, guard)
    checks.headers("spec.callback.headers", callback.headers)
    for index, header in enumerate(callback.headers):
        if header.name.lower().startswith("webhook-"):
            checks.add(f"spec.callback.headers[{index}].name", f"{shown(header.name)} is set by homing itself")


def _check_http(checks: Checks, http: payload_pb2.HttpOptions) -> None:
    if http.method and not _METHOD.fullmatch(http.method):
        checks.add("spec.http.method", f"must be 1 to 16 capital letters, is {shown(http.method)}")
    checks.text("spec.http.path", http.path, limits.MAX_URL)
    if http.path and not http.path.startswith("/"):
        checks.add("spec.http.path", "must start with '/'")
    checks.text("spec.http.query", http.query, limits.MAX_URL)
    checks.headers("spec.http.headers", http.headers)


def _check_schedule(checks: Checks, schedule_time: Timestamp, now_us: int) -> None:
    if not checks.time("spec.schedule_time", schedule_time):
        return
    if (schedule_time.ToMicroseconds() - now_us) / 1e6 > limits.MAX_DELAY:
        checks.add("spec.schedule_time", f"must be at most {limits.MAX_DELAY / _DAY_SECONDS:g} days ahead")
