"""gRPC says nothing of an option that it does not know: those that are set are known to it."""

from __future__ import annotations

import ast
from pathlib import Path

from grpc._cython import cygrpc  # type: ignore[attr-defined]  # it has no stubs

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = Path(cygrpc.__file__).read_bytes()


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


def is_known(name: str) -> bool:
    """Tell whether the library has a string that ends so, as C has strings; all of its options begin alike."""
    return name.encode() + b"\0" in LIBRARY


def test_grpc_knows_every_option_that_is_set() -> None:
    assert {"grpc.keepalive_time_ms", "grpc.http2.min_ping_interval_without_data_ms"} < options()
    assert [name for name in sorted(options()) if not is_known(name)] == []


def test_a_misspelt_one_is_noticed() -> None:
    assert not is_known("grpc.http2.min_time_between_pings_without_data_ms")
    assert not is_known("grpc.keepalive_time_m")
