"""The synchronous half of the SDK is what the asynchronous one makes it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the SDK's package."""
    copy = tmp_path / "homing"
    for half in ("_aio", "_sync"):
        shutil.copytree(ROOT / "sdk/src/homing" / half, copy / half, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def unasync(package: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "scripts/unasync.py", *arguments, package], capture_output=True, text=True, check=False
    )


def replace(old: str, new: str) -> Callable[[Path], None]:
    def edit(module: Path) -> None:
        text = module.read_text(encoding="utf-8")
        assert old in text
        module.write_text(text.replace(old, new), encoding="utf-8")

    return edit


def contents(package: Path) -> dict[str, str]:
    return {path.name: path.read_text(encoding="utf-8") for path in (package / "_sync").glob("*.py")}


def test_what_is_there_is_what_is_made(package: Path) -> None:
    check = unasync(package, "--check")

    assert (check.returncode, check.stdout, check.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("module", "edit"),
    [
        pytest.param("_sync/keys.py", replace("def revoke(", "def withdraw("), id="edited by hand"),
        pytest.param("_aio/keys.py", replace("async def revoke(", "async def withdraw("), id="not made anew"),
        pytest.param("_sync/keys.py", Path.unlink, id="missing"),
        pytest.param("_aio/keys.py", Path.unlink, id="left behind"),
    ],
)
def test_a_stale_module_is_noticed_and_made_anew(package: Path, module: str, edit: Callable[[Path], None]) -> None:
    edit(package / module)
    before = contents(package)

    check = unasync(package, "--check")

    assert check.returncode == 1
    assert [line.partition(" ")[0] for line in check.stdout.splitlines()] == [str(package / "_sync/keys.py")]
    assert contents(package) == before
    assert unasync(package).returncode == 0
    assert unasync(package, "--check").returncode == 0


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (replace('"""API keys', '"""The async API keys'), 'there is no rule for \'"""The async API keys'),
        (replace("(self, connection", "(self, loop: asyncio.Loop, connection"), "there is no rule for 'def __init__"),
    ],
)
def test_a_word_that_no_rule_knows_is_refused(package: Path, edit: Callable[[Path], None], complaint: str) -> None:
    edit(package / "_aio/keys.py")

    made = unasync(package)

    assert made.returncode == 1
    assert complaint in made.stderr


def test_a_rule_that_serves_for_nothing_is_refused(package: Path) -> None:
    replace("asyncio.Semaphore", "asyncio.Lock")(package / "_aio/mapping.py")
    replace("asyncio.Lock", "Lock")(package / "_aio/mapping.py")

    made = unasync(package)

    assert made.returncode == 1
    assert "nothing matches" in made.stderr
