"""Turns of the receivers of deliveries: one that hangs holds up nobody else.

Each receiver has few turns at a time. One that gives no answer several times in a row is taken for down: for a while
what goes to it fails at once, then one attempt finds out whether it is back.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Final

SLOTS: Final = 4
"""So many attempts are made at one receiver at a time."""
IN_FLIGHT: Final = 256
"""So many attempts are made at all receivers together."""
TRIPS_AFTER: Final = 3
"""So many attempts in a row without an answer mean that a receiver is down."""
FIRST_PAUSE: Final = 5.0
MAX_PAUSE: Final = 300.0
"""It is left alone for so many seconds, twice as long each time."""


_REMEMBERED: Final = 10_000


class ReceiverDownError(Exception):
    """The receiver is taken for down."""

    def __init__(self, until: float) -> None:
        super().__init__(f"the receiver did not answer {TRIPS_AFTER} others in a row, so this one was not tried")
        self.until = until
        """Until when, by the clock of the receivers."""


class Turn:
    """The turn of one attempt; says at its end whether there was an answer."""

    answered: bool | None = None
    """None where the receiver was not even asked."""


class Receiver:
    """Who gets deliveries."""

    def __init__(self, clock: Callable[[], float], rng: Random, *, longest: float) -> None:
        self._clock = clock
        self._rng = rng
        self._longest = longest
        self._busy = 0
        self._waiting: deque[_Place] = deque()
        self._silent = 0
        self._pause = 0.0
        self._down_until = 0.0

    @property
    def busy(self) -> bool:
        """Whether attempts are made at it, or wait for their turn."""
        return bool(self._busy or self._waiting)

    @property
    def idle(self) -> bool:
        """Whether nothing is to be remembered of it."""
        return not self.busy and not self._silent and not self._pause

    @property
    def down(self) -> bool:
        """Whether it is taken for down."""
        return self._pause > 0

    async def enter(self, *, insist: bool) -> None:
        """Wait for a turn.

        :param insist: Whether to try although the receiver is down.
        :raises ReceiverDownError: It is down, or found to be while this waits.
        """
        if not insist and self._closed():
            raise ReceiverDownError(max(self._down_until, self._clock() + min(FIRST_PAUSE, self._longest)))
        if self._busy < SLOTS and not self._waiting:
            self._busy += 1
            return
        place = _Place(insist=insist)
        self._waiting.append(place)
        try:
            await place.called
        except asyncio.CancelledError:
            if place.called.done() and not place.called.cancelled() and place.called.exception() is None:
                self._leave()
            raise

    def leave(self, *, answered: bool | None) -> None:
        """End a turn."""
        if answered:
            self._silent, self._pause = 0, 0.0
        elif answered is False:
            self._silent += 1
            if self._silent >= TRIPS_AFTER and self._clock() >= self._down_until:
                self._trip()
        self._leave()

    def _leave(self) -> None:
        self._busy -= 1
        while self._waiting and self._busy < SLOTS:
            place = self._waiting.popleft()
            if not place.called.done():
                self._busy += 1
                place.called.set_result(None)

    def _closed(self) -> bool:
        """Tell whether no attempt is wanted now: it is down, and if its time is over somebody is finding out."""
        return self.down and (self._clock() < self._down_until or self._busy > 0)

    def _trip(self) -> None:
        self._pause = min(self._longest, 2 * self._pause or FIRST_PAUSE)
        self._down_until = self._clock() + self._pause * self._rng.uniform(0.8, 1.2)
        waiting, self._waiting = self._waiting, deque()
        for place in waiting:
            if place.insist:
                self._waiting.append(place)
            elif not place.called.done():
                place.called.set_exception(ReceiverDownError(self._down_until))


class _Place:
    """A place in the queue for a turn."""

    def __init__(self, *, insist: bool) -> None:
        self.insist = insist
        self.called: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Receivers:
    """All receivers that there is anything to remember of."""

    def __init__(self, rng: Random, *, longest: float = MAX_PAUSE, clock: Callable[[], float] = time.monotonic) -> None:
        """Prepare to give turns.

        :param longest: So many seconds a receiver is left alone at the most.
        """
        self._longest = longest
        self.clock = clock
        self._rng = rng
        self._all = asyncio.Semaphore(IN_FLIGHT)
        self._receivers: dict[str, Receiver] = {}

    @property
    def down(self) -> int:
        """How many are taken for down."""
        return sum(receiver.down for receiver in self._receivers.values())

    @asynccontextmanager
    async def turn(self, name: str, *, insist: bool) -> AsyncIterator[Turn]:
        """Wait for a turn with a receiver.

        :param insist: Whether to try although the receiver is down.
        :raises ReceiverDownError: It is down.
        """
        receiver = self._receivers.get(name)
        if receiver is None:
            self._forget()
            receiver = self._receivers[name] = Receiver(self.clock, self._rng, longest=self._longest)
        turn = Turn()
        try:
            await receiver.enter(insist=insist)
            try:
                async with self._all:
                    yield turn
            finally:
                receiver.leave(answered=turn.answered)
        finally:
            if receiver.idle:
                self._receivers.pop(name, None)

    def _forget(self) -> None:
        """Forget what was down once, where very many were: who is down still is found to be so again."""
        if len(self._receivers) >= _REMEMBERED:
            self._receivers = {name: receiver for name, receiver in self._receivers.items() if receiver.busy}
