"""The command that stops invocations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from homing import BulkStopped, Client, FailedPreconditionError, FilterOptions, NotFoundError
from homing_cli import output
from homing_cli.bulk import (
    BULK_TIMEOUT,
    DryRun,
    RequestId,
    Yes,
    carry_out,
    check_choice,
    confirm,
    tell_count,
)
from homing_cli.exits import exit_code
from homing_cli.filters import (
    CallId,
    CausedBy,
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


def stop(
    ctx: typer.Context,
    *,
    ids: Annotated[list[str] | None, typer.Argument(metavar="ID", help="The ids of invocations.")] = None,
    function: Functions = None,
    state: States = None,
    since: Since = None,
    until: Until = None,
    started_since: StartedSince = None,
    started_until: StartedUntil = None,
    label: Labels = None,
    id_prefix: IdPrefix = None,
    rerun_of: RerunOf = None,
    caused_by: CausedBy = None,
    call_id: CallId = None,
    reason: Annotated[str | None, typer.Option("--reason", "-m", help="Why, for the records.")] = None,
    request_id: RequestId = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    target: Target = None,
    json: Json = False,
) -> None:
    """Stop invocations that have not ended, by their ids or all that match a filter.

    What is in flight is STOPPING first; it may still finish. With a filter the number is told and confirmed
    on the terminal first, and on a terminal it shows how far it is. One that broke off goes on by its request id.

    \b
    Examples:
      homing stop 01935000-0000-7000-8000-000000000001 --reason "wrong input"
      homing stop --function resize --state ENQUEUED --since 1h --dry-run
      homing stop --label job=7 --yes
    """  # noqa: D301 - click wants the character
    chosen = conditions(
        function=function,
        states=state,
        since=since,
        until=until,
        started_since=started_since,
        started_until=started_until,
        label=label,
        id_prefix=id_prefix,
        rerun_of=rerun_of,
        caused_by=caused_by,
        call_id=call_id,
    )
    check_choice(
        ids=bool(ids), chosen=chosen, only_with_filter={"--dry-run": dry_run, "--request-id": request_id is not None}
    )
    as_json = wants_json(ctx, json=json)
    with connect(ctx, target) as client:
        if ids:
            _stop_each(client, ids, reason, as_json=as_json)
        elif dry_run:
            tell_count(
                client.bulk_stop(dry_run=True, timeout=BULK_TIMEOUT, **chosen).matched, "be stopped", as_json=as_json
            )
        else:
            if not yes:
                _confirm(client, chosen)
            done = carry_out(
                lambda id_, report: client.bulk_stop(
                    reason=reason, request_id=id_, on_progress=report, timeout=BULK_TIMEOUT, **chosen
                ),
                request_id=request_id,
                times={
                    "--since": since,
                    "--until": until,
                    "--started-since": started_since,
                    "--started-until": started_until,
                },
                shown=lambda counts: {"STOPPED": counts.stopped, "STOPPING": counts.stopping},
            )
            _print(done, as_json=as_json)


def _stop_each(client: Client, ids: Sequence[str], reason: str | None, *, as_json: bool) -> None:
    """Stop one after the other; go on where one cannot be stopped.

    :raises typer.Exit: One could not.
    """
    failed = 0
    for invocation_id in ids:
        try:
            record = client.stop(invocation_id, reason=reason)
        except (NotFoundError, FailedPreconditionError) as error:
            output.complain(str(error))
            failed = exit_code(error)
            continue
        if as_json:
            output.print_json(record.message)
        else:
            output.print_line(f"{record.id} {record.state}")
    if failed:
        raise typer.Exit(failed)


def _confirm(client: Client, chosen: FilterOptions) -> None:
    matched = client.bulk_stop(dry_run=True, timeout=BULK_TIMEOUT, **chosen).matched
    if matched:
        confirm(f"Stop {output.several(matched)}?")


def _print(done: BulkStopped, *, as_json: bool) -> None:
    if as_json:
        output.print_json({"matched": done.matched, "stopped": done.stopped, "stopping": done.stopping})
        return
    told = f"{done.stopped:,} STOPPED, {done.stopping:,} STOPPING"
    ended = done.matched - done.stopped - done.stopping
    output.print_line(f"{output.several(done.matched)}: {told}" + (f", {ended:,} had ended before" if ended else ""))
