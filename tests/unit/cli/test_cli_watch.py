"""The command that watches, against a real server that answers as told."""

from __future__ import annotations

import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from homing.v1 import (
    invocation_pb2,
    invocation_service_pb2,
)
from support import records
from support.cli import PROGRAM, homing, objects
from support.scripted_server import ScriptedServer

pytestmark = pytest.mark.usefixtures("scripted_target")


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


def test_watch_may_show_every_change(scripted_server: ScriptedServer) -> None:
    running = invocation_service_pb2.WatchResultsResponse(resume_token="1", invocation=records.invocation("RUNNING"))
    running.invocation.progress.CopyFrom(
        invocation_pb2.Progress(time=records.stamp(records.CREATED), percent=12.5, text="page 1 of 8")
    )
    scripted_server.script("WatchResults", stream(records.bookmark("0"), running, records.ended("2", 1)))

    result = homing("watch", "--transitions", "--state", "RUNNING", "--rerun-of", "0192", "--count", "2")

    assert [re.split(r"\s{2,}", line)[3:] for line in result.stdout.splitlines()] == [
        ["RUNNING", "12.5 % page 1 of 8"],
        ["SUCCEEDED", "2 s", "ok"],
    ]
    [request] = scripted_server.requests["WatchResults"]
    assert request.include_transitions
    assert request.filter.rerun_of == "0192"
    assert request.filter.states == [invocation_pb2.INVOCATION_STATE_RUNNING]
