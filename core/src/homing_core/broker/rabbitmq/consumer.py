"""Consuming a queue, and the messages in hand."""

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

FAULT_PAUSE: Final = 1.0
"""Seconds for which a message is kept that its handler failed on, so that it does not come back in a busy loop."""

log = structlog.stdlib.get_logger(__name__)


class Hand:
    """The messages in hand on one channel, and their acknowledgements.

    Acknowledgements of one turn of the event loop go out together, as one where they follow on each other.
    """

    def __init__(self, channel: pika.channel.Channel) -> None:
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._unsettled: set[int] = set()
        self._acked: list[int] = []
        self._floor = 0
        """All deliveries up to this one are settled, and the broker was told."""
        self._settled: set[int] = set()
        """Deliveries after it that are settled, and the broker was told."""
        self._last = False

    def take(self, tag: int) -> None:
        """Have one more message in hand."""
        self._unsettled.add(tag)

    def ack(self, tag: int) -> None:
        """Let a message go, at the end of this turn of the event loop."""
        if self._settle(tag):
            if not self._acked:
                self._loop.call_soon(self.flush)
            self._acked.append(tag)

    def give_back(self, tag: int, *, requeue: bool) -> None:
        """Return a message to its queue, or to the dead letters."""
        if self._settle(tag):
            self._channel.basic_nack(tag, requeue=requeue)
            self._told(tag)
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
            self._told(tag)
        if run:
            self._channel.basic_ack(acked[run - 1], multiple=run > 1)
        for tag in acked[run:]:
            self._channel.basic_ack(tag)
            self._told(tag)
        self._close_if_done()

    def close_when_empty(self) -> None:
        """Close the channel once the last message is settled."""
        self._last = True
        self._close_if_done()

    def drop(self) -> None:
        """Forget all messages: the channel is gone and they have gone back to their queue."""
        self._unsettled.clear()
        self._acked.clear()

    def _settle(self, tag: int) -> bool:
        if tag not in self._unsettled or not self._channel.is_open:
            return False
        self._unsettled.remove(tag)
        return True

    def _told(self, tag: int) -> None:
        self._settled.add(tag)
        while self._floor + 1 in self._settled:
            self._floor += 1
            self._settled.remove(self._floor)

    def _close_if_done(self) -> None:
        if self._last and not self._unsettled and not self._acked and self._channel.is_open:
            self._channel.close()


class Message:
    """A message in hand; see :class:`homing_core.broker.seam.Received`."""

    __slots__ = ("_hand", "_headers", "_redelivered", "_tag", "body")

    def __init__(self, hand: Hand, tag: int, headers: Mapping[str, Any], body: bytes, *, redelivered: bool) -> None:
        self._hand = hand
        self._tag = tag
        self._redelivered = redelivered
        self._headers = headers
        self.body = body

    @property
    def delivery_count(self) -> int:
        """How often the message was handed out before this time; classic queues tell only 0 or 1."""
        # Quorum queues count; from 4.3 on the first of these counts each hand-out, the second only failed ones.
        counts = (self._headers.get("x-acquired-count"), self._headers.get("x-delivery-count"))
        return max((int(count) for count in counts if count is not None), default=int(self._redelivered))

    @property
    def dead_reason(self) -> str:
        """Why the message was dead-lettered, else empty."""
        return str(self._headers.get("x-first-death-reason", ""))

    def ack(self) -> None:
        """Let the message go."""
        self._hand.ack(self._tag)

    def requeue(self) -> None:
        """Give the message back for another consumer."""
        self._hand.give_back(self._tag, requeue=True)

    def reject(self) -> None:
        """Refuse the message for ever."""
        self._hand.give_back(self._tag, requeue=False)


class Consumption:
    """Consumes one queue on a channel of its own, until it is cancelled or the connection is lost.

    Where the broker ends it before, because the queue was deleted or a message was in hand for too long,
    the queue is declared and consumed again.
    """

    def __init__(
        self, connection: Connection, queue: QueueSpec, handler: Handler, *, prefetch: int, auto_ack: bool = False
    ) -> None:
        self._connection = connection
        self._queue = queue
        self._handler = handler
        self._prefetch = prefetch
        self._auto_ack = auto_ack
        self._channel: Channel | None = None
        self._hand: Hand | None = None
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
            hand = Hand(channel.raw)
            self._channel, self._hand = channel, hand

            def on_message(
                _: pika.channel.Channel, method: Basic.Deliver, properties: BasicProperties, body: bytes
            ) -> None:
                self._deliver(hand, method, properties, body)

            self._tag = await channel.consume(self._queue.name, on_message, auto_ack=self._auto_ack)
        except BaseException:
            channel.close()
            raise
        channel.on_closed(self._on_closed)
        channel.raw.add_on_cancel_callback(lambda _: self._on_cancelled())

    async def cancel(self) -> None:
        """Ask for no more messages; those in hand stay in hand."""
        if self._cancelled:
            return
        self._cancelled = True
        if self._resuming is not None:
            self._resuming.cancel()
        if self._channel is not None and self._hand is not None and self._channel.is_open:
            try:
                await self._channel.cancel(self._tag)
            except BrokerError as error:
                # It is gone with its channel, which is what was asked.
                log.info("a consumer was gone before it was cancelled", queue=self._queue.name, error=str(error))
            else:
                self._hand.close_when_empty()

    def stop(self) -> None:
        """Give up: the connection is gone, or about to be."""
        self._cancelled = True
        if self._resuming is not None:
            self._resuming.cancel()
        if self._hand is not None:
            self._hand.flush()
            self._hand.drop()

    def _deliver(self, hand: Hand, method: Basic.Deliver, properties: BasicProperties, body: bytes) -> None:
        tag = method.delivery_tag
        assert tag is not None
        if not self._auto_ack:
            hand.take(tag)
        message = Message(hand, tag, properties.headers or {}, body, redelivered=bool(method.redelivered))
        try:
            self._handler(message)
        except Exception:
            log.exception("the handler of a message failed; the message goes back to its queue", queue=self._queue.name)
            asyncio.get_running_loop().call_later(FAULT_PAUSE, message.requeue)

    def _on_cancelled(self) -> None:
        """Heed that the broker ended the consumption: what is in hand is no longer ours."""
        assert self._channel is not None
        self._channel.close()
        self._resume("the broker ended a consumption")

    def _on_closed(self, reason: BrokerError) -> None:
        if self._connection.is_open:
            self._resume(str(reason))

    def _resume(self, why: str) -> None:
        if self._hand is not None:
            self._hand.drop()
        if not self._cancelled:
            log.warning("consuming a queue again", queue=self._queue.name, why=why)
            self._resuming = asyncio.create_task(self._start_again())

    async def _start_again(self) -> None:
        await asyncio.sleep(RESUME_BACKOFF)
        async for attempt in AsyncRetrying(
            retry=retry_if_exception(lambda error: isinstance(error, Exception) and self._connection.is_open),
            wait=wait_random_exponential(multiplier=RESUME_BACKOFF, max=MAX_RESUME_BACKOFF),
            before_sleep=self._tell,
        ):
            with attempt:
                if self._connection.is_open:
                    await self.start()

    def _tell(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome is not None else None
        log.warning(
            "cannot consume a queue",
            queue=self._queue.name,
            error=str(error),
            next_in_s=round(state.upcoming_sleep, 1),
        )
