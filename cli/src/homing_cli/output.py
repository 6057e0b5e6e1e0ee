"""How things are printed: results as they are, tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Final

import typer
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from homing import Invocation

_PIPE_WIDTH: Final = 240
"""Where there is no terminal, lines are this wide: cut off, a table is of no use to what reads it."""

_ROOMY: Final = 60
"""A terminal of fewer columns shows the numbers of a progress bar, and no bar."""

_STYLES: Final[Mapping[str, str]] = {
    "SUCCEEDED": "green",
    "DELIVERED": "green",
    "FAILED": "red",
    "TIMED_OUT": "red",
    "INVALID": "red",
    "EXPIRED": "red",
    "DEAD": "red",
    "STOPPED": "yellow",
    "STOPPING": "yellow",
    "PAUSED": "yellow",
    "RETRYING": "yellow",
    "RUNNING": "cyan",
}
"""The colours of states, for terminals; rich leaves them out elsewhere, and where NO_COLOR is set."""


def complain(text: str) -> None:
    """Tell of an error or of progress, in one line on standard error."""
    typer.echo(f"homing: {plain(text)}", err=True)


def print_raw(data: bytes) -> None:
    """Print the output of a function just as it is; on a terminal, with the end of line that it may lack."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    if data and not data.endswith(b"\n") and sys.stdout.isatty():
        sys.stdout.buffer.write(b"\n")
    sys.stdout.buffer.flush()


def print_line(text: str) -> None:
    """Print a line at once."""
    typer.echo(plain(text))


def print_styled(text: str, style: str) -> None:
    """Print a line in a colour, where the terminal has any; tabs stay."""
    made = Text("\t".join(plain(part) for part in text.split("\t")), style=style)
    Console(highlight=False, markup=False, emoji=False, soft_wrap=True).print(made)


def print_json(item: Message | Mapping[str, object]) -> None:
    """Print an object as one line of JSON, a message with the names of proto3 JSON."""
    content = MessageToDict(item) if isinstance(item, Message) else item
    typer.echo(json.dumps(content, separators=(",", ":")))


def table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Print a table."""
    _print(grid(columns, rows))


def grid(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> Table:
    """Return a table."""
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    for column in columns:
        made.add_column(column, overflow="fold", no_wrap=column == "ID")
    for row in rows:
        made.add_row(*(Text(plain(cell), style=_STYLES.get(cell, "")) for cell in row))
    return made


def is_live() -> bool:
    """Tell whether what is printed can be changed later: on a terminal that can move its cursor."""
    console = Console()
    return sys.stdout.isatty() and console.is_terminal and not console.is_dumb_terminal


def progress() -> Progress:
    """Return a progress bar on standard error; it shows nothing where that is no terminal."""
    console = Console(stderr=True)
    columns: list[ProgressColumn] = [SpinnerColumn(), MofNCompleteColumn()]
    if console.width >= _ROOMY:
        columns.insert(1, BarColumn())
        columns += [TextColumn("{task.description}"), TimeElapsedColumn()]
    return Progress(
        *columns,
        console=console,
        transient=True,
        disable=not console.is_terminal or console.is_dumb_terminal,
        # Results that are piped away must not come out on standard error instead.
        redirect_stdout=sys.stdout.isatty(),
    )


def fields(items: Iterable[tuple[str, str]]) -> None:
    """Print names and values, leaving out the empty ones."""
    made = Table(box=None, pad_edge=False, show_header=False, padding=(0, 3, 0, 0))
    made.add_column(style="bold")
    made.add_column(overflow="fold")
    for name, value in items:
        if value:
            made.add_row(name, Text(plain(value), style=_STYLES.get(value, "")))
    _print(made)


def heading(text: str) -> None:
    """Print what the table below is about."""
    typer.echo()
    _print(Text(text, style="bold"))


def _print(item: Table | Text) -> None:
    """Print through rich, without the spaces that it fills lines up with."""
    console = Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, highlight=False, markup=False, emoji=False)
    with console.capture() as captured:
        console.print(item)
    typer.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def plain(text: str) -> str:
    """Return a text without control characters, which could play tricks on a terminal, in one line."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def moment(time: datetime | None) -> str:
    """Return a time as people read it, in their time zone."""
    return "" if time is None else time.astimezone().strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def span(length: timedelta | None) -> str:
    """Return a duration as people read it."""
    if length is None:
        return ""
    seconds = length.total_seconds()
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "min"), (seconds, "s"))
    return " ".join(f"{number} {unit}" for number, unit in parts if number)


def after(time: datetime | None, start: datetime | None) -> str:
    """Return how long after a start something happened."""
    if time is None or start is None:
        return ""
    seconds = (time - start).total_seconds()
    return f"{seconds:+.3f} s" if abs(seconds) < 60 else f"+{span(time - start)}"


def progress_of(record: Invocation) -> str:
    """Return how far a function says that it is."""
    if record.progress is None:
        return ""
    return f"{record.progress.percent:g} % {record.progress.text}".rstrip()


def took(record: Invocation) -> timedelta | None:
    """Return how long an invocation took, from its acceptance to its end."""
    return record.end_time - record.create_time if record.end_time and record.create_time else None


def pairs(mapping: Mapping[str, str]) -> str:
    """Return a mapping as people read it."""
    return " ".join(f"{key}={value}" for key, value in sorted(mapping.items()))
