"""Whether anything may start: only while servers' heartbeats come, so that it is known what is stopped or gone."""

from __future__ import annotations

import asyncio
import math

from homing_core import limits


class Gate:
    """Open for as long as the last message of a server is no older than the silence that is tolerated.

    A message counts from when it was sent, not from when it came. Once closed the gate opens only with a snapshot: what
    was sent during the silence may have been missed.
    """

    def __init__(self, max_silence: float = limits.CONTROL_SILENCE) -> None:
        self.max_silence = max_silence
        self._loop = asyncio.get_running_loop()
        self._heard_at = -math.inf
        self.doubted = False
        """Whether something was missed although servers were heard."""
        self._opened = asyncio.Event()

    @property
    def open(self) -> bool:
        """Whether something may start now."""
        return self._loop.time() - self._heard_at < self.max_silence

    def heard(self, age: float = 0.0) -> None:
        """Note a message of a server, sent so many seconds ago: the gate stays open, if it is."""
        if self.open:
            self._heard_at = max(self._heard_at, self._loop.time() - age)

    def reopen(self, age: float = 0.0) -> None:
        """Open: a snapshot says what must not start, as of so many seconds ago."""
        self._heard_at = max(self._heard_at, self._loop.time() - age)
        self.doubted = False
        self._opened.set()

    def doubt(self) -> None:
        """Note that something was missed: a snapshot is asked for at the next message of a server."""
        self.doubted = True

    async def wait(self) -> None:
        """Wait until something may start."""
        while not self.open:
            self._opened.clear()
            await self._opened.wait()
