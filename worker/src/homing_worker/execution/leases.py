"""Leases: no message is in flight for long, so that no time-out of the broker bounds an execution."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from homing_worker.control.gate import Gate
from homing_worker.execution.lanes import Lanes

_log = structlog.get_logger(__name__)

_MAX_INTERVAL: Final = 1.0
"""Seconds between two looks, at most."""


class Leases:
    """Looks, all at once, over what is in flight: leases what runs, hands back what waits, and renews leases.

    Renewals pause while no server is heard: nothing ages then, and they would only pile up.
    """

    def __init__(self, lanes: Lanes, gate: Gate, *, after: float, term: float) -> None:
        """Prepare to look now and then.

        :param after: Seconds that a message may be in flight.
        :param term: Seconds that a lease lasts.
        """
        self._lanes = lanes
        self._gate = gate
        self._after = after
        self._term = term
        self._interval = min(_MAX_INTERVAL, after / 2, term / 10)
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Begin to look."""
        self._task = asyncio.create_task(self._keep())

    async def close(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self._interval)
            for lane in self._lanes:
                try:
                    lane.renew_leases_and_hand_back(
                        self._loop.time(), after=self._after, term=self._term, renew=self._gate.open
                    )
                except Exception:  # noqa: BLE001 whatever it is, the other lanes' leases must be renewed
                    _log.exception("leases_not_renewed", function=lane.name)
