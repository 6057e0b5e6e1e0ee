"""The command that lists invocations."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from homing import Invocation
from homing_cli import output
from homing_cli.options import Json, Labels, Target, any_state, connect, moment, pairs, wants_json


def show(
    ctx: typer.Context,
    *,
    function: Annotated[
        list[str] | None, typer.Option("--function", "-f", help="Only this function; may be repeated.")
    ] = None,
    states: Annotated[
        list[str] | None,
        typer.Option("--state", "-s", metavar="STATE", help="Only this state, for example FAILED; may be repeated."),
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option(
            parser=moment, metavar="TIME", help="Accepted since then: 2026-11-22T08:00, or 90m for so long ago."
        ),
    ] = None,
    until: Annotated[
        datetime | None, typer.Option(parser=moment, metavar="TIME", help="Accepted before then; the same.")
    ] = None,
    label: Labels = None,
    id_prefix: Annotated[str | None, typer.Option(help="Only ids that start so.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Show so many at the most.")] = 50,
    oldest_first: Annotated[bool, typer.Option("--oldest-first", help="Begin with the oldest.")] = False,
    target: Target = None,
    json: Json = False,
) -> None:
    """List invocations, the newest first.

    \b
    Examples:
      homing list
      homing list --function figlet --state FAILED --since 2h
      homing list --label job=7 --oldest-first --limit 1000
      homing list --json --state RUNNING | jq -r .id
    """  # noqa: D301 - click wants the character
    with connect(ctx, target) as client:
        found = client.list_invocations(
            function=function,
            states=[any_state(name) for name in states or ()],
            labels=pairs("--label", label),
            id_prefix=id_prefix,
            created_since=since,
            created_until=until,
            order="oldest_first" if oldest_first else "newest_first",
            limit=limit,
        )
        if wants_json(ctx, json=json):
            for record in found:
                output.print_json(record.message)
        else:
            output.table(("ID", "FUNCTION", "STATE", "ACCEPTED", "TOOK", "ATTEMPTS", "DETAIL"), map(_row, found))


def _row(record: Invocation) -> tuple[str, ...]:
    return (
        record.id,
        record.function,
        str(record.state),
        output.moment(record.create_time),
        output.span(output.took(record)),
        str(record.attempt_count or ""),
        record.failure.message if record.failure else str(record.hold_reason or ""),
    )
