"""What commands have in common that change invocations, by their ids or by a filter."""

from __future__ import annotations

import sys
from typing import Annotated, Final

import typer

from homing import FilterOptions
from homing_cli import output

BULK_TIMEOUT: Final = 600.0
"""How long a call may take that concerns many invocations, in seconds."""

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only tell how many there are.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask; needed where there is no terminal.")]


def check_choice(*, ids: bool, chosen: FilterOptions, only_with_filter: dict[str, bool]) -> None:
    """Check that invocations are named either by id or by a filter.

    :param only_with_filter: The options that need a filter, and whether they are given.
    :raises typer.BadParameter: They are not.
    """
    if ids and chosen:
        raise typer.BadParameter("cannot be given together with a filter", param_hint="ID")
    if not ids and not chosen:
        raise typer.BadParameter("give an id, or a filter such as --function", param_hint="ID")
    for option, given in only_with_filter.items():
        if ids and given:
            raise typer.BadParameter("needs a filter such as --function", param_hint=option)


def confirm(question: str) -> None:
    """Ask on the terminal whether to go on.

    :raises typer.BadParameter: There is no terminal.
    :raises typer.Abort: The answer is no.
    """
    if not sys.stdin.isatty():
        raise typer.BadParameter("is needed where there is no terminal to ask on", param_hint="--yes")
    typer.confirm(question, abort=True, err=True)


def several(count: int, noun: str = "invocation") -> str:
    """Return a number of invocations, or of something else, in words."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def tell_count(count: int, what: str, *, as_json: bool, noun: str = "invocation") -> None:
    """Print what a dry run found."""
    if as_json:
        output.print_json({"matched": count})
    else:
        output.print_line(f"{several(count, noun)} would {what}")
