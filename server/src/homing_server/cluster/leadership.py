"""Leader election: lets one server of many have a role, and another take it over soon after that one has died.

A role is a lease: had for a short term, which its server renews in the store. Terms are compared with the clock of the
server that asks: where the clocks of two differ, a role is taken over as much later, or earlier. Two servers may then
believe to have it at the same time, as they may where one was frozen and wakes up; so what they do must be right
although two do it, and a role only sees to it that they do not do it in vain.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from prometheus_client import Gauge

from homing_core.clock import now_us
from homing_server.store.engine import Database
from homing_server.store.leader_leases import leave_lead, take_lead

_log = structlog.get_logger(__name__)

TERM_SECONDS: Final = 3.0
_RENEWAL_SECONDS: Final = 1.0
"""Seconds: who dies is replaced after a term and a renewal, at the latest."""


class Leadership:
    """One server's part in a role."""

    def __init__(self, database: Database, role: str, server: str, gauge: Gauge) -> None:
        """Prepare to ask for a role.

        :param gauge: Says 1 while this server has the role.
        """
        self._database = database
        self._role = role
        self._server = server
        self._until = 0.0
        self._taken = asyncio.Event()
        self._resigned = False
        gauge.set_function(lambda: float(self.held))

    @property
    def held(self) -> bool:
        """Whether this server has the role, as far as it knows."""
        return time.monotonic() < self._until

    async def renew(self) -> None:
        """Take the role where it is free, or keep it. One step of a loop."""
        begun, held = time.monotonic(), self.held
        if not self._resigned:
            now = now_us()
            until_us = now + int(TERM_SECONDS * 1e6)
            taken = await self._database.write(take_lead, self._role, self._server, now_us=now, until_us=until_us)
            self._until = begun + TERM_SECONDS if taken and not self._resigned else 0.0
        if self.held:
            self._taken.set()
        else:
            self._taken.clear()
        if self.held != held:
            _log.info("leadership_taken" if self.held else "leadership_lost", role=self._role)
        await asyncio.sleep(_RENEWAL_SECONDS)

    async def resign(self) -> None:
        """Give the role up for good, so that another takes it at once."""
        self._resigned = True
        if self.held:
            self._until = 0.0
            self._taken.clear()
            await self._database.write(leave_lead, self._role, self._server)

    def led(self, step: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
        """Return a step of a loop that waits until this server has the role."""

        async def led_step() -> None:
            while not self.held:
                self._taken.clear()
                await self._taken.wait()
            await step()

        led_step.__qualname__ = step.__qualname__
        return led_step
