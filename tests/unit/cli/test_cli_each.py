"""The command that runs a function for each line of a file, against the fake server."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from homing.testing import FakeServer
from support.cli import Terminal, homing, program


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    file = tmp_path / "lines.txt"
    file.write_text("one\ntwo\nthree")
    return file


def test_each_line_has_its_result_in_order(upper: FakeServer, lines: Path) -> None:
    run = program("invoke", "upper", "--each", lines, "--concurrency", "2", "--label", "job=7")

    assert (run.returncode, run.stdout) == (0, b"ONE\nTWO\nTHREE\n"), run.stderr
    assert re.fullmatch(rb"homing: 3 lines: 3 succeeded, 0 failed, in \d+\.\d s\n", run.stderr)
    assert {call.labels["job"] for call in upper.calls()} == {"7"}


def test_a_line_that_fails_keeps_its_place(upper: FakeServer) -> None:
    run = program("invoke", "upper", "--each", "-", piped=b"one\r\nbad\nno\xff\nfour\n")

    assert (run.returncode, run.stdout) == (1, b"ONE\n\n\nFOUR\n")
    failed, refused, summary = run.stderr.decode().splitlines()
    assert failed.startswith("homing: line 2: upper ended FAILED after 3 attempts: it answered 500")
    assert refused.startswith("homing: line 3: payload: is not valid Unicode text")
    assert summary.startswith("homing: 4 lines: 2 succeeded, 2 failed, in ")


def test_each_as_json_is_a_record_a_line(upper: FakeServer) -> None:
    run = program("invoke", "upper", "--each", "-", "--json", piped=b"one\nbad\n")

    assert run.returncode == 1
    assert [json.loads(line)["state"] for line in run.stdout.splitlines()] == [
        "INVOCATION_STATE_SUCCEEDED",
        "INVOCATION_STATE_FAILED",
    ]


def test_what_concerns_all_lines_ends_it(homing_fake: FakeServer, lines: Path) -> None:
    run = program("invoke", "none", "--each", lines)

    assert (run.returncode, run.stdout) == (4, b"")
    assert run.stderr == b"homing: there is no function 'none'\n"


def test_a_terminal_shows_a_progress_bar(upper: FakeServer, lines: Path) -> None:
    terminal = Terminal("invoke", "upper", "--each", str(lines))

    assert terminal.finish() == 0
    assert "3/3" in terminal.text
    assert re.search(r"ONE\r?\n", terminal.text)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["invoke", "f", "x", "--each", "lines"], "cannot be given together with --each"),
        (["invoke", "f", "--each", "/nowhere/lines"], "cannot read /nowhere/lines: No such file or directory"),
        (["invoke", "f", "--each", "x", "--concurrency", "0"], "Invalid value for '--concurrency'"),
        (["invoke", "f", "--each", "x", "--async"], "cannot be given together with --each"),
    ],
    ids=str,
)
def test_wrong_usage_is_explained(homing_fake: FakeServer, arguments: list[str], message: str) -> None:
    result = homing(*arguments)

    assert (result.exit_code, result.stdout) == (2, "")
    assert message in re.sub(r"\s+", " ", result.stderr)
    assert homing_fake.calls() == ()
