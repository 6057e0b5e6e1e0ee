"""Every bad field is refused with its path and its limit."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from homing.v1 import function_pb2, invocation_pb2, payload_pb2, policy_pb2
from homing_core import limits
from homing_core.guard import Guard
from homing_server.errors import ApiError, Code
from homing_server.rules.validation import Checks, check_function, check_instances, check_spec
from support.http_headers import headers_of
from support.store import LOOPBACK_GUARD

Spec = invocation_pb2.InvocationSpec
Function = function_pb2.Function

NOW = 1_700_000_000
DAY = 24 * 3600


def spec(**fields: object) -> Spec:
    return Spec(**{"function": "resize", **fields})  # type: ignore[arg-type]


def function(**fields: object) -> Function:
    fields.setdefault("name", "resize")
    if not {"image", "command", "url"} & fields.keys():
        fields["image"] = "resize:1"
    return Function(**fields)  # type: ignore[arg-type]


GUARD = Guard(exchanges=["orders", "fanout", "/queue", "x" * 128])


def check_of_spec(value: Spec, *, sync: bool = False) -> None:
    checks = Checks()
    check_spec(checks, value, sync=sync, now_us=NOW * 1_000_000, guard=GUARD)
    checks.done()


def check_of_function(value: Function) -> None:
    checks = Checks()
    check_function(checks, value, urls=LOOPBACK_GUARD, deliveries=GUARD)
    checks.done()


def violations(call: Callable[[], None]) -> dict[str, str]:
    with pytest.raises(ApiError) as caught:
        call()
    error = caught.value
    assert (error.code, error.reason) == (Code.INVALID_ARGUMENT, "INVALID_REQUEST")
    for violation in error.violations:
        assert f"{violation.field}: {violation.description}" in error.message
    return {violation.field: violation.description for violation in error.violations}


def seconds(value: float) -> Duration:
    return Duration(seconds=int(value), nanos=round(value % 1 * 1e9))


def http(*, headers: Mapping[str, str] | None = None, **fields: object) -> Spec:
    return spec(http=payload_pb2.HttpOptions(headers=headers_of(headers or {}), **fields))  # type: ignore[arg-type]


def policy(**fields: object) -> policy_pb2.RetryPolicy:
    return policy_pb2.RetryPolicy(**fields)  # type: ignore[arg-type]


def data(size: int) -> payload_pb2.Payload:
    return payload_pb2.Payload(data=bytes(size))


NAME = limits.FUNCTION_NAME.pattern


def to(*uris: str) -> Spec:
    return spec(on_success=[policy_pb2.Destination(uri=uri) for uri in uris])


def callback(url: str, **headers: str) -> Spec:
    return spec(callback=policy_pb2.Callback(url=url, headers=headers_of(headers)))


NAME_RULE = f"must match {limits.FUNCTION_NAME.pattern}"
TWO_LONG_LABELS = {"k" * 64: "", "v": "v" * 256}

bad_specs: list[tuple[Spec, str, str]] = [
    (spec(function=""), "spec.function", f"{NAME_RULE}, is ''"),
    (spec(function="Resize"), "spec.function", f"{NAME_RULE}, is 'Resize'"),
    (spec(function="a.b"), "spec.function", f"{NAME_RULE}, is 'a.b'"),
    (spec(function="-a"), "spec.function", NAME_RULE),
    (spec(function="a-"), "spec.function", NAME_RULE),
    (spec(function="a\n"), "spec.function", NAME_RULE),
    (spec(function="a" * 64), "spec.function", NAME_RULE),
    (spec(payload=data(256 * 1024 + 1)), "spec.payload.data", "must have at most 262144 bytes (256 KiB), has 262145"),
    (
        spec(payload=payload_pb2.Payload(blob=payload_pb2.Blob(size=1))),
        "spec.payload.blob.id",
        "must not be empty",
    ),
    (
        spec(payload=payload_pb2.Payload(content_type="t" * 256)),
        "spec.payload.content_type",
        "must have at most 255 characters, has 256",
    ),
    (
        spec(payload=payload_pb2.Payload(content_type="text/plain\r\nX: y")),
        "spec.payload.content_type",
        "must have printable characters only",
    ),
    (http(method="get"), "spec.http.method", "must be 1 to 16 capital letters, is 'get'"),
    (http(method="A" * 17), "spec.http.method", "must be 1 to 16 capital letters"),
    (http(path="thumbs"), "spec.http.path", "must start with '/'"),
    (http(path="/" + "a" * 2048), "spec.http.path", "must have at most 2048 characters, has 2049"),
    (http(path="/a\r\nX: y"), "spec.http.path", "must have printable characters only"),
    (http(query="q" * 2049), "spec.http.query", "must have at most 2048 characters, has 2049"),
    (http(headers={"bad name": "x"}), "spec.http.headers[0].name", "'bad name' is not a valid header name"),
    (http(headers={"": "x"}), "spec.http.headers[0].name", "'' is not a valid header name"),
    (
        http(headers={"Content-Length": "1"}),
        "spec.http.headers[0].name",
        "'Content-Length' is set by homing itself",
    ),
    (http(headers={"EXPECT": "100-continue"}), "spec.http.headers[0].name", "'EXPECT' is set by homing itself"),
    (
        http(headers={"Proxy-Connection": "x"}),
        "spec.http.headers[0].name",
        "'Proxy-Connection' is set by homing itself",
    ),
    (
        http(headers={"pRoxy": "http://attacker.example"}),
        "spec.http.headers[0].name",
        "'pRoxy' is not passed on: functions would take it for their own proxy",
    ),
    (
        http(headers={"X-Homing-Attempt": "1"}),
        "spec.http.headers[0].name",
        "'X-Homing-Attempt' is set by homing itself",
    ),
    (
        http(headers={"X": "a\r\nb"}),
        "spec.http.headers[0].value",
        "must not have line breaks or NUL in it",
    ),
    (
        http(headers={"X": "a" * 16384}),
        "spec.http.headers",
        "must have at most 16384 bytes in all, have 16385",
    ),
    (spec(labels={"": "x"}), 'spec.labels[""]', "must have a key of 1 to 63 characters"),
    (spec(labels={"k" * 64: "x"}), f'spec.labels["{"k" * 64}"]', "must have a key of 1 to 63 characters"),
    (spec(labels={"k": "v" * 256}), 'spec.labels["k"]', "must have a value of at most 255 characters"),
    (spec(labels={"a\0b": "x"}), 'spec.labels["a\\u0000b"]', "must have a key of printable characters"),
    (spec(labels={"a": "x\0"}), 'spec.labels["a"]', "must not have control characters in its value"),
    (spec(labels={"a": "\u2028"}), 'spec.labels["a"]', "must not have control characters in its value"),
    (spec(max_age=Duration(seconds=5, nanos=-1)), "spec.max_age", "of the sign of its seconds"),
    (spec(max_age=Duration(seconds=5, nanos=10**9)), "spec.max_age", "nanos of less than a second"),
    (spec(retry_policy=policy(max_attempts=0)), "spec.retry_policy.max_attempts", "must be from 1 to 100, is 0"),
    (spec(retry_policy=policy(max_attempts=101)), "spec.retry_policy.max_attempts", "must be from 1 to 100, is 101"),
    (
        spec(retry_policy=policy(initial_backoff=seconds(0))),
        "spec.retry_policy.initial_backoff",
        "must be more than 0 s and at most 86400 s, is 0 s",
    ),
    (
        spec(retry_policy=policy(max_backoff=seconds(DAY + 1))),
        "spec.retry_policy.max_backoff",
        "must be more than 0 s and at most 86400 s, is 86401 s",
    ),
    (
        spec(retry_policy=policy(max_retry_after=Duration(seconds=-1))),
        "spec.retry_policy.max_retry_after",
        "must be more than 0 s and at most 86400 s, is -1 s",
    ),
    (
        spec(retry_policy=policy(backoff_multiplier=0.5)),
        "spec.retry_policy.backoff_multiplier",
        "must be from 1 to 100, is 0.5",
    ),
    (
        spec(retry_policy=policy(backoff_multiplier=float("nan"))),
        "spec.retry_policy.backoff_multiplier",
        "must be from 1 to 100, is nan",
    ),
    (
        spec(retry_policy=policy(retry_status_codes=[503, 200])),
        "spec.retry_policy.retry_status_codes[1]",
        "must be from 300 to 599, is 200",
    ),
    (
        spec(attempt_timeout=Duration(seconds=-5)),
        "spec.attempt_timeout",
        "must be more than 0 s and at most 86400 s, is -5 s",
    ),
    (spec(attempt_timeout=Duration()), "spec.attempt_timeout", "must be more than 0 s and at most 86400 s, is 0 s"),
    (spec(attempt_timeout=seconds(DAY + 1)), "spec.attempt_timeout", "at most 86400 s, is 86401 s"),
    (spec(max_age=seconds(0.5)), "spec.max_age", "must be at least 1 s and at most 2592000 s, is 0.5 s"),
    (spec(max_age=seconds(31 * DAY)), "spec.max_age", "must be at least 1 s and at most 2592000 s"),
    (
        spec(schedule_time=Timestamp(seconds=NOW + 31 * DAY)),
        "spec.schedule_time",
        "must be at most 30 days ahead",
    ),
    (spec(delay=seconds(30 * DAY + 1)), "spec.delay", "must be more than 0 s and at most 2592000 s, is 2592001 s"),
    (spec(delay=seconds(-1)), "spec.delay", "must be more than 0 s and at most 2592000 s, is -1 s"),
    (
        spec(delay=seconds(1), schedule_time=Timestamp(seconds=NOW)),
        "spec.delay",
        "cannot be given together with schedule_time",
    ),
    (spec(schedule_time=Timestamp(seconds=10**13)), "spec.schedule_time", "must be from the year 1 to the year 9999"),
    (spec(schedule_time=Timestamp(seconds=NOW, nanos=-1)), "spec.schedule_time", "with 0 to 999999999 nanos"),
    (spec(schedule_time=Timestamp(seconds=NOW, nanos=10**9)), "spec.schedule_time", "with 0 to 999999999 nanos"),
    (
        spec(schedule_time=Timestamp(seconds=NOW + 30 * DAY, nanos=1000)),
        "spec.schedule_time",
        "must be at most 30 days ahead",
    ),
    (
        spec(retry_policy=policy(initial_backoff=seconds(DAY + 1))),
        "spec.retry_policy.initial_backoff",
        "must be more than 0 s and at most 86400 s, is 86401 s",
    ),
    (
        spec(retry_policy=policy(max_backoff=seconds(0))),
        "spec.retry_policy.max_backoff",
        "must be more than 0 s and at most 86400 s, is 0 s",
    ),
    (
        spec(retry_policy=policy(max_retry_after=seconds(DAY + 1))),
        "spec.retry_policy.max_retry_after",
        "must be more than 0 s and at most 86400 s, is 86401 s",
    ),
    (
        spec(retry_policy=policy(backoff_multiplier=100.5)),
        "spec.retry_policy.backoff_multiplier",
        "must be from 1 to 100, is 100.5",
    ),
    (
        spec(retry_policy=policy(retry_status_codes=[299])),
        "spec.retry_policy.retry_status_codes[0]",
        "must be from 300 to 599, is 299",
    ),
    (
        spec(retry_policy=policy(retry_status_codes=[600])),
        "spec.retry_policy.retry_status_codes[0]",
        "must be from 300 to 599, is 600",
    ),
    (http(headers={"X": "a\nb"}), "spec.http.headers[0].value", "must not have line breaks or NUL in it"),
    (http(headers={"Y": "", "X": "a\0b"}), "spec.http.headers[1].value", "must not have line breaks or NUL in it"),
    (spec(labels={"a": "\x1f"}), 'spec.labels["a"]', "must not have control characters in its value"),
    (spec(labels={"a": "\x7f"}), 'spec.labels["a"]', "must not have control characters in its value"),
    (spec(labels={"a": "\x9f"}), 'spec.labels["a"]', "must not have control characters in its value"),
    (spec(labels={"a": "\u2029"}), 'spec.labels["a"]', "must not have control characters in its value"),
    (
        spec(on_failure=[policy_pb2.Destination(uri="x")]),
        "spec.on_failure[0].uri",
        "must begin with https://, http://, function: or amqp:",
    ),
    (callback(""), "spec.callback.url", "must begin with http:// or https://"),
    (callback("/hook"), "spec.callback.url", "must begin with http:// or https://"),
    (callback("ftp://example.org"), "spec.callback.url", "must begin with http:// or https://"),
    (callback("http://"), "spec.callback.url", "has no host"),
    (callback("http://example.org:99999/"), "spec.callback.url", "cannot be read: Port out of range 0-65535"),
    (callback("http://[::1/"), "spec.callback.url", "cannot be read: Invalid IPv6 URL"),
    (
        callback("http://example.org/a b"),
        "spec.callback.url",
        "has a space, a control character or a backslash in it",
    ),
    (
        callback("http://example.org/\n"),
        "spec.callback.url",
        "has a space, a control character or a backslash in it",
    ),
    (callback("http://me:secret@example.org"), "spec.callback.url", "must not have a user name or password in it"),
    (
        callback("http://example.org/" + "a" * 2048),
        "spec.callback.url",
        "must have at most 2048 characters, has 2067",
    ),
    (
        callback("http://example.org", **{"X-Call-Id": "1"}),
        "spec.callback.headers[0].name",
        "'X-Call-Id' is set by homing itself",
    ),
    (callback("http://10.0.0.1/"), "spec.callback.url", "leads to 10.0.0.1: a private network (10.0.0.0/8)"),
    (
        callback("http://example.org", **{"Webhook-Id": "1"}),
        "spec.callback.headers[0].name",
        "'Webhook-Id' is set by homing itself",
    ),
    (to("function:b", "ftp://x"), "spec.on_success[1].uri", "must begin with https://, http://, function: or amqp:"),
    (to("function:B"), "spec.on_success[0].uri", f"must be function:NAME with a name that matches {NAME}"),
    (to("amqp:orders"), "spec.on_success[0].uri", "must be amqp:EXCHANGE/KEY; without an exchange, amqp:/QUEUE"),
    (
        to("amqp:/homing.events.v1"),
        "spec.on_success[0].uri",
        "must not be one of homing's own exchanges and queues, or of the broker's",
    ),
    (
        to("amqp:" + "x" * 128 + "/"),
        "spec.on_success[0].uri",
        "must have an exchange of at most 127 bytes and a key of at most 255 bytes",
    ),
    (
        to("amqp:billing/x"),
        "spec.on_success[0].uri",
        "names 'billing', which HOMING_AMQP_DESTINATIONS does not allow",
    ),
    (
        to("amqp:/orders"),
        "spec.on_success[0].uri",
        "names '/orders', which HOMING_AMQP_DESTINATIONS does not allow",
    ),
    (to("http://127.0.0.1/"), "spec.on_success[0].uri", "leads to 127.0.0.1: this host (127.0.0.0/8)"),
    (to("https://example.org/" + "a" * 2048), "spec.on_success[0].uri", "must have at most 2048 characters, has 2068"),
]


@pytest.mark.parametrize(("value", "field", "rule"), bad_specs, ids=[f"{f}: {r}"[:70] for _, f, r in bad_specs])
def test_bad_spec_is_refused(value: Spec, field: str, rule: str) -> None:
    told = violations(lambda: check_of_spec(value))
    assert told.keys() == {field}
    assert rule in told[field]


@pytest.mark.parametrize(
    "value",
    [
        spec(),
        spec(function="a"),
        spec(function="a" * 63),
        spec(function="0-9"),
        spec(payload=data(256 * 1024)),
        spec(payload=payload_pb2.Payload(content_type="text/plain; charset=utf-8", data=b"x")),
        http(
            method="PATCH",
            path="/thumbs/größe",
            query="a=1&b=%20",
            headers={"X-Mine": "a, b", "Accept": "*/*"},
        ),
        http(headers={"X": "a" * 16383}),
        spec(labels={f"k{n}": "v" * 255 for n in range(16)}),
        spec(retry_policy=policy(max_attempts=100, initial_backoff=seconds(0.001), backoff_multiplier=1.0)),
        spec(attempt_timeout=seconds(0.001)),
        spec(attempt_timeout=seconds(DAY)),
        spec(max_age=seconds(1)),
        spec(max_age=seconds(30 * DAY)),
        spec(schedule_time=Timestamp(seconds=1)),
        spec(schedule_time=Timestamp(seconds=NOW + 30 * DAY)),
        spec(delay=seconds(0)),
        spec(delay=seconds(30 * DAY)),
        spec(schedule_time=Timestamp(seconds=NOW, nanos=10**9 - 1)),
        spec(payload=payload_pb2.Payload(content_type="t" * 255)),
        spec(payload=payload_pb2.Payload(blob=payload_pb2.Blob(id="b"))),
        spec(labels={"k" * 63: " ~\u00a0"}),
        http(method="A"),
        http(method="A" * 16, path="/" + "a" * 2047, query="q" * 2048),
        spec(
            retry_policy=policy(
                max_attempts=1,
                initial_backoff=seconds(DAY),
                max_backoff=seconds(DAY),
                max_retry_after=seconds(DAY),
                backoff_multiplier=100.0,
                retry_status_codes=[300, 599],
            )
        ),
        callback("http://example.org/" + "a" * 2029),
        callback("https://example.org:8443/hook?a=1", **{"X-Mine": "y"}),
        callback("http://[2606:2800:21f::1]:8080/"),
        to("https://example.org/hook", "function:b", "amqp:orders/x.y", "amqp:/queue", "amqp:fanout/"),
    ],
)
def test_good_spec_is_taken(value: Spec) -> None:
    check_of_spec(value)


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (spec(schedule_time=Timestamp(seconds=NOW + 5)), "spec.schedule_time"),
        (spec(delay=seconds(5)), "spec.delay"),
        (callback("http://example.org"), "spec.callback"),
        (spec(max_age=seconds(5)), "spec.max_age"),
    ],
)
def test_what_only_waits_is_refused_of_a_synchronous_call(value: Spec, field: str) -> None:
    check_of_spec(value)
    assert violations(lambda: check_of_spec(value, sync=True)) == {field: "is for asynchronous invocations only"}


def command(*args: str) -> Function:
    return function(command=function_pb2.Command(args=args))


bad_functions: list[tuple[Function, str, str]] = [
    (function(name="a_b"), "function.name", f"{NAME_RULE}, is 'a_b'"),
    (Function(name="resize"), "function", "must have one source: image, command, http_command or url"),
    (function(image=""), "function.image", "must be the name of an image, of 1 to 512 printable characters"),
    (function(image="i" * 513), "function.image", "of 1 to 512 printable characters"),
    (function(image="a\nb"), "function.image", "of 1 to 512 printable characters"),
    (command(), "function.command.args", "must name a program"),
    (Function(name="resize", http_command=function_pb2.Command()), "function.http_command.args", "must name a program"),
    (
        Function(name="resize", http_command=function_pb2.Command(args=["cat", "a\0b"])),
        "function.http_command.args[1]",
        "must not have NUL in it",
    ),
    (command("", "x"), "function.command.args", "must name a program"),
    (command("cat", "a\0b"), "function.command.args[1]", "must not have NUL in it"),
    (command("x" * 65537), "function.command.args[0]", "must have at most 65536 characters, has 65537"),
    (function(url="figlet"), "function.url", "must begin with http:// or https://"),
    (function(env={"a b": "x"}), 'function.env["a b"]', "characters that matches [A-Za-z_][A-Za-z0-9_]*"),
    (function(env={"a" * 256: "x"}), "function.env", "must have a name of at most 255 characters"),
    (function(env={"A": "\0"}), 'function.env["A"]', "must not have NUL in it"),
    (function(env={"A": "x" * 65537}), 'function.env["A"]', "must have at most 65536 characters, has 65537"),
    (function(annotations={"": "x"}), 'function.annotations[""]', "must have a key of 1 to 255 characters"),
    (function(annotations={"a\nb": "x"}), 'function.annotations["a\\nb"]', "must have a key of printable characters"),
    (function(annotations={"a": "\x1b"}), 'function.annotations["a"]', "must not have control characters but tabs"),
    (function(annotations={"a": "x" * 65537}), 'function.annotations["a"]', "a value of at most 65536 characters"),
    (
        function(annotations={f"{n}": "x" * 60_000 for n in range(5)}),
        "function",
        "must have at most 262144 bytes (256 KiB) in all, has 3000",
    ),
    (function(labels={"": "x"}), 'function.labels[""]', "must have a key of 1 to 63 characters"),
    (function(secrets=["Caps"]), "function.secrets[0]", "must match"),
    (function(secrets=["../x"]), "function.secrets[0]", "must match"),
    (function(secrets=["s", "s"]), "function.secrets", "must not name a secret twice"),
    (function(url="http://10.0.0.7:9000"), "function.url", "a private network (10.0.0.0/8)"),
    (function(url="http://169.254.169.254/latest"), "function.url", "where clouds keep their metadata"),
    (function(url="http://a@example.org"), "function.url", "must not have a user name or password in it"),
    (function(url=f"http://example.org/{'x' * 2048}"), "function.url", "must have at most 2048 characters, has 2067"),
    (function(url="http://127.0.0.1:9000", secrets=["s"]), "function.secrets", "images and commands only"),
    (function(retention=seconds(59)), "function.retention", "must be at least 60 s and at most 31536000 s, is 59 s"),
    (function(retention=seconds(366 * DAY)), "function.retention", "at most 31536000 s"),
    (
        function(limits=function_pb2.Limits(memory_bytes=6 * 1024 * 1024 - 1)),
        "function.limits.memory_bytes",
        "must be 0 or at least 6291456",
    ),
    (function(limits=function_pb2.Limits(memory_bytes=-1)), "function.limits.memory_bytes", "at least 6291456"),
    (function(limits=function_pb2.Limits(cpu_millis=-1)), "function.limits.cpu_millis", "must be from 0 to 1000000"),
    (function(limits=function_pb2.Limits(pids=-1)), "function.limits.pids", "must be from 0 to 1000000, is -1"),
    (
        function(limits=function_pb2.Limits(cpu_millis=1_000_001)),
        "function.limits.cpu_millis",
        "must be from 0 to 1000000, is 1000001",
    ),
    (
        function(limits=function_pb2.Limits(pids=1_000_001)),
        "function.limits.pids",
        "must be from 0 to 1000000, is 1000001",
    ),
    (function(max_instances=-1), "function.max_instances", "must be from 0 to 100, is -1"),
    (function(min_instances=-1), "function.min_instances", "must be from 0 to 4, is -1"),
    (function(idle_timeout=seconds(DAY + 1)), "function.idle_timeout", "must be at least 1 s and at most 86400 s"),
    (function(attempt_timeout=seconds(DAY + 1)), "function.attempt_timeout", "at most 86400 s, is 86401 s"),
    (function(max_age=seconds(0.5)), "function.max_age", "must be at least 1 s and at most 2592000 s, is 0.5 s"),
    (function(env={"9": "x"}), 'function.env["9"]', "characters that matches [A-Za-z_][A-Za-z0-9_]*"),
    (function(annotations={"a" * 256: "x"}), "function.annotations", "must have a key of 1 to 255 characters"),
    (function(annotations={"a": "\x0b"}), 'function.annotations["a"]', "must not have control characters but tabs"),
    (
        function(on_failure=[policy_pb2.Destination(uri="x")]),
        "function.on_failure[0].uri",
        "must begin with https://, http://, function: or amqp:",
    ),
    (function(url="http://127.0.0.1:9000/?a=b"), "function.url", "must not have a query or a fragment"),
    (function(url="http://127.0.0.1:9000/#a"), "function.url", "must not have a query or a fragment"),
    (function(concurrency=-1), "function.concurrency", "must be from 0 to 1000, is -1"),
    (function(concurrency=1001), "function.concurrency", "must be from 0 to 1000, is 1001"),
    (function(max_instances=101), "function.max_instances", "must be from 0 to 100, is 101"),
    (function(min_instances=5), "function.min_instances", "must be from 0 to 4, is 5"),
    (function(min_instances=2, max_instances=1), "function.min_instances", "must be from 0 to 1, is 2"),
    (function(idle_timeout=seconds(0.5)), "function.idle_timeout", "must be at least 1 s and at most 86400 s"),
    (function(retry_policy=policy(max_attempts=0)), "function.retry_policy.max_attempts", "from 1 to 100, is 0"),
    (function(attempt_timeout=Duration()), "function.attempt_timeout", "more than 0 s and at most 86400 s, is 0 s"),
    (function(max_age=seconds(31 * DAY)), "function.max_age", "at least 1 s"),
    (
        function(on_success=[policy_pb2.Destination(uri="x")]),
        "function.on_success[0].uri",
        "must begin with https://, http://, function: or amqp:",
    ),
]


@pytest.mark.parametrize(("value", "field", "rule"), bad_functions, ids=[f"{f}: {r}"[:70] for _, f, r in bad_functions])
def test_bad_function_is_refused(value: Function, field: str, rule: str) -> None:
    told = violations(lambda: check_of_function(value))
    assert told.keys() == {field}
    assert rule in told[field]


@pytest.mark.parametrize(
    "value",
    [
        function(),
        function(image="registry.example.org:5000/team/resize@sha256:" + "0" * 64),
        command("python3", "-c", "print(1)", ""),
        function(url="http://127.0.0.1:9000/resize"),
        function(env={"_A9": "any\nthing"}, concurrency=1000, min_instances=100, max_instances=100),
        function(min_instances=4),
        function(annotations={"notes": "two\n\tlines\r\n"}),
        function(secrets=["tls.key", "a", "smtp_password-2"]),
        function(limits=function_pb2.Limits(memory_bytes=6 * 1024 * 1024, cpu_millis=1, pids=1)),
        function(limits=function_pb2.Limits(cpu_millis=1_000_000, pids=1_000_000)),
        function(image="i" * 512),
        command("x" * 65_536, "y" * 65_536),
        function(env={"A" * 255: "x" * 65_536}),
        function(annotations={"a" * 255: "x" * 65_536}),
        function(retention=seconds(60)),
        function(retention=seconds(365 * DAY)),
        function(idle_timeout=seconds(1)),
        function(idle_timeout=seconds(DAY), attempt_timeout=seconds(DAY), max_age=seconds(30 * DAY)),
        function(attempt_timeout=seconds(0.001), max_age=seconds(1)),
        function(on_success=[policy_pb2.Destination(uri="function:a")]),
    ],
)
def test_good_function_is_taken(value: Function) -> None:
    check_of_function(value)


RESERVED = [
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
    "x-homing-",
    "x-homing-anything",
]


@pytest.mark.parametrize("name", RESERVED)
def test_what_homing_sets_itself_is_no_callers_to_set(name: str) -> None:
    for header in (name, name.upper()):
        for made, field in (
            (http(headers={header: "x"}), "spec.http.headers[0].name"),
            (callback("http://example.org", **{header: "x"}), "spec.callback.headers[0].name"),
        ):
            told = violations(lambda made=made: check_of_spec(made))  # type: ignore[misc]
            assert told == {field: f"'{header}' is set by homing itself"}


def test_a_function_has_so_many_bytes_in_all_at_the_most() -> None:
    whole = function(annotations={f"{n}": "x" * 60_000 for n in range(4)})
    whole.labels["rest"] = ""
    whole.annotations["rest"] = "x" * (256 * 1024 - whole.ByteSize() - 14)
    assert whole.ByteSize() == 256 * 1024
    check_of_function(whole)
    whole.annotations["rest"] += "x"
    assert violations(lambda: check_of_function(whole)) == {
        "function": "must have at most 262144 bytes (256 KiB) in all, has 262145"
    }


def test_all_violations_are_told_at_once() -> None:
    told = violations(lambda: check_of_spec(spec(function="!", labels=TWO_LONG_LABELS, max_age=Duration())))
    assert told.keys() == {"spec.function", f'spec.labels["{"k" * 64}"]', 'spec.labels["v"]', "spec.max_age"}


@pytest.mark.parametrize("letter", ["a", "\u00e9", "\U0001f600"])
def test_very_many_violations_are_told_in_part(letter: str) -> None:
    """The error must fit into the headers of an answer, whatever the request is like."""
    bad = spec(function=letter * 10_000, labels={f"{n}" + letter * 10_000: "" for n in range(1000)})
    checks = Checks()
    check_spec(checks, bad, sync=False, now_us=NOW, guard=Guard())
    with pytest.raises(ApiError, match=r"; and \d+ more$") as caught:
        checks.done()
    assert 1 <= len(caught.value.violations) < 50
    assert len(caught.value.message.encode()) < 2000


def told_by(check: Callable[[Checks], object]) -> dict[str, str]:
    """Return the violations that a check notes; none where it notes none."""
    checks = Checks()
    check(checks)
    try:
        checks.done()
    except ApiError as error:
        return {violation.field: violation.description for violation in error.violations}
    return {}


def test_as_many_violations_are_told_as_fit_and_the_first_one_always() -> None:
    def told(*sizes: int) -> tuple[int, str]:
        checks = Checks()
        for number, size in enumerate(sizes):
            checks.add(f"{number}", "x" * (size - 1))
        with pytest.raises(ApiError) as caught:
            checks.done()
        return len(caught.value.violations), caught.value.message.rpartition(";")[2]

    assert told(5000)[0] == told(1200)[0] == 1
    assert told(1200)[1] == f"0: {'x' * 1199}"
    assert told(1190, 10)[0] == 2
    assert told(1190, 11) == (1, " and 1 more")
    assert told(5000, 10, 10) == (1, " and 2 more")
    assert told(1190, 11, 10) == (2, " and 1 more")


def test_times_are_from_the_year_1_to_the_year_9999() -> None:
    for seconds_, nanos, good in (
        (-62_135_596_800, 0, True),
        (-62_135_596_801, 999_999_999, False),
        (253_402_300_799, 999_999_999, True),
        (253_402_300_800, 0, False),
    ):
        moment = Timestamp(seconds=seconds_, nanos=nanos)
        checks = Checks()
        assert checks.time("t", moment) is good
        assert bool(told_by(lambda checks, moment=moment: checks.time("t", moment))) is not good  # type: ignore[misc]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (Duration(nanos=-1), "must be more than 0 s and at most 1 s, is -1e-09 s"),
        (Duration(seconds=-1, nanos=1), "must have nanos of less than a second, and of the sign of its seconds"),
        (Duration(nanos=1), ""),
        (Duration(seconds=1), ""),
    ],
)
def test_durations(value: Duration, told: str) -> None:
    assert told_by(lambda checks: checks.duration("d", value, 0, 1)).get("d", "") == told


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({}, {}),
        ({"start_time": {"seconds": 5}}, {}),
        ({"end_time": {"seconds": 5}}, {}),
        ({"start_time": {"seconds": 5}, "end_time": {"seconds": 5, "nanos": 1}}, {}),
        ({"start_time": {"seconds": 5, "nanos": 9}, "end_time": {"seconds": 6}}, {}),
        ({"start_time": {"seconds": 5}, "end_time": {"seconds": 5}}, {"range": "must start before it ends"}),
        (
            {"start_time": {"seconds": 6}, "end_time": {"seconds": 5, "nanos": 9}},
            {"range": "must start before it ends"},
        ),
        ({"start_time": {"nanos": 10**9}}, {"range.start_time": "must be from the year 1 to the year 9999"}),
        (
            {"start_time": {"seconds": 6}, "end_time": {"nanos": -1}},
            {"range.end_time": "must be from the year 1 to the year 9999"},
        ),
    ],
)
def test_ranges_of_times(value: dict[str, dict[str, int]], told: dict[str, str]) -> None:
    found = told_by(lambda checks: checks.time_range("range", invocation_pb2.TimeRange(**value)))  # type: ignore[arg-type]
    assert {field: rule.partition(",")[0] for field, rule in found.items()} == told


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("", ""),
        ("x" * 128, ""),
        ("a b/~", ""),
        ("x" * 129, "must have at most 128 characters, has 129"),
        ("a\n", "must have printable characters only"),
        ("\u0080", "must have printable characters only"),
        ("größe", "must have ASCII characters only"),
    ],
)
def test_request_ids(value: str, told: str) -> None:
    assert told_by(lambda checks: checks.request_id(value)) == ({"request_id": told} if told else {})


def test_names_in_lists_are_told_by_their_place() -> None:
    assert told_by(lambda checks: checks.function_names("names", ["a", "B", "c"])) == {
        "names[1]": "'B' is not the name of a function"
    }


@pytest.mark.parametrize("field", ["on_success", "on_failure"])
def test_the_outcome_of_a_synchronous_call_goes_to_its_caller_alone(field: str) -> None:
    value = spec(**{field: [policy_pb2.Destination(uri="function:b")]})
    check_of_spec(value)
    assert violations(lambda: check_of_spec(value, sync=True)) == {
        f"spec.{field}": "is for asynchronous invocations only"
    }


def test_bounds_of_instances_are_told_by_where_they_are() -> None:
    assert told_by(lambda checks: check_instances(checks, function(min_instances=5))) == {
        "min_instances": "must be from 0 to 4, is 5"
    }
    assert told_by(lambda checks: check_instances(checks, function(min_instances=1, max_instances=-1))) == {
        "max_instances": "must be from 0 to 100, is -1",
        "min_instances": "must be from 0 to 0, is 1",
    }
