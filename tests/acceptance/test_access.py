"""Who may do what: every rpc and every HTTP route, without a key, with wrong ones, and with one of each scope."""

from __future__ import annotations

import json
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from starlette.applications import Starlette
from starlette.routing import Route

from homing import Client, PermissionDeniedError, RateLimitedError, RetryPolicy, Scope, UnauthenticatedError
from homing.errors import InvalidRequestError, NotFoundError, RequestError
from homing.v1 import (
    BatchInvokeAsyncRequest,
    Blob,
    BulkRerunRequest,
    BulkStopRequest,
    CountInvocationsRequest,
    CreateKeyRequest,
    CreateSecretRequest,
    DeadLetterFilter,
    DeleteFunctionRequest,
    DeleteSecretRequest,
    DeployFunctionRequest,
    Destination,
    Function,
    GetFunctionRequest,
    GetInvocationRequest,
    Invocation,
    InvocationFilter,
    InvocationSpec,
    InvokeAsyncRequest,
    InvokeRequest,
    ListDeadLettersRequest,
    ListFunctionsRequest,
    ListInvocationsRequest,
    ListKeysRequest,
    ListSecretsRequest,
    ListSigningKeysRequest,
    PauseFunctionRequest,
    Payload,
    PurgeDeadLettersRequest,
    ReadPayloadRequest,
    RedriveDeadLettersRequest,
    RerunInvocationRequest,
    ResumeFunctionRequest,
    RevokeKeyRequest,
    RevokeSigningKeyRequest,
    RotateSigningKeyRequest,
    ScaleFunctionRequest,
    StopInvocationRequest,
    TailLogsRequest,
    UpdateSecretRequest,
    WaitInvocationRequest,
    WatchResultsRequest,
    WritePayloadRequest,
)
from homing.v1.function_service_pb2_grpc import FunctionServiceStub
from homing.v1.invocation_pb2 import INVOCATION_STATE_SUCCEEDED
from homing.v1.invocation_service_pb2 import InvokeStreamRequest
from homing.v1.invocation_service_pb2_grpc import InvocationServiceStub
from homing.v1.payload_service_pb2_grpc import PayloadServiceStub
from homing_server.front.http.data_port import DataPort
from homing_server.front.http.operations import Operations
from homing_server.front.http.rest.routes import ROUTES
from homing_server.metrics import Metrics
from homing_server.payloads.blobs import Blobs
from homing_server.payloads.signed_urls import SignedUrls
from homing_server.store.engine import Database
from support.allowed import ADMIN, ALLOWED, INVOKE, OPERATE, READ, SCOPES
from support.cli import homing
from support.confidential import confidential
from support.grpc_errors import error_info
from support.http_client import ask
from support.processes import Cluster, ProcessError
from support.rabbitmq import RabbitNode, free_ports
from support.strangers import send

ROOT_KEY = confidential("the-root-key-of-the-tests-0123456789")


@pytest.fixture(scope="module")
def guarded(rabbit_node: RabbitNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Yield a server that asks for keys, with a worker."""
    url = rabbit_node.new_vhost()
    with Cluster(url, tmp_path_factory.mktemp("guarded")) as made:
        made.start_server(HOMING_ROOT_KEY=ROOT_KEY)
        made.start_worker()
        root = made.client(api_key=ROOT_KEY)
        root.functions.deploy(name="upper", command=["tr", "a-z", "A-Z"])
        root.functions.deploy(name="lower", command=["tr", "A-Z", "a-z"])
        root.functions.deploy(name="door", command=["cat"], public=True)
        yield made
    rabbit_node.leave_vhost(url)


@pytest.fixture(scope="module")
def root(guarded: Cluster) -> Client:
    return guarded.client(api_key=ROOT_KEY)


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """How a call ended."""

    code: grpc.StatusCode
    reason: str


def told(error: Any) -> Told:
    packed = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
    info = error_details_pb2.ErrorInfo()
    for detail in status_pb2.Status.FromString(packed).details:
        detail.Unpack(info)
    return Told(code=error.code(), reason=info.reason)


def retry_after(error: Any) -> float:
    info = error_details_pb2.RetryInfo()
    packed = dict(error.trailing_metadata())["grpc-status-details-bin"]
    assert any(detail.Unpack(info) for detail in status_pb2.Status.FromString(packed).details)
    return float(info.retry_delay.ToTimedelta().total_seconds())


def methods(channel: grpc.Channel) -> list[MethodDescriptor]:
    """Return what the server says that it serves."""
    database = ProtoReflectionDescriptorDatabase(channel)
    pool = DescriptorPool(database)
    services = [name for name in database.get_services() if name.startswith("homing.")]
    return [method for name in services for method in pool.FindServiceByName(name).methods]


class _Shows(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Shows a key with every call."""

    def __init__(self, key: str) -> None:
        self._key = key

    def _call(self, continuation: Any, details: Any, request: Any) -> Any:
        return continuation(details._replace(metadata=[("authorization", f"Bearer {self._key}")]), request)

    intercept_unary_unary: Any = _call
    intercept_unary_stream: Any = _call
    intercept_stream_unary: Any = _call
    intercept_stream_stream: Any = _call


def call(channel: grpc.Channel, method: MethodDescriptor, authorization: str | None) -> Told:
    """Make a call with an empty request and tell how it ended, or began."""
    error = send(channel, method, b"", () if authorization is None else (("authorization", authorization),))
    return Told(code=grpc.StatusCode.OK, reason="") if error is None else told(error)


def name_of(method: MethodDescriptor) -> str:
    return f"{method.containing_service.name}/{method.name}"


def test_every_rpc_wants_a_key_and_the_right_scope(guarded: Cluster, root: Client) -> None:
    keys = {scope: root.keys.create(f"only-{scope.value.lower()}", scopes=[scope]).secret for scope in SCOPES}
    revoked = root.keys.create("revoked", scopes=list(SCOPES)).secret
    expiring = root.keys.create("expiring", scopes=list(SCOPES), expires=0.5).secret
    root.keys.revoke("revoked")
    refused = {
        None: "KEY_MISSING",
        "": "KEY_MISSING",
        "Bearer": "KEY_INVALID",
        f"Basic {ROOT_KEY}": "KEY_INVALID",
        "Bearer wrong": "KEY_INVALID",
        f"Bearer {ROOT_KEY[:-1]}": "KEY_INVALID",
        f"Bearer {keys[ADMIN][:-1]}{'A' if keys[ADMIN][-1] != 'A' else 'B'}": "KEY_INVALID",
        f"Bearer {revoked}": "KEY_INVALID",
        f"Bearer {expiring}": "KEY_EXPIRED",
    }
    time.sleep(0.5)  # until it has expired: there is nothing to wait for
    with grpc.insecure_channel(guarded.target) as channel:
        served = methods(grpc.intercept_channel(channel, _Shows(ROOT_KEY)))
        assert {name_of(method) for method in served} == ALLOWED.keys()
        for method in served:
            for authorization, reason in refused.items():
                found = call(channel, method, authorization)
                assert found == Told(code=grpc.StatusCode.UNAUTHENTICATED, reason=reason), (name_of(method), reason)
            for scope in SCOPES:
                found = call(channel, method, f"Bearer {keys[scope]}")
                if scope in ALLOWED[name_of(method)]:
                    assert found.code not in {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED}
                    assert found.code not in {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}, name_of(method)
                else:
                    assert found == Told(code=grpc.StatusCode.PERMISSION_DENIED, reason="SCOPE_MISSING"), (
                        name_of(method),
                        scope,
                    )
    for scope in SCOPES:
        root.keys.revoke(f"only-{scope.value.lower()}")


def test_health_is_open_and_reflection_is_not(guarded: Cluster, root: Client) -> None:
    key = root.keys.create("looks", scopes=["invoke"]).secret
    with grpc.insecure_channel(guarded.target) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)  # its type stubs know no methods
        health = stub.Check(health_pb2.HealthCheckRequest())
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as caught:
            methods(channel)
        assert told(caught.value).reason == "KEY_MISSING"
        anything: Any = b""
        with pytest.raises(grpc.RpcError) as caught:
            channel.unary_unary("/homing.v1.NoService/NoMethod")(anything)
        assert told(caught.value).reason == "KEY_MISSING"
        assert methods(grpc.intercept_channel(channel, _Shows(key)))
    root.keys.revoke("looks")


def fetch(method: str, url: str, key: str | None = None) -> tuple[int, Any]:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method, headers=headers)) as answer:
            return answer.status, answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.headers


def test_every_http_route_wants_a_key_but_health_and_signed_urls(
    guarded: Cluster, root: Client, data_port: DataPort
) -> None:
    keys = {scope: root.keys.create(f"http-{scope.value.lower()}", scopes=[scope]).secret for scope in SCOPES}
    limited = root.keys.create("http-limited", scopes=["read"], functions=["upper"]).secret
    areas = [*Operations(Metrics()).areas, *data_port.areas]
    routes = {
        (method, route.path)
        for area in areas
        if isinstance(area.app, Starlette)
        for route in area.app.routes
        if isinstance(route, Route)
        for method in route.methods or ()
    }
    expected = {
        ("GET", "/healthz"): 200,
        ("HEAD", "/healthz"): 200,
        ("GET", "/metrics"): 401,
        ("HEAD", "/metrics"): 401,
        # Not for want of a key: they are not signed.
        ("GET", "/v1/blobs/{id}"): 403,
        ("HEAD", "/v1/blobs/{id}"): 403,
        ("PUT", "/v1/results/{id}"): 403,
        ("POST", "/v1/streams/{id}"): 403,
    }
    assert routes == expected.keys()
    base = f"http://{guarded.server.http}"
    for (method, path), status in expected.items():
        for key in (None, "wrong"):
            found, headers = fetch(method, base + path.replace("{id}", "x"), key)
            assert found == status, (method, path)
            assert (headers["WWW-Authenticate"] == "Bearer") is (status == 401)
    for method, path in (("GET", "/nothing"), ("GET", "/"), ("DELETE", "/metrics")):
        assert fetch(method, base + path)[0] == 401
        assert fetch(method, base + path, keys[INVOKE])[0] in {404, 405}
    for scope in SCOPES:
        assert fetch("GET", f"{base}/metrics", keys[scope])[0] == (200 if scope is READ else 403)
        root.keys.revoke(f"http-{scope.value.lower()}")
    assert fetch("GET", f"{base}/metrics", limited)[0] == 403
    assert fetch("GET", f"{base}/metrics", ROOT_KEY)[0] == 200


@pytest.mark.parametrize("name", sorted(ROUTES))
def test_every_rest_route_wants_a_key_and_the_right_scope(
    guarded: Cluster, rest_keys: dict[Scope, str], name: str
) -> None:
    route = ROUTES[name]
    allowed = ALLOWED[name.removeprefix("/homing.v1.")]
    target = re.sub(r"\{[a-z_.]+\}", "nothing", route.path)

    def refusal(key: str | None) -> tuple[int, str]:
        headers = [("Last-Event-ID", "none")]  # which no stream goes on from
        if key is not None:
            headers.append(("Authorization", f"Bearer {key}"))
        reply = ask(guarded.server.http, route.verb, target, headers, b"" if route.verb == "POST" else None)
        error = {} if reply.status == 200 else json.loads(reply.body)["error"]
        return reply.status, error["details"][0]["reason"] if error else ""

    assert refusal(None) == (401, "KEY_MISSING"), "nothing that is public is named"
    assert refusal("wrong") == (401, "KEY_INVALID")
    for scope in SCOPES:
        status, reason = refusal(rest_keys[scope])
        assert (reason == "SCOPE_MISSING") is (scope not in allowed), (scope, reason)
        assert (status == 403) is (scope not in allowed)


@pytest.fixture(scope="module")
def rest_keys(root: Client) -> dict[Scope, str]:
    return {scope: root.keys.create(f"rest-{scope.value.lower()}", scopes=[scope]).secret for scope in SCOPES}


@pytest.mark.parametrize("path", ["openapi.json", "docs", "nothing"])
def test_rest_is_described_to_who_shows_a_key(guarded: Cluster, rest_keys: dict[Scope, str], path: str) -> None:
    assert fetch("GET", f"http://{guarded.server.http}/v1/{path}")[0] == 401
    found, _ = fetch("GET", f"http://{guarded.server.http}/v1/{path}", rest_keys[READ])
    assert found == (404 if path == "nothing" else 200)


@pytest.fixture
def data_port(tmp_path: Path) -> DataPort:
    """Return one that serves nothing, for its routes."""

    async def receive(_invocation: str, _chunks: AsyncIterable[bytes]) -> None:
        raise AssertionError("nothing comes here")

    blobs = Blobs(Database(f"sqlite:///{tmp_path / 'none'}"), tmp_path)
    return DataPort(blobs, SignedUrls(), receive=receive)


def denied(work: Callable[[], object], reason: str = "FUNCTION_NOT_ALLOWED") -> None:
    with pytest.raises(PermissionDeniedError) as caught:
        work()
    assert caught.value.reason == reason


def test_a_key_for_one_function_sees_and_touches_no_other(guarded: Cluster, root: Client) -> None:
    key = root.keys.create(
        "upper-only", scopes=["invoke", "read", "operate", "deploy"], functions=["upper", "new"]
    ).secret
    limited = guarded.client(api_key=key)
    mine = limited.invoke_async("upper", "abc")
    assert mine.result(timeout=60).text == "ABC"
    other = root.invoke_async("lower", "ABC")
    assert other.result(timeout=60).text == "abc"
    assert root.get(mine.id).caller == "upper-only"
    assert root.get(other.id).caller == "root"

    denied(lambda: limited.invoke("lower", "x"))
    denied(lambda: limited.invoke("missing", "x"))
    denied(lambda: limited.invoke_async("lower", "x"))
    denied(lambda: limited.get(other.id))
    denied(lambda: limited.handle(other.id).result(timeout=5))
    denied(lambda: limited.stop(other.id))
    denied(lambda: limited.rerun(other.id))
    denied(lambda: list(limited.logs(other.id)))
    denied(lambda: limited.functions.get("lower"))
    denied(lambda: limited.functions.pause("lower"))
    denied(lambda: limited.functions.delete("lower"))
    denied(lambda: limited.functions.deploy(name="lower", command=["cat"]))
    denied(lambda: list(limited.list_invocations(function="lower")))
    denied(lambda: limited.count(function=["upper", "lower"]))
    denied(lambda: limited.bulk_stop(function="lower"))
    denied(lambda: list(limited.secrets.list()), "KEY_LIMITED")
    denied(limited.signing_keys.rotate, "KEY_LIMITED")
    denied(lambda: limited.signing_keys.rotate(function="lower"))
    denied(lambda: limited.keys.revoke("x"), "SCOPE_MISSING")

    assert [function.name for function in limited.functions.list()] == ["upper"]
    assert {each.function for each in limited.list_invocations()} == {"upper"}
    assert {each.function for each in root.list_invocations()} >= {"upper", "lower"}
    assert sum(limited.count().by_state.values()) < sum(root.count().by_state.values())
    assert limited.invoke("door", "for all").text == "for all"
    with pytest.raises(NotFoundError):
        limited.functions.get("new")


def refusals_of(channel: grpc.Channel, key: str, requests: Mapping[str, Sequence[Message]]) -> dict[str, list[str]]:
    """Return by method, for each of its requests, the reason why it is refused; empty where it is not."""
    found: dict[str, list[str]] = {}
    for method in methods(grpc.intercept_channel(channel, _Shows(key))):
        found[name_of(method)] = []
        for request in requests.get(name_of(method), []):
            error = send(channel, method, request.SerializeToString(), (("authorization", f"Bearer {key}"),))
            found[name_of(method)].append("" if error is None else told(error).reason)
    return found


def test_a_limited_key_gets_at_no_other_function_by_any_rpc(guarded: Cluster, root: Client) -> None:
    """An rpc that is not here fails the test, as one does that asks for more, or for something else, than it should."""
    key = root.keys.create("limited", scopes=["invoke", "read", "operate", "deploy"], functions=["upper"]).secret
    large = b"LARGE" * 100_000
    other = root.invoke_async("lower", large)
    assert other.result(timeout=60).data == large.lower()
    root.signing_keys.rotate(function="lower")
    of_server, *_, of_lower = sorted(root.signing_keys.list(), key=lambda each: each.function or "")
    with grpc.insecure_channel(guarded.target) as channel:
        shown = grpc.intercept_channel(channel, _Shows(ROOT_KEY))
        record = InvocationServiceStub(shown).GetInvocation(GetInvocationRequest(id=other.id)).invocation
        blob = record.result.payload.blob.id
        assert blob
        spec = InvocationSpec(function="lower")
        to_others = [
            InvocationSpec(function="upper", **{end: [Destination(uri="function:door"), Destination(uri=uri)]})  # type: ignore[arg-type]
            for end in ("on_success", "on_failure")
            for uri in ("function:lower", "function:missing")
        ]
        lower, letters = InvocationFilter(functions=["upper", "lower"]), DeadLetterFilter(functions=["upper", "lower"])
        deployed = [
            Function(name="lower", image="mine"),
            Function(name="missing", image="mine"),
            Function(name="upper", image="mine", secrets=["theirs"]),
            *(Function(name="upper", image="mine", on_success=each.on_success) for each in to_others[:2]),
            *(Function(name="upper", image="mine", on_failure=each.on_failure) for each in to_others[2:]),
        ]
        requests: dict[str, Sequence[Message]] = {
            "InvocationService/Invoke": [InvokeRequest(spec=spec)],
            "InvocationService/InvokeStream": [InvokeStreamRequest(spec=spec)],
            "InvocationService/InvokeAsync": [InvokeAsyncRequest(spec=each) for each in (spec, *to_others)],
            "InvocationService/BatchInvokeAsync": [],  # tells of each by itself: see below
            "InvocationService/GetInvocation": [GetInvocationRequest(id=other.id)],
            "InvocationService/WaitInvocation": [WaitInvocationRequest(id=other.id)],
            "InvocationService/ListInvocations": [ListInvocationsRequest(filter=lower)],
            "InvocationService/CountInvocations": [CountInvocationsRequest(filter=lower)],
            "InvocationService/WatchResults": [WatchResultsRequest(filter=lower)],
            "InvocationService/StopInvocation": [StopInvocationRequest(id=other.id)],
            "InvocationService/BulkStop": [BulkStopRequest(filter=lower)],
            "InvocationService/RerunInvocation": [RerunInvocationRequest(id=other.id)],
            "InvocationService/BulkRerun": [BulkRerunRequest(filter=lower)],
            "PayloadService/WritePayload": [],  # is nobody else's
            "PayloadService/ReadPayload": [ReadPayloadRequest(blob_id=blob)],
            "LogService/TailLogs": [TailLogsRequest(id=other.id)],
            "DeadLetterService/ListDeadLetters": [ListDeadLettersRequest(filter=letters)],
            "DeadLetterService/RedriveDeadLetters": [RedriveDeadLettersRequest(filter=letters)],
            "DeadLetterService/PurgeDeadLetters": [PurgeDeadLettersRequest(filter=letters)],
            "FunctionService/GetFunction": [GetFunctionRequest(name="lower")],
            "FunctionService/ListFunctions": [],  # leaves them out
            "FunctionService/PauseFunction": [PauseFunctionRequest(name="lower")],
            "FunctionService/ResumeFunction": [ResumeFunctionRequest(name="lower")],
            "FunctionService/ScaleFunction": [ScaleFunctionRequest(name="lower", max_instances=2)],
            "FunctionService/DeployFunction": [DeployFunctionRequest(function=each) for each in deployed],
            "FunctionService/DeleteFunction": [DeleteFunctionRequest(name="lower")],
            "SecretService/CreateSecret": [CreateSecretRequest(name="theirs", value=b"x")],
            "SecretService/UpdateSecret": [UpdateSecretRequest(name="theirs", value=b"x")],
            "SecretService/ListSecrets": [ListSecretsRequest()],
            "SecretService/DeleteSecret": [DeleteSecretRequest(name="theirs")],
            "SigningKeyService/RotateSigningKey": [
                RotateSigningKeyRequest(),
                RotateSigningKeyRequest(function="lower"),
            ],
            "SigningKeyService/ListSigningKeys": [ListSigningKeysRequest(), ListSigningKeysRequest(function="lower")],
            "SigningKeyService/RevokeSigningKey": [
                RevokeSigningKeyRequest(id=of_server.id),
                RevokeSigningKeyRequest(id=of_lower.id),
            ],
            "KeyService/CreateKey": [CreateKeyRequest()],
            "KeyService/ListKeys": [ListKeysRequest()],
            "KeyService/RevokeKey": [RevokeKeyRequest()],
        }
        expected = {method: ["FUNCTION_NOT_ALLOWED"] * len(asked) for method, asked in requests.items()}
        expected["FunctionService/DeployFunction"][2] = "KEY_LIMITED"
        for method in requests:
            if method.startswith("SecretService/"):
                expected[method] = ["KEY_LIMITED"]
            if method.startswith("SigningKeyService/"):
                expected[method][0] = "KEY_LIMITED"
            if method.startswith("KeyService/"):
                expected[method] = ["SCOPE_MISSING"]  # no key that is limited may have it
        assert refusals_of(channel, key, requests) == expected

        batch = BatchInvokeAsyncRequest(requests=[InvokeAsyncRequest(spec=each) for each in (spec, *to_others)])
        limited = InvocationServiceStub(grpc.intercept_channel(channel, _Shows(key)))
        for result in limited.BatchInvokeAsync(batch).results:
            info = error_details_pb2.ErrorInfo()
            assert any(detail.Unpack(info) for detail in result.error.details)
            assert info.reason == "FUNCTION_NOT_ALLOWED"
    root.signing_keys.revoke(of_lower.id)
    root.keys.revoke("limited")


def test_who_guesses_a_request_id_without_a_key_learns_next_to_nothing(guarded: Cluster, root: Client) -> None:
    spec = InvocationSpec(function="door", payload=Payload(data=b"a secret"))
    request = InvokeAsyncRequest(spec=spec, request_id="guessed")
    with grpc.insecure_channel(guarded.target) as channel:
        stub = InvocationServiceStub(channel)
        first = stub.InvokeAsync(request).invocation
        assert root.handle(first.id).result(timeout=60).text == "a secret"
        again = stub.InvokeAsync(request)
        (in_batch,) = stub.BatchInvokeAsync(BatchInvokeAsyncRequest(requests=[request])).results
    for repeated in (again, in_batch.accepted):
        assert repeated.duplicate
        assert repeated.invocation == Invocation(
            id=first.id, function="door", state=INVOCATION_STATE_SUCCEEDED, create_time=first.create_time
        )


def test_what_is_bulk_keeps_to_the_functions_of_the_key(guarded: Cluster, root: Client) -> None:
    key = root.keys.create("bulk", scopes=["operate", "invoke"], functions=["upper"]).secret
    limited = guarded.client(api_key=key)
    mine = root.invoke_async("upper", "x", labels={"bulk": "1"}, delay=3600)
    other = root.invoke_async("lower", "x", labels={"bulk": "1"}, delay=3600)
    with pytest.raises(RequestError, match="at least one field"):
        limited.bulk_stop()
    assert limited.bulk_stop(labels={"bulk": "1"}, request_id="r").matched == 1
    assert limited.bulk_stop(labels={"bulk": "1"}, request_id="r").stopped == 1
    assert root.get(mine.id).state == "STOPPED"
    assert root.get(mine.id).stop_request is not None
    assert root.get(other.id).state == "SCHEDULED"
    # The same id of another caller stands for another call, which stops the rest.
    assert root.bulk_stop(labels={"bulk": "1"}, request_id="r").stopped == 1
    assert root.get(other.id).state == "STOPPED"


def test_a_key_for_one_function_gives_it_no_secret_and_sees_no_further_along_a_chain(
    guarded: Cluster, root: Client
) -> None:
    root.secrets.create("given", b"for linked")
    root.secrets.create("kept", b"for others")
    root.functions.deploy(name="linked", command=["cat"], secrets=["given"], on_success=["function:lower"])
    limited = guarded.client(
        api_key=root.keys.create("linked-only", scopes=["invoke", "deploy"], functions=["linked"]).secret
    )
    caused = limited.invoke_async("linked", "ABC")
    with root.watch_results(function="lower") as results:
        caused.result(timeout=60)
        after = next(each for each in results if each.invocation.caused_by)
    denied(lambda: limited.get(after.invocation.id))
    denied(lambda: limited.handle(after.invocation.id).result(timeout=5))
    denied(lambda: limited.functions.deploy(name="linked", command=["cat"], secrets=["kept"]), "KEY_LIMITED")
    denied(lambda: limited.functions.deploy(name="linked", command=["cat"], secrets=["missing"]), "KEY_LIMITED")
    # What it does not name stays, also what it may not set itself.
    changed = limited.functions.update("linked", labels={"by": "ci"})
    assert (changed.secrets, changed.on_success) == (("given",), ("function:lower",))
    denied(lambda: limited.functions.update("linked", secrets=["given", "kept"]), "KEY_LIMITED")
    denied(lambda: limited.functions.update("linked", on_success="function:lower"))
    denied(lambda: limited.functions.update("lower", labels={"by": "ci"}))
    limited.functions.deploy(name="linked", command=["cat"], secrets=["given"])


def test_who_may_only_invoke_reads_what_it_invoked(guarded: Cluster, root: Client) -> None:
    key = root.keys.create("shop", scopes=["invoke"]).secret
    shop = guarded.client(api_key=key)
    own = shop.invoke_async("upper", "abc")
    assert own.result(timeout=60).text == "ABC"
    assert shop.get(own.id).caller == "shop"
    other = root.invoke_async("upper", "abc")
    other.result(timeout=60)
    denied(lambda: shop.get(other.id), "SCOPE_MISSING")
    denied(lambda: shop.handle(other.id).result(timeout=5), "SCOPE_MISSING")
    denied(lambda: list(shop.list_invocations()), "SCOPE_MISSING")
    large = b"x" * 600_000
    assert len(shop.invoke("door", large).data) == len(large)
    stored = root.invoke_async("door", large)
    stored.result(timeout=60)
    with grpc.insecure_channel(guarded.target) as channel:
        stub, payloads = InvocationServiceStub(channel), PayloadServiceStub(channel)
        record = stub.GetInvocation(
            GetInvocationRequest(id=stored.id), metadata=(("authorization", f"Bearer {ROOT_KEY}"),)
        )
        asked = ReadPayloadRequest(blob_id=record.invocation.result.payload.blob.id)
        assert asked.blob_id
        assert next(payloads.ReadPayload(asked, metadata=(("authorization", f"Bearer {ROOT_KEY}"),))).data
        with pytest.raises(grpc.RpcError) as caught:
            next(payloads.ReadPayload(asked, metadata=(("authorization", f"Bearer {key}"),)))
        assert told(caught.value) == Told(code=grpc.StatusCode.PERMISSION_DENIED, reason="SCOPE_MISSING")


def test_public_functions_need_no_key(guarded: Cluster) -> None:
    nobody = guarded.client()
    assert nobody.invoke("door", "hello").text == "hello"
    accepted = nobody.invoke_async("door", "later")
    for work in (
        lambda: nobody.invoke("upper", "x"),
        lambda: nobody.invoke("missing", "x"),
        lambda: nobody.invoke_async("upper", "x"),
        lambda: nobody.get(accepted.id),
        lambda: list(nobody.functions.list()),
    ):
        with pytest.raises(UnauthenticatedError) as caught:
            work()
        assert caught.value.reason == "KEY_MISSING"
    assert guarded.client(api_key=ROOT_KEY).handle(accepted.id).result(timeout=60).text == "later"
    nobody.invoke("door", "x", path="/a", query={"b": "c"}, headers={"X-Mine": "y"})
    with pytest.raises(UnauthenticatedError) as caught:
        guarded.client(api_key="hk_wrong").invoke("door", "x")
    assert caught.value.reason == "KEY_INVALID"


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("callback", {"callback_url": "https://example.org/hook"}),
        ("on_success", {"on_success": "function:upper"}),
        ("on_failure", {"on_failure": "amqp:orders/x"}),
        ("labels", {"labels": {"a": "b"}}),
        ("retry_policy", {"retry_policy": RetryPolicy(max_attempts=50)}),
        ("attempt_timeout", {"attempt_timeout": 3600}),
        ("max_age", {"max_age": 3600}),
        ("schedule_time", {"schedule_time": datetime.now(UTC)}),
    ],
)
def test_without_a_key_a_call_has_its_payload_and_http_options_alone(
    guarded: Cluster, field: str, options: dict[str, Any]
) -> None:
    nobody = guarded.client()
    calls: list[Callable[..., object]] = [nobody.invoke_async]
    if field in ("labels", "retry_policy", "attempt_timeout"):
        calls.append(nobody.invoke)
    refusals: list[object] = [*nobody.invoke_batch("door", ["x"], **options)]
    for call in calls:
        with pytest.raises(UnauthenticatedError) as caught:
            call("door", "x", **options)
        refusals.append(caught.value)
    for refusal in refusals:
        assert isinstance(refusal, UnauthenticatedError)
        assert refusal.reason == "KEY_MISSING"
        assert f"spec.{field}: " in str(refusal)


def test_a_key_has_its_rate(guarded: Cluster, root: Client) -> None:
    key = root.keys.create("slow", scopes=["invoke", "read"], max_per_second=2).secret
    metadata = (("authorization", f"Bearer {key}"),)
    batch = BatchInvokeAsyncRequest(requests=[InvokeAsyncRequest(spec=InvocationSpec(function="upper"))] * 4)
    with grpc.insecure_channel(guarded.target) as channel:
        functions = FunctionServiceStub(channel)
        invocations = InvocationServiceStub(channel)

        def look() -> object:
            return functions.ListFunctions(ListFunctionsRequest(), metadata=metadata)

        looks: list[object] = []
        started = time.monotonic()
        with pytest.raises(grpc.RpcError) as caught:
            looks.extend(look() for _ in range(100))
        assert 2 <= len(looks) <= 2 + 2 * (time.monotonic() - started)
        assert told(caught.value) == Told(code=grpc.StatusCode.RESOURCE_EXHAUSTED, reason="RATE_LIMITED")
        wait = retry_after(caught.value)
        assert 0 < wait <= 0.5
        time.sleep(wait)  # it says when
        look()
        # Requests of HTTP count as calls do.
        assert 429 in (fetch("GET", f"http://{guarded.server.http}/metrics", key)[0] for _ in range(100))
        # Others are not held up.
        list(root.functions.list())
        # A batch counts for what is in it, and is worked off.
        time.sleep(1.0)
        invocations.BatchInvokeAsync(batch, metadata=metadata)
        with pytest.raises(grpc.RpcError) as caught:
            look()
        assert 0.5 < retry_after(caught.value) <= 1.5
    # The SDK waits by itself for as long as it may.
    with Client(guarded.target, api_key=key, timeout=30) as patient:
        for _ in range(4):
            list(patient.functions.list())
    with Client(guarded.target, api_key=key, timeout=0.3) as hasty, pytest.raises(RateLimitedError) as limited:
        [list(hasty.functions.list()) for _ in range(4)]
    assert limited.value.retry_after is not None


def test_other_servers_learn_of_keys(guarded: Cluster, root: Client) -> None:
    second = guarded.start_server(HOMING_ROOT_KEY=ROOT_KEY)
    made = root.keys.create("travels", scopes=["read"])
    with Client(second.target, api_key=made.secret) as there:
        eventually(lambda: list(there.functions.list()))
        watch = there.watch_results()
        root.keys.revoke(made.api_key.id)
        eventually(lambda: _refused(lambda: list(there.functions.list())))
        # Also what has begun before ends, with the next message.
        with pytest.raises(UnauthenticatedError):
            for _ in watch:
                pass
    second.terminate()


def eventually(work: Callable[[], object], within: float = 30.0) -> None:
    deadline = time.monotonic() + within
    while True:
        try:
            work()
        except (RequestError, AssertionError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def _refused(work: Callable[[], object]) -> None:
    try:
        work()
    except UnauthenticatedError:
        return
    raise AssertionError("the key still works")


def test_keys_are_made_listed_and_revoked_by_the_command(guarded: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOMING_TARGET", guarded.target)
    monkeypatch.setenv("HOMING_API_KEY", ROOT_KEY)
    made = homing(
        "keys", "create", "by-hand", "--scope", "read", "--scope", "invoke", "--function", "upper", "--expires", "30d"
    )
    assert made.exit_code == 0, made.stderr
    key = made.stdout.strip()
    with Client(guarded.target, api_key=key) as client:
        assert [function.name for function in client.functions.list()] == ["upper"]
    listed = homing("keys", "list", "--json")
    (shown,) = (each for each in map(json.loads, listed.stdout.splitlines()) if each["name"] == "by-hand")
    assert shown["functions"] == ["upper"]
    assert key not in listed.stdout
    assert "by-hand" in homing("keys", "list").stdout
    assert homing("keys", "create", "by-hand", "--scope", "read").exit_code == 5
    assert homing("keys", "create", "x", "--scope", "everything").exit_code == 2
    assert homing("keys", "create", "root", "--scope", "read").exit_code == 2
    assert homing("keys", "create", "x", "--scope", "admin", "--function", "upper").exit_code == 2
    assert homing("keys", "revoke", "by-hand").exit_code == 0
    assert homing("keys", "revoke", "by-hand").exit_code == 4
    with Client(guarded.target, api_key=key) as client:
        _refused(lambda: list(client.functions.list()))


def test_control_actions_are_audited_and_nothing_secret_is(guarded: Cluster, root: Client) -> None:
    before = len(guarded.server.lines)
    root.functions.deploy(name="audited", command=["cat"])
    secret = confidential("a value that is in no log")
    root.secrets.create("audited-secret", secret)
    key = root.keys.create("audited-key", scopes=["read"], expires=timedelta(hours=1)).secret
    with Client(guarded.target, api_key=key) as reader:
        denied(lambda: reader.functions.delete("audited"), "SCOPE_MISSING")
    with pytest.raises(NotFoundError):
        root.functions.pause("missing")
    root.functions.delete("audited")
    root.bulk_stop(function="audited")
    with pytest.raises(InvalidRequestError):
        root.bulk_rerun()
    root.dead_letters.redrive(function="audited", dry_run=True)
    with Client(guarded.target, api_key=key) as reader:
        denied(lambda: reader.dead_letters.purge(function="audited"), "SCOPE_MISSING")
    for fields in (
        {"action": "DeployFunction", "caller": "root", "function": "audited", "outcome": "OK"},
        {"action": "CreateSecret", "caller": "root", "secret": "audited-secret", "outcome": "OK"},
        {"action": "CreateKey", "caller": "root", "key": "audited-key", "scopes": ["read"], "outcome": "OK"},
        {"action": "DeleteFunction", "caller": "audited-key", "outcome": "PERMISSION_DENIED"},
        {"action": "PauseFunction", "caller": "root", "function": "missing", "outcome": "NOT_FOUND"},
        {"action": "DeleteFunction", "caller": "root", "function": "audited", "outcome": "OK"},
        {"action": "BulkStop", "caller": "root", "outcome": "OK"},
        {"action": "BulkRerun", "caller": "root", "outcome": "INVALID_ARGUMENT"},
        {"action": "RedriveDeadLetters", "caller": "root", "dry_run": True, "outcome": "OK"},
        {"action": "PurgeDeadLetters", "caller": "audited-key", "outcome": "PERMISSION_DENIED"},
    ):
        guarded.server.wait_for_log("audit", after=before, logger="homing.audit", **fields)
    assert not guarded.server.betrayals


def test_audit_lines_appear_whatever_the_level_is(cluster: Cluster) -> None:
    (port,) = free_ports(1)
    server = cluster.new_server(HOMING_LOG_LEVEL="error", HOMING_GRPC_LISTEN=f"127.0.0.1:{port}")
    server.launch()
    with Client(f"127.0.0.1:{port}") as client:
        client.functions.deploy(name="audited", command=["cat"])
    line = server.wait_for_log("audit", action="DeployFunction")
    assert line["caller"] == ""
    assert {each["event"] for each in server.lines} == {"audit"}


def test_it_does_not_start_where_nobody_could_come_in(cluster: Cluster) -> None:
    server = cluster.new_server(HOMING_AUTHENTICATE="true")
    with pytest.raises(ProcessError, match="HOMING_ROOT_KEY"):
        server.start()
    assert server.wait() == 1
    server.environment["HOMING_ROOT_KEY"] = "too short"
    with pytest.raises(ProcessError, match="at least 32 characters"):
        server.start()
    assert server.wait() == 1
    server.environment["HOMING_ROOT_KEY"] = ROOT_KEY
    server.start()
    with Client(server.target, api_key=ROOT_KEY) as root:
        admin = root.keys.create("admin", scopes=["admin"])
    server.terminate()
    del server.environment["HOMING_ROOT_KEY"]
    server.start()
    with Client(server.target, api_key=admin.secret) as client:
        assert [key.name for key in client.keys.list()] == ["admin"]
    with Client(server.target, api_key=ROOT_KEY) as client:
        _refused(lambda: list(client.keys.list()))


def test_off_loopback_it_wants_keys_or_to_be_told(cluster: Cluster) -> None:
    server = cluster.new_server(HOMING_GRPC_LISTEN="0.0.0.0:0")
    with pytest.raises(ProcessError, match="HOMING_ALLOW_UNAUTHENTICATED"):
        server.start()
    assert server.wait() == 1
    server.environment["HOMING_ROOT_KEY"] = ROOT_KEY
    server.start()
    server.wait_for_log("api_keys_unencrypted")


def upload(channel: grpc.Channel, body: bytes) -> Blob:
    parts = [WritePayloadRequest(size=len(body)), WritePayloadRequest(data=body)]
    blob: Blob = PayloadServiceStub(channel).WritePayload(iter(parts)).blob
    return blob


def read(channel: grpc.Channel, blob: Blob) -> bytes:
    return b"".join(part.data for part in PayloadServiceStub(channel).ReadPayload(ReadPayloadRequest(blob_id=blob.id)))


def refusal_of(work: Callable[[], object]) -> str:
    with pytest.raises(grpc.RpcError) as caught:
        work()
    return error_info(caught.value).reason


def test_the_id_of_a_body_is_no_right_to_it(guarded: Cluster, root: Client) -> None:
    """Neither by reading it, nor through a function that tells it, a public one too."""
    body = b"a secret " * 40_000
    secrets = {
        name: root.keys.create(f"bodies-{name}", scopes=scopes, functions=functions).secret
        for name, scopes, functions in (
            ("alice", [INVOKE], []),
            ("mallory", [INVOKE], []),
            ("reader", [READ], []),
            ("operator", [OPERATE, INVOKE], []),
            ("of-door", [READ, INVOKE], ["door"]),
            ("of-upper", [READ, INVOKE], ["upper"]),
        )
    }
    with grpc.insecure_channel(guarded.target) as channel:
        shown = {name: grpc.intercept_channel(channel, _Shows(key)) for name, key in secrets.items()}
        blob = upload(shown["alice"], body)
        assert read(shown["alice"], blob) == body
        spec = InvocationSpec(function="door", payload=Payload(blob=Blob(id=blob.id)))
        request = InvokeAsyncRequest(spec=spec)
        # Nobody else, as long as it belongs to no invocation.
        for name in secrets.keys() - {"alice"}:
            assert refusal_of(partial(read, shown[name], blob)) == "BLOB_NOT_FOUND"
        for stub in (InvocationServiceStub(shown["mallory"]), InvocationServiceStub(channel)):
            assert refusal_of(partial(stub.InvokeAsync, request)) == "BLOB_NOT_FOUND"
            assert refusal_of(partial(stub.Invoke, InvokeRequest(spec=spec))) == "BLOB_NOT_FOUND"
            (result,) = stub.BatchInvokeAsync(BatchInvokeAsyncRequest(requests=[request])).results
            assert "there is no stored body" in result.error.message

        stub = InvocationServiceStub(shown["alice"])
        call = stub.InvokeAsync(request).invocation
        end = stub.WaitInvocation(WaitInvocationRequest(id=call.id)).invocation
        answer = end.result.payload.blob
        for name in ("alice", "reader", "of-door"):
            assert read(shown[name], blob) == read(shown[name], answer) == body
        assert refusal_of(lambda: read(shown["mallory"], blob)) == "SCOPE_MISSING"
        assert refusal_of(lambda: read(shown["of-upper"], answer)) == "FUNCTION_NOT_ALLOWED"
        assert refusal_of(lambda: InvocationServiceStub(shown["mallory"]).InvokeAsync(request)) == "SCOPE_MISSING"
        refused = refusal_of(lambda: InvocationServiceStub(channel).InvokeAsync(request))
        assert refused in {"SCOPE_MISSING", "KEY_MISSING"}
        # Whoever may run it again may do so with what it had, and not with what they have no right to.
        operator = InvocationServiceStub(shown["operator"])
        assert operator.RerunInvocation(RerunInvocationRequest(id=call.id)).invocation.rerun_of == call.id
        other = RerunInvocationRequest(id=call.id, payload=Payload(blob=Blob(id=upload(shown["alice"], body).id)))
        assert refusal_of(lambda: operator.RerunInvocation(other)) == "BLOB_NOT_FOUND"
        # The answer of a synchronous call is its caller's, whether or not there is a record of it by now.
        direct = stub.Invoke(InvokeRequest(spec=spec)).invocation.result.payload.blob
        assert read(shown["alice"], direct) == body
        assert stub.InvokeAsync(
            InvokeAsyncRequest(spec=InvocationSpec(function="door", payload=Payload(blob=Blob(id=direct.id))))
        ).invocation.id


def test_what_a_key_stores_and_does_not_use_is_bounded(guarded: Cluster, root: Client) -> None:
    """What is under way counts by the size that it is said to have, so nothing need be sent for that."""
    key = root.keys.create("hoards", scopes=["invoke"]).secret
    ended, refused = threading.Event(), threading.Event()

    def parts() -> Iterator[WritePayloadRequest]:
        yield WritePayloadRequest(size=64 * 2**20)
        ended.wait()

    with ExitStack() as channels:
        # Of a connection there are fewer streams at once.
        options = [("grpc.use_local_subchannel_pool", 1)]
        stubs = [
            PayloadServiceStub(
                grpc.intercept_channel(
                    channels.enter_context(grpc.insecure_channel(guarded.target, options=options)), _Shows(key)
                )
            )
            for _ in range(5)
        ]
        uploads = [stub.WritePayload.future(parts(), timeout=60) for stub in stubs for _ in range(13)]
        for each in uploads:
            each.add_done_callback(lambda _: refused.set())
        refused.wait()
        reasons = [error_info(each.exception()).reason for each in uploads if each.done()]
        assert reasons == ["TOO_MANY_UPLOADS"]
        for each in uploads:
            each.cancel()
        ended.set()
    root.keys.revoke("hoards")
