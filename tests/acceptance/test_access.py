"""Who may do what: every rpc, without a key, with wrong ones, and with one of each scope."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from homing import Client, RetryPolicy, UnauthenticatedError
from homing.v1 import (
    BatchInvokeAsyncRequest,
    GetInvocationRequest,
    Invocation,
    InvocationSpec,
    InvokeAsyncRequest,
    Payload,
    ReadPayloadRequest,
)
from homing.v1.invocation_pb2 import INVOCATION_STATE_SUCCEEDED
from homing.v1.invocation_service_pb2_grpc import InvocationServiceStub
from homing.v1.payload_service_pb2_grpc import PayloadServiceStub
from support.allowed import ADMIN, ALLOWED, SCOPES
from support.guarded import ROOT_KEY, Shows, Told, call, denied, methods, name_of, refused, told
from support.processes import Cluster, ProcessError


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
        served = methods(grpc.intercept_channel(channel, Shows(ROOT_KEY)))
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
        assert methods(grpc.intercept_channel(channel, Shows(key)))
    root.keys.revoke("looks")


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
    invokes: list[Callable[..., object]] = [nobody.invoke_async]
    if field in ("labels", "retry_policy", "attempt_timeout"):
        invokes.append(nobody.invoke)
    refusals: list[object] = [*nobody.invoke_batch("door", ["x"], **options)]
    for invoke in invokes:
        with pytest.raises(UnauthenticatedError) as caught:
            invoke("door", "x", **options)
        refusals.append(caught.value)
    for refusal in refusals:
        assert isinstance(refusal, UnauthenticatedError)
        assert refusal.reason == "KEY_MISSING"
        assert f"spec.{field}: " in str(refusal)


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
        refused(lambda: list(client.keys.list()))


def test_off_loopback_it_wants_keys_or_to_be_told(cluster: Cluster) -> None:
    server = cluster.new_server(HOMING_GRPC_LISTEN="0.0.0.0:0")
    with pytest.raises(ProcessError, match="HOMING_ALLOW_UNAUTHENTICATED"):
        server.start()
    assert server.wait() == 1
    server.environment["HOMING_ROOT_KEY"] = ROOT_KEY
    server.start()
    server.wait_for_log("api_keys_unencrypted")
