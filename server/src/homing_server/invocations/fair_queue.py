"""Fair queueing of what is to be accepted: connections take turns, so that none waits behind all calls of another.

gRPC and the event loop know no fairness: whoever calls first is served first. So calls leave them at once, and wait
here, each connection in a queue of its own; these are served round robin.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Final

_CAPACITY: Final = 64
"""So many calls are served at a time: enough for commits of a good size, few enough to be over in a moment."""
_INVOCATIONS_OF_A_CALL: Final = 16
"""So many invocations of a batch take as much time as a call, about."""


class FairQueue:
    """Where calls wait for their turn."""

    def __init__(self) -> None:
        self._served = 0
        self._waiting: dict[str, deque[tuple[asyncio.Future[None], int]]] = {}
        """By connection, in the order of their next turns; none is empty."""

    def turn(self, connection: Callable[[], str], invocations: int = 1) -> AbstractAsyncContextManager[None]:
        """Wait for the turn of a call, which is over with this context.

        :param connection: Returns what tells the call's connection from others; asked only where it has to wait.
        :param invocations: How many it is to make.
        """
        return _Turn(self, connection, min(_CAPACITY, 1 + (invocations - 1) // _INVOCATIONS_OF_A_CALL))

    async def begin(self, connection: Callable[[], str], weight: int) -> None:
        """Wait for a turn, and take so much of the room; :meth:`end` gives it back."""
        if self._waiting or self._served + weight > _CAPACITY:
            await self._wait(connection(), weight)
        else:
            self._served += weight

    def end(self, weight: int) -> None:
        """Make room for others."""
        self._served -= weight
        self._next()

    async def _wait(self, connection: str, weight: int) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(connection, deque()).append((turn, weight))
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it came just then
                self._served -= weight
            self._next()
            raise

    def _next(self) -> None:
        """Give turns to those who wait, as far as there is room."""
        while self._waiting:
            connection, queue = next(iter(self._waiting.items()))
            turn, weight = queue[0]
            if not turn.cancelled():
                if self._served + weight > _CAPACITY:
                    return
                self._served += weight
                turn.set_result(None)
            queue.popleft()
            del self._waiting[connection]
            if queue:
                self._waiting[connection] = queue


class _Turn(AbstractAsyncContextManager[None]):
    """A turn. It is a class, since every accept has one: a generator costs four times as much."""

    __slots__ = ("_connection", "_queue", "_weight")

    def __init__(self, queue: FairQueue, connection: Callable[[], str], weight: int) -> None:
        self._queue = queue
        self._connection = connection
        self._weight = weight

    async def __aenter__(self) -> None:
        await self._queue.begin(self._connection, self._weight)

    async def __aexit__(self, *_: object) -> None:
        self._queue.end(self._weight)
