"""Whether anything may start: only while servers are heard, so that it is known what is stopped or gone."""

from __future__ import annotations

import asyncio
import math

from homing_core import limits


class Gate:
    """Open for as long as the last word of a server is not older than the silence that is borne.

    A word counts from when it was said, not from when it came. Once closed the gate opens only with a snapshot: what
    was said during the silence may have been missed.
    """

    def __init__(self, silence: float = limits.CONTROL_SILENCE) -> None:
        self.silence = silence
        self._loop = asyncio.get_running_loop()
        self._said_at = -math.inf
        self._opened = asyncio.Event()

    @property
    def open(self) -> bool:
        """Whether something may start now."""
        return self._loop.time() - self._said_at < self.silence

    def heard(self, age: float = 0.0) -> None:
        """Note that a server has spoken, so many seconds ago: the gate stays open, if it is."""
        if self.open:
            self._said_at = max(self._said_at, self._loop.time() - age)

    def informed(self, age: float = 0.0) -> None:
        """Note that it is known what must not start, as it was so many seconds ago: the gate opens."""
        self._said_at = max(self._said_at, self._loop.time() - age)
        self._opened.set()

    async def wait(self) -> None:
        """Wait until something may start."""
        while not self.open:
            self._opened.clear()
            await self._opened.wait()
