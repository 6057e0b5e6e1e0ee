"""The workers that may hold work, as the store knows them, and the stops that each of them has obeyed.

A worker is enrolled in the transaction that reads what it must not start, before it takes any work. It is struck off
when it has left, or was silent for so long that it starts nothing by its own judgement.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Collection

import structlog

from homing_core import limits
from homing_core.clock import now_us
from homing_core.wire.v1 import Tombstone, WorkerStatus
from homing_server.store import stops
from homing_server.store.engine import Database

_log = structlog.get_logger(__name__)

_FROZEN = 5.0
"""A server that has not looked for so many seconds was frozen: what workers said meanwhile is still to be read."""
_OBEYED_KEPT = 10.0
"""Seconds for which is remembered who obeyed a stop that is not known to be under way: it may be news to come."""


class WorkerRegistry:
    """Keeps the workers' rows."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.news = asyncio.Event()
        """Set where a worker has obeyed a stop, or has left."""
        self._database = database
        self._clock = clock
        self._enrolled: frozenset[str] = frozenset()
        self._heard: dict[str, float] = {}
        self._left: set[str] = set()
        self._obeyed: dict[str, tuple[float, set[str]]] = {}
        """By invocation, when it was first obeyed, and by whom."""
        self._listening_since = math.inf
        self._looked_at = 0.0

    def listen(self) -> None:
        """Note that this server hears workers from now on."""
        self._listening_since = self._clock()

    def lost(self) -> None:
        """Note that this server hears nobody: silence means nothing."""
        self._listening_since = math.inf

    @property
    def listened(self) -> float:
        """For how many seconds this server has heard workers without a break."""
        return max(0.0, self._clock() - self._listening_since)

    def hear(self, status: WorkerStatus) -> None:
        """Take note of what a worker says."""
        self._heard[status.worker] = self._clock()
        for invocation_id in status.tombstones_acknowledged:
            self._obeyed.setdefault(invocation_id, (self._clock(), set()))[1].add(status.worker)
        if status.leaving and not status.functions:
            self._left.add(status.worker)
        if status.tombstones_acknowledged or status.worker in self._left:
            self.news.set()

    def is_unknown(self, status: WorkerStatus) -> bool:
        """Tell whether a worker works that is not enrolled: it was taken for lost, and must be greeted anew."""
        return not status.leaving and status.worker not in self._enrolled

    async def enroll(self, worker: str) -> list[Tombstone]:
        """Enroll a worker; return all that it must not start.

        :raises ApiError: UNAVAILABLE.
        """
        tombstones = await self._database.write(stops.enroll, worker, now_us=now_us())
        self._enrolled |= {worker}
        return tombstones

    async def strike_off(self, enrolled: frozenset[str]) -> frozenset[str]:
        """Strike off who has gone, of those that the store has; return the others.

        :raises ApiError: UNAVAILABLE.
        """
        now = self._clock()
        if now - self._looked_at > _FROZEN and self._listening_since < now:
            self._listening_since = now
        self._looked_at = now
        left = enrolled & self._left
        silent = {name for name in enrolled - left if self._silence(name, now) > limits.WORKER_LOST}
        if left or silent:
            before = now_us() - int(limits.WORKER_LOST * 1e6)
            gone = await self._database.write(stops.dismiss, left=left, silent=silent, hello_before_us=before)
            if gone:
                _log.info("workers gone", left=sorted(gone & left), lost=sorted(gone & silent))
            enrolled -= gone
        self._enrolled = enrolled
        for name in [name for name, at in self._heard.items() if now - at > 10 * limits.WORKER_LOST]:
            del self._heard[name]
            self._left.discard(name)
        return self._enrolled

    def has_obeyed(self, invocation_id: str, workers: Collection[str]) -> bool:
        """Tell whether all of these workers have said that they do not hold an invocation and will not start it."""
        return self._obeyed.get(invocation_id, (0.0, set[str]()))[1].issuperset(workers)

    def forget_obeyed(self, under_way: Collection[str]) -> None:
        """Forget who obeyed stops that are not under way any more."""
        now = self._clock()
        for invocation_id, (since, _) in list(self._obeyed.items()):
            if invocation_id not in under_way and now - since > _OBEYED_KEPT:
                del self._obeyed[invocation_id]

    def _silence(self, name: str, now: float) -> float:
        return now - max(self._heard.get(name, -math.inf), self._listening_since)
