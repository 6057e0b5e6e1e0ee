"""What commands have in common that change invocations, by their ids or by a filter."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Final, Protocol, TypeVar

import typer

import homing
from homing import FilterOptions
from homing_cli import output


class Matched(Protocol):
    """The counts of a call about many."""

    @property
    def matched(self) -> int:
        """How many there are to deal with."""


CountsT = TypeVar("CountsT", bound=Matched)

BULK_TIMEOUT: Final = 600.0
"""How long a call may take that concerns many invocations, in seconds."""

DryRun = Annotated[bool, typer.Option("--dry-run", help="Only tell how many there are.")]
RequestId = Annotated[
    str | None,
    typer.Option(
        "--request-id", metavar="ID", help="An id of your choice: said again with it, it goes on where it broke off."
    ),
]
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
    while True:
        # Not by what typer brings along, for which Ctrl-C is a no: it ends the program as everywhere else.
        typer.echo(f"{question} [y/N]: ", nl=False, err=True)
        answer = sys.stdin.readline()
        if answer.strip().lower() in {"y", "yes"}:
            return
        if answer.strip().lower() in {"", "n", "no"}:
            raise typer.Abort


def tell_count(count: int, what: str, *, as_json: bool, noun: str = "invocation") -> None:
    """Print what a dry run found."""
    if as_json:
        output.print_json({"matched": count})
    else:
        output.print_line(f"{output.several(count, noun)} would {what}")


def carry_out(
    call: Callable[[str, Callable[[CountsT], None]], CountsT],
    *,
    request_id: str | None,
    times: dict[str, datetime | None],
    shown: Callable[[CountsT], dict[str, int]],
) -> CountsT:
    """Make a call about many and return what came of it; show on a terminal how far it is.

    Where it breaks off, what goes on with it is told.

    :param call: Makes it, given its request id and what is to be told how far it is.
    :param request_id: The id that was asked for; None for a new one.
    :param times: The options that are times: to say the same again they must not count from another moment.
    :param shown: What is done so far, by what it is called.
    """
    request_id = request_id or str(uuid.uuid4())
    begun = False
    with output.progress() as progress:
        task = progress.add_task("", total=None)

        def report(counts: CountsT) -> None:
            nonlocal begun
            begun = True
            parts = {name: number for name, number in shown(counts).items() if number}
            progress.update(
                task,
                total=counts.matched,
                completed=sum(parts.values()),
                description=", ".join(f"{number:,} {name}" for name, number in parts.items()),
            )

        try:
            return call(request_id, report)
        except (homing.RequestError, KeyboardInterrupt) as error:
            progress.stop()
            if begun and not isinstance(error, homing.AbortedError):
                same = "".join(f" {option} {time.isoformat()}" for option, time in times.items() if time is not None)
                output.complain(f"go on with --request-id {request_id}{same}")
            raise
