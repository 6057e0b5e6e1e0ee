"""gRPC says nothing of an option that it does not know: those that are set are known to it."""

from __future__ import annotations

import ast
from pathlib import Path

from grpc._cython import cygrpc  # type: ignore[attr-defined]  # it has no stubs

ROOT = Path(__file__).resolve().parents[2]


def options() -> set[str]:
    """Return what looks like the name of an option, wherever one is paired with a value."""
    found = set()
    for path in ROOT.glob("*/src/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Tuple) and node.elts and isinstance(node.elts[0], ast.Constant):
                name = node.elts[0].value
                if isinstance(name, str) and name.startswith("grpc."):
                    found.add(name)
    return found


def test_grpc_knows_every_option_that_is_set() -> None:
    library = Path(cygrpc.__file__).read_bytes()
    assert len(options()) > 15
    assert [name for name in sorted(options()) if name.encode() + b"\x00" not in library] == []
