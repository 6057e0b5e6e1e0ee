"""Bad input gets an error that names the field and the limit, alike from raw gRPC, the SDK and the CLI."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import ParseDict

import homing
from homing.v1 import invocation_service_pb2, invocation_service_pb2_grpc
from support.grpc_errors import violated_fields, violations
from support.processes import Cluster

TOO_LARGE = 256 * 1024 + 1
TOO_LARGE_IN_ALL = 64 * 2**20 + 1


@dataclass(frozen=True, kw_only=True)
class Case:
    name: str
    request: dict[str, Any]
    """The raw request, as JSON."""
    field: str
    limit: str
    code: grpc.StatusCode = grpc.StatusCode.INVALID_ARGUMENT
    sdk: Callable[[homing.Client], object]
    sdk_error: type[Exception] = homing.InvalidRequestError
    sdk_says: str
    cli: list[str] = dataclasses.field(default_factory=list)
    cli_input: bytes = b""
    cli_says: str
    exit_code: int = 2


CASES = [
    Case(
        name="unknown function",
        request={"spec": {"function": "nobody"}},
        field="",
        limit="there is no function 'nobody'",
        code=grpc.StatusCode.NOT_FOUND,
        sdk=lambda client: client.invoke_async("nobody"),
        sdk_error=homing.NotFoundError,
        sdk_says="there is no function 'nobody'",
        cli=["invoke", "nobody", "--async", "x"],
        cli_says="there is no function 'nobody'",
        exit_code=4,
    ),
    Case(
        name="too large a payload",
        request={"spec": {"function": "cat", "payload": {"data": "QUFB" * (TOO_LARGE // 3 + 1)}}},
        field="spec.payload.data",
        limit="at most 262144 bytes",
        sdk=lambda client: client.invoke_async("cat", b"x" * TOO_LARGE_IN_ALL),
        sdk_error=homing.PayloadTooLargeError,
        sdk_says="67108864",
        cli=["invoke", "cat", "--async"],
        cli_input=b"x" * TOO_LARGE_IN_ALL,
        cli_says="67108864",
    ),
    Case(
        name="bad callback URL",
        request={"spec": {"function": "cat", "callback": {"url": "ftp://somewhere/else"}}},
        field="spec.callback.url",
        limit="must begin with http:// or https://",
        sdk=lambda client: client.invoke_async("cat", callback_url="ftp://somewhere/else"),
        sdk_says="callback",
        cli=["invoke", "cat", "--async", "--callback-url", "ftp://somewhere/else", "x"],
        cli_says="http",
    ),
    Case(
        name="negative time-out",
        request={"spec": {"function": "cat", "attemptTimeout": "-5s"}},
        field="spec.attempt_timeout",
        limit="more than 0 s and at most 86400 s, is -5 s",
        sdk=lambda client: client.invoke_async("cat", attempt_timeout=-5),
        sdk_says="attempt_timeout",
        cli=["invoke", "cat", "--async", "--attempt-timeout", "25h", "x"],
        cli_says="86400",
    ),
    Case(
        name="too many attempts",
        request={"spec": {"function": "cat", "retryPolicy": {"maxAttempts": 101}}},
        field="spec.retry_policy.max_attempts",
        limit="from 1 to 100, is 101",
        sdk=lambda client: client.invoke_async("cat", retry_policy=homing.RetryPolicy(max_attempts=101)),
        sdk_says="max_attempts",
        cli=["deploy", "dog", "--max-attempts", "101", "--image", "dog"],
        cli_says="from 1 to 100, is 101",
    ),
    Case(
        name="bad name",
        request={"spec": {"function": "No.Such"}},
        field="spec.function",
        limit="[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?",
        sdk=lambda client: client.invoke_async("No.Such"),
        sdk_says="function",
        cli=["invoke", "No.Such", "--async", "x"],
        cli_says="[a-z0-9]",
    ),
]


def test_every_front_names_the_field_and_the_limit(cluster: Cluster, tmp_path: Path) -> None:
    server = cluster.start_server()
    client = cluster.client()
    client.functions.deploy(name="cat", command=["cat"])
    with grpc.insecure_channel(server.target) as channel:
        stub = invocation_service_pb2_grpc.InvocationServiceStub(channel)
        for case in CASES:
            error = refusal(stub.InvokeAsync, ParseDict(case.request, invocation_service_pb2.InvokeAsyncRequest()))
            assert error.code() is case.code, case.name
            assert case.limit in error.details(), case.name
            assert violated_fields(error) == ([case.field] if case.field else []), case.name

            error = refusal(stub.Invoke, ParseDict(case.request, invocation_service_pb2.InvokeRequest()))
            assert error.code() is case.code, case.name
            assert case.limit in error.details(), case.name
            assert case.field in violated_fields(error) or not case.field, case.name

            with pytest.raises(case.sdk_error) as told:
                case.sdk(client)
            assert case.sdk_says in str(told.value), case.name

            done = _cli(server.target, case.cli, case.cli_input, tmp_path)
            assert done.returncode == case.exit_code, f"{case.name}: {done.stderr!r}"
            assert case.cli_says in done.stderr.decode(), case.name
            assert b"Traceback" not in done.stderr, case.name
        spec = {"function": "cat", "callback": {"url": "https://example.org/"}}
        error = refusal(stub.Invoke, ParseDict({"spec": spec}, invocation_service_pb2.InvokeRequest()))
        assert violations(error) == {"spec.callback": "is for asynchronous invocations only"}
    assert not server.lines or not any(line.get("level") == "error" for line in server.lines)


def refusal(call: Any, request: object) -> Any:
    """Return the error that a raw call ends with."""
    with pytest.raises(grpc.RpcError) as refused:
        call(request, timeout=30)
    return refused.value


def test_the_sdk_refuses_wrong_types_before_it_calls(cluster: Cluster) -> None:
    cluster.start_server()
    client = cluster.client()
    wrong: list[tuple[str, Callable[[], object]]] = [
        ("function", lambda: client.invoke(7)),  # type: ignore[arg-type]
        ("payload", lambda: client.invoke_async("cat", object())),
        ("attempt_timeout", lambda: client.invoke_async("cat", attempt_timeout="soon")),  # type: ignore[arg-type]
        ("labels", lambda: client.invoke_async("cat", labels={"a": 1})),  # type: ignore[dict-item]
    ]
    for name, call in wrong:
        with pytest.raises((TypeError, homing.InvalidRequestError), match=name):
            call()


def _cli(target: str, arguments: list[str], given: bytes, folder: Path) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-c", "from homing_cli.main import main; main()", *arguments, "--target", target],
        input=given,
        capture_output=True,
        env={key: value for key, value in os.environ.items() if not key.startswith("HOMING_")},
        cwd=folder,
        timeout=60,
        check=False,
    )
