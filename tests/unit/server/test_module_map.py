"""Who looks for a module by what it does finds it: the map names every module, and modules use the field's words."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

SERVER = Path(__file__).resolve().parents[3] / "server"
PACKAGE = SERVER / "src" / "homing_server"


def modules() -> Iterator[str]:
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).with_suffix("").as_posix()
        if path.stem != "__init__" and not name.startswith("store/migrations/"):
            yield name


def rows() -> list[str]:
    _, _, map_ = (SERVER / "README.md").read_text(encoding="utf-8").partition("## Module map")
    return re.findall(r"^\| `([a-z_/*]+[a-z_*])` \|", map_, flags=re.MULTILINE)


def test_the_map_has_a_row_for_each_module_and_none_for_what_is_gone() -> None:
    known, named = list(modules()), rows()
    assert len(named) == len(set(named))
    assert [name for name in known if not any(fnmatch(name, row) for row in named)] == []
    assert [row for row in named if not any(fnmatch(name, row) for name in known)] == []


@pytest.mark.parametrize(
    ("word", "where"),
    [
        ("deduplicat", "store/accept"),
        ("idempotent", "invocations/admission"),
        ("outbox", "invocations/dispatcher"),
        ("fencing token", "store/record"),
        ("dead letter", "deliveries/dead_letters"),
        ("redrive", "deliveries/dead_letters"),
        ("leader election", "cluster/leadership"),
        ("lease", "invocations/leases"),
        ("rate limit", "auth/rate_limit"),
        ("key rotation", "admin/signing_keys"),
        ("long poll", "watch/hub"),
        ("resume token", "watch/service"),
        ("retention", "invocations/retention"),
        ("tombstone", "store/tombstones"),
        ("single active consumer", "invocations/recorder"),
        ("back-pressure", "invocations/dispatcher"),
    ],
)
def test_a_module_says_what_the_field_calls_it(word: str, where: str) -> None:
    source = (PACKAGE / f"{where}.py").read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(source)) or ""
    assert word in " ".join(docstring.split()).lower()
