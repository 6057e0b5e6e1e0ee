"""Slots: the right to make one call of an instance, and those who wait for one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from homing_worker.runtime import Instance


class PoolClosedError(Exception):
    """The pool starts nothing more."""


@dataclass(slots=True, eq=False)
class PooledInstance:
    """An instance, and how many of its slots are taken."""

    instance: Instance
    concurrency: int
    """How many calls it serves at a time."""
    busy: int = 0
    """How many of its slots are taken."""
    idle_since: float = 0.0
    """Since when none is, in the loop's time."""
    retiring: bool = False
    """Whether it is stopped after the calls that it serves, and gets no others."""
    suspect: bool = False
    """Whether it may be gone: it gets no calls until it was found to run."""

    @property
    def free(self) -> bool:
        """Whether it takes one more call."""
        return self.busy < self.concurrency and not self.retiring and not self.suspect and self.instance.alive


@dataclass(slots=True, eq=False)
class Slot:
    """The right to make one call of an instance."""

    member: PooledInstance
    retire: bool = False
    """Set by who used it where the instance is to be replaced."""
    suspect: bool = False
    """Set by who used it where the instance may be gone."""

    @property
    def instance(self) -> Instance:
        """The instance to call."""
        return self.member.instance

    @property
    def exclusive(self) -> bool:
        """Whether the instance serves this call alone."""
        return self.member.concurrency == 1

    async def abandon(self) -> bool:
        """See to it that a call which was cancelled ends; return whether it surely has.

        An instance that served this call alone is killed, and is to be retired.
        """
        if self.instance.isolates_calls:
            return True
        return self.exclusive and await self.instance.kill()


class SlotQueue:
    """The callers that wait for a slot: synchronous ones go first, else first come, first served."""

    def __init__(self) -> None:
        self._sync: deque[asyncio.Future[Slot]] = deque()
        self._async: deque[asyncio.Future[Slot]] = deque()

    def __len__(self) -> int:
        return len(self._sync) + len(self._async)

    def add(self, *, sync: bool) -> asyncio.Future[Slot]:
        """Return what becomes the slot of one more caller."""
        waiter: asyncio.Future[Slot] = asyncio.get_running_loop().create_future()
        (self._sync if sync else self._async).append(waiter)
        return waiter

    def discard(self, waiter: asyncio.Future[Slot]) -> None:
        """Forget a caller that waits no more."""
        for queue in (self._sync, self._async):
            if waiter in queue:
                queue.remove(waiter)

    def first(self) -> asyncio.Future[Slot] | None:
        """Return who is next; None where nobody waits."""
        for queue in (self._sync, self._async):
            while queue:
                if not queue[0].done():
                    return queue[0]
                queue.popleft()
        return None

    def fail(self, error: Callable[[], Exception]) -> None:
        """Let all callers go with an error, each with its own."""
        for queue in (self._sync, self._async):
            for waiter in queue:
                if not waiter.done():
                    waiter.set_exception(error())
            queue.clear()
