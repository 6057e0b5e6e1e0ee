"""`make release` tags what was checked, tested and built, and refuses what is not ready; here with stand-ins."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHANGELOG = """# Changelog

## 1.2.0 - 2026-11-27

### Added

- Something.

## 1.1.0 - 2026-10-01

- Something else.
"""


class Repository:
    """A repository with the release script, and stand-ins for what it calls that write down how they were called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "scripts").mkdir(parents=True)
        for name in ("release", "version"):
            shutil.copy(ROOT / "scripts" / name, folder / "scripts" / name)
        for name in ("check", "freeze-api", "dist", "test"):
            self.stand_in(name)
        self.write("VERSION", "1.2.0\n")
        self.write("CHANGELOG.md", CHANGELOG)
        self.write("cli/pyproject.toml", 'dependencies = ["homing~=1.2.0", "homing-core~=1.2.0", "rich~=14.0"]\n')
        self.write(".gitignore", "calls\n")
        self.git("init", "--quiet")
        self.commit()

    def write(self, name: str, text: str) -> None:
        (self.folder / name).parent.mkdir(exist_ok=True)
        (self.folder / name).write_text(text, encoding="utf-8")

    def stand_in(self, name: str, status: int = 0) -> None:
        script = self.folder / "scripts" / name
        script.write_text(f'#!/bin/sh\necho {name} "$@" >>calls\nexit {status}\n')
        script.chmod(0o755)

    def git(self, *arguments: str) -> str:
        who = ("-c", "user.name=somebody", "-c", "user.email=somebody@example.org")
        return subprocess.run(
            ["git", *who, *arguments], cwd=self.folder, check=True, capture_output=True, text=True
        ).stdout.strip()

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message=something")

    def run(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        somebody = {f"GIT_{who}_{what}": "somebody" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        return subprocess.run(
            [self.folder / "scripts" / name, *arguments],
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": "/usr/local/bin:/usr/bin:/bin", **somebody},
        )

    def refusal(self) -> str:
        """Run a release that must be refused; return what it says, and see that nothing was tagged."""
        done = self.run("release")
        assert done.returncode == 1
        assert self.git("tag", "--list") == ""
        return done.stderr.strip().removeprefix("no release of 1.2.0: ")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


def test_a_release_is_checked_built_tested_as_built_and_tagged(repository: Repository) -> None:
    done = repository.run("release")

    assert done.returncode == 0, done.stderr
    assert (repository.folder / "calls").read_text().splitlines() == [
        "check",
        "freeze-api v1.2.0",
        "dist dist",
        f"test --no-skips --cov --built={repository.folder}/dist",
    ]
    assert repository.git("rev-parse", "v1.2.0^{commit}") == repository.git("rev-parse", "HEAD")
    assert repository.git("tag", "--list", "--format=%(contents)") == "homing 1.2.0\n\n### Added\n\n- Something."
    assert "Nothing is published yet" in done.stdout


def test_what_is_not_committed_is_not_released(repository: Repository) -> None:
    repository.write("new.txt", "new")

    assert repository.refusal() == "there are changes that are not committed"


@pytest.mark.parametrize(
    ("changelog", "why"),
    [
        (CHANGELOG.replace("2026-11-27", "unreleased"), "CHANGELOG.md needs its day: ## 1.2.0 - 2"),
        (CHANGELOG.replace("1.2.0", "1.2.1"), "CHANGELOG.md needs its day: ## 1.2.0 - 2"),
        (CHANGELOG.replace("### Added\n\n- Something.", ""), "CHANGELOG.md says nothing of it"),
    ],
)
def test_a_release_has_its_section_in_the_changelog(repository: Repository, changelog: str, why: str) -> None:
    repository.write("CHANGELOG.md", changelog)
    repository.commit()

    assert repository.refusal().startswith(why)


@pytest.mark.parametrize("step", ["check", "freeze-api", "dist", "test"])
def test_what_fails_is_not_released(repository: Repository, step: str) -> None:
    repository.stand_in(step, status=1)
    repository.commit()

    repository.refusal()


def test_a_release_has_its_api_in_what_is_tagged(repository: Repository) -> None:
    freeze = repository.folder / "scripts" / "freeze-api"
    freeze.write_text("#!/bin/sh\nmkdir -p proto/released\necho $1 >proto/released/release\n")
    repository.commit()

    assert repository.refusal() == "proto/released has now the API of v1.2.0: commit it"
    repository.commit()
    assert repository.run("release").returncode == 0
    assert repository.git("show", "v1.2.0:proto/released/release") == "v1.2.0"


def test_a_version_is_released_once(repository: Repository) -> None:
    repository.run("release")

    done = repository.run("release")

    assert done.returncode == 1
    assert "there is a tag v1.2.0" in done.stderr


def test_another_version_is_given_to_all_and_is_not_released_yet(repository: Repository) -> None:
    done = repository.run("version", "1.3.0")

    assert done.returncode == 0, done.stderr
    assert (repository.folder / "VERSION").read_text() == "1.3.0\n"
    assert (repository.folder / "cli" / "pyproject.toml").read_text() == (
        'dependencies = ["homing~=1.3.0", "homing-core~=1.3.0", "rich~=14.0"]\n'
    )
    assert "## 1.3.0 - unreleased\n\n## 1.2.0 - 2026-11-27\n" in (repository.folder / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("version", ["1.3", "v1.3.0", "1.3.0-rc1", ""])
def test_what_is_no_version_is_refused(repository: Repository, version: str) -> None:
    assert repository.run("version", version).returncode == 2
    assert (repository.folder / "VERSION").read_text() == "1.2.0\n"
