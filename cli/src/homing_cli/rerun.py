"""The command that runs invocations again."""

from __future__ import annotations

from typing import Annotated

import typer

from homing import BulkRerun, Client, FilterOptions
from homing_cli import output
from homing_cli.bulk import BULK_TIMEOUT, DryRun, Yes, carry_out, check_choice, confirm, tell_count
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
from homing_cli.options import Json, Target, connect, duration, wants_json
from homing_cli.payload import read_payload
from homing_cli.results import print_accepted, wait_and_print


def rerun(
    ctx: typer.Context,
    *,
    invocation_id: Annotated[str | None, typer.Argument(metavar="ID", help="The id of an ended invocation.")] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", "-d", help="Another payload than before: a text, @FILE, or @- for standard input."),
    ] = None,
    content_type: Annotated[str | None, typer.Option(help="With --data: its media type.")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="With an id: wait, and print the result.")] = False,
    timeout: Annotated[
        float | None, typer.Option(parser=duration, metavar="DURATION", help="With --wait: how long; for ever.")
    ] = None,
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
    max_per_second: Annotated[
        float | None, typer.Option(min=0, help="With a filter: so many start in a second at the most.")
    ] = None,
    include_rerun: Annotated[
        bool, typer.Option("--include-rerun", help="With a filter: also what was run again before.")
    ] = False,
    request_id: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="An id of your choice: said again with it, nothing runs twice, and many go on where they broke off.",
        ),
    ] = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    target: Target = None,
    json: Json = False,
) -> None:
    """Run ended invocations again, as new ones: one with the same or another payload, or all that match a filter.

    The id of the new one is printed. With a filter the number is told and confirmed on the terminal first, and on a
    terminal it shows how far it is. One that broke off goes on by its request id. What was run again before is left
    out: its re-runs stand for it.

    \b
    Examples:
      homing rerun 01935000-0000-7000-8000-000000000001
      homing rerun 01935000-0000-7000-8000-000000000001 -d @corrected.json --wait
      homing rerun --function resize --state FAILED --since 2h --dry-run
      homing rerun --label job=7 --state FAILED --max-per-second 10 --yes
    """  # noqa: D301 - click wants the character
    chosen = conditions(
        function=function,
        states=state,
        since=since,
        until=until,
        started_since=started_since,
        started_until=started_until,
        ended_since=ended_since,
        ended_until=ended_until,
        label=label,
        id_prefix=id_prefix,
        rerun_of=rerun_of,
        caused_by=caused_by,
        call_id=call_id,
    )
    check_choice(
        ids=invocation_id is not None,
        chosen=chosen,
        only_with_filter={
            "--dry-run": dry_run,
            "--max-per-second": max_per_second is not None,
            "--include-rerun": include_rerun,
        },
    )
    as_json = wants_json(ctx, json=json)
    if invocation_id is None:
        for option, given in {"--data": data is not None, "--wait": wait}.items():
            if given:
                raise typer.BadParameter("needs an id", param_hint=option)
        with connect(ctx, target) as client:
            if dry_run:
                matched = _count(client, chosen, include_rerun=include_rerun)
                tell_count(matched, "run again", as_json=as_json)
            else:
                if not yes:
                    _confirm(_count(client, chosen, include_rerun=include_rerun))
                done = carry_out(
                    lambda id_, report: client.bulk_rerun(
                        max_per_second=max_per_second,
                        include_rerun=include_rerun,
                        request_id=id_,
                        on_progress=report,
                        timeout=BULK_TIMEOUT,
                        **chosen,
                    ),
                    request_id=request_id,
                    times={
                        "--since": since,
                        "--until": until,
                        "--started-since": started_since,
                        "--started-until": started_until,
                        "--ended-since": ended_since,
                        "--ended-until": ended_until,
                    },
                    shown=lambda counts: {"run again": counts.accepted, "cannot": counts.refused},
                )
                _print(done, as_json=as_json)
        return
    if content_type is not None and data is None:
        raise typer.BadParameter("needs --data", param_hint="--content-type")
    with connect(ctx, target) as client:
        if data is None:
            handle = client.rerun(invocation_id, request_id=request_id)
        else:
            body, guessed = read_payload(None, data)
            handle = client.rerun(
                invocation_id, payload=body, content_type=content_type or guessed, request_id=request_id
            )
        if wait:
            wait_and_print(handle, timeout, as_json=as_json)
        else:
            print_accepted(handle, as_json=as_json)


def _count(client: Client, chosen: FilterOptions, *, include_rerun: bool) -> int:
    return client.bulk_rerun(dry_run=True, include_rerun=include_rerun, timeout=BULK_TIMEOUT, **chosen).matched


def _confirm(matched: int) -> None:
    if matched:
        confirm(f"Run {output.several(matched)} again?")


def _print(done: BulkRerun, *, as_json: bool) -> None:
    if as_json:
        output.print_json({"matched": done.matched, "accepted": done.accepted, "refused": done.refused})
        return
    rest = f", {done.refused:,} cannot, since their functions or payloads are gone" if done.refused else ""
    output.print_line(f"{output.several(done.matched)}: {done.accepted:,} run again{rest}")
