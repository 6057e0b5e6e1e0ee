"""What people see on a terminal, with the fake server."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator

import pytest

from homing import Client
from homing.testing import FakeServer
from support.cli import PATIENCE, Terminal, program


@pytest.fixture
def watching(upper: FakeServer) -> Iterator[Terminal]:
    terminal = Terminal("watch", "--function", "upper")
    terminal.read_until("homing: watching")
    yield terminal
    if terminal.process.poll() is None:
        terminal.process.kill()
        terminal.process.wait(PATIENCE)


def test_watch_is_a_live_table_on_a_terminal(watching: Terminal, homing_client: Client) -> None:
    homing_client.invoke_async("upper", "one")
    homing_client.invoke_async("upper", "bad")
    watching.read_until(r"1 SUCCEEDED   1 FAILED")
    watching.process.send_signal(signal.SIGINT)

    assert watching.finish() == 130
    assert re.search(
        r"AT +ID +FUNCTION +STATE +TOOK +RESULT", watching.text.replace("\x1b[1m", "").replace("\x1b[0m", "")
    )
    assert "\x1b[32mSUCCEEDED" in watching.text
    assert re.search(r"homing: go on with --resume-token \d+\r\n$", watching.text)


def test_no_color_is_honoured(upper: FakeServer, homing_client: Client) -> None:
    homing_client.invoke("upper", "one")
    plain = Terminal("list", NO_COLOR="1")
    colored = Terminal("list")

    assert (plain.finish(), colored.finish()) == (0, 0)
    assert "\x1b[32mSUCCEEDED" in colored.text
    assert "\x1b[32m" not in plain.text
    assert "SUCCEEDED" in plain.text


def test_nothing_is_colored_where_it_is_piped(upper: FakeServer, homing_client: Client) -> None:
    homing_client.invoke("upper", "one")

    assert b"\x1b" not in program("list").stdout


def test_changes_of_one_invocation_are_one_line(homing_fake: FakeServer, homing_client: Client) -> None:
    function = homing_fake.function("slow").hold()
    watching = Terminal("watch", "--transitions")
    watching.read_until("homing: watching")
    call = homing_client.invoke_async("slow")
    homing_fake.progress(call.id, 40, "page 4 of 10")
    watching.read_until(r"RUNNING.* 40 % page 4 of 10")

    function.release()
    watching.read_until("1 SUCCEEDED")
    watching.process.send_signal(signal.SIGINT)

    assert watching.finish() == 130
    last = watching.text[watching.text.rindex("1 SUCCEEDED") :]
    assert last.count(call.id) == 1


@pytest.mark.parametrize(("answer", "state", "exit_code"), [("y", "STOPPED", 0), ("n", "RUNNING", 1)])
def test_a_bulk_stop_asks_first(
    homing_fake: FakeServer, homing_client: Client, answer: str, state: str, exit_code: int
) -> None:
    homing_fake.function("f").hold()
    calls = homing_client.invoke_batch("f", ["a", "b"])
    terminal = Terminal("stop", "--function", "f")
    terminal.read_until(r"Stop 2 invocations\? \[y/N\]: ")

    terminal.type(f"{answer}\n")

    assert terminal.finish() == exit_code
    assert ("2 invocations: 0 STOPPED, 2 STOPPING" in terminal.text) is (answer == "y")
    assert {str(homing_client.get(call.id).state) for call in calls if not isinstance(call, Exception)} == {state}


def test_logs_play_no_tricks_on_a_terminal(homing_fake: FakeServer, homing_client: Client) -> None:
    homing_fake.function("f").logs("one\ttwo\x1b[2J").logs("bad", stderr=True)
    call = homing_client.invoke_async("f")
    terminal = Terminal("logs", call.id)

    assert terminal.finish() == 0
    assert "\\x1b[2J" in terminal.text
    assert "\x1b[2J" not in terminal.text
    assert "\x1b[31mbad" in terminal.text
