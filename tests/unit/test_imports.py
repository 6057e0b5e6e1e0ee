"""Imports between the distributions run one way."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OURS = {"homing", "homing_core", "homing_server", "homing_worker", "homing_cli"}
ALLOWED = {
    "sdk/src/homing": {"homing"},
    "core/src/homing_core": {"homing_core", "homing.v1"},
    "server/src/homing_server": {"homing_server", "homing_core", "homing.v1"},
    "worker/src/homing_worker": {"homing_worker", "homing_core", "homing.v1"},
    "cli/src/homing_cli": {"homing_cli", "homing"},
}
HOST = "cli/src/homing_cli/dev_host.py"
"""The one module that puts server and worker into one process."""


def imports_of_ours(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and full name of every import of a package of ours, wherever in the module it stands."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from ((node.lineno, name) for name in names if name.split(".")[0] in OURS)


def is_allowed(name: str, allowed: set[str]) -> bool:
    return any(f"{name}.".startswith(f"{prefix}.") for prefix in allowed)


@pytest.mark.parametrize("package", ALLOWED)
def test_a_distribution_imports_only_what_it_may(package: str) -> None:
    modules = sorted((ROOT / package).rglob("*.py"))
    assert modules, f"{package} has no modules"

    broken = [
        f"{module.relative_to(ROOT)}:{line} imports {name}"
        for module in modules
        for line, name in imports_of_ours(module.read_text(encoding="utf-8"))
        if not is_allowed(name, OURS if module == ROOT / HOST else ALLOWED[package])
    ]

    assert broken == []


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("import homing", ["homing"]),
        ("def f():\n    from homing import Client", ["homing.Client"]),
        ("from homing.v1 import payload_pb2", ["homing.v1.payload_pb2"]),
        ("import homing.v1.payload_pb2 as p", ["homing.v1.payload_pb2"]),
        ("from . import homing", []),
        ("import homingpigeon", []),
    ],
)
def test_every_form_of_import_is_seen(statement: str, found: list[str]) -> None:
    assert [name for _, name in imports_of_ours(statement)] == found


def test_the_stubs_are_allowed_without_the_rest_of_the_sdk() -> None:
    allowed = {"homing.v1"}

    assert is_allowed("homing.v1.payload_pb2", allowed)
    assert not is_allowed("homing.Client", allowed)
    assert not is_allowed("homing.v10", allowed)
