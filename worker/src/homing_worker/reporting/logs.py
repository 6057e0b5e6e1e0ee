"""Carries what functions write to the servers: bounded, in batches, lossy where the broker is too slow.

Nothing here waits for anything on behalf of a function or an event: a line that does not fit is counted and dropped.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from dataclasses import dataclass
from typing import Final, NamedTuple

import structlog

from homing.v1.log_service_pb2 import LOG_STREAM_STDERR, LogStream
from homing_core.broker import Broker, BrokerError
from homing_core.clock import now_us
from homing_core.limits import KIB, MIB
from homing_core.log_lines import LogAllowance
from homing_core.wire.v1 import LogBatch, LogLine, LogMessage
from homing_worker.metrics import Metrics

_log = structlog.get_logger(__name__)

_MIN_INTERVAL: Final = 0.1
"""Seconds between two messages, at least, so that logs take a bounded part of the connection."""
_MAX_MESSAGE_BYTES: Final = 512 * KIB
_MAX_BUFFER_BYTES: Final = 8 * MIB
"""About so much goes into a message, and waits for one."""
_LINE_OVERHEAD: Final = 64
"""Bytes that a line takes besides its text, roughly."""


class LogSource(NamedTuple):
    """What wrote lines."""

    invocation_id: str
    function: str


class InvocationLog:
    """Takes the lines of one invocation, as many as are kept of it."""

    __slots__ = ("_allowance", "_publisher", "_source", "call_id")

    def __init__(self, publisher: LogPublisher, source: LogSource, call_id: str) -> None:
        self.call_id = call_id
        """The id that the function is shown of the call."""
        self._publisher = publisher
        self._source = source
        self._allowance = LogAllowance()

    @property
    def full(self) -> bool:
        """Whether more is dropped in any case."""
        return self._allowance.used_up

    def write(self, text: str, stream: LogStream.ValueType, time_us: int, *, shared: bool = False) -> None:
        """Take a line.

        :param time_us: When it was written.
        :param shared: Whether it may belong to another invocation.
        """
        if self._allowance.used_up:
            return
        # The first line that is not kept goes along: by it the server knows that there were more.
        self._allowance.take(text)
        self._publisher.add(self._source, LogLine(time_us=time_us, stream=stream, text=text, shared=shared))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Message:
    body: bytes
    lines: Counter[LogSource]
    """How many lines of each invocation are in it."""
    losses: Counter[LogSource]
    """How many lost lines of each invocation it reports."""


class LogPublisher:
    """Publishes the lines of all invocations of a worker."""

    def __init__(self, broker: Broker, metrics: Metrics) -> None:
        self._broker = broker
        self._metrics = metrics
        self._pending: deque[tuple[LogSource, LogLine]] = deque()
        self._pending_size = 0
        self._lost: Counter[LogSource] = Counter()
        """How many lines of which invocations were lost and are not reported yet."""
        self._sending: asyncio.Task[None] | None = None

    def open(self, invocation_id: str, *, function: str, call_id: str = "") -> InvocationLog:
        """Return what takes the lines of an invocation.

        :param call_id: The id that its function is shown, where that is another one.
        """
        return InvocationLog(self, LogSource(invocation_id, function), call_id or invocation_id)

    def add(self, source: LogSource, line: LogLine) -> None:
        """Publish a line soon, or drop it where too many wait."""
        size = len(line.text) + _LINE_OVERHEAD
        if self._pending_size + size > _MAX_BUFFER_BYTES:
            self._lost[source] += 1
            self._metrics.log_lines("lost", 1)
            return
        self._pending.append((source, line))
        self._pending_size += size
        if self._sending is None:
            self._sending = asyncio.get_running_loop().create_task(self._send())

    async def flush(self) -> None:
        """Wait until everything is published or dropped."""
        if self._sending is not None:
            await self._sending

    async def close(self) -> None:
        """Drop what is not published."""
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.gather(self._sending, return_exceptions=True)

    async def _send(self) -> None:
        while self._pending or self._lost:
            await asyncio.sleep(_MIN_INTERVAL)
            message = self._take()
            lines = message.lines.total()
            try:
                await self._broker.publish_logs(message.body)
            except BrokerError as error:
                _log.info("log_lines_lost", lines=lines, error=str(error) or type(error).__name__)
                self._metrics.log_lines("lost", lines)
                self._lost += message.lines + message.losses
            else:
                self._metrics.log_lines("published", lines)
        self._sending = None

    def _take(self) -> _Message:
        batches: dict[LogSource, LogBatch] = {}
        lines: Counter[LogSource] = Counter()
        taken = 0
        while self._pending and taken < _MAX_MESSAGE_BYTES:
            source, line = self._pending.popleft()
            taken += len(line.text) + _LINE_OVERHEAD
            _batch_of(source, batches).lines.append(line)
            lines[source] += 1
        self._pending_size -= taken
        losses: Counter[LogSource] = Counter()
        if not self._pending:
            # What was dropped came after all that waited.
            losses, self._lost = self._lost, losses
        for source, count in losses.items():
            _batch_of(source, batches).lines.append(_lost_line(count))
        return _Message(body=LogMessage(batches=batches.values()).SerializeToString(), lines=lines, losses=losses)


def _batch_of(source: LogSource, batches: dict[LogSource, LogBatch]) -> LogBatch:
    batch = batches.get(source)
    if batch is None:
        batch = batches[source] = LogBatch(invocation_id=source.invocation_id, function=source.function)
    return batch


def _lost_line(count: int) -> LogLine:
    text = f"… {count} {'line was' if count == 1 else 'lines were'} lost on the way here"
    return LogLine(time_us=now_us(), stream=LOG_STREAM_STDERR, text=text)
