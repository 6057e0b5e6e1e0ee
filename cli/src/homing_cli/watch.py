"""The command that watches results."""

from __future__ import annotations

import itertools
from collections import Counter, deque
from collections.abc import Iterable
from typing import Annotated

import typer
from google.protobuf.json_format import MessageToDict
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from homing import Invocation, WatchEvent
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
    """Show invocations as they end, each once, until interrupted: a live table on a terminal, lines where piped.

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
        seen = itertools.islice(events, count)
        try:
            if not as_json and output.is_live():
                _show_live(seen)
            else:
                for event in seen:
                    _print(event, as_json=as_json)
        finally:
            output.complain(f"go on with --resume-token {events.resume_token}")


def _show_live(events: Iterable[WatchEvent]) -> None:
    """Show the latest events in a table that fills the terminal, under a count of all."""
    console = Console()
    rows: deque[tuple[str, ...]] = deque()
    counts: Counter[str] = Counter()
    with Live(console=console, refresh_per_second=8, vertical_overflow="crop") as live:
        for event in events:
            record = event.invocation
            counts[str(record.state)] += 1
            ended, _, time = output.moment(record.end_time).partition(" ")
            rows.append((time or ended, record.id, record.function, str(record.state), _took(record), _preview(event)))
            while len(rows) > max(1, console.height - 4):
                rows.popleft()
            total = "   ".join(f"{number} {state}" for state, number in counts.most_common())
            live.update(Group(Text(total), output.grid(("ENDED", "ID", "FUNCTION", "STATE", "TOOK", "RESULT"), rows)))


def _print(event: WatchEvent, *, as_json: bool) -> None:
    record = event.invocation
    if as_json:
        output.print_json({"resumeToken": event.resume_token, "invocation": MessageToDict(record.message)})
        return
    output.print_line(
        f"{output.moment(record.end_time)}  {record.id}  {record.function}  {record.state}  "
        f"{_took(record)}  {_preview(event)}"
    )


def _took(record: Invocation) -> str:
    return output.span(output.took(record))


def _preview(event: WatchEvent) -> str:
    """Return the beginning of what came of an invocation."""
    failure = event.invocation.failure
    text = failure.message if failure else event.result.text.strip()
    return text if len(text) <= _PREVIEW else f"{text[:_PREVIEW]}…"
