"""The command that watches results."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated

import typer
from google.protobuf.json_format import MessageToDict
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from homing import Invocation, WatchEvent
from homing_cli import output
from homing_cli.filters import CallId, CausedBy, Functions, IdPrefix, Labels, RerunOf, States, conditions, end_state
from homing_cli.options import Json, Target, connect, wants_json

_PREVIEW = 60


def watch(
    ctx: typer.Context,
    *,
    function: Functions = None,
    state: States = None,
    label: Labels = None,
    id_prefix: IdPrefix = None,
    rerun_of: RerunOf = None,
    caused_by: CausedBy = None,
    call_id: CallId = None,
    transitions: Annotated[
        bool, typer.Option("--transitions", help="Show every change, of state and of progress, and not only ends.")
    ] = False,
    resume_token: Annotated[
        str | None, typer.Option(help="Go on where another watch ended; it prints its token at its end.")
    ] = None,
    count: Annotated[
        int | None, typer.Option(min=1, max=1_000_000_000, help="End after so many; by default never.")
    ] = None,
    target: Target = None,
    json: Json = False,
) -> None:
    """Show invocations as they end, each once, until interrupted: a live table on a terminal, lines where piped.

    With --transitions also those that run, with their progress.

    \b
    Examples:
      homing watch
      homing watch --function figlet --state FAILED --state TIMED_OUT
      homing watch --transitions --id-prefix 01935000-0000-7000-8000-000000000001
      homing watch --json --label job=7 | jq -r .invocation.id
    """  # noqa: D301 - click wants the character
    as_json = wants_json(ctx, json=json)
    if not transitions:
        for name in state or ():
            end_state(name)  # nothing else is ever seen
    chosen = conditions(
        function=function,
        states=state,
        since=None,
        until=None,
        label=label,
        id_prefix=id_prefix,
        rerun_of=rerun_of,
        caused_by=caused_by,
        call_id=call_id,
    )
    with (
        connect(ctx, target) as client,
        client.watch_results(include_transitions=transitions, resume_token=resume_token, **chosen) as events,
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
    """Show the latest invocations in a table that fills the terminal, under a count of all ends."""
    console = Console()
    rows: dict[str, tuple[str, ...]] = {}
    ends: Counter[str] = Counter()
    with Live(console=console, refresh_per_second=8, vertical_overflow="crop") as live:
        for event in events:
            record = event.invocation
            if record.ended:
                ends[str(record.state)] += 1
            day, _, time = output.moment(_changed(record)).partition(" ")
            rows.pop(record.id, None)  # what changed last is at the bottom
            rows[record.id] = (time or day, record.id, record.function, str(record.state), _took(record), _news(event))
            while len(rows) > max(1, console.height - 4):
                del rows[next(iter(rows))]
            total = "   ".join(f"{number} {state}" for state, number in ends.most_common())
            table = output.grid(("AT", "ID", "FUNCTION", "STATE", "TOOK", "RESULT"), rows.values(), console.width)
            live.update(Group(Text(total), table))


def _print(event: WatchEvent, *, as_json: bool) -> None:
    record = event.invocation
    if as_json:
        output.print_json({"resumeToken": event.resume_token, "invocation": MessageToDict(record.message)})
        return
    output.print_line(
        f"{output.moment(_changed(record))}  {record.id}  {record.function}  {record.state}  "
        f"{_took(record)}  {_news(event)}"
    )


def _changed(record: Invocation) -> datetime | None:
    """Return the latest time that a record tells of."""
    times = [
        record.progress.time if record.progress else None,
        record.events[-1].time if record.events else None,
        record.start_time,
        record.create_time,
    ]
    return record.end_time or max((time for time in times if time is not None), default=None)


def _took(record: Invocation) -> str:
    return output.span(output.took(record))


def _news(event: WatchEvent) -> str:
    """Return the beginning of what came of an invocation; before its end how far it is, or why it waits."""
    record = event.invocation
    if not record.ended:
        text = output.progress_of(record) if record.progress else str(record.wait_reason or "")
    else:
        answer = event.result
        text = record.failure.message if record.failure else output.shown_text(answer.data, answer.content_type)
    return text if len(text) <= _PREVIEW else f"{text[:_PREVIEW]}…"
