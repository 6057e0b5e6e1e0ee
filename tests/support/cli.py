"""Runs the command homing: in this process, in one of its own, or on a terminal."""

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
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from homing_cli.main import app

PROGRAM = [sys.executable, "-W", "error", "-c", "from homing_cli.main import main; main()"]
PATIENCE = 60


def homing(*arguments: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(app, arguments)


def program(
    *arguments: str | Path, piped: bytes | None = None, target: str | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run the command in a process of its own; without input there is nothing on its standard input.

    :param target: The server that it calls; that of the environment where none is given.
    """
    source: dict[str, Any] = {"stdin": subprocess.DEVNULL} if piped is None else {"input": piped}
    environment = os.environ if target is None else os.environ | {"HOMING_TARGET": target}
    return subprocess.run(
        [*PROGRAM, *arguments], capture_output=True, timeout=PATIENCE, check=False, env=environment, **source
    )


def objects(output: str) -> list[Any]:
    """Return the JSON objects that were printed."""
    return [json.loads(line) for line in output.splitlines()]


def rows(result: Result) -> list[list[str]]:
    """Return the cells of a table that was printed."""
    assert result.exit_code == 0, result.stderr
    return [re.split(r"\s{2,}", line.strip()) for line in result.stdout.splitlines()]


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

    def type(self, text: str) -> None:
        """Type on its keyboard."""
        os.write(self._main, text.encode())

    def interrupt_question(self) -> None:
        """Interrupt it once it reads its terminal: a signal between the question and its read is seen only after that.

        It is what ``input`` of Python does; who sits before it presses Ctrl-C again.
        """
        end = time.monotonic() + PATIENCE
        while self._waits_in() != "0x0":
            assert time.monotonic() < end, self.text
            time.sleep(0.01)
        self.process.send_signal(signal.SIGINT)

    def _waits_in(self) -> str:
        """Return the first argument of the system call that it waits in: of a read, the file (proc(5))."""
        words = Path(f"/proc/{self.process.pid}/syscall").read_text().split()
        return words[1] if len(words) > 1 else ""

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
