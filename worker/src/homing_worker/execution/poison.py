"""Poison messages: what a worker does about invocations that may be what kills the workers which run them.

A start without an end is lost; so many as :data:`homing_core.limits.POISON_STARTS` make an invocation poison. A
redelivery is no proof of a start: a crash redelivers all that was in flight. The store knows, so the worker asks it
before the start that might be the last one, by handing the invocation back.
"""

from __future__ import annotations

from dataclasses import dataclass

from homing_core.limits import POISON_STARTS


@dataclass(frozen=True, kw_only=True, slots=True)
class PoisonRisk:
    """How near a dispatch is to being poison, as far as its message says."""

    prior_lost_starts: int
    """The starts under earlier generations that had no end."""
    redelivery_count: int
    """How often this message was delivered before."""

    @property
    def possible_lost_starts(self) -> int:
        """How many starts were lost, if every earlier delivery of the message was one."""
        return self.prior_lost_starts + self.redelivery_count

    @property
    def redelivered(self) -> bool:
        """Whether it may have been started before: then the store must know of a start before it is made."""
        return self.possible_lost_starts > 0

    @property
    def quarantined(self) -> bool:
        """Whether one more lost start may make it poison.

        It takes down what runs beside it if it is what kills workers. So those run one at a time, and lose their last
        start only if they are.
        """
        return self.possible_lost_starts >= POISON_STARTS - 1

    @property
    def suspected(self) -> bool:
        """Whether it may be poison already: the store is asked how many of its deliveries were starts."""
        return max(self.possible_lost_starts, self.redelivery_count + 1) >= POISON_STARTS
