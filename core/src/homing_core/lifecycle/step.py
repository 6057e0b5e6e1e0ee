"""What a transition comes to: the next value with what else is to be done, or a refusal that changes nothing."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Generic, TypeVar

T_co = TypeVar("T_co", covariant=True)


class Refusal(enum.Enum):
    """Why something changes nothing."""

    ENDED = enum.auto()
    """It has ended."""
    STALE = enum.auto()
    """It is said of an earlier dispatch."""
    DUPLICATE = enum.auto()
    """It tells nothing new."""
    ELSEWHERE = enum.auto()
    """Somebody else holds it by now."""


class Effect(enum.Enum):
    """What is to be done besides storing the next value: in the same transaction, but for PUBLISH."""

    PUBLISH = enum.auto()
    """Publish its message under the new generation, once this is committed."""
    WRITE_TOMBSTONE = enum.auto()
    """Write down that its dispatches up to this generation must not start."""
    MAKE_DELIVERIES = enum.auto()
    """Make the deliveries of its callback and its destinations."""
    MAKE_DEAD_LETTER = enum.auto()
    """Make a dead letter of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Step(Generic[T_co]):
    """The next value, and what is to be done besides storing it."""

    after: T_co
    effects: frozenset[Effect] = frozenset()
