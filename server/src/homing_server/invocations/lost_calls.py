"""Ends the records of synchronous calls that are lost: nobody reports how they ended.

The server that a call came to may have died, and its worker too. So any server finds them in the store: those whose
worker is not heard of any more, and those that should have ended long ago. Before one is ended a mark has come back
through the queue of events: what its worker has reported is recorded by then, and counts.
"""

from __future__ import annotations

import asyncio
from functools import partial

import structlog

from homing_core.broker import Broker
from homing_core.clock import now_us
from homing_server.cluster.presence import Presence
from homing_server.invocations.recorder import Recorder
from homing_server.store import sync_calls
from homing_server.store.engine import Database

_log = structlog.get_logger(__name__)

_SWEEP_SECONDS = 2.0
_BATCH_SIZE = 500


class LostCalls:
    """Ends calls that are lost, on the server whose recorder is active."""

    def __init__(self, database: Database, broker: Broker, recorder: Recorder, presence: Presence) -> None:
        self._database = database
        self._broker = broker
        self._recorder = recorder
        self._presence = presence

    async def sweep(self) -> None:
        """End what is lost. One step of a loop."""
        await asyncio.sleep(_SWEEP_SECONDS)
        if not self._broker.connected or not await self._lost():
            return
        epoch = await self._recorder.mark()
        lost = await self._lost()
        if epoch is not None and lost:
            end = partial(sync_calls.end_lost, ids=lost[:_BATCH_SIZE], now_us=now_us())
            if await self._recorder.write(epoch, end):
                _log.warning("sync_calls_lost", count=len(lost[:_BATCH_SIZE]))

    async def _lost(self) -> list[str]:
        now = now_us()
        return [
            call.id
            for call in await self._database.read(sync_calls.under_way)
            if call.lost_us < now or (call.worker and self._presence.is_lost(call.worker))
        ]
