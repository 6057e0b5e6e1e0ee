"""Reading stack files, and those that they name, from the disk."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from homing_cli.stack.document import read_document
from homing_cli.stack.errors import StackError
from homing_cli.stack.schema import Stack, StackFunction, parse_environment, parse_stack
from homing_cli.stack.substitution import MAX_SIZE, substituted

DEFAULT_NAMES: Final = ("stack.yaml", "stack.yml")
"""Where a stack file is looked for that is not named."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """Which functions of a file are meant; all where nothing is said."""

    filter: str | None = None
    """A name in which `*` stands for anything."""
    regex: str | None = None
    """A regular expression, found anywhere in the name."""

    def __post_init__(self) -> None:
        if self.filter and self.regex:
            raise StackError("--filter and --regex are not given together")
        if self.regex:
            try:
                re.compile(self.regex)
            except (re.error, OverflowError, RecursionError) as error:
                raise StackError(f"--regex is no regular expression: {error}") from None

    def has(self, name: str) -> bool:
        """Tell whether a function of this name is meant."""
        if self.filter:
            return bool(re.fullmatch(".*".join(map(re.escape, re.split(r"\*+", self.filter))), name))
        return not self.regex or bool(re.search(self.regex, name))


def read_stack(path: Path, variables: Mapping[str, str], selection: Selection) -> Stack:
    """Return what a stack file says of the functions that are meant.

    :param variables: What it may refer to as `${NAME}`.
    :raises StackError: It cannot be read, breaks a rule, or has no such function. Names the file.
    """
    text = read_text(path)
    try:
        stack = parse_stack(read_document(substituted(text, variables)))
    except StackError as error:
        raise StackError(f"{path}: {error}") from None
    functions = tuple(each for each in stack.functions if selection.has(each.name))
    if not functions:
        raise StackError(f"{path}: has no functions{' that --filter or --regex means' if stack.functions else ''}")
    return Stack(functions=functions, gateway=stack.gateway, remarks=stack.remarks)


def read_environments(function: StackFunction) -> list[dict[str, str]]:
    """Return what is in the environment files of a function, one after the other.

    :raises StackError: One cannot be read. Names it.
    """
    found = []
    for name in function.environment_files:
        text = read_text(Path(name))
        try:
            found.append(parse_environment(read_document(text)))
        except StackError as error:
            raise StackError(f"{name}: {error}") from None
    return found


def read_text(path: Path) -> str:
    """Return the text of a file.

    :raises StackError: It cannot be read, is too large, or no text. Names the file.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SIZE + 1)
        if len(data) > MAX_SIZE:
            raise StackError(f"{path}: has more than {MAX_SIZE:,} bytes")
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise StackError(f"{path}: is no text in UTF-8") from None
    except (OSError, ValueError) as error:  # a name with a NUL, or that UTF-8 cannot say, is a ValueError
        raise StackError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from None


def default_file() -> Path | None:
    """Return the stack file of the working directory; None where there is none."""
    return next((Path(name) for name in DEFAULT_NAMES if Path(name).exists()), None)
