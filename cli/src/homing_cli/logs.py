"""The command that shows what functions wrote."""

from __future__ import annotations

import contextlib
import sys
from datetime import datetime
from typing import Annotated

import typer

from homing import FunctionLogLine, LogLine, LogStream, LogTail
from homing_cli import output
from homing_cli.options import Json, Target, connect, moment, wants_json

_AWAY_SECONDS = 60.0
"""How long a server may be away, in seconds."""


def logs(
    ctx: typer.Context,
    *,
    invocation_id: Annotated[str, typer.Argument(metavar="ID", help="The id of the invocation.")] = "",
    function: Annotated[
        str, typer.Option("--function", metavar="NAME", help="All that this function writes, whatever it serves.")
    ] = "",
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Wait for more until the invocation ends, or Ctrl-C.")
    ] = False,
    since: Annotated[
        datetime | None,
        typer.Option(
            parser=moment, metavar="TIME", help="With --function: since 2026-11-22T08:00, or 90m for so long ago."
        ),
    ] = None,
    tail: Annotated[
        int | None,
        typer.Option(min=1, max=10_000, metavar="N", help="With --function: the last so many of what is there."),
    ] = None,
    timestamps: Annotated[bool, typer.Option("--timestamps", "-t", help="Begin each line with its time.")] = False,
    target: Target = None,
    json: Json = False,
) -> None:
    """Print the lines that a function wrote, for an invocation or for all, on its standard output and error.

    A line is marked [shared] where the instance served other invocations at the time, so that it may be of another one.

    \b
    Examples:
      homing logs 01935000-0000-7000-8000-000000000001
      homing logs -f 01935000-0000-7000-8000-000000000001
      homing logs --function report --tail 100 -f
      homing logs --json 01935000-0000-7000-8000-000000000001 | jq -r 'select(.stream == "LOG_STREAM_STDERR").text'
    """  # noqa: D301 - click wants the character
    as_json = wants_json(ctx, json=json)
    if bool(invocation_id) is bool(function):
        raise typer.BadParameter("either the id of an invocation or --function is needed")
    if not function and (since is not None or tail is not None):
        raise typer.BadParameter("--since and --tail go with --function")
    with connect(ctx, target) as client, contextlib.ExitStack() as stack:
        lines: LogTail[LogLine]
        if function:
            lines = client.functions.logs(function, follow=follow, since=since, tail=tail, timeout=_AWAY_SECONDS)
        else:
            lines = client.logs(invocation_id, follow=follow, timeout=_AWAY_SECONDS)
        for line in stack.enter_context(lines):
            if as_json:
                output.print_json(_object(line))
            else:
                _print(line, timestamps=timestamps)


def _object(line: LogLine) -> dict[str, object]:
    of_function = {"invocation_id": line.invocation_id} if isinstance(line, FunctionLogLine) else {}
    return {
        **of_function,
        "time": line.time.isoformat() if line.time else None,
        "stream": f"LOG_STREAM_{line.stream}",
        "text": line.text,
        "shared": line.shared,
    }


def _print(line: LogLine, *, timestamps: bool) -> None:
    """Print a line; on a terminal without control characters, what went to standard error in red."""
    begin = (f"{output.moment(line.time)}  " if timestamps else "") + ("[shared] " if line.shared else "")
    if not sys.stdout.isatty():
        typer.echo(f"{begin}{line.text}")
    elif line.stream is LogStream.STDERR:
        output.print_styled(f"{begin}{line.text}", "red")
    else:
        output.print_styled(f"{begin}{line.text}", "")
