"""What was measured, and the table of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

ROLES = ("server", "worker", "rabbitmq", "function", "load")
"""Whose processor time is shown. In `homing dev` server, worker and broker are one process, shown as the server."""


NOTHING = "-"
"""The figure of what could not be measured."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """One row of the table."""

    measure: str
    system: str
    value: str
    cpu: Mapping[str, float] = field(default_factory=dict)
    """Microseconds of processor time an operation, by role."""
    missing: str = ""
    """Why the row does not count; empty where it does."""


def rate(operations: int, seconds: float) -> str:
    """Return operations in a second as text."""
    return f"{operations / seconds:,.0f} /s"


def percentiles(seconds: Iterable[float]) -> str:
    """Return the 50th and the 99th percentile as text."""
    ordered = sorted(seconds)
    if not ordered:
        return NOTHING
    middle, last = (ordered[min(len(ordered) - 1, int(len(ordered) * part))] for part in (0.5, 0.99))
    return f"{middle * 1e3:.1f} / {last * 1e3:.1f} ms"


def table(figures: Sequence[Figure]) -> str:
    """Return the figures as a table in Markdown, one measure after the other."""
    head = ["measure", "system", "figure", *(f"{role} µs" for role in ROLES), "counts"]
    rows = [head]
    measures = dict.fromkeys(figure.measure for figure in figures)
    for measure in measures:
        shown = measure
        for figure in figures:
            if figure.measure == measure:
                cpu = [f"{figure.cpu[role]:,.0f}" if role in figure.cpu else "" for role in ROLES]
                rows.append(
                    [shown, figure.system, figure.value, *cpu, f"NO: {figure.missing}" if figure.missing else "yes"]
                )
                shown = ""
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    numbers = range(2, 3 + len(ROLES))
    rule = ["-" * (width - 1) + ":" if column in numbers else "-" * width for column, width in enumerate(widths)]
    return "\n".join(
        "| "
        + " | ".join(
            cell.rjust(width) if column in numbers else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        + " |"
        for row in (rows[0], rule, *rows[1:])
    )
