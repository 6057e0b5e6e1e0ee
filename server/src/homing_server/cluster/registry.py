"""The workers that may hold work, as the store knows them, and the tombstones that each of them has acknowledged.

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

_FROZEN_SECONDS = 5.0
"""A server that has not looked for so many seconds was frozen: what workers said meanwhile is still to be read."""
_ACKNOWLEDGED_KEPT_SECONDS = 10.0
"""For so long is remembered who acknowledged a tombstone that another server has made, and that is yet to be seen."""


class WorkerRegistry:
    """Keeps the workers' rows."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.news = asyncio.Event()
        """Set where a worker has acknowledged a tombstone, or has left."""
        self._database = database
        self._clock = clock
        self._enrolled: frozenset[str] = frozenset()
        self._heard_at: dict[str, float] = {}
        self._left: set[str] = set()
        self._acknowledged: dict[str, tuple[float, set[str]]] = {}
        """By invocation, when its tombstone was first acknowledged, and by whom."""
        self._connected_at = math.inf
        self._looked_at = 0.0

    def connected(self) -> None:
        """Note that statuses come from now on: there is a new connection."""
        self._connected_at = self._clock()

    def lost(self) -> None:
        """Note that there is no connection: silence means nothing."""
        self._connected_at = math.inf

    @property
    def connected_seconds(self) -> float:
        """For how many seconds the connection has lasted."""
        return max(0.0, self._clock() - self._connected_at)

    def on_status(self, status: WorkerStatus) -> None:
        """Take note of what a worker reports."""
        self._heard_at[status.worker] = self._clock()
        for invocation_id in status.tombstones_acknowledged:
            self._acknowledged.setdefault(invocation_id, (self._clock(), set()))[1].add(status.worker)
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
        if now - self._looked_at > _FROZEN_SECONDS and self._connected_at < now:
            self._connected_at = now
        self._looked_at = now
        left = enrolled & self._left
        silent = {name for name in enrolled - left if self._silence(name, now) > limits.WORKER_LOST}
        if left or silent:
            before = now_us() - int(limits.WORKER_LOST * 1e6)
            gone = await self._database.write(stops.dismiss, left=left, silent=silent, hello_before_us=before)
            if gone:
                _log.info("workers_gone", left=sorted(gone & left), lost=sorted(gone & silent))
            enrolled -= gone
        self._enrolled = enrolled
        for name in [name for name, at in self._heard_at.items() if now - at > 10 * limits.WORKER_LOST]:
            del self._heard_at[name]
            self._left.discard(name)
        return self._enrolled

    def has_acknowledged(self, invocation_id: str, workers: Collection[str]) -> bool:
        """Tell whether these workers have all acknowledged a tombstone: none holds its invocation, or will start it."""
        return self._acknowledged.get(invocation_id, (0.0, set[str]()))[1].issuperset(workers)

    def forget_acknowledged(self, under_way: Collection[str]) -> None:
        """Forget who acknowledged the tombstones of stops that are not under way any more."""
        now = self._clock()
        for invocation_id, (since, _) in list(self._acknowledged.items()):
            if invocation_id not in under_way and now - since > _ACKNOWLEDGED_KEPT_SECONDS:
                del self._acknowledged[invocation_id]

    def _silence(self, name: str, now: float) -> float:
        return now - max(self._heard_at.get(name, -math.inf), self._connected_at)
