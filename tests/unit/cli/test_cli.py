"""The homing command as a whole: errors, usage, help; against a real server that answers as told."""

from __future__ import annotations

import os
import re
import subprocess

import grpc
import pytest

from homing import __version__
from homing.v1 import (
    function_service_pb2,
    invocation_pb2,
    invocation_service_pb2,
)
from support import records
from support.cli import PATIENCE, PROGRAM, homing, program
from support.scripted_server import Refusal, ScriptedServer

COMMANDS = [
    "deploy",
    "functions",
    "pause",
    "resume",
    "scale",
    "remove",
    "invoke",
    "get",
    "logs",
    "stop",
    "rerun",
    "list",
    "count",
    "watch",
]


pytestmark = pytest.mark.usefixtures("scripted_target")


def answer(record: invocation_pb2.Invocation) -> invocation_service_pb2.InvokeResponse:
    return invocation_service_pb2.InvokeResponse(invocation=record)


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
        (["invoke", "f", "--callback-header", "a=b"], "needs --async"),
        (["invoke", "f", "--on-success", "function:g"], "needs --async"),
        (["invoke", "f", "--on-failure", "function:g"], "needs --async"),
        (["invoke", "f", "x", "--async", "--callback-header", "a=b"], "callback_headers: needs a callback_url"),
        (["invoke", "f", "x", "--async", "--on-success", "g"], "on_success[0]: must begin with https://"),
        (["deploy", "f", "--image", "a", "--on-failure", "amqp:q"], "on_failure[0]: must have EXCHANGE/KEY"),
        (["deadletters", "redrive"], "give an id, or a filter such as --function"),
        (["deadletters", "purge", "x", "-f", "f"], "cannot be given together with a filter"),
        (["deadletters", "list", "--kind", "letter"], "'letter' is none of INVOCATION, DELIVERY"),
        (["deadletters", "show"], "Missing argument 'ID'"),
        (["invoke", "f", "--delay", "1h"], "needs --async"),
        (["deploy", "f"], "options: at least one must be given that is to change"),
        (["deploy", "f", "--replace"], "one of them must be given; none is given"),
        (["deploy", "f", "--image", "a", "--url", "b"], "image and url are given"),
        (["deploy", "f", "--command", "a", "b"], "the program is given twice"),
        (["deploy", "f", "--command", "a 'b"], "No closing quotation"),
        (["deploy", "f", "--image", "a", "--memory", "much"], "'much' is not a size in bytes such as 64Mi or 1G"),
        (["deploy", "f", "--image", "a", "--cpu", "-1"], "'-1' is not a number of cores such as 0.5 or 500m"),
        (["watch", "--state", "RUNNING"], "'RUNNING' is none of SUCCEEDED, FAILED, TIMED_OUT"),
        (["stop"], "give an id, or a filter such as --function"),
        (["stop", "x", "--function", "f"], "cannot be given together with a filter"),
        (["stop", "x", "--dry-run"], "needs a filter such as --function"),
        (["stop", "-f", "f", "--state", "GONE"], "'GONE' is none of SCHEDULED, ENQUEUED"),
        (["rerun"], "give an id, or a filter such as --function"),
        (["rerun", "x", "--max-per-second", "5"], "needs a filter such as --function"),
        (["rerun", "x", "--content-type", "a/b"], "needs --data"),
        (["rerun", "-f", "f", "-d", "x"], "needs an id"),
        (["rerun", "-f", "f", "--wait"], "needs an id"),
        (["scale", "f"], "give at least one of them"),
        (["logs"], "either the id of an invocation or --function is needed"),
        (["logs", "some-id", "--tail", "2"], "--since and --tail go with --function"),
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


def test_the_target_may_stand_before_or_after_the_command(
    scripted_server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted_server.script("Invoke", answer(records.invocation()))
    target = scripted_server.target
    monkeypatch.setenv("HOMING_TARGET", "127.0.0.1:1")

    assert homing("--target", target, "invoke", "figlet", "x").stdout == "ok"
    assert homing("invoke", "figlet", "x", "--target", target).stdout == "ok"


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
    assert homing("--version").stdout == f"homing {__version__}\n"


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("homing li", ["list"]),
        ("homing list --state STO", ["STOPPING", "STOPPED"]),
        ("homing dead", ["deadletters"]),
        ("homing deadletters list --kind D", ["DELIVERY"]),
        ("homing deadletters redrive --function fi", ["figlet"]),
        ("homing pause fi", ["figlet"]),
        ("homing stop -f fi", ["figlet"]),
    ],
)
def test_completion_is_there_for_shells(scripted_server: ScriptedServer, typed: str, completed: list[str]) -> None:
    scripted_server.script(
        "ListFunctions",
        function_service_pb2.ListFunctionsResponse(functions=[records.function("cat"), records.function("figlet")]),
    )
    words = {"_HOMING_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    run = subprocess.run(PROGRAM, env=os.environ | words, capture_output=True, text=True, timeout=PATIENCE, check=False)

    assert run.stdout.split() == completed, run.stderr


def test_completion_is_silent_where_there_is_no_server() -> None:
    words = {"_HOMING_COMPLETE": "complete_bash", "COMP_WORDS": "homing pause fi", "COMP_CWORD": "2"}
    away = {"HOMING_TARGET": "127.0.0.1:1"}
    run = subprocess.run(
        PROGRAM, env=os.environ | words | away, capture_output=True, text=True, timeout=PATIENCE, check=False
    )

    assert (run.stdout.strip(), run.stderr) == ("", "")
