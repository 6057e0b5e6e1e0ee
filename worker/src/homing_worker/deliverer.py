"""Delivers outcomes to callbacks: a few attempts within half a minute, each delivery reported to its end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Final

import structlog
from google.protobuf.message import DecodeError
from tenacity import AsyncRetrying, RetryCallState
from yarl import URL

from homing.v1 import invocation_pb2 as api
from homing_core.broker import Broker, BrokerError, Consumer, Received
from homing_core.clock import now_us
from homing_core.retry import parse_retry_after
from homing_core.wire.v1 import DeliveryAttemptRecord, DeliveryMessage, DeliveryReport, Event, Token
from homing_worker.callback import PER_HOST, CallbackClient, CallbackOutcome
from homing_worker.events import EventPublisher
from homing_worker.metrics import Metrics

_log = structlog.get_logger(__name__)

MAX_ATTEMPTS: Final = 5
FIRST_BACKOFF: Final = 1.0
MAX_DELAY: Final = 8.0
"""The delays after the first to the fourth attempt are drawn from the upper half of 1, 2, 4 and 8 s."""

IN_FLIGHT: Final = 32
PREFETCH: Final = 4 * IN_FLIGHT
"""More in hand than in flight, so that a slow receiver does not at once keep the others waiting."""


class Turns:
    """Bounds the requests in flight, to all receivers and to each host."""

    def __init__(self, *, in_all: int = IN_FLIGHT, per_host: int = PER_HOST) -> None:
        self._all = asyncio.Semaphore(in_all)
        self._per_host = per_host
        self._hosts: dict[str, asyncio.Semaphore] = {}
        self._users: dict[str, int] = {}

    @asynccontextmanager
    async def turn(self, host: str) -> AsyncIterator[None]:
        """Wait for a turn with this host."""
        self._users[host] = self._users.get(host, 0) + 1
        try:
            async with self._hosts.setdefault(host, asyncio.Semaphore(self._per_host)), self._all:
                yield
        finally:
            self._users[host] -= 1
            if not self._users[host]:
                del self._users[host], self._hosts[host]


class Deliverer:
    """Consumes deliveries and makes them."""

    def __init__(
        self,
        broker: Broker,
        events: EventPublisher,
        client: CallbackClient,
        metrics: Metrics,
        *,
        worker: str,
        rng: Random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._broker = broker
        self._events = events
        self._client = client
        self._metrics = metrics
        self._worker = worker
        self._rng = rng
        self._sleep = sleep
        self._turns = Turns()
        self._consumer: Consumer | None = None
        self._deliveries: dict[asyncio.Task[None], _Delivery] = {}
        self._loop = asyncio.get_running_loop()

    async def consume(self) -> None:
        """Consume deliveries, unless they are consumed already.

        :raises BrokerError: There is no connection.
        """
        if self._consumer is None:
            self._consumer = await self._broker.consume_deliveries(self._on_delivery, prefetch=PREFETCH)

    def lost(self) -> None:
        """Heed that the connection was lost: what has not begun is given up, since it comes again; the rest goes on."""
        self._consumer = None
        self._give_back()

    async def drain(self) -> None:
        """Take no more, give back what has not begun, and wait until the rest has ended."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            try:
                await consumer.cancel()
            except BrokerError as error:
                _log.info("consumer_not_cancelled", error=str(error))
        self._give_back()
        while self._deliveries:
            await asyncio.wait(self._deliveries)

    async def close(self) -> None:
        """Cancel what is under way; it comes again."""
        for task in self._deliveries:
            task.cancel()
        await asyncio.gather(*self._deliveries, return_exceptions=True)

    def _give_back(self) -> None:
        for task, delivery in self._deliveries.items():
            if not delivery.started:
                task.cancel()

    def _on_delivery(self, received: Received) -> None:
        try:
            message = DeliveryMessage.FromString(received.body)
        except DecodeError:
            _log.error("unreadable_delivery", size=len(received.body))
            received.reject()
            return
        delivery = _Delivery(message, received, self._client, self._rng)
        task = self._loop.create_task(self._deliver(delivery))
        self._deliveries[task] = delivery
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        delivery = self._deliveries.pop(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("delivery_broke", delivery_id=delivery.message.delivery_id, exc_info=error)

    async def _deliver(self, delivery: _Delivery) -> None:
        """Deliver, report how it went and let the message go. Cancelled before it has begun, it is given back."""
        try:
            outcome: CallbackOutcome = await AsyncRetrying(
                sleep=self._sleep, retry=delivery.goes_on, wait=delivery.delay
            )(self._attempt, delivery)
        except asyncio.CancelledError:
            if not delivery.started:
                delivery.received.requeue()
            raise
        state = api.DELIVERY_STATE_DELIVERED if outcome.failure is None else api.DELIVERY_STATE_DEAD
        self._metrics.delivery(api.DeliveryState.Name(state).removeprefix("DELIVERY_STATE_"))
        await self._events.publish(self._event(delivery, state))
        delivery.received.ack()

    async def _attempt(self, delivery: _Delivery) -> CallbackOutcome:
        async with self._turns.turn(delivery.host):
            if not delivery.started:
                delivery.started = True
                self._events.post(self._event(delivery, api.DELIVERY_STATE_DELIVERING))
            return await delivery.attempt()

    def _event(self, delivery: _Delivery, state: api.DeliveryState.ValueType) -> Event:
        return Event(
            invocation_id=delivery.message.invocation_id,
            token=delivery.token,
            time_us=now_us(),
            worker=self._worker,
            delivery=DeliveryReport(delivery_id=delivery.message.delivery_id, state=state, attempts=delivery.attempts),
        )


class _Delivery:
    """One delivery in hand."""

    def __init__(self, message: DeliveryMessage, received: Received, client: CallbackClient, rng: Random) -> None:
        self.message = message
        self.received = received
        self.token = Token(generation=message.generation, delivery=received.delivery_count)
        self.attempts: list[DeliveryAttemptRecord] = []
        self.started = False
        self._client = client
        self._rng = rng

    @property
    def host(self) -> str:
        """The receiver's host, as far as it can be told."""
        try:
            return URL(self.message.callback.url).host or ""
        except ValueError:
            return ""

    async def attempt(self) -> CallbackOutcome:
        """Make one request and record it."""
        start_us, start = now_us(), time.monotonic()
        outcome = await self._client.post(self.message)
        self.attempts.append(
            DeliveryAttemptRecord(
                start_us=start_us,
                duration_us=round((time.monotonic() - start) * 1e6),
                status_code=outcome.status_code,
                failure=outcome.failure,
            )
        )
        return outcome

    def goes_on(self, state: RetryCallState) -> bool:
        """Tell whether another attempt follows."""
        if state.outcome is None or state.outcome.failed:
            return False
        failure = state.outcome.result().failure
        return failure is not None and failure.retryable and state.attempt_number < MAX_ATTEMPTS

    def delay(self, state: RetryCallState) -> float:
        """Return the seconds until the next attempt."""
        assert state.outcome is not None
        asked = parse_retry_after(state.outcome.result().retry_after, now=time.time())
        if asked is not None:
            return min(asked, MAX_DELAY)
        bound = min(MAX_DELAY, FIRST_BACKOFF * 2 ** (state.attempt_number - 1))
        return self._rng.uniform(bound / 2, bound)
