"""Leases of long executions, which have left the broker: whoever does not renew one is lost, and its work goes on.

A lease ages here, by this process's own clock, from when its last renewal was recorded; renewals change nothing in the
store. Nothing ages while renewals may be on their way: before a lease is ended a mark has come back through the queue
of events, so that all that was published before is recorded; and whenever a recorder becomes active, because servers or
the broker were away, all leases last for a grace from then on.
"""

from __future__ import annotations

import asyncio

import structlog

from homing_core.broker import Broker
from homing_core.clock import now_us
from homing_server.invocations.recorder import Recorder
from homing_server.store import dispatch
from homing_server.store.effects import CommitEffects
from homing_server.store.engine import Database

_log = structlog.get_logger(__name__)

_SWEEP_SECONDS = 1.0
_BATCH_SIZE = 500


class Leases:
    """Ends leases that are not renewed, on the server whose recorder is active."""

    def __init__(self, database: Database, broker: Broker, recorder: Recorder, *, grace: float) -> None:
        """Prepare to watch.

        :param grace: Seconds that workers have after an outage to come back and renew.
        """
        self._database = database
        self._broker = broker
        self._recorder = recorder
        self._grace = grace
        self._epoch: int | None = None
        """The recorder's epoch under which the ends are known."""
        self._ends: dict[str, float] = {}
        """When each lease ends, in the loop's time, as far as is known now."""
        self._loop = asyncio.get_running_loop()

    def on_committed(self, effects: CommitEffects) -> None:
        """Take note of leases that were given or renewed."""
        now = self._loop.time()
        for invocation_id, seconds in effects.leases.items():
            self._ends[invocation_id] = now + seconds

    async def sweep(self) -> None:
        """End what has not been renewed. One step of a loop."""
        await asyncio.sleep(_SWEEP_SECONDS)
        if not self._broker.connected:
            return
        leased = await self._database.read(dispatch.leased)
        now = self._loop.time()
        if not leased:
            self._ends = {}
        elif self._epoch is None or self._epoch != self._recorder.epoch:
            self._epoch = await self._recorder.mark()
            self._ends = dict.fromkeys(leased, self._loop.time() + self._grace)
        else:
            self._ends = {each: self._ends.get(each, now + self._grace) for each in leased}
            overdue = [each for each in leased if self._ends[each] < now]
            if overdue and await self._recorder.mark() == self._epoch:
                # Who renewed before the mark is heard of by now.
                await self._end([each for each in overdue if self._ends[each] < now][:_BATCH_SIZE], self._epoch)

    async def _end(self, ids: list[str], epoch: int) -> None:
        if ids and await self._recorder.write(
            epoch, lambda connection: dispatch.expire_leases(connection, ids, now_us=now_us())
        ):
            _log.warning("leases_ended", count=len(ids))
