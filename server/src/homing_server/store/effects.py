"""What a commit means to others: for those who act on it once it is durable."""

from __future__ import annotations

from dataclasses import dataclass, field

from homing_core.lifecycle import State


@dataclass(kw_only=True, slots=True)
class CommitEffects:
    """What a transaction changed that somebody acts on after its commit."""

    result_seq: int = 0
    """The highest number given to a result; 0 where none ended."""
    change_seq: int = 0
    """The highest number given to a change; 0 where watchers are notified of none."""
    ended: dict[str, State] = field(default_factory=dict)
    """The invocations that ended."""
    left_broker: list[tuple[str, str, int]] = field(default_factory=list)
    """Id, function and size of the invocations that the broker holds no more."""
    due: dict[str, int] = field(default_factory=dict)
    """By function, when the earliest of the invocations that came back to the store is due."""
    leases: dict[str, float] = field(default_factory=dict)
    """The invocations that were leased, or whose leases were renewed, and for how many seconds from now."""
    deliveries: int = 0
    """How many deliveries were made."""
    delivery_reports: int = 0
    """How many deliveries left the broker, so that there is room for others of their receivers."""
    put_off: int = 0
    """How many of them wait in the store for their next attempt."""
    delivered: int = 0
    """How many deliveries have arrived."""
    given_up: int = 0
    """How many deliveries are dead."""
    refused: int = 0
    """How many events changed nothing."""
