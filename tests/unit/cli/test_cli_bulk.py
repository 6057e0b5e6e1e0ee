"""Commands about many show how far they are, and tell how to go on where they break off."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from homing.v1 import dead_letter_service_pb2 as letters
from homing.v1 import invocation_service_pb2 as api
from support.cli import PATIENCE, Terminal, homing, program
from support.scripted_server import Refusal, ScriptedServer, streamed

pytestmark = pytest.mark.usefixtures("scripted_target")

HALF = api.BulkStopResponse(matched=1200, stopped=300, stopping=20)
DONE = api.BulkStopResponse(matched=1200, stopped=1100, stopping=90, done=True)


class Held:
    """A stream that comes to its end when it is let."""

    def __init__(self, *messages: Any) -> None:
        self._messages = messages
        self.go_on = threading.Event()

    def __call__(self, _request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        context.add_callback(self.go_on.set)
        *first, last = self._messages
        yield from first
        self.go_on.wait(PATIENCE)
        yield last


@pytest.mark.parametrize(
    ("columns", "shown"), [("160", r"320/1200.*300 STOPPED, 20 STOPPING"), ("40", r"320/1200"), ("20", r"320/1200")]
)
def test_a_terminal_shows_how_far_it_is(scripted_server: ScriptedServer, columns: str, shown: str) -> None:
    held = Held(api.BulkStopResponse(matched=1200), HALF, DONE)
    scripted_server.script("BulkStop", held)
    terminal = Terminal("stop", "--function", "f", "--yes", COLUMNS=columns)

    terminal.read_until(shown)
    held.go_on.set()

    assert terminal.finish() == 0
    lines = terminal.text.replace("\r", "").splitlines()
    assert lines[-1].endswith("1,200 invocations: 1,100 STOPPED, 90 STOPPING, 10 had ended before")


def test_nothing_of_it_is_seen_where_it_is_piped(scripted_server: ScriptedServer) -> None:
    scripted_server.script("BulkStop", streamed(HALF, DONE))

    done = program("stop", "--function", "f", "--yes")

    assert done.stdout == b"1,200 invocations: 1,100 STOPPED, 90 STOPPING, 10 had ended before\n"
    assert done.stderr == b""


def test_who_interrupts_it_is_told_how_to_go_on(scripted_server: ScriptedServer) -> None:
    """Also where its times were counted from when it began."""
    held = Held(HALF, DONE)
    scripted_server.script("BulkStop", held, streamed(DONE))
    terminal = Terminal("stop", "--function", "f", "--since", "2h", "--yes")
    terminal.read_until("320/1200")

    terminal.process.send_signal(signal.SIGINT)

    assert terminal.finish() == 130
    assert held.go_on.wait(PATIENCE), "the server was not told"
    told = re.search(r"homing: go on with (--request-id \S+ --since \S+)\r", terminal.text)
    assert told, terminal.text
    again = homing("stop", "--function", "f", *told[1].split(), "--yes")
    assert again.exit_code == 0
    first, second = scripted_server.requests["BulkStop"]
    assert first == second


@pytest.mark.parametrize(
    ("method", "command", "done"),
    [
        ("BulkStop", ["stop"], DONE),
        ("BulkRerun", ["rerun"], api.BulkRerunResponse(done=True)),
        ("RedriveDeadLetters", ["deadletters", "redrive"], letters.RedriveDeadLettersResponse(done=True)),
        ("PurgeDeadLetters", ["deadletters", "purge"], letters.PurgeDeadLettersResponse(done=True)),
    ],
)
def test_all_of_them_have_a_request_id(
    scripted_server: ScriptedServer, method: str, command: list[str], done: Any
) -> None:
    scripted_server.script(method, streamed(done))

    for given in (["--request-id", "mine"], []):
        assert homing(*command, "--function", "f", "--yes", *given).exit_code == 0

    mine, other = (request.request_id for request in scripted_server.requests[method])
    assert mine == "mine"
    assert len(other) == 36


@pytest.mark.parametrize(
    ("code", "reason", "hint"),
    [
        (grpc.StatusCode.INTERNAL, "INTERNAL", "homing: go on with --request-id mine\n"),
        (grpc.StatusCode.ABORTED, "BULK_CALL_TAKEN_OVER", ""),
    ],
)
def test_what_fails_half_way_can_go_on_unless_another_does(
    scripted_server: ScriptedServer, code: grpc.StatusCode, reason: str, hint: str
) -> None:
    refusal = Refusal(code=code, reason=reason, message="it cannot go on")
    scripted_server.script("BulkStop", streamed(HALF, refusal))

    result = homing("stop", "--function", "f", "--yes", "--request-id", "mine")

    assert (result.exit_code, result.stderr) == (5, f"{hint}homing: it cannot go on\n")


def test_what_never_began_is_not_to_be_gone_on_with(scripted_server: ScriptedServer) -> None:
    scripted_server.script("BulkStop", Refusal(code=grpc.StatusCode.PERMISSION_DENIED, reason="X", message="no"))

    assert homing("stop", "--function", "f", "--yes").stderr == "homing: no\n"
