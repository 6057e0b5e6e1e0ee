"""Tells which mutants of a module its tests do not notice: in `tests/`, `python -m support.mutant_runs MODULE TESTS…`.

Each mutant is looked at in a process of its own, forked from one that has imported everything but this project's code.
There the mutant takes the place of the module for whatever imports it, and pytest runs the tests until one fails.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import io
import itertools
import json
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, ModuleType
from typing import Final

from support.mutations import mutations

_CPU_SECONDS: Final = 20
"""A run of the tests that takes more of the processor does not end, so it has noticed: however busy the machine is."""
_SECONDS: Final = 60
"""One that takes longer waits for what does not come."""
_BYTES: Final = 4 << 30
_OURS: Final = ("homing_core", "homing_server", "homing_worker", "homing_cli", "support", "test_")
_OPTIONS: Final = (
    *("-q", "-x", "-n0", "--noconftest", "--assert=plain", "-pno:cacheprovider", "-pno:timeout"),
    "--no-header",
)


class _StandIn(MetaPathFinder, Loader):
    """Loads a mutant for a module."""

    def __init__(self, name: str, code: CodeType) -> None:
        self._name = name
        self._code = code

    def find_spec(self, fullname: str, path: object, target: object = None) -> ModuleSpec | None:
        return importlib.util.spec_from_loader(fullname, self) if fullname == self._name else None

    def exec_module(self, module: ModuleType) -> None:
        exec(self._code, module.__dict__)


def main() -> None:
    """Write one JSON object: how many mutants there are, and the names of those that live."""
    name, *tests = sys.argv[1:]
    _warm(tests)
    if name in sys.modules:
        raise SystemExit(f"no mutant can take the place of {name}, which is imported before")
    path = _source_of(name)
    number, alive = 0, []
    for what, code in _mutants(path):
        number += 1
        if _forked(lambda code=code: _tests_pass(tests, _StandIn(name, code))):  # type: ignore[misc]
            alive.append(what)
    json.dump({"number": number, "alive": alive}, sys.stdout)


def _mutants(path: Path) -> Iterator[tuple[str, CodeType]]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    seen: dict[str, int] = {}
    for mutation in mutations(tree, enums={}, constants=_constants(tree)):
        what = f"{mutation.where.lstrip('.')}: {mutation.what}"
        seen[what] = seen.get(what, 0) + 1
        if seen[what] > 1:
            what = f"{what} ({seen[what]})"
        mutation.apply()
        code = compile(tree, str(path), "exec")
        mutation.undo()
        yield what, code


def _constants(tree: ast.Module) -> list[list[str]]:
    """Return the constants of the API that a module imports, those of one enumeration together."""
    names = [
        alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").endswith("_pb2")
        for alias in node.names
        if alias.name.isupper()
    ]
    return [list(group) for _, group in itertools.groupby(sorted(names), key=lambda name: name.partition("_")[0])]


def _source_of(name: str) -> Path:
    """Return the file of a module, without a look into the packages that it is in."""
    top, *rest = name.split(".")
    spec = importlib.util.find_spec(top)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent.joinpath(*rest).with_suffix(".py")


def _warm(tests: Sequence[str]) -> None:
    """Import what the tests need of others, and see them pass."""
    with tempfile.TemporaryFile("w+") as imported:

        def run() -> bool:
            passed = _tests_pass(tests)
            imported.write("\n".join(each for each in sys.modules if not each.startswith(_OURS)))
            imported.flush()
            return passed

        if not _forked(run):
            raise SystemExit(f"the tests fail without a mutant: {' '.join(tests)}")
        imported.seek(0)
        for module in imported.read().split():
            with contextlib.suppress(Exception):
                importlib.import_module(module)


def _tests_pass(tests: Sequence[str], stand_in: _StandIn | None = None) -> bool:
    """Run tests in this process, which is of no use afterwards."""
    import pytest
    from hypothesis import HealthCheck, Phase, settings

    # A machine that has much else to do is no fault of a mutant, and the first example that fails is as good as any.
    settings.register_profile(
        "mutants",
        database=None,
        deadline=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile("mutants")
    if stand_in is not None:
        sys.meta_path.insert(0, stand_in)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return pytest.main([*_OPTIONS, *tests]) == pytest.ExitCode.OK


def _forked(run: Callable[[], bool]) -> bool:
    """Return what is returned in a process of its own; False where it dies or takes too long."""
    child = os.fork()
    if child == 0:
        signal.alarm(_SECONDS)
        resource.setrlimit(resource.RLIMIT_CPU, (_CPU_SECONDS, _CPU_SECONDS))
        resource.setrlimit(resource.RLIMIT_AS, (_BYTES, _BYTES))
        passed = False
        try:
            passed = run()
        finally:
            os._exit(0 if passed else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


if __name__ == "__main__":
    main()
