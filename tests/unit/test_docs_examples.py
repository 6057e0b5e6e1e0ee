"""The examples of the documentation do what they say."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"


def test_an_application_is_tested_without_a_server(tmp_path: Path) -> None:
    """The test suite of a user runs by itself, with nothing of ours but the SDK."""
    for file in EXAMPLES.glob("*orders.py"):
        shutil.copy(file, tmp_path)

    run = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "homing.testing.pytest_plugin"),
            *("-p", "no:asyncio", "-p", "no:cacheprovider", tmp_path),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )

    assert run.returncode == 0, run.stdout + run.stderr
    assert "6 passed" in run.stdout


def test_the_guide_shows_the_example_as_it_is() -> None:
    guide = (EXAMPLES.parent / "testing.md").read_text(encoding="utf-8")

    for name in ("orders.py", "test_orders.py"):
        assert f"```python\n{(EXAMPLES / name).read_text(encoding='utf-8')}```\n" in guide, name
