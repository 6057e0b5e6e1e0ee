"""The command that shows what functions wrote."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from homing import LogLine, LogStream
from homing_cli import output
from homing_cli.options import Json, Target, connect, wants_json

_AWAY_SECONDS = 60.0
"""How long a server may be away, in seconds."""


def logs(
    ctx: typer.Context,
    *,
    invocation_id: Annotated[str, typer.Argument(metavar="ID", help="The id of the invocation.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Wait for more until the invocation ends.")] = False,
    timestamps: Annotated[bool, typer.Option("--timestamps", "-t", help="Begin each line with its time.")] = False,
    target: Target = None,
    json: Json = False,
) -> None:
    """Print the lines that a function wrote for an invocation, on its standard output and error.

    A line is marked [shared] where the instance served other invocations at the time, so that it may be of another one.

    \b
    Examples:
      homing logs 01935000-0000-7000-8000-000000000001
      homing logs -f 01935000-0000-7000-8000-000000000001
      homing logs --json 01935000-0000-7000-8000-000000000001 | jq -r 'select(.stream == "LOG_STREAM_STDERR").text'
    """  # noqa: D301 - click wants the character
    as_json = wants_json(ctx, json=json)
    with connect(ctx, target) as client, client.logs(invocation_id, follow=follow, timeout=_AWAY_SECONDS) as lines:
        for line in lines:
            if as_json:
                output.print_json(_object(line))
            else:
                _print(line, timestamps=timestamps)


def _object(line: LogLine) -> dict[str, object]:
    return {
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
