"""Keeps work from being unacknowledged for long, so that no time-out of the broker bounds an execution."""

from __future__ import annotations

import asyncio

import structlog

from homing_worker.control.gate import Gate
from homing_worker.execution.lanes import Lanes

_log = structlog.get_logger(__name__)

_INTERVAL = 1.0


class Leases:
    """Looks, all at once, over what is in hand: leases what runs, hands back what waits, and renews.

    Renewals pause while no server is heard: nothing ages then, and they would only pile up.
    """

    def __init__(self, lanes: Lanes, gate: Gate, *, after: float, term: float) -> None:
        """Prepare to look.

        :param after: Seconds that a message may be in hand.
        :param term: Seconds that a lease lasts.
        """
        self._lanes = lanes
        self._gate = gate
        self._after = after
        self._term = term
        self._interval = min(_INTERVAL, after / 2, term / 10)
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.create_task(self._keep())

    async def close(self) -> None:
        """Look no more."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            for lane in self._lanes:
                try:
                    lane.relieve(self._loop.time(), after=self._after, term=self._term, renew=self._gate.open)
                except Exception:  # noqa: BLE001 whatever it is, the other lanes' leases must be renewed
                    _log.exception("leases_not_renewed", function=lane.name)
