"""Removes ended records whose retention is over, so slowly that nobody else notices."""

from __future__ import annotations

import asyncio
import time

import structlog

from homing.v1 import function_pb2
from homing_core.clock import now_us
from homing_core.limits import DEFAULT_RETENTION
from homing_server.store.engine import Database
from homing_server.store.functions import all_functions
from homing_server.store.removing import expired, remove

_log = structlog.get_logger(__name__)

_INTERVAL = 10.0
_BATCH = 500
_REST = 4
"""After a transaction it rests for so many times as long: others have the store for four fifths of the time."""


class Retention:
    """Removes records. Each server may do it: what one has removed, another finds gone."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def remove_expired(self) -> None:
        """Remove the records of all functions that are old enough. One step of a loop."""
        await asyncio.sleep(_INTERVAL)
        for stored in await self._database.read(all_functions):
            await self._remove_expired_of(stored.function)

    async def _remove_expired_of(self, function: function_pb2.Function) -> None:
        before_us = now_us() - _retention_us(function)
        count = 0
        while ids := await self._database.read(expired, function.name, ended_before_us=before_us, most=_BATCH):
            begin = time.monotonic()
            count += await self._database.write(remove, function.name, ids)
            await asyncio.sleep(_REST * (time.monotonic() - begin))
        if count:
            _log.info("records removed", function=function.name, count=count)


def _retention_us(function: function_pb2.Function) -> int:
    if function.HasField("retention"):
        return function.retention.ToMicroseconds()
    return int(DEFAULT_RETENTION * 1e6)
