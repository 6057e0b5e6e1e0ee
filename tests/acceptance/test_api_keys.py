"""API keys: made, listed, revoked and bounded; what is done with them is audited."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import timedelta

import grpc
import pytest

from homing import Client, RateLimitedError, UnauthenticatedError
from homing.errors import InvalidRequestError, NotFoundError, RequestError
from homing.v1 import (
    BatchInvokeAsyncRequest,
    InvocationSpec,
    InvokeAsyncRequest,
    ListFunctionsRequest,
)
from homing.v1.function_service_pb2_grpc import FunctionServiceStub
from homing.v1.invocation_service_pb2_grpc import InvocationServiceStub
from support.cli import homing
from support.confidential import confidential
from support.guarded import ROOT_KEY, Told, denied, fetch, refused, retry_after, told
from support.processes import Cluster
from support.rabbitmq import free_ports


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
        eventually(lambda: refused(lambda: list(there.functions.list())))
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
        refused(lambda: list(client.functions.list()))


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
