"""The options that say which invocations a command concerns."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Annotated

import typer

import homing
from homing import FilterOptions, InvocationState
from homing_cli.options import moment, pairs

_STATES = [state for state in InvocationState if state is not InvocationState.UNKNOWN]


def _complete_state(incomplete: str) -> Iterable[str]:
    return [state.value for state in _STATES if state.value.startswith(incomplete)]


def complete_function(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """Return the names of functions that begin so; none where the server does not tell at once."""
    logging.disable()  # nothing may be printed into what is typed; the process ends after this
    try:
        with homing.Client(ctx.params.get("target"), timeout=1) as client:
            return [function.name for function in client.functions.list() if function.name.startswith(incomplete)]
    except homing.HomingError:
        return []


Functions = Annotated[
    list[str] | None,
    typer.Option("--function", "-f", help="Only this function; may be repeated.", autocompletion=complete_function),
]
States = Annotated[
    list[str] | None,
    typer.Option(
        "--state",
        "-s",
        metavar="STATE",
        help="Only this state, for example FAILED; may be repeated.",
        autocompletion=_complete_state,
    ),
]
Since = Annotated[
    datetime | None,
    typer.Option(parser=moment, metavar="TIME", help="Accepted since then: 2026-11-22T08:00, or 90m for so long ago."),
]
Until = Annotated[datetime | None, typer.Option(parser=moment, metavar="TIME", help="Accepted before then; the same.")]
Labels = Annotated[
    list[str] | None,
    typer.Option("--label", "-l", metavar="KEY=VALUE", help="Only with this label; may be repeated."),
]
IdPrefix = Annotated[str | None, typer.Option(help="Only ids that start so.")]
RerunOf = Annotated[str | None, typer.Option(metavar="ID", help="Only those that run again this one.")]

CausedBy = Annotated[str | None, typer.Option(metavar="ID", help="Only those that the outcome of this one caused.")]


def conditions(
    *,
    function: Sequence[str] | None,
    states: Sequence[str] | None,
    since: datetime | None,
    until: datetime | None,
    label: Sequence[str] | None,
    id_prefix: str | None,
    rerun_of: str | None,
    caused_by: str | None,
) -> FilterOptions:
    """Return what the options say; empty where none is given.

    :raises typer.BadParameter: One cannot be read.
    """
    given: FilterOptions = {}
    if function:
        given["function"] = function
    if states:
        given["states"] = [any_state(name) for name in states]
    if label:
        given["labels"] = pairs("--label", label)
    if since is not None:
        given["created_since"] = since
    if until is not None:
        given["created_until"] = until
    if id_prefix:
        given["id_prefix"] = id_prefix
    if rerun_of:
        given["rerun_of"] = rerun_of
    if caused_by:
        given["caused_by"] = caused_by
    return given


def end_state(text: str) -> InvocationState:
    """Return the end of a name.

    :raises typer.BadParameter: There is none of this name.
    """
    return _named(text, [state for state in _STATES if state.ended])


def any_state(text: str) -> InvocationState:
    """Return the state of a name.

    :raises typer.BadParameter: There is none of this name.
    """
    return _named(text, _STATES)


def _named(text: str, states: Sequence[InvocationState]) -> InvocationState:
    for known in states:
        if known.value == text.upper():
            return known
    raise typer.BadParameter(f"{text!r} is none of {', '.join(known.value for known in states)}")
