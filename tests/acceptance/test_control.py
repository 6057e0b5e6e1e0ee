"""Seeing, stopping and running again, alike from raw gRPC, the SDK and the CLI, with the same errors."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import ParseDict
from google.protobuf.message_factory import GetMessageClass

import homing
from homing import AsyncClient, Client, InvocationState
from homing.v1 import function_service_pb2, invocation_service_pb2, log_service_pb2
from support.cli import homing as cli
from support.cli import objects
from support.grpc_errors import error_info, violated_fields
from support.processes import Cluster

NOBODY = "01900000-0000-7000-8000-000000000000"
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
PATIENCE = 60


@dataclass(frozen=True, kw_only=True)
class Case:
    name: str
    method: str
    request: dict[str, Any]
    """The raw request, as JSON; `{ended}` and `{running}` are ids."""
    code: grpc.StatusCode
    reason: str
    field: str = ""
    says: str
    sdk: Callable[[Client, dict[str, str]], object]
    sdk_error: type[homing.RequestError]
    cli: list[str] = dataclasses.field(default_factory=list)
    exit_code: int


def unknown(method: str, sdk: Callable[[Client, dict[str, str]], object], *arguments: str) -> Case:
    return Case(
        name=f"{method} of an unknown id",
        method=method,
        request={"id": NOBODY},
        code=grpc.StatusCode.NOT_FOUND,
        reason="INVOCATION_NOT_FOUND",
        says=f"there is no invocation '{NOBODY}'",
        sdk=sdk,
        sdk_error=homing.NotFoundError,
        cli=[*arguments],
        exit_code=4,
    )


def no_function(method: str, sdk: Callable[[Client, dict[str, str]], object], *arguments: str) -> Case:
    return Case(
        name=f"{method} of an unknown function",
        method=method,
        request={"name": "nobody"},
        code=grpc.StatusCode.NOT_FOUND,
        reason="FUNCTION_NOT_FOUND",
        says="there is no function 'nobody'",
        sdk=sdk,
        sdk_error=homing.NotFoundError,
        cli=[*arguments],
        exit_code=4,
    )


def bad_filter(method: str, sdk: Callable[[Client, dict[str, str]], object], *arguments: str) -> Case:
    return Case(
        name=f"{method} with a bad filter",
        method=method,
        request={"filter": {"functions": ["No.Such"]}},
        code=grpc.StatusCode.INVALID_ARGUMENT,
        reason="INVALID_REQUEST",
        field="filter.functions[0]",
        says="filter.functions[0]: 'No.Such' is not the name of a function",
        sdk=sdk,
        sdk_error=homing.InvalidRequestError,
        cli=[*arguments, "--function", "No.Such"],
        exit_code=2,
    )


def no_filter(method: str, sdk: Callable[[Client, dict[str, str]], object]) -> Case:
    return Case(
        name=f"{method} without a filter",
        method=method,
        request={},
        code=grpc.StatusCode.INVALID_ARGUMENT,
        reason="INVALID_REQUEST",
        field="filter",
        says="filter: must have at least one field set",
        sdk=sdk,
        sdk_error=homing.InvalidRequestError,
        exit_code=2,
    )


CASES = [
    Case(
        name="stop of an ended one",
        method="StopInvocation",
        request={"id": "{ended}"},
        code=grpc.StatusCode.FAILED_PRECONDITION,
        reason="INVOCATION_ENDED",
        says="has ended: it is SUCCEEDED",
        sdk=lambda client, ids: client.stop(ids["ended"]),
        sdk_error=homing.InvocationEndedError,
        cli=["stop", "{ended}"],
        exit_code=5,
    ),
    Case(
        name="re-run of a running one",
        method="RerunInvocation",
        request={"id": "{running}"},
        code=grpc.StatusCode.FAILED_PRECONDITION,
        reason="INVOCATION_NOT_ENDED",
        says="has not ended: it is RUNNING",
        sdk=lambda client, ids: client.rerun(ids["running"]),
        sdk_error=homing.InvocationNotEndedError,
        cli=["rerun", "{running}"],
        exit_code=5,
    ),
    Case(
        name="a reason that is too long",
        method="StopInvocation",
        request={"id": "{running}", "reason": "x" * 10_000},
        code=grpc.StatusCode.INVALID_ARGUMENT,
        reason="INVALID_REQUEST",
        field="reason",
        says="reason: must have at most",
        sdk=lambda client, ids: client.stop(ids["running"], reason="x" * 10_000),
        sdk_error=homing.InvalidRequestError,
        cli=["stop", "{running}", "--reason", "x" * 10_000],
        exit_code=2,
    ),
    Case(
        name="a rate that is too high",
        method="BulkRerun",
        request={"filter": {"functions": ["cat"]}, "maxPerSecond": 1e6},
        code=grpc.StatusCode.INVALID_ARGUMENT,
        reason="INVALID_REQUEST",
        field="max_per_second",
        says="max_per_second: must be from 0 to 10000, is 1000000",
        sdk=lambda client, _: client.bulk_rerun(function="cat", max_per_second=1e6),
        sdk_error=homing.InvalidRequestError,
        cli=["rerun", "--function", "cat", "--max-per-second", "1000000", "--yes"],
        exit_code=2,
    ),
    Case(
        name="a range that nothing is in",
        method="CountInvocations",
        request={"filter": {"createTime": {"startTime": "2026-01-01T12:00:00Z", "endTime": "2026-01-01T12:00:00Z"}}},
        code=grpc.StatusCode.INVALID_ARGUMENT,
        reason="INVALID_REQUEST",
        field="filter.create_time",
        says="must",  # the SDK finds this by itself
        sdk=lambda client, _: client.count(created_since=NOON, created_until=NOON),
        sdk_error=homing.InvalidRequestError,
        cli=["count", "--since", NOON.isoformat(), "--until", NOON.isoformat()],
        exit_code=2,
    ),
    Case(
        name="bounds that are too large",
        method="ScaleFunction",
        request={"name": "cat", "maxInstances": 1000},
        code=grpc.StatusCode.INVALID_ARGUMENT,
        reason="INVALID_REQUEST",
        field="max_instances",
        says="max_instances: must be",
        sdk=lambda client, _: client.functions.scale("cat", max_instances=1000),
        sdk_error=homing.InvalidRequestError,
        cli=["scale", "cat", "--max", "1000"],
        exit_code=2,
    ),
    unknown("GetInvocation", lambda client, _: client.get(NOBODY), "get", NOBODY),
    unknown("WaitInvocation", lambda client, _: client.handle(NOBODY).wait()),
    unknown("StopInvocation", lambda client, _: client.stop(NOBODY), "stop", NOBODY),
    unknown("RerunInvocation", lambda client, _: client.rerun(NOBODY), "rerun", NOBODY),
    unknown("TailLogs", lambda client, _: next(client.logs(NOBODY)), "logs", NOBODY),
    no_function("PauseFunction", lambda client, _: client.functions.pause("nobody"), "pause", "nobody"),
    no_function("ResumeFunction", lambda client, _: client.functions.resume("nobody"), "resume", "nobody"),
    no_function(
        "ScaleFunction",
        lambda client, _: client.functions.scale("nobody", max_instances=1),
        "scale",
        "nobody",
        "--max=1",
    ),
    bad_filter("ListInvocations", lambda client, _: list(client.list_invocations(function="No.Such")), "list"),
    bad_filter("CountInvocations", lambda client, _: client.count(function="No.Such"), "count"),
    bad_filter("WatchResults", lambda client, _: client.watch_results(function="No.Such"), "watch"),
    bad_filter("BulkStop", lambda client, _: client.bulk_stop(function="No.Such"), "stop", "--yes"),
    bad_filter("BulkRerun", lambda client, _: client.bulk_rerun(function="No.Such"), "rerun", "--yes"),
    no_filter("BulkStop", lambda client, _: client.bulk_stop()),
    no_filter("BulkRerun", lambda client, _: client.bulk_rerun()),
]


class Raw:
    """Calls methods by their names, with requests as JSON."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self._methods = {
            method.name: method
            for services in (invocation_service_pb2, function_service_pb2, log_service_pb2)
            for service in services.DESCRIPTOR.services_by_name.values()
            for method in service.methods
        }

    def call(self, name: str, request: dict[str, Any]) -> Any:
        method = self._methods[name]
        message = ParseDict(request, GetMessageClass(method.input_type)())
        answer = GetMessageClass(method.output_type)
        path = f"/{method.containing_service.full_name}/{name}"
        if method.server_streaming:
            stream: Any = self._channel.unary_stream(path, lambda m: m.SerializeToString(), answer.FromString)
            return next(stream(message, timeout=PATIENCE))
        unary: Any = self._channel.unary_unary(path, lambda m: m.SerializeToString(), answer.FromString)
        return unary(message, timeout=PATIENCE)


@pytest.fixture(scope="module")
def raw(shared_cluster: Cluster) -> Iterator[Raw]:
    """A raw caller of the shared cluster, with two functions."""
    client = shared_cluster.client()
    client.functions.deploy(name="cat", command=["cat"])
    client.functions.deploy(
        name="slow", command=["sh", "-c", "echo begun >&2; sleep 600"], max_instances=2, attempt_timeout=600
    )
    with grpc.insecure_channel(shared_cluster.target) as channel:
        yield Raw(channel)


def running(client: Client, **options: Any) -> homing.InvocationHandle:
    """Return an invocation that runs and has written a line."""
    handle = client.invoke_async("slow", **options)
    with handle.logs(follow=True) as lines:
        assert next(lines).text == "begun"
    return handle


def test_every_front_tells_the_same_errors(shared_cluster: Cluster, raw: Raw) -> None:
    client = shared_cluster.client()
    ended = client.invoke_async("cat", "x")
    ended.result(timeout=PATIENCE)
    ids = {"ended": ended.id, "running": running(client).id}

    for case in CASES:
        request = {key: value.format(**ids) if isinstance(value, str) else value for key, value in case.request.items()}
        with pytest.raises(grpc.RpcError) as refused:
            raw.call(case.method, request)
        error: Any = refused.value
        assert error.code() is case.code, case.name
        assert case.says in error.details(), case.name
        assert (error_info(error).reason, error_info(error).domain) == (case.reason, "homing.dev"), case.name
        assert violated_fields(error) == ([case.field] if case.field else []), case.name

        with pytest.raises(case.sdk_error, match=re.escape(case.says)) as told:
            case.sdk(client, ids)
        assert (told.value.code, told.value.reason) == (case.code, case.reason), case.name

        if case.cli:
            result = cli(*(argument.format(**ids) for argument in case.cli), "--target", shared_cluster.target)
            assert (result.exit_code, result.stdout) == (case.exit_code, ""), f"{case.name}: {result.stderr}"
            assert case.says in result.stderr, case.name
            assert result.stderr.count("\n") == 1 or "Usage:" in result.stderr, f"{case.name}: {result.stderr}"

    assert client.get(ids["running"]).state is InvocationState.RUNNING
    client.stop(ids["running"])
    assert not any(line.get("level") == "error" for line in shared_cluster.server.lines)


def test_a_run_is_followed_stopped_and_run_again(shared_cluster: Cluster, raw: Raw) -> None:
    client = shared_cluster.client()
    target = ("--target", shared_cluster.target)
    watching = client.watch_results(include_transitions=True, labels={"job": "7"})
    first = running(client, labels={"job": "7"}, callback_url="http://127.0.0.1:9/refused")

    asked = raw.call("StopInvocation", {"id": first.id, "reason": "enough"}).invocation
    assert asked.stop_request.reason == "enough"
    with pytest.raises(homing.InvocationStoppedError):
        first.result(timeout=PATIENCE)
    seen = []
    for event in watching:
        seen.append(event.invocation.state)
        if event.invocation.ended:
            break
    watching.close()
    assert seen[-1] is InvocationState.STOPPED
    assert InvocationState.RUNNING in seen

    again = cli("rerun", first.id, *target).stdout.strip()
    assert [one.id for one in client.list_invocations(rerun_of=first.id)] == [again]
    with client.logs(again, follow=True) as lines:
        assert next(lines).text == "begun"
    stopped = cli("stop", "--rerun-of", first.id, "--yes", "--json", "-m", "too", *target)
    assert objects(stopped.stdout) == [{"matched": 1, "stopped": 0, "stopping": 1}], stopped.stderr
    assert client.handle(again).wait(timeout=PATIENCE).state is InvocationState.STOPPED
    shown = cli("get", again, "--events", *target).stdout
    assert re.search(r"stop asked for +\S+ \S+(?: by \S+)?: too\n", shown), shown
    assert re.search(r"\+\d+\.\d{3} s +ENDED", shown), shown
    assert re.search(rf"runs again +{first.id}\n", shown), shown
    assert cli("logs", again, *target).stdout == "begun\n"
    assert objects(cli("count", "--json", "--label", "job=7", *target).stdout) == [
        {"STOPPED": {"count": 2, "more": False}}
    ]


def test_who_follows_outlasts_a_restart_and_reads_no_line_twice(shared_cluster: Cluster, raw: Raw) -> None:
    client = shared_cluster.client()
    ticking = "for i in $(seq 1 60); do echo $i >&2; sleep 0.1; done"
    client.functions.deploy(name="ticks", command=["sh", "-c", ticking])
    call = client.invoke_async("ticks")
    seen = []
    with call.logs(follow=True) as lines:
        for line in lines:
            seen.append(line.text)
            if len(seen) == 10:
                shared_cluster.server.restart()

    assert call.wait(timeout=PATIENCE).state is InvocationState.SUCCEEDED
    told = [int(text) for text in seen if text.isdigit()]  # one line may say that some were lost
    assert told == sorted(set(told))
    assert len(told) > 10
    # The last lines may come in later than the end, where the server was away at the time.
    assert seen == [line.text for line in call.logs()][: len(seen)]


async def test_the_asynchronous_client_does_the_same(shared_cluster: Cluster, raw: Raw) -> None:
    async with AsyncClient(shared_cluster.target) as client:
        await client.functions.pause("cat")
        held = await client.invoke_async("cat", "one", labels={"job": "8"})
        record = await held.describe()
        assert (record.state, record.wait_reason) == (InvocationState.ENQUEUED, homing.WaitReason.PAUSED)
        other = await client.invoke_async("cat", "two")
        assert (await other.stop(reason="enough")).state in {InvocationState.STOPPED, InvocationState.STOPPING}
        assert (await other.wait(PATIENCE)).state is InvocationState.STOPPED
        await client.functions.resume("cat")
        assert (await held.result(PATIENCE)).text == "one"

        edited = await held.rerun(payload="three", request_id="edited")
        same = await held.rerun(payload="three", request_id="edited")
        assert (edited.duplicate, same.duplicate, same.id) == (False, True, edited.id)
        assert (await edited.result(PATIENCE)).text == "three"
        assert (await edited.describe()).rerun_of == held.id
        done = await client.bulk_rerun(labels={"job": "8"}, request_id="all", include_rerun=True, max_per_second=100)
        assert (done.matched, done.accepted) == (2, 2)
        repeated = await client.bulk_rerun(
            labels={"job": "8"}, request_id="all", include_rerun=True, max_per_second=100
        )
        assert repeated == done
        with pytest.raises(homing.AlreadyExistsError):
            await client.bulk_rerun(labels={"job": "8"}, request_id="all", include_rerun=True)
        assert (await client.functions.scale("cat", max_instances=2)).max_instances == 2
        assert (await client.functions.get("cat")).max_instances == 2
        found = [one async for one in client.list_invocations(labels={"job": "8"})]
        for one in found:
            await client.handle(one.id).wait(PATIENCE)
        assert (await client.count(labels={"job": "8"})).by_state == {InvocationState.SUCCEEDED: 4}
