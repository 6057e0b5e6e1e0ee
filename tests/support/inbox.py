"""Waiting for messages and for states of a broker."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from homing_core.broker import Received

PATIENCE = 30.0

T = TypeVar("T")


class Inbox:
    """A handler that keeps what it is given until the test asks for it."""

    def __init__(self) -> None:
        self._messages: asyncio.Queue[Received] = asyncio.Queue()
        self.count = 0
        """How many messages came so far."""

    def __call__(self, message: Received) -> None:
        self.count += 1
        self._messages.put_nowait(message)

    async def next(self) -> Received:
        """Return the next message, waiting for it."""
        async with asyncio.timeout(PATIENCE):
            return await self._messages.get()

    async def take(self, count: int) -> list[Received]:
        """Return so many messages, waiting for them."""
        return [await self.next() for _ in range(count)]


async def eventually(ask: Callable[[], Awaitable[T]], wanted: T) -> None:
    """Ask until the answer is the wanted one."""
    answer = await ask()
    try:
        async with asyncio.timeout(PATIENCE):
            while answer != wanted:
                await asyncio.sleep(0.05)
                answer = await ask()
    except TimeoutError:
        raise AssertionError(f"still {answer!r} after {PATIENCE:g} s, not {wanted!r}") from None


async def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""

    async def ask() -> bool:
        return condition()

    await eventually(ask, wanted=True)
