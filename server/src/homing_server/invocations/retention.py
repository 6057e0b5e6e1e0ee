"""Retention: removes ended records that are old enough, so slowly that nobody else notices."""

from __future__ import annotations

import asyncio
import time

import structlog
from sqlalchemy import Connection

from homing.v1 import function_pb2
from homing_core.clock import now_us
from homing_core.limits import DEFAULT_RETENTION
from homing_server.store.engine import Database
from homing_server.store.functions import all_functions
from homing_server.store.retention import expired, remove

_log = structlog.get_logger(__name__)

_INTERVAL_SECONDS = 10.0
_BATCH_SIZE = 200
_REST_FACTOR = 4
"""After a transaction it rests for so many times as long: others have the store for four fifths of the time."""


class Retention:
    """Removes records. Each server may do it: what one has removed, another finds gone."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def remove_expired(self) -> None:
        """Remove the records of all functions that are old enough. One step of a loop."""
        await asyncio.sleep(_INTERVAL_SECONDS)
        count = 0
        while ids := await self._database.read(_expired, now_us()):
            # Records of one age lie together in the file, whatever their functions: that is less to write.
            for start in range(0, len(ids), _BATCH_SIZE):
                begin = time.monotonic()
                count += await self._database.write(remove, ids[start : start + _BATCH_SIZE])
                await asyncio.sleep(_REST_FACTOR * (time.monotonic() - begin))
        if count:
            _log.info("records_removed", count=count)


def _expired(connection: Connection, time_us: int) -> list[str]:
    functions = [stored.function for stored in all_functions(connection)]
    before_us = {function.name: time_us - _retention_us(function) for function in functions}
    return expired(connection, before_us, most=_BATCH_SIZE)


def _retention_us(function: function_pb2.Function) -> int:
    if function.HasField("retention"):
        return function.retention.ToMicroseconds()
    return int(DEFAULT_RETENTION * 1e6)
