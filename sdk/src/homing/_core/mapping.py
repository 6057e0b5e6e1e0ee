"""The results of a map, in the order in which they are handed out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from homing._core import check
from homing.errors import ClientUseError

Out = TypeVar("Out")

AHEAD = 2
"""So many times the concurrency may be under way or wait to be handed out, so that a slow item holds up few others."""


@dataclass(frozen=True, slots=True)
class Done(Generic[Out]):
    """What came of the item in a place."""

    place: int
    value: Out | None = None
    error: BaseException | None = None
    fatal: bool = False
    """Whether the error ends the map even where errors are returned: it is not that of one item."""


@dataclass(slots=True)
class ReorderBuffer(Generic[Out]):
    """Holds back what came before its turn."""

    ordered: bool
    _next: int = 0
    _early: dict[int, Done[Out]] = field(default_factory=dict)

    def ready(self, done: Done[Out]) -> list[Done[Out]]:
        """Take what came; return all whose turn it is now."""
        if not self.ordered:
            return [done]
        self._early[done.place] = done
        turn = []
        while self._next in self._early:
            turn.append(self._early.pop(self._next))
            self._next += 1
        return turn


def is_fatal(error: BaseException) -> bool:
    """Tell whether an error concerns not one item but all."""
    return isinstance(error, ClientUseError) or not isinstance(error, Exception)


def checked_concurrency(concurrency: int) -> int:
    """Return the number of items that are under way at a time.

    :raises TypeError: It is no int.
    :raises InvalidRequestError: It is not from 1 to 1,000.
    """
    if not 1 <= check.integer("concurrency", concurrency) <= 1000:
        raise check.invalid("concurrency", f"must be from 1 to 1000, is {concurrency}")
    return concurrency
