"""Adding a function to the text of a stack file, which keeps its comments and its layout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import yaml

from homing_cli.stack.document import mapping_node, read_document
from homing_cli.stack.errors import StackError

_HEAD: Final = """\
version: 1.0
provider:
  name: openfaas
  gateway: http://127.0.0.1:8080
functions:
"""
_INDENT: Final = 2


def with_function(text: str, name: str, values: Mapping[str, str]) -> str:
    """Return the text of a stack file with one more function; that of a new file where there is no text yet.

    :raises StackError: It has a function of this name, or one cannot be added to it.
    """
    before = read_document(text)
    top = mapping_node(text)
    if top is None:
        return f"{text}{_HEAD}{_entry(name, values, _INDENT)}"
    assert isinstance(before, dict)
    keys = [(key, value) for key, value in top.value if isinstance(key, yaml.ScalarNode)]
    place = next((place for place, (key, _) in enumerate(keys) if key.value == "functions"), None)
    functions = before.get("functions") or {}
    if not isinstance(functions, dict):
        raise StackError("functions: must be a mapping")
    if name in functions:
        raise StackError(f"functions.{name}: there is one already")
    lines = text.splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    indent = _INDENT
    if place is None:
        lines.append("functions:\n")
        at = len(lines)
    else:
        value = keys[place][1]
        at = keys[place + 1][0].start_mark.line if place + 1 < len(keys) else len(lines)
        if isinstance(value, yaml.MappingNode) and value.value:
            indent = value.value[0][0].start_mark.column
    lines.insert(at, _entry(name, values, indent))
    return _checked("".join(lines), before, functions | {name: dict(values)})


def _entry(name: str, values: Mapping[str, str], indent: int) -> str:
    written: str = yaml.safe_dump({name: dict(values)}, sort_keys=False, default_flow_style=False, allow_unicode=True)
    return "".join(f"{' ' * indent}{line}\n" for line in written.splitlines())


def _checked(text: str, before: Mapping[str | None, object], functions: Mapping[str | None, object]) -> str:
    """Return the text where it says what it is to say: a layout may be one that nothing can be added to."""
    try:
        after = read_document(text)
    except StackError:
        after = None
    if after != {**before, "functions": functions}:
        raise StackError("a function cannot be added to the way that it is laid out; write it in by hand")
    return text
