"""Stores what functions write, beside the recorder and behind it: it writes less often, and a part of the time only."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from google.protobuf.message import DecodeError

from homing_core.broker import Broker, Received
from homing_core.clock import now_us
from homing_core.limits import MIB
from homing_core.wire.v1 import LogBatch, LogMessage
from homing_server.store.engine import Database, StoreUnavailableError
from homing_server.store.logs import append_logs, remove_orphans

_log = structlog.get_logger(__name__)

_PREFETCH_MESSAGES = 10
_GROUP_BYTES = MIB
"""About so many bytes go into one transaction."""
_GATHER_SECONDS = 0.05
_REST_FACTOR = 2
"""After a transaction nothing is written for at least so many times the time that it took."""

_ORPHAN_AGE_US = 24 * 3600 * 1_000_000
"""Lines whose invocation has no record by then, because its end was never heard of, are removed."""
_ORPHAN_PAGE_SIZE = 1000
_ORPHAN_INTERVAL_SECONDS = 600.0
_ORPHAN_REST_SECONDS = 0.1


class LogIngest:
    """Takes log lines from the workers into the store and wakes those who read along."""

    def __init__(self, database: Database, broker: Broker) -> None:
        self._database = database
        self._broker = broker
        self._waiting: list[tuple[Received, LogMessage]] = []
        self._arrived = asyncio.Event()
        self._group: list[LogMessage] = []
        """What has been let go and is not committed yet."""
        self._readers: dict[str, list[asyncio.Event]] = {}
        self._looked_until_us = 0

    async def consume(self) -> None:
        """Take lines over a new connection."""
        await self._broker.consume_logs(self._take, prefetch=_PREFETCH_MESSAGES)

    def lost(self) -> None:
        """Forget what came over the lost connection and was not let go: it comes again."""
        self._waiting.clear()

    async def store_group(self) -> None:
        """Wait for lines and commit what has come. One step of a loop."""
        while not self._group:
            if not self._waiting:
                self._arrived.clear()
                await self._arrived.wait()
            self._take_group()
        begun = time.monotonic()
        try:
            stored = await self._database.write(append_logs, self._batches(), now_us=now_us())
        except StoreUnavailableError:
            # The store is away: they are kept, and what comes meanwhile waits at the broker.
            raise
        except Exception:  # noqa: BLE001 whatever it is, the lines that follow must be stored
            _log.exception("log_lines_not_stored", messages=len(self._group))
            stored = set()
        self._group = []
        for source in stored:
            for reader in self._readers.get(source, ()):
                reader.set()
        await asyncio.sleep(max(_GATHER_SECONDS, _REST_FACTOR * (time.monotonic() - begun)))

    async def remove_orphans(self) -> None:
        """Remove lines that no record claims: a page of those that came since the last look. One step of a loop."""
        until_us = now_us() - _ORPHAN_AGE_US
        looked = await self._database.write(
            remove_orphans, after_us=self._looked_until_us, until_us=until_us, most=_ORPHAN_PAGE_SIZE
        )
        self._looked_until_us = until_us if looked is None else looked
        await asyncio.sleep(_ORPHAN_INTERVAL_SECONDS if looked is None else _ORPHAN_REST_SECONDS)

    @contextmanager
    def news(self, source: str) -> Iterator[asyncio.Event]:
        """Return an event that is set when this server stores lines of a source, while the context is open.

        :param source: The id of an invocation, or the name of a function.
        """
        event = asyncio.Event()
        events = self._readers.setdefault(source, [])
        events.append(event)
        try:
            yield event
        finally:
            events.remove(event)
            if not events:
                self._readers.pop(source, None)

    def _take(self, message: Received) -> None:
        try:
            lines = LogMessage.FromString(message.body)
        except DecodeError:
            _log.error("unreadable_log_lines_dropped", size=len(message.body))
            message.reject()
            return
        self._waiting.append((message, lines))
        self._arrived.set()

    def _take_group(self) -> None:
        """Let messages go before they are committed: a line may be lost with this process, but does not come twice."""
        size = 0
        while self._waiting and size < _GROUP_BYTES:
            message, lines = self._waiting.pop(0)
            message.ack()
            self._group.append(lines)
            size += len(message.body)

    def _batches(self) -> list[LogBatch]:
        return [batch for message in self._group for batch in message.batches]
