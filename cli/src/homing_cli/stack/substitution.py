"""Variables in a stack file: `${NAME}`, `${NAME:-default}`.

`faas-cli` has github.com/drone/envsubst do it, on the text of the file and before it is read as YAML. Its other
functions, such as `${NAME^^}`, are refused here by name, and so is a name with a hyphen, as `${NAME-default}` is there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from homing_cli.stack.errors import StackError

MAX_SIZE: Final = 256 * 1024
"""So many characters a file may have, before and after."""

_SPECIAL: Final = re.compile(r"\$(?P<dollar>\$)|\\(?P<escaped>[\\/])|\$\{")
_HEAD: Final = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<then>\}|:-|:=|=)")
_WITHIN: Final = re.compile(r"\$\{|\}")
_DEPTH: Final = 20
_SHOWN: Final = 40


def substituted(text: str, variables: Mapping[str, str]) -> str:
    r"""Return a text with the values of the variables that it names.

    One that is not set is empty, and where it is empty a default takes its place, in which there may be variables too.
    `$$` stands for `$`, and so `$${` for what is no variable; `\\` and `\/` stand for their second character.

    :raises StackError: It has what is none of this, or becomes too long.
    """
    parts: list[str] = []
    place = size = 0
    while found := _SPECIAL.search(text, place):
        parts.append(text[place : found.start()])
        if found["dollar"]:
            part, place = "$", found.end()
        elif found["escaped"]:
            part, place = found["escaped"], found.end()
        else:
            part, place = _expression(text, found.end(), variables, 1)
        parts.append(part)
        size += len(part)
        if size > MAX_SIZE:
            raise StackError(f"has more than {MAX_SIZE:,} characters once its variables have their values")
    return "".join([*parts, text[place:]])


def _expression(text: str, start: int, variables: Mapping[str, str], depth: int) -> tuple[str, int]:
    """Return what an expression stands for, and where it ends; it begins right after its brace."""
    head = _HEAD.match(text, start)
    if head is None or depth > _DEPTH:
        line = text.count("\n", 0, start) + 1
        shown = text[start - 2 : start + _SHOWN].partition("}")[0].partition("\n")[0]
        raise StackError(
            f"line {line}: {shown}}} cannot be read: there is ${{NAME}}, ${{NAME:-default}}, and $${{ for what is none"
        )
    if head["then"] == "}":
        return variables.get(head["name"], ""), head.end()
    default, end = _default(text, head.end(), variables, depth)
    return variables.get(head["name"]) or default, end


def _default(text: str, start: int, variables: Mapping[str, str], depth: int) -> tuple[str, int]:
    parts: list[str] = []
    place = start
    while found := _WITHIN.search(text, place):
        parts.append(text[place : found.start()])
        if found[0] == "}":
            return "".join(parts), found.end()
        part, place = _expression(text, found.end(), variables, depth + 1)
        parts.append(part)
    raise StackError(f"line {text.count(chr(10), 0, start) + 1}: ${{ has no }}")
