"""Runs mypy over the files beside it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
EXPECTED = re.compile(r"# error: ([a-z-]+)$")
FOUND = re.compile(r":(\d+): error: .*\[([a-z-]+)\]$")


def mypy(file: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-pretty", "--hide-error-context", file],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_public_calls_have_exact_types() -> None:
    run = mypy(HERE / "sdk.py")

    assert run.returncode == 0, run.stdout + run.stderr


def test_wrong_calls_are_found() -> None:
    file = HERE / "errors" / "sdk.py"
    expected = {
        number: match[1]
        for number, line in enumerate(file.read_text().splitlines(), start=1)
        if (match := EXPECTED.search(line))
    }

    run = mypy(file)

    found = {int(match[1]): match[2] for line in run.stdout.splitlines() if (match := FOUND.search(line))}
    assert expected
    assert found == expected, run.stdout + run.stderr
