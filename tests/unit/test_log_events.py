"""Events of logs have names of one style, so that they can be searched for and counted."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LEVELS = {"debug", "info", "warning", "error", "exception"}
NAME = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*")


def events(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and name of every event that is logged."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS:
            logger = node.func.value
            name = logger.attr if isinstance(logger, ast.Attribute) else getattr(logger, "id", "")
            if name in {"log", "_log"} and node.args:
                for part in ast.walk(node.args[0]):
                    if isinstance(part, ast.Constant) and isinstance(part.value, str):
                        yield node.lineno, part.value


@pytest.mark.parametrize("package", ["core/src/homing_core", "server/src/homing_server", "worker/src/homing_worker"])
def test_events_are_snake_case(package: str) -> None:
    found = [
        (f"{module.relative_to(ROOT)}:{line}", event)
        for module in sorted((ROOT / package).rglob("*.py"))
        for line, event in events(module.read_text(encoding="utf-8"))
    ]
    assert found
    assert [each for each in found if not NAME.fullmatch(each[1])] == []


def test_events_are_seen_however_they_are_logged() -> None:
    source = '_log.info("a b")\nself._log.warning("c d" if x else "e", f=1)\nlog.exception(\n    "g h"\n)\n'
    assert [event for _, event in events(source)] == ["a b", "c d", "e", "g h"]
