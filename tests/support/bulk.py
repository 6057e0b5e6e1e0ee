"""Reads what calls about many tell until they are done."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable
from typing import Any, Protocol, TypeVar


class Report(Protocol):
    """One of their messages."""

    @property
    def done(self) -> bool:
        """Whether this is all."""


ReportT = TypeVar("ReportT", bound=Report)


async def outcome(reports: AsyncIterable[ReportT]) -> ReportT:
    """Return the last message, the only one that says that this is all."""
    return _outcome([report async for report in reports])


def outcome_of(reports: Iterable[Any]) -> Any:
    """Return the same of a synchronous stream."""
    return _outcome(list(reports))


def _outcome(reports: list[ReportT]) -> ReportT:
    assert [report.done for report in reports] == [False] * (len(reports) - 1) + [True], reports
    return reports[-1]
