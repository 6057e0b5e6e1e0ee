"""What a fake server refuses, as a real one does: fields that break a rule, named with their limits.

Where deliveries may go is for operators to say, so hosts and ports are not looked at here.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence, Sized
from typing import Final
from urllib.parse import urlsplit

from google.protobuf.duration_pb2 import Duration

from homing._core.destinations import MAX_DESTINATIONS, destination_messages
from homing._core.payload import MAX_INLINE
from homing.errors import InvalidRequestError
from homing.testing._refusal import invalid_request
from homing.v1 import function_pb2, invocation_pb2, payload_pb2, policy_pb2

_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_ENV: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_METHOD: Final = re.compile(r"[A-Z]{1,16}")
_SECRET: Final = re.compile(r"[a-z0-9]([-a-z0-9._]{0,61}[a-z0-9])?")
_RESERVED: Final = frozenset(
    {"connection", "content-length", "content-type", "expect", "host", "keep-alive", "proxy-authenticate"}
    | {"proxy-authorization", "proxy-connection", "te", "trailer", "traceparent", "transfer-encoding", "upgrade"}
    | {"x-call-id", "x-start-time"}
)
_CALL_ID: Final = re.compile(r"[!-~]+")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_LINES: Final = str.maketrans(dict.fromkeys("\t\n\r"))
_ASYNC_ONLY: Final = frozenset({"schedule_time", "delay", "callback", "max_age", "on_success", "on_failure"})
_DAY: Final = 24 * 3600.0
_MAX_URL: Final = 2048
_MAX_HEADERS: Final = 64
_MAX_HEADERS_SIZE: Final = 16 * 1024
_MAX_LABELS: Final = 16
_MAX_ANNOTATIONS: Final = 64
_MAX_ENV: Final = 256
_MAX_ARGUMENTS: Final = 1000
_MAX_TEXT: Final = 64 * 1024
"""Characters of an argument, of the value of a variable or of that of an annotation."""
_MAX_STATUS_CODES: Final = 300
_MAX_FUNCTION: Final = 256 * 1024
_MAX_SECRETS: Final = 32
_FIRST_SECOND: Final = -62_135_596_800
_LAST_SECOND: Final = 253_402_300_799
_MIN_MEMORY: Final = 6 * 1024 * 1024
_DEFAULT_MAX_INSTANCES: Final = 4


class Rules:
    """Collects the fields of a request that break a rule."""

    def __init__(self) -> None:
        self._broken: list[tuple[str, str]] = []

    def add(self, field: str, description: str) -> None:
        """Note one."""
        self._broken.append((field, description))

    def done(self) -> None:
        """End the call where there is one.

        :raises Refusal: There is.
        """
        if self._broken:
            raise invalid_request(self._broken)

    def count(self, field: str, entries: Sized, most: int) -> None:
        """Check how many entries a list or a map has."""
        if len(entries) > most:
            self.add(field, f"must be at most {most}, are {len(entries)}")

    def name(self, field: str, name: str) -> None:
        """Check the name of a function."""
        if not _NAME.fullmatch(name):
            self.add(field, f"must match {_NAME.pattern}, is {name!r}")

    def integer(self, field: str, value: int, least: int, most: int) -> None:
        """Check that a number lies between two bounds."""
        if not least <= value <= most:
            self.add(field, f"must be from {least} to {most}, is {value}")

    def duration(self, field: str, value: Duration, least: float, most: float) -> None:
        """Check that a duration lies between two bounds, above the least where that is 0."""
        if abs(value.nanos) >= 10**9 or value.seconds * value.nanos < 0:
            self.add(field, "must have nanos of less than a second, and of the sign of its seconds")
            return
        seconds = value.seconds + value.nanos / 1e9
        if not (least <= seconds <= most and seconds > 0):
            bound = f"at least {least:g} s" if least else "more than 0 s"
            self.add(field, f"must be {bound} and at most {most:.12g} s, is {seconds:.12g} s")

    def text(self, field: str, value: str, most: int) -> None:
        """Check that a text is printable and not too long."""
        if len(value) > most:
            self.add(field, f"must have at most {most} characters, has {len(value)}")
        elif not value.isprintable():
            self.add(field, "must have printable characters only")

    def content(self, field: str, value: str) -> None:
        """Check that a text which a program is given is not too long and has no NUL."""
        if len(value) > _MAX_TEXT:
            self.add(field, f"must have at most {_MAX_TEXT} characters, has {len(value)}")
        elif "\0" in value:
            self.add(field, "must not have NUL in it")

    def request_id(self, value: str) -> None:
        """Check the id that makes a call idempotent."""
        self.text("request_id", value, 128)
        if value.isprintable() and not value.isascii():
            self.add("request_id", "must have ASCII characters only")

    def call_id(self, field: str, value: str) -> None:
        """Check what shows which calls belong together."""
        if len(value) > 128:
            self.add(field, f"must have at most 128 characters, has {len(value)}")
        elif value and not _CALL_ID.fullmatch(value):
            self.add(field, "must have printable ASCII characters only, and no spaces")

    def url(self, field: str, url: str) -> None:
        """Check that a URL is absolute, and can be read in one way only."""
        try:
            parts = urlsplit(url)
            good = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            good = False
        if len(url) > _MAX_URL:
            self.add(field, f"must have at most {_MAX_URL} characters, has {len(url)}")
        elif not url.startswith(("http://", "https://")):
            self.add(field, "must begin with http:// or https://")
        elif not good or not url.isprintable() or any(character in url for character in " \\#"):
            self.add(field, "must be an absolute http or https URL")
        elif "@" in parts.netloc:
            self.add(field, "must not have a user name or password in it")

    def headers(self, field: str, headers: Sequence[payload_pb2.Header]) -> None:
        """Check HTTP headers."""
        size = sum(len(header.name) + len(header.value.encode()) for header in headers)
        if size > _MAX_HEADERS_SIZE:
            self.add(field, f"must have at most {_MAX_HEADERS_SIZE} bytes in all, have {size}")
        for place, header in enumerate(headers):
            name = header.name.lower()
            if not _HEADER.fullmatch(name):
                self.add(f"{field}[{place}].name", f"{header.name!r} is not a valid header name")
            elif name in _RESERVED or name.startswith("x-homing-"):
                self.add(f"{field}[{place}].name", f"{header.name!r} is set by homing itself")
            elif name == "proxy":
                rule = f"{header.name!r} is not passed on: functions would take it for their own proxy"
                self.add(f"{field}[{place}].name", rule)
            if any(character in header.value for character in "\r\n\0"):
                self.add(f"{field}[{place}].value", "must not have line breaks or NUL in it")

    def labels(self, field: str, labels: Mapping[str, str]) -> None:
        """Check labels."""
        for key, value in labels.items():
            self._key(field, key, 63)
            if len(value) > 255:
                self.add(_entry(field, key), "must have a value of at most 255 characters")
            elif _CONTROL.search(value):
                self.add(_entry(field, key), "must not have control characters in its value")

    def annotations(self, field: str, annotations: Mapping[str, str]) -> None:
        """Check annotations, which may be texts of several lines."""
        for key, value in annotations.items():
            self._key(field, key, 255)
            if len(value) > _MAX_TEXT:
                self.add(_entry(field, key), f"must have a value of at most {_MAX_TEXT} characters")
            elif _CONTROL.search(value.translate(_LINES)):
                self.add(_entry(field, key), "must not have control characters but tabs and line breaks in its value")

    def _key(self, field: str, key: str, most: int) -> None:
        if not 1 <= len(key) <= most:
            self.add(_entry(field, key), f"must have a key of 1 to {most} characters")
        elif not key.isprintable():
            self.add(_entry(field, key), "must have a key of printable characters")

    def env(self, field: str, env: Mapping[str, str]) -> None:
        """Check environment variables."""
        for name, value in env.items():
            if len(name) > 255 or not _ENV.fullmatch(name):
                rule = f"must have a name of at most 255 characters that matches {_ENV.pattern}"
                self.add(_entry(field, name), rule)
            self.content(_entry(field, name), value)

    def secrets(self, field: str, names: Sequence[str]) -> None:
        """Check the names of secrets, whether they exist apart."""
        for place, name in enumerate(names):
            if not _SECRET.fullmatch(name):
                self.add(f"{field}[{place}]", f"must match {_SECRET.pattern}, is {name!r}")
        if len(set(names)) < len(names):
            self.add(field, "must not name a secret twice")

    def retry_policy(self, field: str, policy: policy_pb2.RetryPolicy) -> None:
        """Check a retry policy."""
        if policy.HasField("max_attempts"):
            self.integer(f"{field}.max_attempts", policy.max_attempts, 1, 100)
        for name in ("initial_backoff", "max_backoff", "max_retry_after"):
            if policy.HasField(name):
                self.duration(f"{field}.{name}", getattr(policy, name), 0, _DAY)
        if policy.HasField("backoff_multiplier") and not 1 <= policy.backoff_multiplier <= 100:
            self.add(f"{field}.backoff_multiplier", f"must be from 1 to 100, is {policy.backoff_multiplier:.12g}")
        for place, code in enumerate(policy.retry_status_codes):
            self.integer(f"{field}.retry_status_codes[{place}]", code, 300, 599)

    def destinations(self, field: str, destinations: Sequence[policy_pb2.Destination]) -> None:
        """Check where envelopes are to go."""
        for place, destination in enumerate(destinations):
            where = f"{field}[{place}].uri"
            if destination.uri.startswith(("http://", "https://")):
                self.url(where, destination.uri)
                continue
            try:
                destination_messages("", destination.uri)
            except InvalidRequestError as error:
                self.add(where, error.violations[0].description)


def _entry(field: str, key: str) -> str:
    """Return the path of an entry of a map, as servers write it."""
    return f"{field}[{json.dumps(key)}]" if len(key) <= 64 else field


def check_spec(spec: invocation_pb2.InvocationSpec, *, sync: bool = False, request_id: str = "") -> None:
    """Check what is to be run, whether there is such a function apart.

    :raises Refusal: It breaks a rule.
    """
    rules = Rules()
    # As a server does, before it looks at anything else.
    rules.count("spec.labels", spec.labels, _MAX_LABELS)
    rules.count("spec.http.headers", spec.http.headers, _MAX_HEADERS)
    rules.count("spec.callback.headers", spec.callback.headers, _MAX_HEADERS)
    _count_of_both(rules, "spec", spec)
    rules.done()
    rules.request_id(request_id)
    rules.name("spec.function", spec.function)
    _check_payload(rules, "spec.payload", spec.payload)
    _check_http(rules, spec.http)
    rules.labels("spec.labels", spec.labels)
    rules.call_id("spec.call_id", spec.call_id)
    rules.retry_policy("spec.retry_policy", spec.retry_policy)
    if spec.HasField("attempt_timeout"):
        rules.duration("spec.attempt_timeout", spec.attempt_timeout, 0, _DAY)
    if spec.HasField("max_age"):
        rules.duration("spec.max_age", spec.max_age, 1, 30 * _DAY)
    if sync:
        for field, _ in spec.ListFields():
            if field.name in _ASYNC_ONLY:
                rules.add(f"spec.{field.name}", "is for asynchronous invocations only")
    _check_schedule(rules, spec)
    if spec.HasField("callback"):
        _check_callback(rules, spec.callback)
    rules.destinations("spec.on_success", spec.on_success)
    rules.destinations("spec.on_failure", spec.on_failure)
    rules.done()


def check_function(function: function_pb2.Function) -> None:
    """Check a function that is to be deployed.

    :raises Refusal: It breaks a rule.
    """
    rules = Rules()
    rules.count("function.command.args", function.command.args, _MAX_ARGUMENTS)
    rules.count("function.http_command.args", function.http_command.args, _MAX_ARGUMENTS)
    rules.count("function.env", function.env, _MAX_ENV)
    rules.count("function.labels", function.labels, _MAX_LABELS)
    rules.count("function.annotations", function.annotations, _MAX_ANNOTATIONS)
    rules.count("function.secrets", function.secrets, _MAX_SECRETS)
    _count_of_both(rules, "function", function)
    rules.done()
    rules.name("function.name", function.name)
    _check_source(rules, function)
    rules.env("function.env", function.env)
    rules.labels("function.labels", function.labels)
    rules.annotations("function.annotations", function.annotations)
    rules.secrets("function.secrets", function.secrets)
    rules.destinations("function.on_success", function.on_success)
    rules.destinations("function.on_failure", function.on_failure)
    if 0 < function.limits.memory_bytes < _MIN_MEMORY:
        rules.add("function.limits.memory_bytes", f"must be 0 or at least {_MIN_MEMORY}")
    rules.integer("function.limits.cpu_millis", function.limits.cpu_millis, 0, 1_000_000)
    rules.integer("function.limits.pids", function.limits.pids, 0, 1_000_000)
    rules.integer("function.concurrency", function.concurrency, 0, 1000)
    _check_instances(rules, "function.", function)
    for name, least, most in (
        ("retention", 60, 365 * _DAY),
        ("idle_timeout", 1, _DAY),
        ("attempt_timeout", 0, _DAY),
        ("max_age", 1, 30 * _DAY),
    ):
        if function.HasField(name):  # type: ignore[arg-type]  # they are fields of it
            rules.duration(f"function.{name}", getattr(function, name), least, most)
    rules.retry_policy("function.retry_policy", function.retry_policy)
    if (size := function.ByteSize()) > _MAX_FUNCTION:
        rules.add("function", f"must have at most {_MAX_FUNCTION} bytes (256 KiB) in all, has {size}")
    rules.done()


def check_scale(function: function_pb2.Function) -> None:
    """Check the bounds of the number of instances.

    :raises Refusal: They break a rule.
    """
    rules = Rules()
    _check_instances(rules, "", function)
    rules.done()


def _count_of_both(rules: Rules, field: str, value: invocation_pb2.InvocationSpec | function_pb2.Function) -> None:
    rules.count(f"{field}.retry_policy.retry_status_codes", value.retry_policy.retry_status_codes, _MAX_STATUS_CODES)
    rules.count(f"{field}.on_success", value.on_success, MAX_DESTINATIONS)
    rules.count(f"{field}.on_failure", value.on_failure, MAX_DESTINATIONS)


def _check_source(rules: Rules, function: function_pb2.Function) -> None:
    match function.WhichOneof("source"):
        case "image":
            if not function.image or len(function.image) > 512 or not function.image.isprintable():
                rules.add("function.image", "must be the name of an image, of 1 to 512 printable characters")
        case "command":
            _check_command(rules, "function.command", function.command)
        case "http_command":
            _check_command(rules, "function.http_command", function.http_command)
        case "url":
            rules.url("function.url", function.url)
            if "?" in function.url:
                rules.add("function.url", "must not have a query or a fragment; calls bring their own")
            if function.secrets:
                rules.add("function.secrets", "are for images and commands only: what a URL leads to runs elsewhere")
        case _:
            rules.add("function", "must have one source: image, command, http_command or url")


def _check_command(rules: Rules, field: str, command: function_pb2.Command) -> None:
    if not command.args or not command.args[0]:
        rules.add(f"{field}.args", "must name a program")
    for place, argument in enumerate(command.args):
        rules.content(f"{field}.args[{place}]", argument)


def _check_instances(rules: Rules, prefix: str, function: function_pb2.Function) -> None:
    rules.integer(f"{prefix}max_instances", function.max_instances, 0, 100)
    most = function.max_instances or _DEFAULT_MAX_INSTANCES
    rules.integer(f"{prefix}min_instances", function.min_instances, 0, max(0, most))


def _check_schedule(rules: Rules, spec: invocation_pb2.InvocationSpec) -> None:
    if spec.delay != Duration():  # none is a delay too
        rules.duration("spec.delay", spec.delay, 0, 30 * _DAY)
    if not spec.HasField("schedule_time"):
        return
    if spec.HasField("delay"):
        rules.add("spec.delay", "cannot be given together with schedule_time")
    moment = spec.schedule_time
    if not (_FIRST_SECOND <= moment.seconds <= _LAST_SECOND and 0 <= moment.nanos < 10**9):
        rules.add("spec.schedule_time", "must be from the year 1 to the year 9999, with 0 to 999999999 nanos")
    elif moment.ToMicroseconds() / 1e6 - time.time() > 30 * _DAY:
        rules.add("spec.schedule_time", "must be at most 30 days ahead")


def _check_callback(rules: Rules, callback: policy_pb2.Callback) -> None:
    rules.url("spec.callback.url", callback.url)
    rules.headers("spec.callback.headers", callback.headers)
    for place, header in enumerate(callback.headers):
        if header.name.lower().startswith("webhook-"):
            rules.add(f"spec.callback.headers[{place}].name", f"{header.name!r} is set by homing itself")


def _check_payload(rules: Rules, field: str, payload: payload_pb2.Payload) -> None:
    rules.text(f"{field}.content_type", payload.content_type, 255)
    if payload.WhichOneof("body") == "blob" and not payload.blob.id:
        rules.add(f"{field}.blob.id", "must not be empty")
    if len(payload.data) > MAX_INLINE:
        rules.add(f"{field}.data", f"must have at most {MAX_INLINE} bytes (256 KiB), has {len(payload.data)}")


def _check_http(rules: Rules, http: payload_pb2.HttpOptions) -> None:
    if http.method and not _METHOD.fullmatch(http.method):
        rules.add("spec.http.method", f"must be 1 to 16 capital letters, is {http.method!r}")
    rules.text("spec.http.path", http.path, _MAX_URL)
    if http.path and not http.path.startswith("/"):
        rules.add("spec.http.path", "must start with '/'")
    rules.text("spec.http.query", http.query, _MAX_URL)
    rules.headers("spec.http.headers", http.headers)
