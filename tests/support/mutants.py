"""Mutants of a package: the same code with one small thing wrong, to see whether tests notice.

A mutant lives in memory. For as long as it is looked at its modules stand in for the real ones, and test modules that
are executed anew meanwhile import them.
"""

from __future__ import annotations

import ast
import contextlib
import inspect
import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import pytest

from support.mutations import mutations


@dataclass(frozen=True, kw_only=True, slots=True)
class Mutant:
    """A module with one thing wrong."""

    module: str
    name: str
    """Says where and what; no two have the same."""
    code: CodeType


class Package:
    """A package whose modules are mutated."""

    def __init__(self, name: str, modules: Sequence[str], *, enums: Mapping[str, Sequence[str]]) -> None:
        """Read the sources.

        :param modules: Its modules in the order of their imports; ``__init__`` last.
        :param enums: By the name of an enumeration its members.
        """
        self._name = name
        self._modules = modules
        self._enums = enums
        folder = Path(inspect.getfile(sys.modules[name])).parent
        self._sources = {module: (folder / f"{module}.py").read_text(encoding="utf-8") for module in modules}
        self._codes = {
            module: compile(source, str(folder / f"{module}.py"), "exec") for module, source in self._sources.items()
        }

    def mutants(self, module: str) -> Iterator[Mutant]:
        """Make all mutants of a module, one after the other."""
        tree = ast.parse(self._sources[module])
        seen: dict[str, int] = {}
        for mutation in mutations(tree, enums=self._enums):
            name = f"{module}{mutation.where}: {mutation.what}"
            seen[name] = seen.get(name, 0) + 1
            if seen[name] > 1:
                name = f"{name} ({seen[name]})"
            mutation.apply()
            code = compile(tree, f"<{name}>", "exec")
            mutation.undo()
            yield Mutant(module=module, name=name, code=code)

    @contextlib.contextmanager
    def standing_in(self, mutant: Mutant | None, *, also: Sequence[str] = ()) -> Iterator[None]:
        """Let a mutant stand in for the package, or the package itself, imported anew.

        :param also: Other modules that import the package, and are imported anew too.
        """
        names = [self._name, *(f"{self._name}.{module}" for module in self._modules[:-1]), *also]
        kept = {name: sys.modules.pop(name) for name in names if name in sys.modules}
        try:
            package = sys.modules[self._name] = ModuleType(self._name)
            package.__path__ = []
            # What it imports need not be made anew.
            first = 0 if mutant is None else self._modules.index(mutant.module)
            for place, module in enumerate(self._modules[:-1]):
                name = f"{self._name}.{module}"
                sys.modules[name] = kept[name] if place < first else ModuleType(name)
                setattr(package, module, sys.modules[name])
                if place >= first:
                    code = mutant.code if mutant is not None and place == first else self._codes[module]
                    exec(code, sys.modules[name].__dict__)
            exec(self._codes["__init__"], package.__dict__)
            yield
        finally:
            for name in names:
                sys.modules.pop(name, None)
            sys.modules.update(kept)


class Suite:
    """Test modules that can be executed again and again: plain functions, parametrised or not, without fixtures."""

    def __init__(self, *paths: Path) -> None:
        self._codes = [compile(path.read_text(encoding="utf-8"), str(path), "exec") for path in paths]
        self._order: list[str] = []
        """The names of tests: those that have failed last come first, since one thing wrong is much like the next."""

    def fails(self) -> str | None:
        """Run until a test fails, and return its name; None where all pass."""
        try:
            tests = self._tests()
        except Exception as error:  # noqa: BLE001 a module that cannot be imported is noticed too
            return f"import: {type(error).__name__}"
        for name in dict.fromkeys([*self._order, *tests]):
            for arguments in _arguments(tests[name]):
                try:
                    tests[name](**arguments)
                except (Exception, pytest.fail.Exception):  # noqa: BLE001 whatever it is, it is noticed
                    self._order = [name, *(each for each in self._order if each != name)]
                    return name
        return None

    def _tests(self) -> dict[str, Callable[..., None]]:
        tests: dict[str, Callable[..., None]] = {}
        for number, code in enumerate(self._codes):
            module = ModuleType("examples")
            exec(code, module.__dict__)
            tests |= {f"{number}.{name}": each for name, each in vars(module).items() if name.startswith("test_")}
        return tests


def _arguments(test: Any) -> list[dict[str, Any]]:
    """Return the arguments that a test is called with, one after the other."""
    axes = []
    for mark in getattr(test, "pytestmark", ()):
        names, values = mark.args
        names = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
        rows = [value if len(names) > 1 else (value,) for value in values]
        axes.append([dict(zip(names, row, strict=True)) for row in rows])
    return [{name: value for part in parts for name, value in part.items()} for parts in itertools.product(*axes)]
