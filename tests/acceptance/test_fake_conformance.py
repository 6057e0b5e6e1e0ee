"""The fake server of homing.testing takes and refuses what a real one does: the same calls are made to both."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

import homing
from homing import Client, InvocationRequest, InvocationState, RetryPolicy
from homing._core.calls import NEVER
from homing.testing import FakeServer
from homing.v1 import invocation_service_pb2, policy_pb2
from homing.v1.invocation_pb2 import InvocationSpec
from support.processes import Dev
from support.receiver import receiver

Call = Callable[[Client], Any]


@pytest.fixture(scope="module")
def fake() -> Iterator[Client]:
    with FakeServer() as server, Client(server.target) as client:
        server.function("cat").answers(lambda call: call.payload)
        server.function("broken").fails(500)
        yield client


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    process = Dev(tmp_path_factory.mktemp("conformance"))
    process.start()
    try:
        with Client(process.target) as client:
            client.functions.deploy(name="cat", command=["cat"])
            client.functions.deploy(name="broken", command=["false"])
            yield client
    finally:
        assert process.terminate() == 0


def invoked(**options: Any) -> Call:
    return lambda client: client.invoke_async("cat", "x", **options)


def deployed(**options: Any) -> Call:
    return lambda client: client.functions.deploy(**{"name": "new", "image": "new:1"} | options)


def sent(**fields: Any) -> Call:
    """Return a call as a client of another language may make it."""
    spec = InvocationSpec(function="cat", **fields)

    def call(client: Client) -> Any:
        request = invocation_service_pb2.InvokeAsyncRequest(spec=spec)
        return client._connection.call(client._connection.invocations.InvokeAsync, request, deadline=NEVER)

    return call


TEXT = 64 * 1024

BAD: dict[str, Call] = {
    "header that names a proxy": invoked(headers={"X-One": "1", "Proxy": "http://example.org"}),
    "header of a proxy": invoked(headers={"Proxy-Authorization": "x"}),
    "header that expects": invoked(headers={"Expect": "100-continue"}),
    "headers that are large in all": invoked(headers={f"X-{number}": "x" * 1000 for number in range(17)}),
    "two headers": invoked(headers={"Host": "x", "X-Two": "a\nb"}),
    "label with a control character": invoked(labels={"x": "\x1b[31m"}),
    "label with a name of two lines": invoked(labels={'"\u00e9\n': "x"}),
    "duration of two signs": sent(attempt_timeout=Duration(seconds=5, nanos=-1)),
    "duration of too many nanos": sent(max_age=Duration(seconds=5, nanos=10**9)),
    "delay below nothing": sent(delay=Duration(seconds=-5)),
    "time after all": sent(schedule_time=Timestamp(seconds=253_402_300_800)),
    "time of too many nanos": sent(schedule_time=Timestamp(nanos=10**9)),
    "many status codes": sent(retry_policy=policy_pb2.RetryPolicy(retry_status_codes=[500] * 301)),
    "third status code": invoked(retry_policy=RetryPolicy(retry_status_codes=[500, 502, 600])),
    "definition that is too large": deployed(annotations={str(number): "x" * TEXT for number in range(4)}),
    "annotation that is too long": deployed(annotations={"x": "x" * (TEXT + 1)}),
    "annotation with a long name": deployed(annotations={"x" * 256: "x"}),
    "annotation with a control character": deployed(annotations={"x": "\x1b"}),
    "too many annotations": deployed(annotations={str(number): "x" for number in range(65)}),
    "argument that is too long": lambda client: client.functions.deploy(name="new", command=["cat", "x" * (TEXT + 1)]),
    "argument with NUL": lambda client: client.functions.deploy(name="new", command=["cat", "\0"]),
    "too many arguments": lambda client: client.functions.deploy(name="new", command=["cat"] * 1001),
    "variable that is too long": deployed(env={"X": "x" * (TEXT + 1)}),
    "variable with a long name": deployed(env={"X" * 256: "x"}),
    "variable with NUL": deployed(env={"X": "\0"}),
    "too many variables": deployed(env={f"X{number}": "x" for number in range(257)}),
    "secret that is no name": deployed(secrets=["a", "No Name"]),
    "secret twice": deployed(secrets=["a", "a"]),
    "callback to another protocol": invoked(callback_url="ftp://example.org/x"),
    "callback without a host": invoked(callback_url="http:///x"),
    "callback with a password": invoked(callback_url="https://user:pass@example.org/"),
    "callback with a fragment": invoked(callback_url="https://example.org/#x"),
    "callback that is too long": invoked(callback_url="https://example.org/" + "x" * 2048),
    "header of the signature": invoked(callback_url="https://example.org/", callback_headers={"webhook-id": "x"}),
    "header of homing": invoked(headers={"X-Homing-Retry": "no"}),
    "header that is reserved": invoked(headers={"Content-Length": "1"}),
    "header with a line break": invoked(headers={"X-One": "a\r\nb"}),
    "header without a name": invoked(headers={"": "x"}),
    "too many headers": invoked(headers={f"X-{number}": "x" for number in range(65)}),
    "destination of an unknown kind": lambda client: client.invoke_async("cat", on_success="mailto:x@example.org"),
    "destination with a password": invoked(on_failure=["https://a:b@example.org/"]),
    "function that does not exist": invoked(on_success="function:nobody"),
    "function that is no name": invoked(on_success="function:No.Such"),
    "delay of 40 days": invoked(delay=timedelta(days=40)),
    "start in 40 days": invoked(schedule_time=datetime.now(UTC) + timedelta(days=40)),
    "attempt of two days": invoked(attempt_timeout=timedelta(days=2)),
    "age of half a second": invoked(max_age=0.5),
    "age of 40 days": invoked(max_age=timedelta(days=40)),
    "too many labels": invoked(labels={str(number): "x" for number in range(17)}),
    "long label": invoked(labels={"x" * 64: "x"}),
    "long value of a label": invoked(labels={"x": "x" * 256}),
    "label without a name": invoked(labels={"": "x"}),
    "method in small letters": invoked(method="get"),
    "path without a slash": invoked(path="x"),
    "path with a control character": invoked(path="/\n"),
    "long query": invoked(query="x" * 2049),
    "long content type": invoked(content_type="x" * 256),
    "request id that is no ASCII": invoked(request_id="é"),
    "long request id": invoked(request_id="x" * 129),
    "no attempts": invoked(retry_policy=RetryPolicy(max_attempts=0)),
    "101 attempts": invoked(retry_policy=RetryPolicy(max_attempts=101)),
    "small multiplier": invoked(retry_policy=RetryPolicy(backoff_multiplier=0.5)),
    "long backoff": invoked(retry_policy=RetryPolicy(max_backoff=timedelta(days=2))),
    "retried success": invoked(retry_policy=RetryPolicy(retry_status_codes=[200])),
    "no such function": lambda client: client.invoke_async("nobody"),
    "no name of a function": lambda client: client.invoke("No.Such"),
    "the same in a batch": lambda client: client.invoke_batch("cat", ["x"], max_age=0.5)[0],
    "function of a bad name": deployed(name="No.Such"),
    "image without a name": deployed(image=""),
    "program that serves without a name": lambda client: client.functions.deploy(name="new", http_command=[""]),
    "program that serves with NUL": lambda client: client.functions.deploy(name="new", http_command=["a", "\0"]),
    "program that serves of too many": lambda client: client.functions.deploy(name="new", http_command=["a"] * 1001),
    "program without a name": lambda client: client.functions.deploy(name="new", command=[""]),
    "url with a query": lambda client: client.functions.deploy(name="new", url="https://example.org/?x=1"),
    "variable of a bad name": deployed(env={"1X": "x"}),
    "little memory": deployed(limits=homing.Limits(memory_bytes=1024)),
    "much concurrency": deployed(concurrency=1001),
    "more instances than may be": deployed(min_instances=5),
    "101 instances": deployed(max_instances=101),
    "short retention": deployed(retention=1),
    "long idle time-out": deployed(idle_timeout=timedelta(days=2)),
    "destinations of a function": deployed(on_failure="https://a:b@example.org/"),
    "unknown secret": deployed(secrets=["nothing"]),
    "no such invocation": lambda client: client.get("01900000-0000-7000-8000-00000000dead"),
    "no such function to remove": lambda client: client.functions.delete("nobody"),
    "log of no function": lambda client: list(client.functions.logs("nobody")),
    "more lines of a log than may be": lambda client: list(client.functions.logs("cat", tail=10_001)),
    "lines of a log below none": lambda client: list(client.functions.logs("cat", tail=-1)),
    "scale out of bounds": lambda client: client.functions.scale("cat", max_instances=101),
    "expected revision": deployed(name="cat", expected_revision=99),
}


def outcome(call: Call, client: Client) -> tuple[Any, ...]:
    """Return what is the same wherever a call is refused."""
    try:
        refused = call(client)
    except homing.RequestError as error:
        refused = error
    assert isinstance(refused, homing.RequestError), f"it was accepted: {refused!r}"
    return type(refused), refused.reason, [each.field for each in refused.violations]


@pytest.mark.parametrize("name", BAD)
def test_what_one_refuses_the_other_refuses(name: str, fake: Client, dev: Client) -> None:
    assert outcome(BAD[name], fake) == outcome(BAD[name], dev)


GOOD: dict[str, dict[str, Any]] = {
    "nothing": {},
    "no delay": {"delay": 0},
    "a time that is past": {"schedule_time": datetime(2026, 1, 1, tzinfo=UTC)},
    "all of a request": {
        "method": "PUT",
        "path": "/a/b",
        "query": {"a": ["1", "2"]},
        "headers": {"X-One": ["1", "2"]},
        "content_type": "a/b",
    },
    "limits at their ends": {
        "labels": {"x" * 63: "x" * 255},
        "request_id": "r" * 128,
        "max_age": 1,
        "attempt_timeout": timedelta(days=1),
    },
    "policy": {"retry_policy": RetryPolicy(max_attempts=100, backoff_multiplier=100, max_backoff=timedelta(days=1))},
    "destinations": {"on_success": ["amqp:x/y", "https://example.org/"], "on_failure": "function:broken"},
}


@pytest.mark.parametrize("name", GOOD)
def test_what_one_takes_the_other_takes(name: str, fake: Client, dev: Client) -> None:
    seen = []
    for client in (fake, dev):
        handle = client.invoke_async("cat", "hello", **GOOD[name])
        record = handle.wait(timeout=60)
        seen.append(
            (
                record.state,
                record.result and record.result.data,
                record.labels,
                record.retry_policy,
                record.attempt_timeout,
                record.max_age,
                record.on_success,
                record.on_failure,
                record.attempt_count,
            )
        )
    assert seen[0] == seen[1]
    assert seen[0][:2] == (InvocationState.SUCCEEDED, b"hello")


def test_streams_are_the_same(fake: Client, dev: Client) -> None:
    large = b"x" * 300_000
    seen = []
    for client in (fake, dev):
        with client.invoke_stream("cat", large, headers={"X-One": "1"}, path="/a") as stream:
            body = b"".join(stream)
        assert stream.invocation is not None
        assert stream.invocation.id == stream.invocation_id
        failed = outcome(lambda client: client.invoke_stream("nobody").__enter__(), client)
        bad = outcome(lambda client: client.invoke_stream("cat", labels={"x" * 64: "x"}).__enter__(), client)
        with pytest.raises(homing.FunctionError) as raised, client.invoke_stream("broken"):
            pytest.fail("it has no answer")
        seen.append((stream.status_code, body, stream.invocation.state, failed, bad, raised.value.invocation.state))
    assert seen[0] == seen[1]
    assert seen[0][:3] == (200, large, InvocationState.SUCCEEDED)


def test_deliveries_are_what_receivers_get(dev: Client) -> None:
    """What the fake keeps is what a real receiver got, but for what differs between any two invocations."""
    with FakeServer() as server, Client(server.target) as client, receiver(statuses=[200]) as (url, received):
        server.function("cat").answers(lambda call: call.payload)
        for each in (client, dev):
            each.invoke_async(
                "cat",
                {"a": 1},
                callback_url=f"{url}/hook",
                callback_headers={"X-Job": "7"},
                on_success=f"{url}/done",
                on_failure=f"{url}/failed",
            ).wait(timeout=60)
        real = {path: (headers, body) for path, headers, body in (received.get(timeout=60), received.get(timeout=60))}

        assert real.keys() == {"/hook", "/done"}
        assert [kept.uri for kept in server.deliveries()] == [f"{url}/hook", f"{url}/done"]
        for path, (headers, body) in real.items():
            [kept] = server.deliveries(url + path)
            # What cat answers has no media type, and what the fake is told has one.
            same = {
                "x-function-name",
                "x-function-status",
                "x-homing-state",
                "x-homing-depth",
                "x-job",
            } & headers.keys()
            assert {name: kept.headers[name] for name in same} == {name: headers[name] for name in same}
            if path == "/hook":
                assert kept.body == body == b'{"a":1}'
                continue
            made, got = kept.envelope, homing.parse_envelope(body)
            for name in ("type", "state", "condition", "attempt_count", "depth", "status_code", "error", "request"):
                assert getattr(made, name) == getattr(got, name), name


def test_batches_are_refused_one_by_one(fake: Client, dev: Client) -> None:
    requests = [
        InvocationRequest(function="cat", payload="x"),
        InvocationRequest(function="cat", max_age=0.5),
        InvocationRequest(function="nobody"),
    ]

    for client in (fake, dev):
        accepted, broken, unknown = client.invoke_batch(requests)
        assert isinstance(accepted, homing.InvocationHandle)
        assert isinstance(broken, homing.InvalidRequestError)
        assert isinstance(unknown, homing.NotFoundError)
