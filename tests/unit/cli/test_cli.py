"""The homing command, against a real server that answers as told."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from typer.testing import CliRunner, Result

from homing.v1 import (
    function_pb2,
    function_service_pb2,
    invocation_pb2,
    invocation_service_pb2,
    payload_pb2,
    policy_pb2,
)
from homing_cli.main import app
from support import records
from support.scripted_server import Refusal, ScriptedServer

PROGRAM = [sys.executable, "-W", "error", "-c", "from homing_cli.main import main; main()"]
COMMANDS = ["deploy", "functions", "remove", "invoke", "get", "list", "watch"]


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch, scripted_server: ScriptedServer) -> None:
    monkeypatch.setenv("HOMING_TARGET", scripted_server.target)
    monkeypatch.delenv("HOMING_API_KEY", raising=False)
    monkeypatch.delenv("HOMING_TLS_CA", raising=False)


def homing(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(app, arguments)


def program(
    *arguments: str | Path, piped: bytes | None = None, timeout: float = 30
) -> subprocess.CompletedProcess[bytes]:
    """Run the command in a process of its own; without input there is nothing on its standard input."""
    source: dict[str, Any] = {"stdin": subprocess.DEVNULL} if piped is None else {"input": piped}
    return subprocess.run([*PROGRAM, *arguments], capture_output=True, timeout=timeout, check=False, **source)


def answer(record: invocation_pb2.Invocation) -> invocation_service_pb2.InvokeResponse:
    return invocation_service_pb2.InvokeResponse(invocation=record)


def objects(output: str) -> list[Any]:
    return [json.loads(line) for line in output.splitlines()]


# deploy, functions, remove


def test_deploy_sends_every_option(scripted_server: ScriptedServer) -> None:
    scripted_server.script(
        "DeployFunction", function_service_pb2.DeployFunctionResponse(function=records.function(revision=3))
    )

    result = homing(
        *("deploy", "figlet", "--image", "figlet:1", "--env", "A=1", "-e", "B=x=y", "--label", "team=x"),
        *("--annotation", "note=y z", "--memory", "64Mi", "--cpu", "0.5", "--pids", "20", "--concurrency", "2"),
        *("--min-instances", "1", "--max-instances", "3", "--idle-timeout", "1m30s", "--attempt-timeout", "90"),
        *("--max-age", "2h", "--max-attempts", "5", "--initial-backoff", "500ms", "--max-backoff", "1m"),
        "--no-record-sync",
    )

    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == "figlet is deployed, revision 3: image figlet:1\n"
    assert scripted_server.requests["DeployFunction"][0].function == function_pb2.Function(
        name="figlet",
        image="figlet:1",
        env={"A": "1", "B": "x=y"},
        labels={"team": "x"},
        annotations={"note": "y z"},
        limits=function_pb2.Limits(memory_bytes=64 * 2**20, cpu_millis=500, pids=20),
        concurrency=2,
        min_instances=1,
        max_instances=3,
        idle_timeout=records.span(90),
        attempt_timeout=records.span(90),
        max_age=records.span(7200),
        retry_policy=policy_pb2.RetryPolicy(
            max_attempts=5, initial_backoff=records.span(0.5), max_backoff=records.span(60)
        ),
        record_sync=False,
    )


@pytest.mark.parametrize(
    ("arguments", "function"),
    [
        (["--", "tr", "-d", "a b"], function_pb2.Function(command=function_pb2.Command(args=["tr", "-d", "a b"]))),
        (["--command", "tr -d 'a b'"], function_pb2.Function(command=function_pb2.Command(args=["tr", "-d", "a b"]))),
        (["--url", "http://localhost:1/x"], function_pb2.Function(url="http://localhost:1/x")),
    ],
    ids=str,
)
def test_deploy_takes_one_source(
    scripted_server: ScriptedServer, arguments: list[str], function: function_pb2.Function
) -> None:
    function.name = "f"
    scripted_server.script("DeployFunction", function_service_pb2.DeployFunctionResponse(function=function))

    result = homing("deploy", "f", *arguments)

    assert result.exit_code == 0, result.stderr
    assert scripted_server.requests["DeployFunction"][0].function == function


def test_functions_are_a_table_or_json_lines(scripted_server: ScriptedServer) -> None:
    scripted_server.script(
        "ListFunctions",
        function_service_pb2.ListFunctionsResponse(functions=[records.function("a"), records.function("b" * 63)]),
    )

    header, *rows = homing("functions").stdout.splitlines()
    as_json = homing("functions", "--json")

    assert header.split() == ["NAME", "SOURCE", "CONCURRENCY", "INSTANCES", "REVISION", "CHANGED"]
    assert [re.split(r"\s{2,}", row)[:5] for row in rows] == [
        ["a", "image a:1", "1", "0 to 4", "1"],
        ["b" * 63, f"image {'b' * 63}:1", "1", "0 to 4", "1"],
    ]
    assert [item["name"] for item in objects(as_json.stdout)] == ["a", "b" * 63]
    assert objects(as_json.stdout)[0]["createTime"] == "2026-11-22T08:00:00.250Z"


def test_one_function_is_shown_in_full(scripted_server: ScriptedServer) -> None:
    function = records.function()
    function.env["A"] = "1"
    function.limits.memory_bytes = 2**26
    function.idle_timeout.CopyFrom(records.span(3723))
    scripted_server.script("GetFunction", function_service_pb2.GetFunctionResponse(function=function))

    lines = [re.split(r"\s{2,}", line.strip()) for line in homing("functions", "figlet").stdout.splitlines()]
    [as_json] = objects(homing("--json", "functions", "figlet").stdout)

    assert ["environment", "A=1"] in lines
    assert ["memory", "67108864 bytes"] in lines
    assert ["idle time-out", "1 h 2 min 3 s"] in lines
    assert as_json["limits"] == {"memoryBytes": "67108864"}


def test_remove_tells_what_it_meant(scripted_server: ScriptedServer) -> None:
    scripted_server.script("DeleteFunction", function_service_pb2.DeleteFunctionResponse(invalidated=2))

    assert homing("remove", "figlet").stdout == "figlet is removed; 2 waiting invocations ended INVALID\n"
    assert objects(homing("remove", "figlet", "--json").stdout) == [{"invalidated": "2"}]


# invoke


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
        *("--label", "job=7", "-H", "X-One=1", "--attempt-timeout", "5s", "--content-type", "a/b"),
    )

    assert (result.exit_code, result.stdout) == (0, f"{records.INVOCATION_ID}\n")
    [request] = scripted_server.requests["InvokeAsync"]
    assert request.request_id == "r1"
    assert request.spec == invocation_pb2.InvocationSpec(
        function="figlet",
        payload=payload_pb2.Payload(content_type="a/b", data=b"x"),
        http=payload_pb2.HttpOptions(headers={"X-One": "1"}),
        labels={"job": "7"},
        attempt_timeout=records.span(5),
        callback=policy_pb2.Callback(url="http://localhost/hook"),
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


# get


def test_get_shows_the_record(scripted_server: ScriptedServer) -> None:
    record = records.invocation("FAILED", status_code=503, body="schön\n[bold]no markup[/bold]".encode())
    record.attempts[0].next_delay.CopyFrom(records.span(0.75))
    record.attempts[0].delay_reason = "BACKOFF"
    record.events.add(time=records.stamp(records.CREATED), type=invocation_pb2.INVOCATION_EVENT_TYPE_ACCEPTED)
    delivery = record.deliveries.add(
        id="d",
        kind=invocation_pb2.DELIVERY_KIND_CALLBACK,
        uri="http://localhost/hook",
        state=invocation_pb2.DELIVERY_STATE_DEAD,
    )
    delivery.attempts.add(number=1, status_code=500, failure=record.failure)
    scripted_server.script("GetInvocation", invocation_service_pb2.GetInvocationResponse(invocation=record))

    result = homing("get", "some-id")

    assert result.exit_code == 0
    lines = [re.split(r"\s{2,}", line.strip()) for line in result.stdout.splitlines()]
    assert ["state", "FAILED"] in lines
    assert ["failure", "it answered 503 [HTTP_STATUS]"] in lines
    attempt = lines[lines.index(["Attempts"]) + 2]
    assert (attempt[0], attempt[2:7]) == ("1", ["1 s", "FAILED", "503", "it answered 503", "0.75 s BACKOFF"])
    assert lines[lines.index(["History"]) + 2][1] == "ACCEPTED"
    assert lines[lines.index(["Deliveries"]) + 2] == [
        "CALLBACK", "http://localhost/hook", "DEAD", "1", "500", "it answered 503"
    ]  # fmt: skip
    assert lines[-3:] == [
        ["Result: status 503, 29 bytes of text/plain"],
        ["schön"],
        ["[bold]no markup[/bold]"],
    ]


def test_get_tells_why_it_waits(scripted_server: ScriptedServer) -> None:
    record = records.invocation("RETRYING")
    record.hold_reason = invocation_pb2.HOLD_REASON_BACKOFF
    record.hold_until.CopyFrom(records.stamp(records.CREATED))
    scripted_server.script("GetInvocation", invocation_service_pb2.GetInvocationResponse(invocation=record))

    assert re.search(r"waits for +BACKOFF until 20\d\d-", homing("get", "some-id").stdout)


# watch


def stream(*messages: invocation_service_pb2.WatchResultsResponse) -> Any:
    def answer(_: Any, context: grpc.ServicerContext) -> Iterator[invocation_service_pb2.WatchResultsResponse]:
        yield from messages
        gone = threading.Event()
        context.add_callback(gone.set)
        gone.wait(30)

    return answer


def test_watch_prints_a_line_for_each_end(scripted_server: ScriptedServer) -> None:
    scripted_server.script("WatchResults", stream(records.bookmark("0"), records.ended("1", 1), records.ended("2", 2)))

    result = homing(
        *("watch", "--function", "a", "-f", "b", "--state", "failed", "--label", "job=7"),
        *("--id-prefix", "01", "--resume-token", "t", "--count", "2"),
    )

    assert result.exit_code == 0
    assert [re.split(r"\s{2,}", line)[1:] for line in result.stdout.splitlines()] == [
        [f"01935000-0000-7000-8000-00000000000{number}", "figlet", "SUCCEEDED", "2 s", "ok"] for number in (1, 2)
    ]
    assert result.stderr == "homing: watching\nhoming: go on with --resume-token 2\n"
    assert scripted_server.requests["WatchResults"][0] == invocation_service_pb2.WatchResultsRequest(
        filter=invocation_pb2.InvocationFilter(
            functions=["a", "b"],
            states=[invocation_pb2.INVOCATION_STATE_FAILED],
            labels={"job": "7"},
            id_prefix="01",
        ),
        resume_token="t",
    )


def test_watch_prints_json_lines(scripted_server: ScriptedServer) -> None:
    scripted_server.script("WatchResults", stream(records.bookmark("0"), records.ended("1", 1)))

    [event] = objects(homing("watch", "--json", "--count", "1").stdout)

    assert event["resumeToken"] == "1"
    assert event["invocation"]["id"].endswith("01")


def test_an_interrupted_watch_ends_cleanly_and_tells_its_token(scripted_server: ScriptedServer) -> None:
    scripted_server.script("WatchResults", stream(records.bookmark("0"), records.ended("1", 1)))
    with subprocess.Popen([*PROGRAM, "watch"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert b"SUCCEEDED" in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)

    assert process.returncode == 130
    assert stderr == b"homing: watching\nhoming: go on with --resume-token 1\n"


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


def test_a_reader_that_leaves_is_no_fault(scripted_server: ScriptedServer) -> None:
    scripted_server.script(
        "WatchResults", stream(records.bookmark("0"), *(records.ended(str(n), n) for n in range(1, 2000)))
    )
    with subprocess.Popen([*PROGRAM, "watch"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        _, stderr = process.communicate(timeout=30)

    assert b"Traceback" not in stderr
    assert b"BrokenPipe" not in stderr


# errors


@pytest.mark.parametrize(
    ("refusal", "code"),
    [
        (Refusal(code=grpc.StatusCode.INVALID_ARGUMENT, reason="X", message="spec.labels: must be at most 16"), 2),
        (Refusal(code=grpc.StatusCode.UNAVAILABLE, reason="X", message="the broker is away"), 3),
        (Refusal(code=grpc.StatusCode.RESOURCE_EXHAUSTED, reason="X", message="slow down"), 3),
        (Refusal(code=grpc.StatusCode.NOT_FOUND, reason="X", message="there is no function 'figlet'"), 4),
        (Refusal(code=grpc.StatusCode.UNAUTHENTICATED, reason="X", message="a key is needed"), 5),
        (Refusal(code=grpc.StatusCode.INTERNAL, reason="X", message="this is a fault"), 5),
    ],
    ids=lambda value: value.code.name if isinstance(value, Refusal) else str(value),
)
def test_every_error_is_one_line_and_an_exit_code(scripted_server: ScriptedServer, refusal: Refusal, code: int) -> None:
    scripted_server.script("Invoke", refusal)

    run = program("invoke", "figlet")

    assert (run.returncode, run.stdout) == (code, b"")
    assert run.stderr.decode() == f"homing: {refusal.message}\n"


def test_a_server_that_is_not_there_is_named() -> None:
    run = program("invoke", "figlet", "--target", "127.0.0.1:1")

    assert run.returncode == 3
    assert re.fullmatch(rb"homing: 127\.0\.0\.1:1: cannot connect: Connection refused.*\n", run.stderr)


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["invoke"], "Missing argument 'NAME'"),
        (["invoke", "f", "x", "-d", "y"], "the payload is given twice"),
        (["invoke", "f", "-d", "@/nowhere/file"], "cannot read /nowhere/file: No such file or directory"),
        (["invoke", "f", "--timeout", "-1"], "'-1' is not a duration such as 30s, 5m or 1h30m"),
        (["invoke", "f", "--timeout", "5 parsecs"], "'5 parsecs' is not a duration"),
        (["invoke", "f", "x", "--timeout", "0"], "timeout: must be more than 0 s"),
        (["invoke", "f", "x", "--attempt-timeout", "0s"], "attempt_timeout: must be more than 0 s"),
        (["invoke", "f", "--label", "job"], "'job' is not KEY=VALUE"),
        (["invoke", "f", "--callback-url", "http://x"], "needs --async"),
        (["invoke", "f", "--wait"], "needs --async"),
        (["deploy", "f"], "exactly one of them must be given; none is given"),
        (["deploy", "f", "--image", "a", "--url", "b"], "image and url are given"),
        (["deploy", "f", "--command", "a", "b"], "the program is given twice"),
        (["deploy", "f", "--command", "a 'b"], "No closing quotation"),
        (["deploy", "f", "--image", "a", "--memory", "much"], "'much' is not a size in bytes such as 64Mi or 1G"),
        (["deploy", "f", "--image", "a", "--cpu", "-1"], "'-1' is not a number of cores such as 0.5 or 500m"),
        (["watch", "--state", "RUNNING"], "'RUNNING' is none of SUCCEEDED, FAILED, TIMED_OUT"),
        (["--target", "", "get", "x", "--json", "extra"], "unexpected extra argument"),
        (["nonsense"], "No such command 'nonsense'"),
    ],
    ids=str,
)
def test_wrong_usage_is_explained(scripted_server: ScriptedServer, arguments: list[str], message: str) -> None:
    result = homing(*arguments)

    assert result.exit_code == 2
    assert result.stdout == ""
    assert message in result.stderr
    assert scripted_server.requests == {}


def test_a_payload_that_is_too_large_is_refused_at_once(scripted_server: ScriptedServer, tmp_path: Path) -> None:
    file = tmp_path / "large"
    file.write_bytes(b"x" * 300_000)

    from_file = program("invoke", "f", "-d", f"@{file}")
    with Path("/dev/zero").open("rb") as endless:
        from_stdin = subprocess.run(
            [*PROGRAM, "invoke", "f", "-d", "@-"], stdin=endless, capture_output=True, timeout=30, check=False
        )

    rule = "must have at most 262144 bytes (256 KiB), has"
    assert (from_file.returncode, from_stdin.returncode) == (2, 2)
    assert from_file.stderr.decode() == f"homing: payload from {file}: {rule} 300000\n"
    assert from_stdin.stderr.decode() == f"homing: payload from stdin: {rule} 262145\n"
    assert scripted_server.requests == {}


def test_the_target_may_stand_before_or_after_the_command(
    scripted_server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted_server.script("Invoke", answer(records.invocation()))
    target = scripted_server.target
    monkeypatch.setenv("HOMING_TARGET", "127.0.0.1:1")

    assert homing("--target", target, "invoke", "figlet", "x").stdout == "ok"
    assert homing("invoke", "figlet", "x", "--target", target).stdout == "ok"


# help


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_examples(command: str) -> None:
    result = homing(command, "--help")

    assert result.exit_code == 0
    assert re.search(rf"Examples?:\n +homing {command}", result.stdout) or f"| homing {command}" in result.stdout


def test_the_help_names_commands_and_exit_codes() -> None:
    result = homing("--help")

    assert result.exit_code == 0
    assert all(f"  {command}" in result.stdout for command in COMMANDS)
    assert re.search(r"Exit codes:\n +0 +done\n +1 +the invocation ended without success", result.stdout)


def test_the_version() -> None:
    assert homing("--version").stdout == "homing 0.1.0\n"
