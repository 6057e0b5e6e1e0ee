"""The commands about functions, against a real server that answers as told."""

from __future__ import annotations

import re

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from homing.v1 import (
    function_pb2,
    function_service_pb2,
    policy_pb2,
)
from support import records
from support.cli import homing, objects, rows
from support.scripted_server import Refusal, ScriptedServer

NOT_FOUND = Refusal(code=grpc.StatusCode.NOT_FOUND, reason="FUNCTION_NOT_FOUND")

pytestmark = pytest.mark.usefixtures("scripted_target")


def test_deploy_sends_every_option(scripted_server: ScriptedServer) -> None:
    scripted_server.script("GetFunction", NOT_FOUND)
    scripted_server.script(
        "DeployFunction", function_service_pb2.DeployFunctionResponse(function=records.function(revision=3))
    )

    result = homing(
        *("deploy", "figlet", "--image", "figlet:1", "--env", "A=1", "-e", "B=x=y", "--label", "team=x"),
        *("--annotation", "note=y z", "--memory", "64Mi", "--cpu", "0.5", "--pids", "20", "--concurrency", "2"),
        *("--min-instances", "1", "--max-instances", "3", "--idle-timeout", "1m30s", "--attempt-timeout", "90"),
        *(
            "--max-age",
            "2h",
            "--retention",
            "30d",
            "--max-attempts",
            "5",
            "--initial-backoff",
            "500ms",
            "--max-backoff",
            "1m",
        ),
        *("--no-record-sync", "--public", "--on-success", "function:next"),
        *("--on-failure", "https://example.com/failed", "--on-failure", "amqp:failures/figlet"),
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
        retention=records.span(30 * 86400),
        retry_policy=policy_pb2.RetryPolicy(
            max_attempts=5, initial_backoff=records.span(0.5), max_backoff=records.span(60)
        ),
        record_sync=False,
        public=True,
        on_success=[policy_pb2.Destination(uri="function:next")],
        on_failure=[
            policy_pb2.Destination(uri="https://example.com/failed"),
            policy_pb2.Destination(uri="amqp:failures/figlet"),
        ],
    )
    named = set(scripted_server.requests["DeployFunction"][0].update_mask.paths)
    assert named == set(function_pb2.Function.DESCRIPTOR.fields_by_name) - {
        *(
            "name",
            "command",
            "http_command",
            "url",
            "secrets",
            "revision",
            "create_time",
            "update_time",
            "paused",
            "rollout_revision",
        )
    }


def test_deploy_changes_what_is_named_and_with_replace_the_whole(scripted_server: ScriptedServer) -> None:
    scripted_server.script("DeployFunction", function_service_pb2.DeployFunctionResponse(function=records.function()))

    assert homing("deploy", "figlet", "--no-public", "--max-instances", "8").exit_code == 0
    assert homing("deploy", "figlet", "--replace", "--image", "figlet:2").exit_code == 0
    nothing = homing("deploy", "figlet")
    assert (nothing.exit_code, nothing.stderr) == (2, "homing: options: at least one must be given that is to change\n")

    assert scripted_server.requests["DeployFunction"] == [
        function_service_pb2.DeployFunctionRequest(
            function=function_pb2.Function(name="figlet", max_instances=8),
            update_mask=FieldMask(paths=["max_instances", "public"]),
        ),
        function_service_pb2.DeployFunctionRequest(function=function_pb2.Function(name="figlet", image="figlet:2")),
    ]


def test_what_is_not_named_of_limits_and_retries_stays_too(scripted_server: ScriptedServer) -> None:
    current = records.function(revision=4)
    current.limits.MergeFrom(function_pb2.Limits(memory_bytes=2**26, pids=20))
    current.retry_policy.MergeFrom(policy_pb2.RetryPolicy(max_attempts=5, retry_status_codes=[503]))
    scripted_server.script("GetFunction", function_service_pb2.GetFunctionResponse(function=current))
    scripted_server.script("DeployFunction", function_service_pb2.DeployFunctionResponse(function=current))

    homing("deploy", "figlet", "--cpu", "2", "--max-backoff", "1m")
    homing("deploy", "figlet", "--cpu", "2", "--expected-revision", "3")
    homing("deploy", "figlet", "--cpu", "2", "--replace", "--image", "figlet:1")

    kept = function_pb2.Limits(memory_bytes=2**26, cpu_millis=2000, pids=20)
    assert scripted_server.requests["DeployFunction"] == [
        function_service_pb2.DeployFunctionRequest(
            function=function_pb2.Function(
                name="figlet",
                limits=kept,
                retry_policy=policy_pb2.RetryPolicy(
                    max_attempts=5, max_backoff=records.span(60), retry_status_codes=[503]
                ),
            ),
            update_mask=FieldMask(paths=["limits", "retry_policy"]),
            expected_revision=4,
        ),
        function_service_pb2.DeployFunctionRequest(
            function=function_pb2.Function(name="figlet", limits=kept),
            update_mask=FieldMask(paths=["limits"]),
            expected_revision=3,
        ),
        function_service_pb2.DeployFunctionRequest(
            function=function_pb2.Function(name="figlet", image="figlet:1", limits=function_pb2.Limits(cpu_millis=2000))
        ),
    ]


def test_deploy_tells_that_somebody_was_faster(scripted_server: ScriptedServer) -> None:
    scripted_server.script(
        "DeployFunction",
        Refusal(code=grpc.StatusCode.ABORTED, reason="REVISION_MISMATCH", message="it is at revision 9"),
    )

    result = homing("deploy", "figlet", "--image", "figlet:2", "--expected-revision", "7")

    assert (result.exit_code, result.stderr) == (5, "homing: it is at revision 9\n")


@pytest.mark.parametrize(
    ("arguments", "function"),
    [
        (["--", "tr", "-d", "a b"], function_pb2.Function(command=function_pb2.Command(args=["tr", "-d", "a b"]))),
        (["--command", "tr -d 'a b'"], function_pb2.Function(command=function_pb2.Command(args=["tr", "-d", "a b"]))),
        (
            ["--http", "--", "node", "a b"],
            function_pb2.Function(http_command=function_pb2.Command(args=["node", "a b"])),
        ),
        (
            ["--http", "--command", "node x"],
            function_pb2.Function(http_command=function_pb2.Command(args=["node", "x"])),
        ),
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


def test_a_program_that_serves_is_told_apart(scripted_server: ScriptedServer) -> None:
    function = function_pb2.Function(name="f", http_command=function_pb2.Command(args=["node", "site.js"]))
    scripted_server.script("GetFunction", function_service_pb2.GetFunctionResponse(function=function))

    shown = [re.split(r"\s{2,}", line.strip()) for line in homing("functions", "f").stdout.splitlines()]
    without = homing("deploy", "f", "--http")

    assert ["source", "http command node site.js"] in shown
    assert without.exit_code == 2
    assert "tells how a program is run, and none is given" in without.stderr


def test_functions_are_a_table_or_json_lines(scripted_server: ScriptedServer) -> None:
    scripted_server.script(
        "ListFunctions",
        function_service_pb2.ListFunctionsResponse(functions=[records.function("a"), records.function("b" * 63)]),
    )

    header, *rows = homing("functions").stdout.splitlines()
    as_json = homing("functions", "--json")

    assert header.split() == ["NAME", "SOURCE", "CONCURRENCY", "INSTANCES", "REVISION", "CHANGED", "STATE"]
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

    assert homing("remove", "figlet", "--yes").stdout == "figlet is removed; 2 waiting invocations ended INVALID\n"
    assert objects(homing("remove", "figlet", "--yes", "--json").stdout) == [{"invalidated": "2"}]


def test_a_paused_function_is_shown_as_such(scripted_server: ScriptedServer) -> None:
    paused = records.function()
    paused.paused = True
    scripted_server.script("PauseFunction", function_service_pb2.PauseFunctionResponse(function=paused))
    scripted_server.script("ResumeFunction", function_service_pb2.ResumeFunctionResponse(function=records.function()))
    scripted_server.script("ListFunctions", function_service_pb2.ListFunctionsResponse(functions=[paused]))

    assert homing("pause", "figlet").stdout == "figlet is paused: its invocations are held\n"
    assert rows(homing("functions"))[1][-1] == "PAUSED"
    assert objects(homing("pause", "figlet", "--json").stdout)[0]["paused"] is True
    assert homing("resume", "figlet").stdout == "figlet goes on\n"
    assert scripted_server.requests["ResumeFunction"][0].name == "figlet"


def test_scale_tells_the_new_bounds(scripted_server: ScriptedServer) -> None:
    scaled = records.function()
    scaled.max_instances = 8
    scripted_server.script("ScaleFunction", function_service_pb2.ScaleFunctionResponse(function=scaled))

    assert homing("scale", "figlet", "--max", "8").stdout == "figlet has 0 to 8 instances on each worker\n"
    homing("scale", "figlet", "--min", "0", "--json")

    assert scripted_server.requests["ScaleFunction"] == [
        function_service_pb2.ScaleFunctionRequest(name="figlet", max_instances=8),
        function_service_pb2.ScaleFunctionRequest(name="figlet", min_instances=0),
    ]
