"""What the six distributions say of themselves, and that they say the same."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
VERSION = (ROOT / "VERSION").read_text(encoding="utf-8").strip()
FOLDERS = {"homing": "sdk"} | {f"homing-{name}": name for name in ("core", "server", "worker", "function", "cli")}
PROJECTS: dict[str, dict[str, Any]] = {
    name: tomllib.loads((ROOT / folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for name, folder in FOLDERS.items()
}

each_distribution = pytest.mark.parametrize("name", FOLDERS)


def test_the_version_is_one_that_packages_may_have() -> None:
    assert str(Version(VERSION)) == VERSION


@each_distribution
def test_a_distribution_has_the_version_of_all(name: str) -> None:
    assert importlib.metadata.version(name) == VERSION


@each_distribution
def test_a_distribution_asks_for_compatible_releases_of_ours(name: str) -> None:
    """An older one might lack what this one calls; one of the next minor version may break it."""
    project = PROJECTS[name]
    asked = [*project["dependencies"], *chain.from_iterable(project.get("optional-dependencies", {}).values())]
    ours = [requirement for requirement in map(Requirement, asked) if requirement.name in FOLDERS]

    assert [str(requirement.specifier) for requirement in ours] == [f"~={VERSION}"] * len(ours)
    assert bool(ours) == (name not in {"homing", "homing-function"})


@each_distribution
def test_a_distribution_carries_the_licence(name: str) -> None:
    assert (ROOT / FOLDERS[name] / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


@each_distribution
def test_the_classifiers_name_the_versions_of_python_that_may_be_used(name: str) -> None:
    project = PROJECTS[name]
    named = [c for c in project["classifiers"] if re.fullmatch(r"Programming Language :: Python :: 3\.\d+", c)]

    assert project["requires-python"] == ">=3.11"
    assert named == [f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13)]


@pytest.mark.parametrize("program", ["homing-server", "homing-worker"])
def test_a_program_tells_its_version(program: str) -> None:
    # The name says the module too: homing_server.app.
    code = f"from {program.replace('-', '_')}.app import main; main()"
    ours = subprocess.run(
        [sys.executable, "-c", code, "--version"], capture_output=True, text=True, timeout=60, check=True
    )

    assert ours.stdout == f"{program} {VERSION}\n"


@each_distribution
def test_a_module_map_names_all_that_stands_at_the_top_and_nothing_that_is_not_there(name: str) -> None:
    package = ROOT / FOLDERS[name] / "src" / name.replace("-", "_")
    modules = {
        ".".join(path.relative_to(package).with_suffix("").parts).removesuffix(".__init__")
        for path in package.rglob("*.py")
        if path.parent != package or path.stem != "__init__"
    }
    readme = (ROOT / FOLDERS[name] / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| \**(`.+?)\** \|", readme.partition("## Module map")[2], flags=re.MULTILINE)
    named = {
        module.removeprefix(f"{name}.").strip("/").replace("/", ".")
        for row in rows
        for module in re.findall(r"`([\w./]+)`", row)
    } - {name}

    assert named <= modules
    assert {module.partition(".")[0] for module in named} == {module.partition(".")[0] for module in modules}
