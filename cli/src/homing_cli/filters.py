"""The options that say which invocations a command concerns."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Annotated, cast

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
StartedSince = Annotated[
    datetime | None, typer.Option(parser=moment, metavar="TIME", help="Started since then; the same.")
]
StartedUntil = Annotated[
    datetime | None, typer.Option(parser=moment, metavar="TIME", help="Started before then; the same.")
]
EndedSince = Annotated[datetime | None, typer.Option(parser=moment, metavar="TIME", help="Ended since then; the same.")]
EndedUntil = Annotated[
    datetime | None, typer.Option(parser=moment, metavar="TIME", help="Ended before then; the same.")
]
Labels = Annotated[
    list[str] | None,
    typer.Option("--label", "-l", metavar="KEY=VALUE", help="Only with this label; may be repeated."),
]
IdPrefix = Annotated[str | None, typer.Option(help="Only ids that start so.")]
RerunOf = Annotated[str | None, typer.Option(metavar="ID", help="Only those that run again this one.")]

CausedBy = Annotated[str | None, typer.Option(metavar="ID", help="Only those that the outcome of this one caused.")]

CallId = Annotated[str | None, typer.Option(metavar="ID", help="Only those that show this call id.")]


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
    call_id: str | None,
    started_since: datetime | None = None,
    started_until: datetime | None = None,
    ended_since: datetime | None = None,
    ended_until: datetime | None = None,
) -> FilterOptions:
    """Return what the options say; empty where none is given.

    :raises typer.BadParameter: One cannot be read.
    """
    given = {
        "function": function,
        "states": [any_state(name) for name in states or ()],
        "labels": pairs("--label", label),
        "created_since": since,
        "created_until": until,
        "started_since": started_since,
        "started_until": started_until,
        "ended_since": ended_since,
        "ended_until": ended_until,
        "id_prefix": id_prefix,
        "rerun_of": rerun_of,
        "caused_by": caused_by,
        "call_id": call_id,
    }
    return cast("FilterOptions", {name: value for name, value in given.items() if value})


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
    names = ", ".join(known.value for known in states)
    raise typer.BadParameter(f"{text!r} is none of {names}", param_hint="--state")
