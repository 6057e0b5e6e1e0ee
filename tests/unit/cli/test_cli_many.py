"""The commands that deal with many invocations: list, invoke --each, and watch on a terminal."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from homing import Client
from homing.testing import FakeCall, FakeServer
from homing_cli.main import app

PROGRAM = [sys.executable, "-W", "error", "-c", "from homing_cli.main import main; main()"]
PATIENCE = 60


def homing(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(app, arguments)


def program(*arguments: str | Path, piped: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([*PROGRAM, *arguments], capture_output=True, timeout=PATIENCE, check=False, input=piped)


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        main, side = pty.openpty()
        settings = {"TERM": "xterm-256color", "COLUMNS": "160", "LINES": "12"} | environment
        self.process = subprocess.Popen(
            [*PROGRAM, *arguments], stdin=side, stdout=side, stderr=side, env=os.environ | settings, close_fds=True
        )
        os.close(side)
        self._main = main
        self.text = ""

    def read_until(self, pattern: str) -> None:
        """Read until a pattern was printed."""
        end = time.monotonic() + PATIENCE
        while not re.search(pattern, self.text):
            assert time.monotonic() < end, self.text
            if not self._read():
                assert re.search(pattern, self.text), self.text

    def finish(self) -> int:
        """Read all that is left, and return the exit code."""
        while self._read():
            pass
        os.close(self._main)
        return self.process.wait(PATIENCE)

    def _read(self) -> bool:
        ready, _, _ = select.select([self._main], [], [], 1)
        try:
            self.text += os.read(self._main, 65536).decode() if ready else ""
        except OSError:  # how Linux says that the other side is closed
            return False
        return True


@pytest.fixture
def upper(homing_fake: FakeServer) -> FakeServer:
    def answer(call: FakeCall) -> str:
        if call.text == "bad":
            raise ValueError("this is bad")
        return call.text.upper()

    homing_fake.function("upper").answers(answer)
    return homing_fake


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    file = tmp_path / "lines.txt"
    file.write_text("one\ntwo\nthree")
    return file


# list


@pytest.fixture
def listed(homing_fake: FakeServer, homing_client: Client) -> list[str]:
    homing_fake.function("a").returns("ok")
    homing_fake.function("b").fails(400)
    homing_fake.function("c").hold()
    names = ["a", "b", "c", "a"]
    return [homing_client.invoke_async(name, labels={"n": str(n)}).id for n, name in enumerate(names)]


def rows(result: Result) -> list[list[str]]:
    assert result.exit_code == 0, result.stderr
    return [re.split(r"\s{2,}", line) for line in result.stdout.splitlines()]


def test_list_is_a_table_of_the_newest(listed: list[str]) -> None:
    header, *table = rows(homing("list"))

    assert header == ["ID", "FUNCTION", "STATE", "ACCEPTED", "TOOK", "ATTEMPTS", "DETAIL"]
    assert [row[:3] for row in table] == [
        [listed[3], "a", "SUCCEEDED"],
        [listed[2], "c", "RUNNING"],
        [listed[1], "b", "FAILED"],
        [listed[0], "a", "SUCCEEDED"],
    ]
    assert table[2][-1] == "it answered 400"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--function", "a", "-f", "b"], [3, 1, 0]),
        (["--state", "failed", "-s", "RUNNING"], [2, 1]),
        (["--label", "n=0"], [0]),
        (["--limit", "2"], [3, 2]),
        (["--oldest-first", "-n", "3"], [0, 1, 2]),
        (["--since", "1h"], [3, 2, 1, 0]),
        (["--until", "1h"], []),
        (["--since", (datetime.now(UTC) - timedelta(days=1)).isoformat()], [3, 2, 1, 0]),
        (["--since", "2020-01-01T00:00", "--until", "2020-01-02"], []),
        (["--id-prefix", "0190"], [3, 2, 1, 0]),
        (["--id-prefix", "ff"], []),
    ],
    ids=str,
)
def test_list_filters(listed: list[str], arguments: list[str], expected: list[int]) -> None:
    result = homing("list", "--json", *arguments)

    assert result.exit_code == 0, result.stderr
    found = [json.loads(line)["id"] for line in result.stdout.splitlines()]
    assert found == [listed[number] for number in expected]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list", "--state", "GONE"], "'GONE' is none of SCHEDULED, ENQUEUED"),
        (["list", "--since", "yesterday"], "'yesterday' is neither a time such as"),
        (["list", "--since", "1h", "--until", "2h"], "created_until: must be later than created_since"),
        (["list", "--limit", "0"], "Invalid value for '--limit'"),
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


# invoke --each


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


# watch on a terminal


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
        r"ENDED +ID +FUNCTION +STATE +TOOK +RESULT", watching.text.replace("\x1b[1m", "").replace("\x1b[0m", "")
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


def test_completion_is_there_for_shells() -> None:
    run = subprocess.run(
        [sys.executable, "-c", "from homing_cli.main import main; main()"],
        env=os.environ | {"_HOMING_COMPLETE": "complete_bash", "COMP_WORDS": "homing li", "COMP_CWORD": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )

    assert run.stdout.split() == ["list"], run.stderr
