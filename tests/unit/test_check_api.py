"""What breaks the public API for clients of the last release does not pass `make check`."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import google.rpc
import pytest

ROOT = Path(__file__).resolve().parents[2]
FUNCTIONS = "proto/homing/v1/function_service.proto"
WIRE = "proto/homing_core/wire/v1/messages.proto"
FIELD = "  int64 invalidated = 1;\n"
Step = Callable[[str], subprocess.CompletedProcess[str]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a copy of the API, frozen as it is without a release so far, and what looks after it."""
    for name in ("check-api", "api-images", "freeze-api"):
        (tmp_path / "scripts").mkdir(exist_ok=True)
        shutil.copy(ROOT / "scripts" / name, tmp_path / "scripts" / name)
    # What the true one gets from an environment of its own is among the test's own packages too.
    (tmp_path / "scripts" / "googleapis").write_text("#!/bin/sh\n")
    (tmp_path / "scripts" / "googleapis").chmod(0o755)
    theirs = tmp_path / ".cache" / "googleapis" / "google" / "rpc"
    theirs.mkdir(parents=True)
    for name in ("status.proto", "error_details.proto"):
        shutil.copy(Path(next(iter(google.rpc.__path__))) / name, theirs / name)
    shutil.copytree(ROOT / "proto", tmp_path / "proto", ignore=shutil.ignore_patterns("released"))
    shutil.copy(ROOT / "buf.yaml", tmp_path / "buf.yaml")
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    (tmp_path / ".gitignore").write_text(".venv\n.cache/\n")
    subprocess.run(["scripts/freeze-api"], cwd=tmp_path, check=True)
    return tmp_path


@pytest.fixture
def step(root: Path) -> Step:
    def run(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            f'git() {{ command git -c user.name=x -c user.email=x@example.org "$@"; }}; {command}',
            shell=True,
            cwd=root,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


def change(root: Path, old: str, new: str, *, file: str = FUNCTIONS) -> None:
    path = root / file
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1
    path.write_text(text.replace(old, new), encoding="utf-8")


def commit(step: Step, *tags: str) -> None:
    for command in (
        "git init --quiet",
        "git add --all",
        "git commit --quiet --message=x",
        *(f"git tag {t}" for t in tags),
    ):
        done = step(command)
        assert done.returncode == 0, done.stderr


def test_the_check_has_this_step() -> None:
    assert "\nstep scripts/check-api\n" in (ROOT / "scripts" / "check").read_text()


def test_the_api_as_it_is_breaks_nothing(step: Step) -> None:
    assert (step("scripts/check-api").returncode, step("scripts/check-api").stdout) == (0, "")


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        (FIELD, "", 'field "1" with name "invalidated" on message "DeleteFunctionResponse" was deleted'),
        (FIELD, FIELD.replace("= 1", "= 2"), '"1" with name "invalidated"'),
        (FIELD, FIELD.replace("int64", "string"), 'changed type from "int64" to "string"'),
        (FIELD, FIELD.replace("invalidated", "ended"), 'changed name from "invalidated" to "ended"'),
        (
            "  rpc PauseFunction(PauseFunctionRequest) returns (PauseFunctionResponse);\n",
            "",
            '"PauseFunction" on service',
        ),
    ],
    ids=["deleted", "renumbered", "of another type", "renamed", "method deleted"],
)
def test_what_breaks_a_client_is_refused(root: Path, step: Step, old: str, new: str, complaint: str) -> None:
    change(root, old, new)
    done = step("scripts/check-api")
    assert done.returncode != 0
    assert complaint in done.stdout


def test_what_is_on_the_wire_may_be_renamed_and_not_renumbered(root: Path, step: Step) -> None:
    change(root, "  repeated Tombstone tombstones = 1;", "  repeated Tombstone stops = 1;", file=WIRE)
    assert step("scripts/check-api").returncode == 0
    change(root, "  repeated Tombstone stops = 1;", "  repeated Tombstone stops = 2;", file=WIRE)
    done = step("scripts/check-api")
    assert done.returncode != 0
    assert 'field "1" with name "tombstones" on message "Tombstones" was deleted' in done.stdout


def test_what_is_added_breaks_nobody(root: Path, step: Step) -> None:
    change(root, FIELD, f"{FIELD}  // One more.\n  int64 more = 2;\n")
    assert step("scripts/check-api").returncode == 0


def test_before_the_first_release_it_may_be_frozen_anew(root: Path, step: Step) -> None:
    assert (root / "proto" / "released" / "release").read_text() == "none\n"
    change(root, FIELD, "")
    assert step("scripts/freeze-api").returncode == 0
    assert step("scripts/check-api").returncode == 0


def test_a_release_freezes_what_it_has_and_its_tag_is_checked(root: Path, step: Step) -> None:
    assert step("scripts/freeze-api v0.1.0").returncode == 0
    assert step("scripts/check-api").returncode == 0, "there is no tag in this clone"
    commit(step)
    assert step("scripts/check-api").returncode == 0, "it is about to be tagged"
    assert step("git tag v0.1.0").returncode == 0
    assert step("scripts/check-api").returncode == 0

    # From then on it only grows, until the next release freezes what was added.
    refused = step("scripts/freeze-api")
    assert (refused.returncode, refused.stderr) == (1, "the API of v0.1.0 is frozen until the next release\n")
    change(root, FIELD, f"{FIELD}  // One more.\n  int64 more = 2;\n")
    assert step("scripts/check-api").returncode == 0
    frozen = root / "proto" / "released" / "homing-v1.binpb"
    before = frozen.read_bytes()
    assert step("scripts/freeze-api v0.2.0").returncode == 0
    assert frozen.read_bytes() != before
    change(root, "  // One more.\n  int64 more = 2;\n", "")
    assert '"more"' in step("scripts/freeze-api v0.3.0").stdout, "what breaks clients is not frozen either"


def test_an_image_of_something_else_than_the_tag_is_refused(root: Path, step: Step) -> None:
    step("scripts/freeze-api v0.1.0")
    change(root, FIELD, f"{FIELD}  // One more.\n  int64 more = 2;\n")
    commit(step, "v0.1.0")
    assert "homing-v1.binpb is not what v0.1.0 has, as its tag says" in step("scripts/check-api").stderr


def test_a_release_whose_api_was_not_frozen_is_told(root: Path, step: Step) -> None:
    commit(step, "v0.1.0")
    assert "v0.1.0 was released, and what it has was not frozen" in step("scripts/check-api").stderr
    step("scripts/freeze-api v0.1.0")
    change(root, FIELD, f"{FIELD}  // One more.\n  int64 more = 2;\n")
    commit(step, "v0.2.0")
    assert "it is of v0.1.0, and the last release is v0.2.0" in step("scripts/check-api").stderr
