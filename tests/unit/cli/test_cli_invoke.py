"""The command that runs functions, against a real server that answers as told."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from homing.v1 import (
    invocation_pb2,
    invocation_service_pb2,
    payload_pb2,
    policy_pb2,
)
from support import records
from support.cli import PROGRAM, homing, objects, program
from support.http_headers import headers_of
from support.scripted_server import ScriptedServer

pytestmark = pytest.mark.usefixtures("scripted_target")


def answer(record: invocation_pb2.Invocation) -> invocation_service_pb2.InvokeResponse:
    return invocation_service_pb2.InvokeResponse(invocation=record)


def test_the_output_of_a_function_is_printed_as_it_is(scripted_server: ScriptedServer) -> None:
    body = bytes(range(256)) * 4
    scripted_server.script("Invoke", answer(records.invocation(body=body)))

    run = program("invoke", "figlet", "hello")

    assert (run.returncode, run.stdout, run.stderr) == (0, body, b"")
    assert scripted_server.requests["Invoke"][0].spec.payload == payload_pb2.Payload(
        content_type="text/plain; charset=utf-8", data=b"hello"
    )


@pytest.mark.parametrize(
    "case",
    [
        (["hello"], None, b"hello", "text/plain; charset=utf-8"),
        (["hello"], b"ignored", b"hello", "text/plain; charset=utf-8"),
        (["-d", "text"], None, b"text", "text/plain; charset=utf-8"),
        (["-d", "@{file}"], None, b'{"a":1}', "application/json"),
        (["-d", "@{file}", "--content-type", "x/y"], None, b'{"a":1}', "x/y"),
        (["-d", "@-"], b"\x00\xff", b"\x00\xff", "application/octet-stream"),
        ([], b"\x00\xff", b"\x00\xff", "application/octet-stream"),
        ([], None, b"", ""),
    ],
    ids=str,
)
def test_where_the_payload_comes_from(
    scripted_server: ScriptedServer,
    tmp_path: Path,
    case: tuple[list[str], bytes | None, bytes, str],
) -> None:
    arguments, piped, data, content_type = case
    file = tmp_path / "in.json"
    file.write_bytes(b'{"a":1}')
    scripted_server.script("Invoke", answer(records.invocation()))

    run = program("invoke", "figlet", *(argument.format(file=file) for argument in arguments), piped=piped)

    assert run.returncode == 0, run.stderr
    payload = scripted_server.requests["Invoke"][0].spec.payload
    assert (payload.data, payload.content_type) == (data, content_type)


def test_invoke_sends_every_option(scripted_server: ScriptedServer) -> None:
    scripted_server.script("InvokeAsync", records.accepted())

    result = homing(
        *("invoke", "figlet", "x", "--async", "--callback-url", "http://localhost/hook", "--request-id", "r1"),
        *(
            "--label",
            "job=7",
            "-H",
            "X-One=1",
            "-H",
            "X-One=2=3",
            "--attempt-timeout",
            "5s",
            "--content-type",
            "a/b",
            "--delay",
            "1h",
        ),
        *("--callback-header", "X-Job=7", "--callback-header", "X-Job=8"),
        *("--on-success", "function:next", "--on-success", "https://example.com/done"),
        *("--on-failure", "amqp:failures/figlet"),
    )

    assert (result.exit_code, result.stdout) == (0, f"{records.INVOCATION_ID}\n")
    [request] = scripted_server.requests["InvokeAsync"]
    assert request.request_id == "r1"
    assert request.spec.delay == records.span(3600)
    request.spec.ClearField("delay")
    assert request.spec == invocation_pb2.InvocationSpec(
        function="figlet",
        payload=payload_pb2.Payload(content_type="a/b", data=b"x"),
        http=payload_pb2.HttpOptions(headers=headers_of([("X-One", "1"), ("X-One", "2=3")])),
        labels={"job": "7"},
        attempt_timeout=records.span(5),
        callback=policy_pb2.Callback(url="http://localhost/hook", headers=headers_of([("X-Job", "7"), ("X-Job", "8")])),
        on_success=[
            policy_pb2.Destination(uri="function:next"),
            policy_pb2.Destination(uri="https://example.com/done"),
        ],
        on_failure=[policy_pb2.Destination(uri="amqp:failures/figlet")],
    )


def test_async_and_wait_prints_the_result(scripted_server: ScriptedServer) -> None:
    scripted_server.script("InvokeAsync", records.accepted())
    scripted_server.script(
        "WaitInvocation", invocation_service_pb2.WaitInvocationResponse(invocation=records.invocation(body=b"done"))
    )

    result = homing("invoke", "figlet", "x", "--async", "--wait")

    assert (result.exit_code, result.stdout) == (0, "done")
    assert result.stderr == f"homing: accepted as {records.INVOCATION_ID}\n"


def test_json_is_the_whole_record(scripted_server: ScriptedServer) -> None:
    scripted_server.script("Invoke", answer(records.invocation()))
    scripted_server.script("InvokeAsync", records.accepted())
    scripted_server.script(
        "GetInvocation", invocation_service_pb2.GetInvocationResponse(invocation=records.invocation("ENQUEUED"))
    )

    [sync] = objects(homing("invoke", "figlet", "--json").stdout)
    [later] = objects(homing("invoke", "figlet", "--async", "--json").stdout)

    assert (sync["state"], sync["attemptCount"]) == ("INVOCATION_STATE_SUCCEEDED", 1)
    assert sync["result"]["payload"] == {"contentType": "text/plain", "data": "b2s="}
    assert (later["id"], later["state"]) == (records.INVOCATION_ID, "INVOCATION_STATE_ENQUEUED")


def test_what_is_streamed_is_printed_as_it_comes(scripted_server: ScriptedServer, tmp_path: Path) -> None:
    release = threading.Event()

    def parts(*_: Any) -> Iterator[invocation_service_pb2.InvokeStreamResponse]:
        response = invocation_service_pb2.InvokeStreamResponse
        yield response(head=response.Head(status_code=200, content_type="x/y"))
        yield response(data=b"one\xff")
        release.wait(30)
        yield response(data=b"two\x00")
        yield response(invocation=records.invocation("FAILED", body=b"one"))

    scripted_server.script("InvokeStream", parts)
    with subprocess.Popen(
        [*PROGRAM, "invoke", "figlet", "--stream"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(4) == b"one\xff"
        release.set()
        stdout, stderr = process.communicate(timeout=30)
    assert (process.returncode, stdout) == (1, b"two\x00")
    assert b"figlet ended FAILED" in stderr

    file = tmp_path / "out"
    assert homing("invoke", "figlet", "--stream", "--output", str(file)).exit_code == 1
    assert file.read_bytes() == b"one\xfftwo\x00"
    refused = homing("invoke", "figlet", "--stream", "--async")
    assert (refused.exit_code, "cannot be given together with --stream" in refused.stderr) == (2, True)


def test_a_failure_keeps_stdout_clean(scripted_server: ScriptedServer) -> None:
    failed = records.invocation("FAILED", status_code=500, body=b"it broke\x1b[31m\nhere")
    scripted_server.script("Invoke", answer(failed))

    run = program("invoke", "figlet")
    as_json = program("invoke", "figlet", "--json")

    assert (run.returncode, run.stdout) == (1, b"")
    assert run.stderr.decode().splitlines() == [
        "it broke\\x1b[31m",
        "here",
        (
            "homing: figlet ended FAILED after 1 attempt: it answered 500 [HTTP_STATUS] "
            f"(invocation {records.INVOCATION_ID})"
        ),
    ]
    assert as_json.returncode == 1
    assert objects(as_json.stdout.decode())[0]["state"] == "INVOCATION_STATE_FAILED"


def test_an_interrupted_call_ends_cleanly(scripted_server: ScriptedServer) -> None:
    begun, gone = threading.Event(), threading.Event()

    def forever(_: Any, context: grpc.ServicerContext) -> Any:
        context.add_callback(gone.set)
        begun.set()
        gone.wait(30)
        return answer(records.invocation())

    scripted_server.script("Invoke", forever)
    with subprocess.Popen(
        [*PROGRAM, "invoke", "figlet", "x"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert begun.wait(30)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=30)

    assert (process.returncode, stdout, stderr) == (130, b"", b"")
    assert gone.wait(30)


def test_a_wait_that_is_over_tells_the_id(scripted_server: ScriptedServer) -> None:
    release = threading.Event()

    def slow(_: Any, context: grpc.ServicerContext) -> Any:
        context.send_initial_metadata((("homing-invocation-id", "the-id"),))
        release.wait(10)
        return answer(records.invocation())

    scripted_server.script("Invoke", slow)
    result = homing("invoke", "figlet", "x", "--timeout", "300ms")
    release.set()

    assert result.exit_code == 3
    assert result.stderr == "homing: invocation the-id of figlet did not end in time\n"


def test_a_payload_that_is_too_large_is_refused_at_once(scripted_server: ScriptedServer, tmp_path: Path) -> None:
    file = tmp_path / "large"
    with file.open("wb") as sparse:
        sparse.truncate(70_000_000)

    from_file = program("invoke", "f", "-d", f"@{file}")
    with Path("/dev/zero").open("rb") as endless:
        from_stdin = subprocess.run(
            [*PROGRAM, "invoke", "f", "-d", "@-"], stdin=endless, capture_output=True, timeout=30, check=False
        )

    rule = "must have at most 67108864 bytes (64 MiB), has"
    assert (from_file.returncode, from_stdin.returncode) == (2, 2)
    assert from_file.stderr.decode() == f"homing: payload from {file}: {rule} 70000000\n"
    assert from_stdin.stderr.decode() == f"homing: payload from stdin: {rule} 67108865\n"
    assert scripted_server.requests == {}
