"""The command that watches results."""

from __future__ import annotations

from typing import Annotated

import typer
from google.protobuf.json_format import MessageToDict

from homing import WatchEvent
from homing_cli import output
from homing_cli.options import Json, Labels, Target, connect, pairs, state, wants_json

_PREVIEW = 60


def watch(
    ctx: typer.Context,
    *,
    function: Annotated[
        list[str] | None, typer.Option("--function", "-f", help="Only this function; may be repeated.")
    ] = None,
    states: Annotated[
        list[str] | None,
        typer.Option("--state", "-s", metavar="STATE", help="Only this end, for example FAILED; may be repeated."),
    ] = None,
    label: Labels = None,
    id_prefix: Annotated[str | None, typer.Option(help="Only ids that start so.")] = None,
    resume_token: Annotated[
        str | None, typer.Option(help="Go on where another watch ended; it prints its token at its end.")
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="End after so many; by default never.")] = None,
    target: Target = None,
    json: Json = False,
) -> None:
    """Print invocations as they end, each once, until interrupted.

    \b
    Examples:
      homing watch
      homing watch --function figlet --state FAILED --state TIMED_OUT
      homing watch --json --label job=7 | jq -r .invocation.id
    """  # noqa: D301 - click wants the character
    as_json = wants_json(ctx, json=json)
    with (
        connect(ctx, target) as client,
        client.watch_results(
            function=function,
            states=[state(name) for name in states or ()],
            labels=pairs("--label", label),
            id_prefix=id_prefix,
            resume_token=resume_token,
        ) as events,
    ):
        output.complain("watching")
        try:
            for seen, event in enumerate(events, start=1):
                _print(event, as_json=as_json)
                if seen == count:
                    break
        finally:
            output.complain(f"go on with --resume-token {events.resume_token}")


def _print(event: WatchEvent, *, as_json: bool) -> None:
    record = event.invocation
    if as_json:
        output.print_json({"resumeToken": event.resume_token, "invocation": MessageToDict(record.message)})
        return
    took = record.end_time - record.create_time if record.end_time and record.create_time else None
    preview = record.failure.message if record.failure else event.result.text.strip()
    if len(preview) > _PREVIEW:
        preview = f"{preview[:_PREVIEW]}…"
    output.print_line(
        f"{output.moment(record.end_time)}  {record.id}  {record.function}  {record.state}  "
        f"{output.span(took)}  {preview}"
    )
