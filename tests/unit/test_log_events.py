"""A log event is a name of what happened, in snake_case; all else is in its fields."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
EVENT = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")


def events(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and text of every event that is logged under a name that ends with ``log``."""
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS):
            continue
        logger = node.func.value
        name = logger.id if isinstance(logger, ast.Name) else getattr(logger, "attr", "")
        if name.endswith("log") and node.args:
            for part in ast.walk(node.args[0]):
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    yield node.lineno, part.value


@pytest.mark.parametrize("package", ["core", "server", "worker", "cli"])
def test_events_are_names(package: str) -> None:
    found = [
        (f"{module.relative_to(ROOT)}:{line}", event)
        for module in sorted((ROOT / package / "src").rglob("*.py"))
        for line, event in events(module.read_text(encoding="utf-8"))
    ]
    assert found or package == "cli"

    assert [each for each in found if not EVENT.fullmatch(each[1])] == []


def test_events_are_found_wherever_they_are_said() -> None:
    source = 'log.info("a b")\nself._log.warning("c" if x else "d")\n_log.exception("e", error="f")\nother.info("g")'

    assert list(events(source)) == [(1, "a b"), (2, "c"), (2, "d"), (3, "e")]
