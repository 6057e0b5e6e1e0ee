"""The broker seam on RabbitMQ."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final

import structlog

from homing_core.broker.rabbitmq.channel import Channel, ChannelClosedError
from homing_core.broker.rabbitmq.connection import Connection, Link, read_url
from homing_core.broker.rabbitmq.consumer import Consumption
from homing_core.broker.rabbitmq.exchange_publisher import ExchangePublisher
from homing_core.broker.rabbitmq.publisher import Message, Publisher
from homing_core.broker.rabbitmq.topology import (
    CONTROL_EXCHANGE,
    DELIVERIES_QUEUE,
    EVENTS_QUEUE,
    LOGS_QUEUE,
    STATUS_EXCHANGE,
    STORE_EXCHANGE,
    QueueSpec,
    Topology,
    sync_queue,
    work_queue,
)
from homing_core.broker.seam import (
    Broker,
    BrokerError,
    BrokerUnavailableError,
    Consumer,
    Depth,
    ExchangeMessage,
    Handler,
    Outgoing,
    check_size,
)

DRAIN_TIMEOUT: Final = 5.0
"""Seconds that the last confirms may take when this process closes the broker."""
NOT_FOUND: Final = 404
PRECONDITION_FAILED: Final = 406

log = structlog.stdlib.get_logger(__name__)


class RabbitBroker(Broker):
    """RabbitMQ 3.10 to 4.x, with one connection to publish and one to consume and administer.

    A broker that is short of memory blocks connections that publish; the other one goes on, so that
    messages in flight can be acknowledged.
    """

    def __init__(self, url: str, *, name: str, tls: ssl.SSLContext | None = None) -> None:
        """``url`` is ``amqp[s]://user:password@host:port/vhost``; ``name`` is what RabbitMQ shows for the connections.

        :param tls: How RabbitMQ is checked, where the URL begins with amqps://.
        :raises ValueError: The URL cannot be read.
        """
        self._setups: list[Callable[[], Awaitable[None]]] = []
        self._hooks: list[Callable[[], None]] = []
        self._consumptions: list[Consumption] = []
        self._closing = False
        self._reopening: asyncio.Task[None] | None = None
        self._publisher = Publisher(reopen=self._reopen)
        self._exchanges = ExchangePublisher()
        self._publishing = Link(
            read_url(url, name=f"{name} publishes", tls=tls),
            purpose="publish",
            set_up=self._set_up_publishing,
            lost=self._publishing_lost,
        )
        self._consuming = Link(
            read_url(url, name=f"{name} consumes", tls=tls),
            purpose="consume",
            set_up=self._set_up_consuming,
            lost=self._lost,
        )

    def on_connected(self, setup: Callable[[], Awaitable[None]]) -> None:
        """See :meth:`Broker.on_connected`."""
        self._setups.append(setup)

    def on_lost(self, hook: Callable[[], None]) -> None:
        """See :meth:`Broker.on_lost`."""
        self._hooks.append(hook)

    async def start(self) -> None:
        """See :meth:`Broker.start`.

        :raises TopologyError: RabbitMQ has queues of homing's names with other properties.
        """
        try:
            await self._publishing.start()
            await self._consuming.start()
        except BrokerError:
            await self.close()
            raise

    async def close(self) -> None:
        """See :meth:`Broker.close`."""
        self._closing = True
        # Acknowledgements of this turn of the event loop go out at its end.
        await asyncio.sleep(0)
        await self._publisher.drain(DRAIN_TIMEOUT)
        self._stop_consumptions()
        if self._reopening is not None:
            self._reopening.cancel()
        await asyncio.gather(self._consuming.close(), self._publishing.close())

    @property
    def connected(self) -> bool:
        """See :attr:`Broker.connected`."""
        return self._publishing.is_up and self._consuming.is_up and self._publisher.available

    @property
    def keeps_messages(self) -> bool:
        """See :attr:`Broker.keeps_messages`."""
        return True

    async def claim(self, store: str, *, take_over: bool) -> None:
        """See :meth:`Broker.claim`.

        :raises TopologyError: RabbitMQ does not let homing note the owner.
        """
        async with self._administer() as channel:
            if take_over:
                await channel.delete_exchange(STORE_EXCHANGE)
            await Topology.claim(channel, store)

    async def open_function(self, function: str) -> None:
        """See :meth:`Broker.open_function`.

        :raises TopologyError: RabbitMQ has a queue of that name with other properties.
        """
        async with self._administer() as channel:
            await Topology.work(function).declare(channel)
            await Topology.sync(function).declare(channel)

    async def close_function(self, function: str) -> bool:
        """See :meth:`Broker.close_function`."""
        # RabbitMQ deletes quorum queues without looking at what is in them, so homing looks.
        work = await self._look(work_queue(function))
        if work is not None:
            messages, consumers = work
            if messages or consumers:
                return False
        try:
            async with self._administer() as channel:
                await channel.delete_queue(sync_queue(function), if_unused=True, if_empty=True)
                await channel.delete_queue(work_queue(function))
        except ChannelClosedError as error:
            if error.code == PRECONDITION_FAILED:
                return False
            raise
        return True

    async def depth(self, function: str) -> Depth:
        """See :meth:`Broker.depth`."""
        work = await self._look(work_queue(function))
        sync = await self._look(sync_queue(function))
        return Depth(work=work[0] if work else 0, sync=sync[0] if sync else 0)

    async def events_depth(self) -> int:
        """See :meth:`Broker.events_depth`."""
        events = await self._look(EVENTS_QUEUE)
        return events[0] if events else 0

    async def publish_work(self, messages: Sequence[Outgoing]) -> Sequence[BrokerError | None]:
        """See :meth:`Broker.publish_work`."""
        return await self._publisher.publish(
            [
                Message(queue=work_queue(message.function), body=message.body, expires_in=message.expires_in)
                for message in messages
            ]
        )

    async def publish_sync(self, function: str, body: bytes, *, expires_in: float) -> None:
        """See :meth:`Broker.publish_sync`."""
        await self._publish_one(Message(queue=sync_queue(function), body=body, persistent=False, expires_in=expires_in))

    async def publish_reply(self, address: str, body: bytes) -> None:
        """See :meth:`Broker.publish_reply`."""
        await self._publisher.send("", address, body, wait=True)

    async def publish_event(self, body: bytes) -> None:
        """See :meth:`Broker.publish_event`."""
        await self._publish_one(Message(queue=EVENTS_QUEUE, body=body))

    async def publish_deliveries(self, bodies: Sequence[bytes]) -> Sequence[BrokerError | None]:
        """See :meth:`Broker.publish_deliveries`."""
        return await self._publisher.publish([Message(queue=DELIVERIES_QUEUE, body=body) for body in bodies])

    async def publish_to_exchange(self, message: ExchangeMessage) -> None:
        """See :meth:`Broker.publish_to_exchange`."""
        check_size(message.body)
        if not self._publisher.available:
            raise BrokerUnavailableError("RabbitMQ is not connected, or takes no messages now.")
        await self._exchanges.publish(self._publishing.connection, message)

    async def publish_logs(self, body: bytes) -> None:
        """See :meth:`Broker.publish_logs`."""
        # Confirmed, so that who writes faster than the broker takes is slowed down (backpressure).
        await self._publish_one(Message(queue=LOGS_QUEUE, body=body, persistent=False))

    async def publish_control(self, body: bytes) -> None:
        """See :meth:`Broker.publish_control`."""
        await self._publisher.send(CONTROL_EXCHANGE, "", body)

    async def publish_control_to(self, address: str, body: bytes) -> None:
        """See :meth:`Broker.publish_control_to`."""
        await self._publisher.send("", address, body)

    async def publish_status(self, body: bytes) -> None:
        """See :meth:`Broker.publish_status`."""
        await self._publisher.send(STATUS_EXCHANGE, "", body)

    async def consume_work(self, function: str, handler: Handler, *, prefetch: int) -> Consumer:
        """See :meth:`Broker.consume_work`."""
        await self.open_function(function)
        return await self._consume(Topology.work(function), handler, prefetch=prefetch)

    async def consume_sync(self, function: str, handler: Handler, *, prefetch: int) -> Consumer:
        """See :meth:`Broker.consume_sync`."""
        await self.open_function(function)
        return await self._consume(Topology.sync(function), handler, prefetch=prefetch)

    async def consume_events(self, handler: Handler, *, prefetch: int) -> Consumer:
        """See :meth:`Broker.consume_events`."""
        return await self._consume(self._topology().events(), handler, prefetch=prefetch)

    async def consume_deliveries(self, handler: Handler, *, prefetch: int) -> Consumer:
        """See :meth:`Broker.consume_deliveries`."""
        return await self._consume(self._topology().deliveries(), handler, prefetch=prefetch)

    async def consume_logs(self, handler: Handler, *, prefetch: int) -> Consumer:
        """See :meth:`Broker.consume_logs`."""
        return await self._consume(Topology.logs(), handler, prefetch=prefetch)

    async def consume_dead_work(self, handler: Handler, *, prefetch: int) -> Consumer:
        """See :meth:`Broker.consume_dead_work`."""
        return await self._consume(self._topology().dead(), handler, prefetch=prefetch)

    async def consume_replies(self, handler: Handler) -> str:
        """See :meth:`Broker.consume_replies`."""
        return await self._consume_own(Topology.replies(), handler)

    async def consume_control(self, handler: Handler) -> str:
        """See :meth:`Broker.consume_control`."""
        return await self._consume_own(Topology.control(), handler)

    async def consume_status(self, handler: Handler) -> None:
        """See :meth:`Broker.consume_status`."""
        await self._consume_own(Topology.status(), handler)

    async def _publish_one(self, message: Message) -> None:
        (outcome,) = await self._publisher.publish([message])
        if outcome is not None:
            raise outcome

    async def _consume(self, queue: QueueSpec, handler: Handler, *, prefetch: int) -> Consumption:
        return await self._begin(Consumption(self._consuming.connection, queue, handler, prefetch=prefetch))

    async def _consume_own(self, queue: QueueSpec, handler: Handler) -> str:
        # Nothing of these is worth a redelivery, so the broker forgets a message as soon as it has sent it.
        await self._begin(Consumption(self._consuming.connection, queue, handler, prefetch=0, auto_ack=True))
        return queue.name

    async def _begin(self, consumption: Consumption) -> Consumption:
        await consumption.start()
        self._consumptions = [other for other in self._consumptions if not other.cancelled]
        self._consumptions.append(consumption)
        return consumption

    def _topology(self) -> Topology:
        return Topology.of(self._consuming.connection.server_properties)

    async def _set_up_publishing(self, connection: Connection) -> None:
        self._publisher.watch(connection)
        await self._prepare_publishing(connection)

    async def _prepare_publishing(self, connection: Connection) -> None:
        await self._declare(connection)
        await self._publisher.attach(connection)

    async def _set_up_consuming(self, connection: Connection) -> None:
        await self._declare(connection)
        for setup in self._setups:
            await setup()

    @staticmethod
    async def _declare(connection: Connection) -> None:
        async with _channel(connection) as channel:
            await Topology.of(connection.server_properties).declare(channel)

    def _administer(self) -> AbstractAsyncContextManager[Channel]:
        return _channel(self._consuming.connection)

    async def _look(self, queue: str) -> tuple[int, int] | None:
        """Return how many messages wait in a queue and how many consumers it has; None where it does not exist."""
        try:
            async with self._administer() as channel:
                seen = await channel.look_at_queue(queue)
        except ChannelClosedError as error:
            if error.code == NOT_FOUND:
                return None
            raise
        return seen.message_count, seen.consumer_count

    def _reopen(self) -> None:
        """Make good a channel that the broker closed on the publishing connection."""
        if self._reopening is not None and not self._reopening.done():
            # What it has made so far may be what was closed now, so it begins again.
            self._reopening.cancel()
        if not self._closing:
            self._reopening = asyncio.create_task(self._try_to_reopen())

    async def _try_to_reopen(self) -> None:
        connection: Connection | None = None
        try:
            connection = self._publishing.connection
            await self._prepare_publishing(connection)
        except BrokerError as error:
            log.warning("publish_channel_not_reopened", error=str(error))
            if connection is not None:
                connection.abort()

    def _stop_consumptions(self) -> None:
        consumptions, self._consumptions = self._consumptions, []
        for consumption in consumptions:
            consumption.stop()

    def _publishing_lost(self) -> None:
        self._exchanges.detach()
        self._publisher.detach()

    def _lost(self) -> None:
        self._stop_consumptions()
        if self._closing:
            return
        for hook in self._hooks:
            try:
                hook()
            except Exception:
                log.exception("connection_lost_hook_failed")


@asynccontextmanager
async def _channel(connection: Connection) -> AsyncIterator[Channel]:
    """Open a channel for one task, so that what the broker refuses closes that channel alone."""
    channel = await Channel.open(connection)
    try:
        yield channel
    finally:
        channel.close()
