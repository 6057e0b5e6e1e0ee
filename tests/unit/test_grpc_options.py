"""The options of gRPC channels and servers: gRPC takes no notice of a name that it does not know."""

from __future__ import annotations

import re
from pathlib import Path

from grpc._cython import cygrpc  # type: ignore[attr-defined]  # its stubs do not have it

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = Path(cygrpc.__file__).read_bytes()
NAME = re.compile(r"\"(grpc\.[a-z0-9_.]+)\"")
FOLDERS = ("sdk/src", "cli/src", "core/src", "server/src", "worker/src", "bench", "tests", "soak")


def used() -> dict[str, list[str]]:
    """Return the names that are used, each with the files that use it."""
    found: dict[str, list[str]] = {}
    for folder in FOLDERS:
        for file in {*(ROOT / folder).rglob("*.py")} - {Path(__file__)}:
            for name in NAME.findall(file.read_text()):
                found.setdefault(name, []).append(str(file.relative_to(ROOT)))
    return found


def is_known(name: str) -> bool:
    """Tell whether the library has a string that ends so, as C has strings; all of its options begin alike."""
    return name.encode() + b"\0" in LIBRARY


def test_the_library_knows_each_option() -> None:
    names = used()

    assert {"grpc.keepalive_time_ms", "grpc.http2.min_ping_interval_without_data_ms"} <= names.keys()
    assert {name: files for name, files in names.items() if not is_known(name)} == {}


def test_a_misspelt_one_is_noticed() -> None:
    assert not is_known("grpc.http2.min_time_between_pings_without_data" + "_ms")
    assert not is_known("grpc.keepalive_time" + "_m")
