"""The contracts about imports see what breaks them, wherever in a module it stands."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("sdk/src", "core/src", "server/src", "worker/src", "cli/src")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of all that is checked, to be spoiled."""
    folder = tmp_path_factory.mktemp("copy")
    for source in SOURCES:
        shutil.copytree(ROOT / source, folder / source, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    return folder


@pytest.fixture
def spoilt(copy: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """Return the copy with one module more."""
    name, source = request.param
    module = copy / name
    module.parent.mkdir(exist_ok=True)
    module.write_text(source)
    yield copy
    module.unlink()
    if not any(module.parent.iterdir()):
        module.parent.rmdir()


def broken(folder: Path) -> tuple[set[str], str]:
    """Return the names of the contracts that are broken, and all that was said."""
    program = Path(sys.executable).with_name("lint-imports")
    told = subprocess.run(
        [program, "--no-cache", "--no-logo", ROOT / "pyproject.toml"],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(str(folder / source) for source in SOURCES),
            "COLUMNS": "200",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    names = {line.partition(" BROKEN")[0] for line in told.stdout.splitlines() if " BROKEN" in line}
    assert bool(names) is bool(told.returncode), told
    return names, told.stdout


def test_the_contracts_are_kept(copy: Path) -> None:
    names, told = broken(copy)
    assert names == set(), told


SERVER = "The server imports core and the generated stubs"
GRPC = "gRPC stays at the front of the server, in a package of its own"
LAYERS = "The packages of the server stand in layers"
CASES = {
    "the SDK, in a function": (
        "sdk/src/homing/spoilt.py",
        "def f() -> None:\n    from homing_core import clock\n",
        "The SDK imports none of the others",
    ),
    "core": (
        "core/src/homing_core/spoilt.py",
        "from homing import Client\n",
        "Core imports the generated stubs and nothing else of ours",
    ),
    "the server, for types only": (
        "server/src/homing_server/rules/spoilt.py",
        "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    import homing_worker.app as worker\n",
        SERVER,
    ),
    "the server, of the SDK": ("server/src/homing_server/rules/spoilt.py", "import homing\n", SERVER),
    "the worker": (
        "worker/src/homing_worker/runtime/spoilt.py",
        "class C:\n    from homing_server.errors import ApiError\n",
        "The worker imports core and the generated stubs",
    ),
    "the command": (
        "cli/src/homing_cli/spoilt.py",
        "try:\n    import homing_server.app\nexcept ImportError:\n    pass\n",
        "The command imports the SDK; one module of it puts server and worker into one process",
    ),
    "gRPC": (
        "server/src/homing_server/rules/spoilt.py",
        "def f() -> None:\n    from grpc import aio\n",
        GRPC,
    ),
    "gRPC, in a service": ("server/src/homing_server/front/api/spoilt.py", "import grpc\n", GRPC),
    "the fronts": (
        "server/src/homing_server/front/http/spoilt.py",
        "from homing_server.front.grpc import status\n",
        "The fronts of the server know the services, and neither the other",
    ),
    "layers of the server": (
        "server/src/homing_server/store/spoilt.py",
        "def f() -> None:\n    from homing_server.auth import identity\n",
        LAYERS,
    ),
    "layers of the worker": (
        "worker/src/homing_worker/reporting/spoilt.py",
        "from homing_worker.execution import pool\n",
        "The packages of the worker stand in layers",
    ),
    "a package in no layer": ("server/src/homing_server/spoilt/__init__.py", "", LAYERS),
}


@pytest.mark.parametrize(
    ("spoilt", "contract"), [(case[:2], case[2]) for case in CASES.values()], indirect=["spoilt"], ids=list(CASES)
)
def test_what_breaks_a_contract_is_seen(spoilt: Path, contract: str) -> None:
    names, told = broken(spoilt)
    assert contract in names, told


ALLOWED = {
    "core/src/homing_core/spoilt.py": "from homing.v1 import payload_pb2\n",
    "server/src/homing_server/rules/spoilt.py": "import homing.v1\nfrom homing_core import clock\n",
    "worker/src/homing_worker/runtime/spoilt.py": "import homing.v1.payload_pb2 as p\n",
}


@pytest.mark.parametrize("spoilt", list(ALLOWED.items()), indirect=True, ids=list(ALLOWED))
def test_the_stubs_are_allowed_without_the_rest_of_the_sdk(spoilt: Path) -> None:
    names, told = broken(spoilt)
    assert names == set(), told
