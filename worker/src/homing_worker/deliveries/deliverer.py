"""Delivers outcomes: each delivery is attempted until it has arrived or is dead, as its receiver permits.

Short backoffs are waited for here. Before a long one the delivery goes back to the store, which dispatches it again
when it is due; so none is in flight for long, and what is in flight is redelivered should this worker die.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Final

import structlog
from google.protobuf.message import DecodeError
from tenacity import AsyncRetrying, RetryCallState

from homing.v1 import invocation_pb2 as api
from homing_core.broker import Broker, BrokerError, Consumer, Received
from homing_core.clock import now_us
from homing_core.destinations import AMQP, receiver_of
from homing_core.guard import Guard
from homing_core.limits import SHORT_RETRY_DELAY
from homing_core.reasons import FailureReason
from homing_core.retry import parse_retry_after
from homing_core.wire.v1 import DeliveryAttemptRecord, DeliveryMessage, DeliveryReport, Event, Token
from homing_worker.control.secrets import SecretLink, SecretsUnavailableError
from homing_worker.deliveries.amqp import publish_envelope
from homing_worker.deliveries.circuit_breaker import MAX_OPEN_SECONDS, BreakerOpenError
from homing_worker.deliveries.outcome import Outcome, failed
from homing_worker.deliveries.receivers import Receivers
from homing_worker.deliveries.schedule import Schedule
from homing_worker.deliveries.webhook import WebhookClient
from homing_worker.execution import features
from homing_worker.metrics import Metrics
from homing_worker.reporting.events import EventPublisher

_log = structlog.get_logger(__name__)

PREFETCH: Final = 512
"""Far more in flight than any receiver may have, so that those that hang leave room for the others."""

_SILENT: Final = frozenset({FailureReason.TIMEOUT, FailureReason.CONNECTION_FAILED, FailureReason.CONNECTION_LOST})
"""Failures that mean that nobody is there."""
_ANSWERS: Final = frozenset({FailureReason.HTTP_STATUS, FailureReason.BAD_RESPONSE, FailureReason.UNROUTABLE})
"""Failures that mean that somebody is."""


class Deliverer:
    """Consumes deliveries and makes them."""

    def __init__(
        self,
        broker: Broker,
        events: EventPublisher,
        client: WebhookClient,
        keys: SecretLink,
        metrics: Metrics,
        *,
        worker: str,
        guard: Guard,
        schedule: Schedule,
        rng: Random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._broker = broker
        self._events = events
        self._client = client
        self._keys = keys
        self._metrics = metrics
        self._worker = worker
        self._guard = guard
        self._schedule = schedule
        self._rng = rng
        self._sleep = sleep
        # Where attempts follow each other quickly no circuit breaker is open for longer than between two of them.
        self._receivers = Receivers(rng, max_open=min(MAX_OPEN_SECONDS, max(schedule.delays, default=0.0)))
        self._consumer: Consumer | None = None
        self._deliveries: dict[asyncio.Task[None], _Delivery] = {}
        self._loop = asyncio.get_running_loop()
        metrics.watch_circuit_breakers(lambda: self._receivers.open_breakers)

    async def consume(self) -> None:
        """Consume deliveries, unless they are consumed already.

        :raises BrokerError: There is no connection.
        """
        if self._consumer is None:
            self._consumer = await self._broker.consume_deliveries(self._on_delivery, prefetch=PREFETCH)

    def on_connection_lost(self) -> None:
        """Give up what has not begun, since it is redelivered; the rest goes on."""
        self._consumer = None
        self._requeue_waiting()

    async def drain(self) -> None:
        """Take no more, requeue what has not begun, and wait until the rest has ended."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            try:
                await consumer.cancel()
            except BrokerError as error:
                _log.info("consumer_not_cancelled", error=str(error))
        self._requeue_waiting()
        while self._deliveries:
            await asyncio.wait(self._deliveries)

    async def close(self) -> None:
        """Cancel what is in flight; it is redelivered."""
        for task in self._deliveries:
            task.cancel()
        await asyncio.gather(*self._deliveries, return_exceptions=True)

    def _requeue_waiting(self) -> None:
        for task, delivery in self._deliveries.items():
            if not delivery.started:
                task.cancel()

    def _on_delivery(self, received: Received) -> None:
        try:
            message = DeliveryMessage.FromString(received.body)
        except DecodeError:
            _log.error("delivery_message_unreadable", size=len(received.body))
            received.reject()
            return
        delivery = _Delivery(message, received, self._schedule, self._rng)
        task = self._loop.create_task(self._deliver(delivery))
        self._deliveries[task] = delivery
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        delivery = self._deliveries.pop(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("delivery_crashed", delivery_id=delivery.message.delivery_id, exc_info=error)

    async def _deliver(self, delivery: _Delivery) -> None:
        """Deliver, report how it went and acknowledge the message. Cancelled before it has begun, it is requeued."""
        missing = features.unknown(delivery.message.requires)
        try:
            if missing:
                await self._give_back(delivery, missing)
                return
            outcome: Outcome = await AsyncRetrying(sleep=self._sleep, retry=delivery.goes_on_here, wait=delivery.wait)(
                self._attempt, delivery
            )
        except asyncio.CancelledError:
            if not delivery.started:
                delivery.received.requeue()
            raise
        except SecretsUnavailableError as error:
            _log.warning("delivery_not_signed", delivery_id=delivery.message.delivery_id, error=str(error))
            delivery.received.requeue()
            return
        state = api.DELIVERY_STATE_DELIVERED
        if outcome.failure is not None:
            state = api.DELIVERY_STATE_DEAD if delivery.next_delay is None else api.DELIVERY_STATE_PENDING
        await self._report(delivery, state)

    async def _give_back(self, delivery: _Delivery, missing: Sequence[str]) -> None:
        """Give a delivery back to the store for a while, without an attempt: another worker may know what it takes."""
        _log.warning("work_not_supported", delivery_id=delivery.message.delivery_id, missing=missing)
        delivery.next_delay = features.RETURN_DELAY_SECONDS
        await self._report(delivery, api.DELIVERY_STATE_PENDING)

    async def _report(self, delivery: _Delivery, state: api.DeliveryState.ValueType) -> None:
        """Report how far a delivery is, and acknowledge its message once that is confirmed."""
        self._metrics.delivery(api.DeliveryState.Name(state).removeprefix("DELIVERY_STATE_"))
        await self._events.publish(self._event(delivery, state))
        delivery.received.ack()

    async def _attempt(self, delivery: _Delivery) -> Outcome:
        message = delivery.message
        keys: Sequence[bytes] = ()
        if not delivery.amqp:
            keys = await self._keys.signing_keys(message.function, message.signing_version)
        try:
            async with self._receivers.permit(delivery.receiver, insist=delivery.insists) as permit:
                if not delivery.started:
                    delivery.started = True
                    self._events.post(self._event(delivery, api.DELIVERY_STATE_DELIVERING))
                start_us, start = now_us(), time.monotonic()
                outcome = await self._send(delivery, keys)
                permit.answered = _answered(outcome)
                delivery.note(outcome, start_us=start_us, seconds=time.monotonic() - start)
        except BreakerOpenError as error:
            outcome = failed(FailureReason.RECEIVER_DOWN, str(error))
            delivery.put_off(outcome, min_delay=error.until - self._receivers.clock())
        return outcome

    async def _send(self, delivery: _Delivery, keys: Sequence[bytes]) -> Outcome:
        message = delivery.message
        try:
            if delivery.amqp:
                return await publish_envelope(self._broker, message, self._guard)
            return await self._client.post(message, keys)
        except Exception as error:  # noqa: BLE001 whatever it is ends as any failure does; else it is in flight for ever
            _log.exception("delivery_crashed", delivery_id=message.delivery_id)
            return failed(FailureReason.WORKER_ERROR, f"the worker itself failed: {type(error).__name__}")

    def _event(self, delivery: _Delivery, state: api.DeliveryState.ValueType) -> Event:
        report = DeliveryReport(delivery_id=delivery.message.delivery_id, state=state, attempts=delivery.attempts)
        if state == api.DELIVERY_STATE_PENDING and delivery.next_delay is not None:
            report.due_us = now_us() + round(delivery.next_delay * 1e6)
        return Event(
            invocation_id=delivery.message.invocation_id,
            token=delivery.token,
            time_us=now_us(),
            worker=self._worker,
            delivery=report,
        )


def _answered(outcome: Outcome) -> bool | None:
    """Return whether the receiver answered; None where nobody asked it."""
    if outcome.failure is None or outcome.failure.reason in _ANSWERS:
        return True
    return False if outcome.failure.reason in _SILENT else None


class _Delivery:
    """One delivery in flight."""

    def __init__(self, message: DeliveryMessage, received: Received, schedule: Schedule, rng: Random) -> None:
        self.message = message
        self.received = received
        self.token = Token(generation=message.generation, redelivery_count=received.redelivery_count)
        self.receiver = receiver_of(message.uri)
        self.amqp = message.uri.startswith(AMQP)
        self.attempts: list[DeliveryAttemptRecord] = []
        self.started = False
        """Whether an attempt was made for real, here and now."""
        self.next_delay: float | None = None
        """Seconds until the next attempt; None where there is none."""
        self._made = 0
        """How many attempts were made for real, here and now."""
        self._schedule = schedule
        self._rng = rng

    @property
    def insists(self) -> bool:
        """Whether the next attempt is made although the circuit breaker is open: none is given up without any."""
        return self._overdue and not self.started and not self.message.tried

    @property
    def _waited(self) -> float:
        """For how many seconds it has been on its way."""
        return max(0.0, (now_us() - (self.message.since_us or self.message.end_us)) / 1e6)

    @property
    def _overdue(self) -> bool:
        """Whether all attempts would have been made by now, had the receiver not been taken for down."""
        return self._waited >= self._schedule.duration

    def note(self, outcome: Outcome, *, start_us: int, seconds: float) -> None:
        """Record an attempt, and plan the next one."""
        self._made += 1
        self._record(outcome, start_us=start_us, seconds=seconds)
        number = self.message.prior_attempts + self._made
        self.next_delay = None
        if not outcome.final and not self._schedule.is_last(number):
            asked = parse_retry_after(outcome.retry_after, now=time.time())
            self.next_delay = self._schedule.delay(number, asked=asked, rng=self._rng)

    def put_off(self, outcome: Outcome, *, min_delay: float) -> None:
        """Record that an attempt was not made, which does not count as one, and plan when to look again.

        :param min_delay: No sooner than after so many seconds.
        """
        if self.attempts and self.attempts[-1].failure.reason == FailureReason.RECEIVER_DOWN:
            self.attempts.pop()
        self._record(outcome, start_us=now_us(), seconds=0.0)
        self.next_delay = None
        if not self._overdue:
            self.next_delay = max(min_delay, self._schedule.pause(self._waited, rng=self._rng))

    def _record(self, outcome: Outcome, *, start_us: int, seconds: float) -> None:
        self.attempts.append(
            DeliveryAttemptRecord(
                start_us=start_us,
                duration_us=round(seconds * 1e6),
                status_code=outcome.status_code,
                failure=outcome.failure,
            )
        )

    def goes_on_here(self, state: RetryCallState) -> bool:
        """Return whether another attempt follows after a backoff so short that it is waited for."""
        if state.outcome is None or state.outcome.failed:
            return False
        return self.next_delay is not None and self.next_delay <= SHORT_RETRY_DELAY

    def wait(self, _: RetryCallState) -> float:
        """Return the seconds until the next attempt."""
        return self.next_delay or 0.0
