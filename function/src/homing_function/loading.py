"""The functions of a file of the user's."""

from __future__ import annotations

import contextlib
import importlib.util
import linecache
import sys
from pathlib import Path
from types import CodeType
from typing import Any

from homing_function.declaration import Function
from homing_function.errors import LoadError
from homing_function.tracebacks import formatted


def load(file: Path, *, copy: Path | None = None) -> dict[str, Function[Any, Any]]:
    """Run a file and return the functions that it declares, by their names in homing.

    :param copy: What is run in its place: the file as it once was. Tracebacks name the file all the same.
    :raises LoadError: It cannot be run, or declares none, or two of one name.
    """
    file = file.resolve()
    name = file.stem if file.stem.isidentifier() and file.stem not in sys.modules else "homing_functions"
    spec = importlib.util.spec_from_file_location(name, file)
    try:
        source = (copy or file).read_bytes()
    except OSError as error:
        raise LoadError(f"{copy or file} cannot be read: {error.strerror}") from error
    if spec is None:
        raise LoadError(f"{file} is no file with Python in it: its name must end with .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    # As Python does with a program: what lies beside it can be imported.
    sys.path.insert(0, str(file.parent))
    try:
        exec(_compiled(source, str(file)), module.__dict__)  # noqa: S102 that is what it is for
    except (Exception, SystemExit) as error:
        raise LoadError(formatted(error).rstrip()) from error
    found: dict[str, Function[Any, Any]] = {}
    for value in dict.fromkeys(value for value in vars(module).values() if isinstance(value, Function)):
        if value.handler.__module__ != name:
            continue  # imported from elsewhere
        if value.name in found:
            raise LoadError(f"{file} declares two functions of the name {value.name}; give one of them another, name=")
        found[value.name] = value
    if not found:
        raise LoadError(f"{file} declares no function: put @function before one, from homing_function")
    return found


def _compiled(source: bytes, file: str) -> CodeType:
    """Return code of which tracebacks show these lines, whatever the file says by then."""
    with contextlib.suppress(SyntaxError):  # of the encoding that it names; what follows tells of it
        lines = importlib.util.decode_source(source).splitlines(keepends=True)
        linecache.cache[file] = (len(source), None, lines, file)
    return compile(source, file, "exec", dont_inherit=True)


def chosen(functions: dict[str, Function[Any, Any]], name: str) -> Function[Any, Any]:
    """Return the function of a name, or the only one where no name is given.

    :raises LoadError: There is none of this name, or several and no name.
    """
    if not name and len(functions) == 1:
        return next(iter(functions.values()))
    if name in functions:
        return functions[name]
    names = ", ".join(sorted(functions))
    if name:
        raise LoadError(f"there is no function {name}; there is {names}")
    raise LoadError(f"there are several functions, {names}: say which by --function or HOMING_FUNCTION")
