"""What a function knows of the call that it serves."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import uuid4


class Headers(Mapping[str, str]):
    """The headers of a request. Names are case-insensitive; values of one name are joined by ``, ``."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self._values: dict[str, str] = {}
        for name, value in pairs:
            key = name.lower()
            self._values[key] = f"{self._values[key]}, {value}" if key in self._values else value

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Headers({self._values!r})"


def _drop(_percent: float | None, _text: str | None) -> None:
    """Tell nobody of the progress of a call that did not come from homing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Context:
    """The call that a function serves. A function gets it by a parameter of this type."""

    call_id: str = field(default_factory=lambda: str(uuid4()))
    """The id of the invocation, the same for all its attempts; a new one where the caller names none."""
    attempt: int = 1
    """The number of this attempt, from 1 on."""
    deadline: datetime | None = None
    """When the attempt is given up; None where the caller does not say."""
    headers: Mapping[str, str] = field(default_factory=lambda: Headers([]))
    """The headers of the request, by their names in any case."""
    method: str = "POST"
    """The method of the request."""
    path: str = "/"
    """The path of the request."""
    query: str = ""
    """What follows the question mark."""
    report: Callable[[float | None, str | None], None] = field(default=_drop, repr=False)
    """Where progress goes."""

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the deadline, 0 at the least; None where there is none."""
        if self.deadline is None:
            return None
        return max(0.0, (self.deadline - datetime.now(UTC)).total_seconds())

    def progress(self, percent: float | None = None, text: str | None = None) -> None:
        """Tell how far the call is, to everybody who gets or watches the invocation. Returns at once.

        What is left out stays as it was. One report a second is recorded: the newest.

        :param percent: From 0 to 100.
        :param text: At most 1,024 characters.
        :raises ValueError: One of them is out of its bounds.
        """
        if percent is not None and not (math.isfinite(percent) and 0 <= percent <= 100):
            raise ValueError(f"percent must be a number from 0 to 100, is {percent}")
        if text is not None and len(text) > 1024:
            raise ValueError(f"text must have at most 1024 characters, has {len(text)}")
        self.report(percent, text)
