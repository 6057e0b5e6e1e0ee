"""Consuming a queue, and the messages in flight: prefetch, acknowledgements, redelivery counts."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import pika.channel
import structlog
from pika.spec import Basic, BasicProperties
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, wait_random_exponential

from homing_core.broker.rabbitmq.channel import Channel
from homing_core.broker.rabbitmq.connection import Connection
from homing_core.broker.rabbitmq.topology import QueueSpec
from homing_core.broker.seam import BrokerError, Handler

RESUME_BACKOFF: Final = 0.5
MAX_RESUME_BACKOFF: Final = 5.0
"""Seconds before a consumption that the broker ended is started again: the first and the longest backoff."""

HANDLER_FAILED_PAUSE: Final = 1.0
"""Seconds before a message is redelivered that its handler failed on, so that it does not come back in a busy loop."""

log = structlog.stdlib.get_logger(__name__)


class InFlight:
    """The messages in flight on one channel, delivered and not acknowledged, and their acknowledgements.

    Acknowledgements of one turn of the event loop go out together, as one where they follow on each other.
    """

    def __init__(self, channel: pika.channel.Channel) -> None:
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._unsettled: set[int] = set()
        self._acked: list[int] = []
        self._floor = 0
        """All deliveries up to this one are settled, and the broker was notified."""
        self._settled: set[int] = set()
        """Deliveries after it that are settled, and the broker was notified."""
        self._last = False

    def add(self, tag: int) -> None:
        """Count one more message as in flight."""
        self._unsettled.add(tag)

    def ack(self, tag: int) -> None:
        """Acknowledge a message, at the end of this turn of the event loop."""
        if self._settle(tag):
            if not self._acked:
                self._loop.call_soon(self.flush)
            self._acked.append(tag)

    def nack(self, tag: int, *, requeue: bool) -> None:
        """Return a message to its queue, or to the dead letters."""
        if self._settle(tag):
            self._channel.basic_nack(tag, requeue=requeue)
            self._notified(tag)
            self._close_if_done()

    def flush(self) -> None:
        """Send the acknowledgements that have been gathered."""
        acked, self._acked = sorted(self._acked), []
        if not self._channel.is_open:
            return
        run = 0
        for tag in acked:
            if tag != self._floor + 1:
                break
            run += 1
            self._notified(tag)
        if run:
            self._channel.basic_ack(acked[run - 1], multiple=run > 1)
        for tag in acked[run:]:
            self._channel.basic_ack(tag)
            self._notified(tag)
        self._close_if_done()

    def close_when_empty(self) -> None:
        """Close the channel once the last message is settled."""
        self._last = True
        self._close_if_done()

    def drop(self) -> None:
        """Forget all messages: the channel is gone, and the broker redelivers them."""
        self._unsettled.clear()
        self._acked.clear()

    def _settle(self, tag: int) -> bool:
        if tag not in self._unsettled or not self._channel.is_open:
            return False
        self._unsettled.remove(tag)
        return True

    def _notified(self, tag: int) -> None:
        self._settled.add(tag)
        while self._floor + 1 in self._settled:
            self._floor += 1
            self._settled.remove(self._floor)

    def _close_if_done(self) -> None:
        if self._last and not self._unsettled and not self._acked and self._channel.is_open:
            self._channel.close()


class Message:
    """A message in flight; see :class:`homing_core.broker.seam.Received`."""

    __slots__ = ("_headers", "_in_flight", "_redelivered", "_tag", "body")

    def __init__(
        self, in_flight: InFlight, tag: int, headers: Mapping[str, Any], body: bytes, *, redelivered: bool
    ) -> None:
        self._in_flight = in_flight
        self._tag = tag
        self._redelivered = redelivered
        self._headers = headers
        self.body = body

    @property
    def redelivery_count(self) -> int:
        """How often the message was delivered before this time; classic queues say only 0 or 1."""
        # Quorum queues count; from 4.3 on the first of these counts each delivery, the second only failed ones.
        counts = (self._headers.get("x-acquired-count"), self._headers.get("x-delivery-count"))
        return max((int(count) for count in counts if count is not None), default=int(self._redelivered))

    @property
    def dead_reason(self) -> str:
        """Why the message was dead-lettered, else empty."""
        return str(self._headers.get("x-first-death-reason", ""))

    def ack(self) -> None:
        """Acknowledge the message."""
        self._in_flight.ack(self._tag)

    def requeue(self) -> None:
        """Return the message to its queue."""
        self._in_flight.nack(self._tag, requeue=True)

    def reject(self) -> None:
        """Refuse the message for ever."""
        self._in_flight.nack(self._tag, requeue=False)


class Consumption:
    """Consumes one queue on a channel of its own, until it is cancelled or the connection is lost.

    Where the broker ends it before, because the queue was deleted or a message was in flight for too long,
    the queue is declared and consumed again.
    """

    def __init__(
        self, connection: Connection, queue: QueueSpec, handler: Handler, *, prefetch: int, auto_ack: bool = False
    ) -> None:
        self._connection = connection
        self._queue = queue
        self._in_flightler = handler
        self._prefetch = prefetch
        self._auto_ack = auto_ack
        self._channel: Channel | None = None
        self._in_flight: InFlight | None = None
        self._tag = ""
        self._cancelled = False
        self._resuming: asyncio.Task[None] | None = None

    @property
    def cancelled(self) -> bool:
        """Whether no more messages are asked for."""
        return self._cancelled

    async def start(self) -> None:
        """Declare the queue and consume it."""
        channel = await Channel.open(self._connection)
        try:
            await self._queue.declare(channel)
            if not self._auto_ack:
                await channel.prefetch(self._prefetch)
            in_flight = InFlight(channel.raw)
            self._channel, self._in_flight = channel, in_flight

            def on_message(
                _: pika.channel.Channel, method: Basic.Deliver, properties: BasicProperties, body: bytes
            ) -> None:
                self._deliver(in_flight, method, properties, body)

            self._tag = await channel.consume(self._queue.name, on_message, auto_ack=self._auto_ack)
        except BaseException:
            channel.close()
            raise
        channel.on_closed(self._on_closed)
        channel.raw.add_on_cancel_callback(lambda _: self._on_cancelled())

    async def cancel(self) -> None:
        """Ask for no more messages; those in flight stay so."""
        if self._cancelled:
            return
        self._cancelled = True
        if self._resuming is not None:
            self._resuming.cancel()
        if self._channel is not None and self._in_flight is not None and self._channel.is_open:
            try:
                await self._channel.cancel(self._tag)
            except BrokerError as error:
                # It is gone with its channel, which is what was asked.
                log.info("consumer_already_gone", queue=self._queue.name, error=str(error))
            else:
                self._in_flight.close_when_empty()

    def stop(self) -> None:
        """Give up: the connection is gone, or about to be."""
        self._cancelled = True
        if self._resuming is not None:
            self._resuming.cancel()
        if self._in_flight is not None:
            self._in_flight.flush()
            self._in_flight.drop()

    def _deliver(self, in_flight: InFlight, method: Basic.Deliver, properties: BasicProperties, body: bytes) -> None:
        tag = method.delivery_tag
        assert tag is not None
        if not self._auto_ack:
            in_flight.add(tag)
        message = Message(in_flight, tag, properties.headers or {}, body, redelivered=bool(method.redelivered))
        try:
            self._in_flightler(message)
        except Exception:
            log.exception("message_handler_failed", queue=self._queue.name)
            asyncio.get_running_loop().call_later(HANDLER_FAILED_PAUSE, message.requeue)

    def _on_cancelled(self) -> None:
        """Begin anew, since the broker ended the consumption: what is in flight is no longer ours."""
        assert self._channel is not None
        self._channel.close()
        self._resume("the broker ended a consumption")

    def _on_closed(self, reason: BrokerError) -> None:
        if self._connection.is_open:
            self._resume(str(reason))

    def _resume(self, why: str) -> None:
        if self._in_flight is not None:
            self._in_flight.drop()
        if not self._cancelled:
            log.warning("consumer_restarting", queue=self._queue.name, reason=why)
            self._resuming = asyncio.create_task(self._start_again())

    async def _start_again(self) -> None:
        await asyncio.sleep(RESUME_BACKOFF)
        async for attempt in AsyncRetrying(
            retry=retry_if_exception(lambda error: isinstance(error, Exception) and self._connection.is_open),
            wait=wait_random_exponential(multiplier=RESUME_BACKOFF, max=MAX_RESUME_BACKOFF),
            before_sleep=self._on_start_failed,
        ):
            with attempt:
                if self._connection.is_open:
                    await self.start()

    def _on_start_failed(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        log.warning(
            "consumer_not_started",
            queue=self._queue.name,
            error=str(error),
            next_in_s=round(state.upcoming_sleep, 1),
        )
