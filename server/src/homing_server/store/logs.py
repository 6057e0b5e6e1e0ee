"""Keeps what functions wrote, in chunks as they came, up to what an invocation may have."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select, tuple_

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


def append_logs(connection: Connection, batches: Iterable[LogBatch], *, now_us: int) -> set[str]:
    """Add lines, as far as they are kept; return the invocations that got some."""
    lines: dict[str, list[LogLine]] = {}
    for batch in batches:
        lines.setdefault(batch.invocation_id, []).extend(batch.lines)
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
                }
            )
    if rows:
        connection.execute(_insert_chunk, rows)
    return {row["invocation_id"] for row in rows}


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
