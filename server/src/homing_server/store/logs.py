"""Keeps what functions wrote, in chunks as they came, up to what an invocation may have."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, bindparam, delete, func, insert, select, tuple_

from homing_core.log_lines import CAPPED, LogAllowance
from homing_core.wire.v1 import LogBatch, LogLine
from homing_server.store import schema

_logs = schema.logs
_invocations = schema.invocations

_last_chunks = (
    select(_logs.c.invocation_id, func.max(_logs.c.number))
    .where(_logs.c.invocation_id.in_(bindparam("ids", expanding=True)))
    .group_by(_logs.c.invocation_id)
)
_select_totals = select(_logs.c.invocation_id, _logs.c.number, _logs.c.total_lines, _logs.c.total_size).where(
    tuple_(_logs.c.invocation_id, _logs.c.number).in_(_last_chunks)
)
_insert_chunk = insert(_logs)
_select_chunks = (
    select(_logs.c.number, _logs.c.lines)
    .where(_logs.c.invocation_id == bindparam("invocation_id"), _logs.c.number > bindparam("number"))
    .order_by(_logs.c.number)
    .limit(bindparam("most"))
)
_select_end = select(_invocations.c.end_us).where(_invocations.c.id == bindparam("invocation_id"))
_select_page = (
    select(_logs.c.create_us)
    .where(_logs.c.create_us > bindparam("after_us"), _logs.c.create_us <= bindparam("until_us"))
    .order_by(_logs.c.create_us)
    .limit(bindparam("most"))
)
_place = tuple_(_logs.c.create_us, _logs.c.invocation_id, _logs.c.number)
_select_of_function = (
    select(_logs.c.create_us, _logs.c.invocation_id, _logs.c.number, _logs.c.lines)
    .where(_logs.c.function == bindparam("function"), _logs.c.create_us >= bindparam("since_us"))
    .limit(bindparam("most"))
)
_select_after = _select_of_function.where(
    _place > tuple_(bindparam("after_us"), bindparam("after_id"), bindparam("after_number"))
).order_by(_logs.c.create_us, _logs.c.invocation_id, _logs.c.number)
_select_between = _select_after.where(
    _place <= tuple_(bindparam("until_us"), bindparam("until_id"), bindparam("until_number"))
)
_select_last = _select_of_function.order_by(
    _logs.c.create_us.desc(), _logs.c.invocation_id.desc(), _logs.c.number.desc()
)
_delete_orphans = delete(_logs).where(
    _logs.c.create_us > bindparam("after_us"),
    _logs.c.create_us <= bindparam("until_us"),
    ~select(_invocations.c.id).where(_invocations.c.id == _logs.c.invocation_id).exists(),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class LogPage:
    """Stored lines of an invocation from some point on, and whether it has ended."""

    number: int
    """Of the last chunk that was read; what follows begins after it."""
    lines: Sequence[LogLine]
    complete: bool
    """Whether these were all that there are."""
    end_us: int
    """When the invocation ended; 0 while it has not."""


class LogPlace(NamedTuple):
    """Where a chunk is among those of a function, in the order in which they were stored."""

    create_us: int = 0
    invocation_id: str = ""
    number: int = 0


class LogMark(NamedTuple):
    """How far somebody has read the lines of a function, of those that stand after a place, up to another."""

    after: LogPlace
    until: LogPlace
    time_us: int
    """Of the last line that was read."""
    number: int
    """Its number among those of this time."""


class FunctionLine(NamedTuple):
    """A line that a function wrote, and the invocation that it served."""

    invocation_id: str
    line: LogLine
    number: int = 1
    """Among the lines of its time that were read with it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FunctionLogPage:
    """Stored lines of a function from some place on, by their time."""

    after: LogPlace
    """These follow it."""
    place: LogPlace
    """Of the last chunk that was read; what follows begins after it."""
    lines: Sequence[FunctionLine]
    complete: bool
    """Whether these were all that there are."""

    def marked(self, since_us: int) -> list[tuple[LogMark, FunctionLine]]:
        """Return the lines that were written since a time, each with from where to go on after it."""
        return [
            (LogMark(self.after, self.place, each.line.time_us, each.number), each)
            for each in self.lines
            if each.line.time_us >= since_us
        ]


def append_logs(connection: Connection, batches: Iterable[LogBatch], *, now_us: int) -> set[str]:
    """Add lines, as far as they are kept; return the invocations, and the functions, that got some."""
    lines: dict[str, list[LogLine]] = {}
    functions: dict[str, str] = {}
    for batch in batches:
        lines.setdefault(batch.invocation_id, []).extend(batch.lines)
        functions[batch.invocation_id] = batch.function
    known = {row.invocation_id: row for row in connection.execute(_select_totals, {"ids": list(lines)})}
    rows: list[dict[str, Any]] = []
    for invocation_id, written in lines.items():
        last = known.get(invocation_id)
        allowance = LogAllowance() if last is None else LogAllowance(lines=last.total_lines, size=last.total_size)
        kept = _keep(allowance, written)
        if kept:
            rows.append(
                {
                    "invocation_id": invocation_id,
                    "number": 1 if last is None else last.number + 1,
                    "total_lines": allowance.lines,
                    "total_size": allowance.size,
                    "lines": LogBatch(lines=kept).SerializeToString(),
                    "create_us": now_us,
                    "function": functions[invocation_id],
                }
            )
    if rows:
        connection.execute(_insert_chunk, rows)
    return {row[name] for row in rows for name in ("invocation_id", "function")}


def read_logs(connection: Connection, invocation_id: str, *, after: int, most: int) -> LogPage | None:
    """Return the lines of so many chunks after this one; None where there is no such invocation."""
    end_us = connection.execute(_select_end, {"invocation_id": invocation_id}).scalar_one_or_none()
    if end_us is None:
        return None
    chunks = connection.execute(_select_chunks, {"invocation_id": invocation_id, "number": after, "most": most}).all()
    return LogPage(
        number=chunks[-1].number if chunks else after,
        lines=[line for chunk in chunks for line in LogBatch.FromString(chunk.lines).lines],
        complete=len(chunks) < most,
        end_us=end_us,
    )


def read_function_logs(
    connection: Connection, function: str, *, after: LogPlace, since_us: int, most: int
) -> FunctionLogPage:
    """Return the lines of so many chunks of a function after a place, of those that were stored since a time."""
    asked = {"function": function, "since_us": since_us, "most": most} | _named("after", after)
    chunks = connection.execute(_select_after, asked).all()
    return FunctionLogPage(
        after=after,
        place=_place_of(chunks[-1]) if chunks else after,
        lines=_lines_of(chunks),
        complete=len(chunks) < most,
    )


def read_marked_function_logs(
    connection: Connection, function: str, mark: LogMark, *, since_us: int, most: int
) -> FunctionLogPage:
    """Return the lines that follow a mark, of those among which it stands.

    They are told by their times and not counted, since what was read may have been removed.
    """
    asked = {"function": function, "since_us": since_us, "most": most}
    chunks = connection.execute(
        _select_between, asked | _named("after", mark.after) | _named("until", mark.until)
    ).all()
    lines = [each for each in _lines_of(chunks) if (each.line.time_us, each.number) > (mark.time_us, mark.number)]
    return FunctionLogPage(after=mark.after, place=mark.until, lines=lines, complete=False)


def read_last_function_logs(
    connection: Connection, function: str, *, since_us: int, lines: int, most: int
) -> FunctionLogPage:
    """Return the last lines of a function, of those that were stored since a time; of so many chunks at the most."""
    newest = connection.execute(_select_last, {"function": function, "since_us": since_us, "most": most}).all()
    if not newest:
        return FunctionLogPage(after=LogPlace(), place=LogPlace(), lines=(), complete=True)
    chunks = newest[::-1]
    first = _place_of(chunks[0])
    return FunctionLogPage(
        after=first._replace(number=first.number - 1),
        place=_place_of(chunks[-1]),
        lines=_lines_of(chunks)[-lines:],
        complete=True,
    )


def _named(name: str, place: LogPlace) -> dict[str, Any]:
    return {f"{name}_us": place.create_us, f"{name}_id": place.invocation_id, f"{name}_number": place.number}


def _place_of(chunk: Row[Any, Any, Any, Any]) -> LogPlace:
    return LogPlace(chunk.create_us, chunk.invocation_id, chunk.number)


def _lines_of(chunks: Iterable[Row[Any, Any, Any, Any]]) -> list[FunctionLine]:
    written = [(chunk.invocation_id, line) for chunk in chunks for line in LogBatch.FromString(chunk.lines).lines]
    written.sort(key=lambda each: each[1].time_us)
    times = itertools.groupby(written, key=lambda each: each[1].time_us)
    return [FunctionLine(*each, number) for _, together in times for number, each in enumerate(together, 1)]


def remove_orphans(connection: Connection, *, after_us: int, until_us: int, most: int) -> int | None:
    """Remove lines without a record, of those that came in a span of time; look at about so many chunks.

    :returns: The time up to which all were looked at; None where that is the whole span.
    """
    span = {"after_us": after_us, "until_us": until_us}
    page = connection.execute(_select_page, span | {"most": most}).scalars().all()
    if not page:
        return None
    connection.execute(_delete_orphans, span | {"until_us": page[-1]})
    return page[-1] if len(page) == most else None


def _keep(allowance: LogAllowance, lines: Iterable[LogLine]) -> list[LogLine]:
    kept = []
    for line in lines:
        if allowance.used_up:
            break
        if allowance.take(line.text):
            kept.append(line)
        else:
            kept.append(LogLine(time_us=line.time_us, stream=line.stream, text=CAPPED))
    return kept
