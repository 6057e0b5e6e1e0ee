"""Every reason that is sent is one of the API's, and every one of the API's is sent."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import homing
from homing.v1 import reason_pb2
from homing_core.reasons import FailureReason
from homing_server.errors import Code, ErrorReason

ROOT = Path(__file__).resolve().parents[2]
PROTO = (ROOT / "proto" / "homing" / "v1" / "reason.proto").read_text(encoding="utf-8")
SERVER = ROOT / "server" / "src" / "homing_server"
OURS = (SERVER, ROOT / "core" / "src" / "homing_core", ROOT / "worker" / "src" / "homing_worker")
FAKES = ROOT / "sdk" / "src" / "homing" / "testing"


def sent(enum: Any, prefix: str) -> list[str]:
    """Return the reasons that an enum of the API has, as they are sent."""
    names = [name.removeprefix(prefix) for name in enum.keys()]  # noqa: SIM118  # it is no dict
    assert names[0] == "UNSPECIFIED"
    return names[1:]


ERRORS = sent(reason_pb2.ErrorReason, "ERROR_REASON_")
FAILURES = sent(reason_pb2.FailureReason, "FAILURE_REASON_")


def nodes(*folders: Path) -> Iterator[ast.AST]:
    """Yield what the modules of some folders are made of, generated ones aside."""
    for folder in folders:
        for path in folder.rglob("*.py"):
            if not path.stem.endswith(("_pb2", "_pb2_grpc")):
                yield from ast.walk(ast.parse(path.read_text(encoding="utf-8")))


def member(node: ast.AST | None, enum: str) -> str | None:
    """Return the member of an enum that an expression names."""
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == enum:
        return node.attr
    return None


def name_of(call: ast.Call) -> str:
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


@pytest.mark.parametrize("known", [ErrorReason, homing.ErrorReason], ids=["server", "sdk"])
def test_the_reasons_of_errors_are_those_of_the_api(known: Any) -> None:
    assert sorted(known) == sorted(ERRORS)


@pytest.mark.parametrize("known", [FailureReason, homing.FailureReason], ids=["core", "sdk"])
def test_the_reasons_of_failures_are_those_of_the_api(known: Any) -> None:
    assert sorted(known) == sorted(FAILURES)


def test_every_reason_is_sent() -> None:
    found = list(nodes(*OURS))
    assert {member(node, "ErrorReason") for node in found} - {None} == set(ERRORS)
    assert {member(node, "FailureReason") for node in found} - {None} == set(FAILURES)


def test_no_failure_has_a_reason_of_its_own() -> None:
    """Those of errors are typed, so mypy looks after them; in a Failure it is a text."""
    seen = 0
    for node in nodes(*OURS):
        if isinstance(node, ast.Call) and name_of(node) == "Failure":
            reasons = [keyword.value for keyword in node.keywords if keyword.arg == "reason"]
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]).endswith("failure.reason"):
            reasons = [node.value]
        else:
            continue
        assert not any(isinstance(reason, ast.Constant) for reason in reasons), ast.unparse(node)
        seen += len(reasons)
    assert seen > 10


def test_each_reason_comes_with_the_status_that_the_api_says() -> None:
    told = {
        name: status for status, name in re.findall(r"// ([A-Z_]+): .*\n(?:  // .*\n)*  ERROR_REASON_(\w+) =", PROTO)
    }
    assert told.keys() == set(ERRORS)
    pairs = set()
    for node in nodes(SERVER):
        if isinstance(node, ast.Call):
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            if "code" in given and "reason" in given:
                pairs.add((member(given["reason"], "ErrorReason"), member(given["code"], "Code")))
            elif name_of(node) == "unavailable":
                pairs.add((member(node.args[0], "ErrorReason"), "UNAVAILABLE"))
    pairs.discard((None, "UNAVAILABLE"))  # what `unavailable` itself makes of its argument
    assert dict(pairs) == told
    assert len(pairs) == len(told)
    assert set(told.values()) == {code.name for code in Code}


def test_the_fake_server_refuses_for_reasons_of_the_api() -> None:
    reasons = {
        keyword.value.value
        for node in nodes(FAKES)
        if isinstance(node, ast.Call) and name_of(node) == "Refusal"
        for keyword in node.keywords
        if keyword.arg == "reason" and isinstance(keyword.value, ast.Constant)
    }
    assert len(reasons) > 5
    assert reasons <= set(ERRORS)


def test_the_page_and_the_sdk_say_what_the_api_says() -> None:
    run = subprocess.run(
        [sys.executable, ROOT / "scripts" / "reasons.py", "--check"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    page = (ROOT / "docs" / "reasons.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", page, flags=re.MULTILINE) == [
        *re.findall(r"^  ERROR_REASON_(?!UNSPECIFIED)(\w+) =", PROTO, flags=re.MULTILINE),
        *re.findall(r"^  FAILURE_REASON_(?!UNSPECIFIED)(\w+) =", PROTO, flags=re.MULTILINE),
    ]
