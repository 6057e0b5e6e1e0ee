"""Publishes events for the recorder at least once: in batches, in order, each until the broker has confirmed it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from homing_core.broker import Broker, BrokerError
from homing_core.limits import KIB
from homing_core.wire.v1 import Event, EventBatch
from homing_worker.metrics import Metrics

_log = structlog.get_logger(__name__)

MAX_BATCH_EVENTS: Final = 200
MAX_BATCH_BYTES: Final = 512 * KIB
MAX_UNCONFIRMED: Final = 4
"""So many batches are published and not confirmed."""


@dataclass(slots=True, eq=False)
class _Batch:
    body: bytes
    futures: list[asyncio.Future[None]]
    previous: _Batch | None
    confirmed: asyncio.Event = field(default_factory=asyncio.Event)


class EventPublisher:
    """Coalesces events of all invocations into batches; the confirms of the broker set the pace (backpressure).

    While nothing is unconfirmed a batch leaves at once; while something is, events gather until a batch is full or a
    confirm comes back. A batch whose publish failed is published again, after the one before it, until it is confirmed:
    events may be duplicated, which the recorder deduplicates, but none is lost while this process lives.
    """

    def __init__(
        self, broker: Broker, metrics: Metrics, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._broker = broker
        self._metrics = metrics
        self._sleep = sleep
        self._pending: deque[tuple[Event, int, asyncio.Future[None] | None]] = deque()
        self._pending_bytes = 0
        self._window: deque[_Batch] = deque()
        self._scheduled = False
        self._failing = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()

    def post(self, event: Event) -> None:
        """Publish an event without waiting for it."""
        self._add(event, None)

    def publish(self, event: Event) -> asyncio.Future[None]:
        """Publish an event; the result becomes done when the broker has confirmed it."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._add(event, future)
        return future

    async def flush(self) -> None:
        """Wait until every event is confirmed."""
        await self._idle.wait()

    async def close(self) -> None:
        """Give up what is not confirmed."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _add(self, event: Event, future: asyncio.Future[None] | None) -> None:
        size = event.ByteSize()
        self._pending.append((event, size, future))
        self._pending_bytes += size
        self._idle.clear()
        if not self._scheduled and self._may_send():
            self._scheduled = True
            # What else happens in this turn of the loop goes along.
            self._loop.call_soon(self._send)

    def _may_send(self) -> bool:
        if not self._window:
            return True
        full = len(self._pending) >= MAX_BATCH_EVENTS or self._pending_bytes >= MAX_BATCH_BYTES
        return full and len(self._window) < MAX_UNCONFIRMED

    def _send(self) -> None:
        self._scheduled = False
        while self._pending and self._may_send():
            batch = self._take()
            self._window.append(batch)
            task = self._loop.create_task(self._deliver(batch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _take(self) -> _Batch:
        message = EventBatch()
        futures = []
        total = 0
        while self._pending and len(message.events) < MAX_BATCH_EVENTS:
            event, size, future = self._pending[0]
            if total and total + size > MAX_BATCH_BYTES:
                break
            self._pending.popleft()
            total += size
            message.events.append(event)
            if future is not None:
                futures.append(future)
        self._pending_bytes -= total
        self._metrics.events(len(message.events))
        return _Batch(message.SerializeToString(), futures, self._window[-1] if self._window else None)

    async def _deliver(self, batch: _Batch) -> None:
        if self._failing and batch.previous is not None:
            await batch.previous.confirmed.wait()
        try:
            await self._broker.publish_event(batch.body)
        except BrokerError as error:
            _log.warning("events_not_confirmed", error=str(error) or type(error).__name__)
            self._failing += 1
            try:
                if batch.previous is not None:
                    await batch.previous.confirmed.wait()
                await AsyncRetrying(
                    sleep=self._sleep,
                    retry=retry_if_exception_type(BrokerError),
                    wait=wait_random_exponential(multiplier=0.05, max=2.0),
                    before_sleep=_log_retry,
                )(self._broker.publish_event, batch.body)
            finally:
                self._failing -= 1
        self._confirmed(batch)

    def _confirmed(self, batch: _Batch) -> None:
        batch.confirmed.set()
        batch.previous = None
        self._window.remove(batch)
        for future in batch.futures:
            if not future.done():
                future.set_result(None)
        if self._pending:
            self._send()
        elif not self._window:
            self._idle.set()


def _log_retry(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome is not None else None
    _log.warning("events_not_confirmed", tries=state.attempt_number + 1, error=str(error) or type(error).__name__)
