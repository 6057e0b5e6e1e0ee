"""The commands that list and count invocations."""

from __future__ import annotations

import itertools
from typing import Annotated

import typer

from homing import Invocation
from homing_cli import output
from homing_cli.filters import (
    CallId,
    CausedBy,
    EndedSince,
    EndedUntil,
    Functions,
    IdPrefix,
    Labels,
    RerunOf,
    Since,
    StartedSince,
    StartedUntil,
    States,
    Until,
    conditions,
)
from homing_cli.options import Json, Target, connect, wants_json


def show(
    ctx: typer.Context,
    *,
    function: Functions = None,
    state: States = None,
    since: Since = None,
    until: Until = None,
    started_since: StartedSince = None,
    started_until: StartedUntil = None,
    ended_since: EndedSince = None,
    ended_until: EndedUntil = None,
    label: Labels = None,
    id_prefix: IdPrefix = None,
    rerun_of: RerunOf = None,
    caused_by: CausedBy = None,
    call_id: CallId = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="Show so many at the most.")] = 50,
    oldest_first: Annotated[bool, typer.Option("--oldest-first", help="Begin with the oldest.")] = False,
    target: Target = None,
    json: Json = False,
) -> None:
    """List invocations, the newest first. Where there are more than are shown, standard error says so.

    \b
    Examples:
      homing list
      homing list --function figlet --state FAILED --since 2h
      homing list --label job=7 --oldest-first --limit 1000
      homing list --ended-since 10m --started-until 1h
      homing list --rerun-of 01935000-0000-7000-8000-000000000001
      homing list --caused-by 01935000-0000-7000-8000-000000000001
      homing list --json --state RUNNING | jq -r .id
    """  # noqa: D301 - click wants the character
    chosen = conditions(
        function=function,
        states=state,
        since=since,
        until=until,
        label=label,
        id_prefix=id_prefix,
        rerun_of=rerun_of,
        caused_by=caused_by,
        call_id=call_id,
        started_since=started_since,
        started_until=started_until,
        ended_since=ended_since,
        ended_until=ended_until,
    )
    with connect(ctx, target) as client:
        found = client.list_invocations(
            **chosen, order="oldest_first" if oldest_first else "newest_first", limit=limit + 1
        )
        shown = itertools.islice(found, limit)
        if wants_json(ctx, json=json):
            for record in shown:
                output.print_json(record.message)
        else:
            output.table(("ID", "FUNCTION", "STATE", "ACCEPTED", "TOOK", "ATTEMPTS", "DETAIL"), map(_row, shown))
        if next(found, None) is not None:
            output.complain(f"there are more than these {limit}; see --limit, or homing count")


def count(
    ctx: typer.Context,
    *,
    function: Functions = None,
    state: States = None,
    since: Since = None,
    until: Until = None,
    started_since: StartedSince = None,
    started_until: StartedUntil = None,
    ended_since: EndedSince = None,
    ended_until: EndedUntil = None,
    label: Labels = None,
    id_prefix: IdPrefix = None,
    rerun_of: RerunOf = None,
    caused_by: CausedBy = None,
    call_id: CallId = None,
    target: Target = None,
    json: Json = False,
) -> None:
    """Count invocations by state. Counting stops at 10,000 for each state; a + says that there are more.

    \b
    Examples:
      homing count
      homing count --function figlet --since 24h
      homing count --json --label job=7 | jq .SUCCEEDED.count
    """  # noqa: D301 - click wants the character
    chosen = conditions(
        function=function,
        states=state,
        since=since,
        until=until,
        label=label,
        id_prefix=id_prefix,
        rerun_of=rerun_of,
        caused_by=caused_by,
        call_id=call_id,
        started_since=started_since,
        started_until=started_until,
        ended_since=ended_since,
        ended_until=ended_until,
    )
    with connect(ctx, target) as client:
        counts = client.count(**chosen)
    if wants_json(ctx, json=json):
        output.print_json(
            {str(one): {"count": number, "more": one in counts.more} for one, number in counts.by_state.items()}
        )
        return
    rows = [(str(one), f"{number}{'+' if one in counts.more else ''}") for one, number in counts.by_state.items()]
    output.table(("STATE", "COUNT"), [*rows, ("all", f"{counts.total}{'+' if counts.more else ''}")])


def _row(record: Invocation) -> tuple[str, ...]:
    return (
        record.id,
        record.function,
        str(record.state),
        output.moment(record.create_time),
        output.span(output.took(record)),
        str(record.attempt_count or ""),
        record.failure.message if record.failure else str(record.wait_reason or output.progress_of(record)),
    )
