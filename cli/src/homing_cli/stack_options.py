"""What the commands about stack files have in common: their options, and reading the file that is meant."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from homing_cli.output import complain
from homing_cli.stack.errors import StackError
from homing_cli.stack.files import DEFAULT_NAMES, Selection, default_file, read_stack
from homing_cli.stack.schema import Stack

StackFile = Annotated[
    Path | None,
    typer.Option(
        "--yaml", "-f", metavar="FILE", help="The stack file; by default stack.yaml or stack.yml of this folder."
    ),
]
Filter = Annotated[
    str | None, typer.Option("--filter", metavar="PATTERN", help="Only functions of this name; * stands for anything.")
]
Regex = Annotated[
    str | None, typer.Option("--regex", metavar="REGEX", help="Only functions in whose name this is found.")
]
BuildArgs = Annotated[
    list[str] | None,
    typer.Option(
        "--build-arg", metavar="KEY=VALUE", help="A build argument; goes before the file's, and may be repeated."
    ),
]


def load_stack(
    path: Path | None,
    *,
    filter: str | None,  # noqa: A002 as the option is
    regex: str | None,
    otherwise: str = "name a stack file, -f FILE",
) -> Stack:
    """Return what the stack file that is meant says, and tell what of it has no meaning.

    :param otherwise: What to do where no file is named and none is here.
    :raises StackError: There is none, or it breaks a rule.
    """
    found = path or default_file()
    if found is None:
        raise StackError(f"there is no {' or '.join(DEFAULT_NAMES)} here: {otherwise}")
    stack = read_stack(found, os.environ, Selection(filter=filter, regex=regex))
    for remark in stack.remarks:
        complain(f"{found}: {remark}")
    return stack
