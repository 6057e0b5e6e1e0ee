"""Whether anything may start: only while servers are heard, so that it is known what is stopped or gone."""

from __future__ import annotations

import asyncio
import math

from homing_core import limits


class Gate:
    """Open for as long as the last word of a server is not older than the silence that is borne."""

    def __init__(self, silence: float = limits.CONTROL_SILENCE) -> None:
        self._silence = silence
        self._loop = asyncio.get_running_loop()
        self._heard_at = -math.inf
        self._heard = asyncio.Event()

    @property
    def open(self) -> bool:
        """Whether something may start now."""
        return self._loop.time() - self._heard_at < self._silence

    def heard(self) -> None:
        """Note that a server has spoken."""
        self._heard_at = self._loop.time()
        self._heard.set()

    async def wait(self) -> None:
        """Wait until something may start."""
        while not self.open:
            self._heard.clear()
            await self._heard.wait()
