"""How things are printed: results as they are, tables for people, JSON for programs."""

from __future__ import annotations

import codecs
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import typer
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from rich.cells import cell_len, set_cell_size
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

_GAP: Final = 3
"""So many spaces are between two columns."""

_CUT: Final = frozenset(
    {
        "CAUSED",
        "DETAIL",
        "FAILURE",
        "FUNCTION",
        "FUNCTIONS",
        "INSTANCE",
        "LAST FAILURE",
        "NEXT AFTER",
        "RESULT",
        "SCOPES",
        "SOURCE",
    }
    | {"TO", "WORKER"}
)
"""The columns that are cut where a terminal is too narrow. Of others a part would be of no use."""

_LEAST: Final = 8
"""Of a column that is cut so many characters are shown at least, or it is left out."""

_ROOMY: Final = 60
"""A terminal of fewer columns shows the numbers of a progress bar, and no bar."""

_BINARY: Final = re.compile(r"[\x00-\x06\x0e-\x1a\x1c-\x1f]")
"""What no text has. It may ring, move the cursor and have colours: it goes to the terminal as its function says."""

TO_FILE: Final = "--output FILE writes it to a file"
"""What to do about an output that is no text."""

_ENDS_OF_LINE: Final = re.compile(r"\s*[\r\n]\s*")

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


def print_raw(data: bytes, content_type: str) -> None:
    """Print the output of a function just as it is; on a terminal, with the end of line that it may lack.

    What is no text is not for terminals: there its size and type are told.
    """
    if sys.stdout.isatty() and not is_text(data):
        complain(f"{binary(data, content_type)}: {TO_FILE}, and so does > FILE")
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    if data and not data.endswith(b"\n") and sys.stdout.isatty():
        sys.stdout.buffer.write(b"\n")
    sys.stdout.buffer.flush()


def print_parts(parts: Iterable[bytes], content_type: str) -> None:
    """Print the output of a function as it comes; on a terminal as :func:`print_raw` does, up to what is no text."""
    sys.stdout.flush()
    for part in _shown_parts(parts, content_type) if sys.stdout.isatty() else parts:
        sys.stdout.buffer.write(part)
        sys.stdout.buffer.flush()


def _shown_parts(parts: Iterable[bytes], content_type: str) -> Iterator[bytes]:
    binary: object
    text, end = codecs.getincrementaldecoder("utf-8")(), b"\n"
    for part in parts:
        try:
            binary = _BINARY.search(text.decode(part))
        except UnicodeDecodeError:
            binary = True
        if binary:
            complain(f"the output is {plain(content_type) or 'data'}: {TO_FILE}, and so does > FILE")
            return
        yield part
        end = part[-1:]
    if end != b"\n":
        yield b"\n"


def write_file(path: Path, data: bytes, content_type: str) -> None:
    """Write the output of a function to a file, and say so.

    :raises typer.BadParameter: It cannot be written.
    """
    write_parts(path, [data], content_type)


def write_parts(path: Path, parts: Iterable[bytes], content_type: str) -> None:
    """Write the output of a function to a file as it comes, and say so at the end.

    :raises typer.BadParameter: It cannot be written.
    """
    size = 0
    try:
        with path.open("wb") as file:
            for part in parts:
                size += file.write(part)
    except OSError as error:
        raise typer.BadParameter(f"cannot write {path}: {error.strerror}", param_hint="--output") from None
    complain(f"wrote {amount(size, content_type)} to {path}")


def print_line(text: str) -> None:
    """Print a line at once."""
    typer.echo(plain(text))


def print_one_line(data: bytes) -> None:
    r"""Print the output of a function as one line: without its last end of line, and with ``\n`` for others.

    All else stays as it is, but for what could play tricks on a terminal.
    """
    line = data.rstrip(b"\r\n")
    if sys.stdout.isatty():
        text = line.decode(errors="replace")
        typer.echo("\t".join(escaped(part) for part in text.split("\t")))
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(line.replace(b"\n", b"\\n") + b"\n")
    sys.stdout.buffer.flush()


def print_styled(text: str, style: str) -> None:
    """Print a line in a colour, where the terminal has any; tabs stay."""
    made = Text("\t".join(plain(part) for part in text.split("\t")), style=style)
    Console(highlight=False, markup=False, emoji=False, soft_wrap=True).print(made)


def print_json(item: Message | Mapping[str, object]) -> None:
    """Print an object as one line of JSON, a message with the names of proto3 JSON."""
    content = MessageToDict(item) if isinstance(item, Message) else item
    typer.echo(json.dumps(content, separators=(",", ":")))


def table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Print a table, each record in one line. A terminal shows what there is room for; piped, all is there."""
    if sys.stdout.isatty():
        _print(grid(columns, rows, Console().width))
    else:
        _print_aligned([list(columns), *([plain(cell) for cell in row] for row in rows)])


def grid(columns: Iterable[str], rows: Iterable[Iterable[str]], width: int) -> Table:
    """Return a table that has room in so many columns of a terminal: what is long is cut, what has no room left out."""
    names = list(columns)
    cells = [[plain(cell) for cell in row] for row in rows]
    natural = [max(cell_len(name), *(cell_len(row[place]) for row in cells), 0) for place, name in enumerate(names)]
    widths = fitted(names, natural, width)
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, _GAP, 0, 0))
    for place, size in widths.items():
        made.add_column(names[place], overflow="ellipsis", no_wrap=True, width=size)
    for row in cells:
        made.add_row(*(Text(row[place], style=_STYLES.get(row[place], "")) for place in widths))
    return made


def fitted(names: Sequence[str], natural: Sequence[int], width: int) -> dict[int, int]:
    """Return which columns of a table a terminal shows, by their places, and how wide.

    From the left each is shown that still has room, if need be cut; what room is left goes to those that are.

    :param names: The names of the columns.
    :param natural: How wide each would be.
    :param width: How wide the terminal is.
    """
    shown: dict[int, int] = {}
    room = width
    for place, (name, size) in enumerate(zip(names, natural, strict=True)):
        least = min(size, max(_LEAST, cell_len(name))) if name in _CUT else size
        gap = _GAP if shown else 0
        if least + gap <= room or not shown:
            shown[place] = min(least, room)
            room -= least + gap
    for place, size in shown.items():
        more = min(natural[place] - size, max(room, 0))
        shown[place] += more
        room -= more
    return shown


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
    if not sys.stdout.isatty():
        _print_aligned([[name, plain(value)] for name, value in items if value])
        return
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
    print_styled(text, "bold")


def _print(item: Table) -> None:
    """Print through rich, without the spaces that it fills lines up with."""
    console = Console(highlight=False, markup=False, emoji=False)
    with console.capture() as captured:
        console.print(item)
    typer.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def _print_aligned(rows: Sequence[Sequence[str]]) -> None:
    """Print rows of cells, each in one line however long that is."""
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        padded = (set_cell_size(cell, width + _GAP) for cell, width in zip(row, widths, strict=True))
        typer.echo("".join(padded).rstrip())


def is_text(data: bytes) -> bool:
    """Tell whether a terminal can show what a function answered."""
    try:
        return not _BINARY.search(data.decode())
    except UnicodeDecodeError:
        return False


def several(count: int, noun: str = "invocation") -> str:
    """Return a number of invocations, or of something else, in words."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def shown_text(data: bytes, content_type: str) -> str:
    """Return the text that a function answered; what it is where it is none."""
    return data.decode().strip() if is_text(data) else binary(data, content_type)


def binary(data: bytes, content_type: str) -> str:
    """Return in words how much there is, and of what."""
    return amount(len(data), content_type)


def amount(size: int, content_type: str) -> str:
    """Return in words how many bytes there are, and of what."""
    return f"{several(size, 'byte')} of {plain(content_type) or 'data'}"


def plain(text: str) -> str:
    """Return a text in one line, without control characters, which could play tricks on a terminal."""
    return escaped(_ENDS_OF_LINE.sub(" ", text.strip("\r\n")))


def escaped(text: str) -> str:
    """Return a text with its control characters written out."""
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
