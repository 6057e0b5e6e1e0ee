"""An AMQP channel whose methods can be awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Self

import pika.channel
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.exceptions import AMQPError, ChannelClosedByBroker
from pika.frame import Method
from pika.spec import Basic, BasicProperties, Confirm, Queue

from homing_core.broker.seam import BrokerError, BrokerUnavailableError

OnMessage = Callable[[pika.channel.Channel, Basic.Deliver, BasicProperties, bytes], object]


class ChannelClosedError(BrokerError):
    """The broker closed a channel, because it did not like what was asked on it."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"RabbitMQ closed the channel: {code} {text}")
        self.code = code
        self.text = text


class Channel:
    """The awaitable face of one pika channel.

    Every method raises :class:`ChannelClosedError` where the broker answers by closing the channel, and
    :class:`BrokerUnavailableError` where the connection is gone.
    """

    def __init__(self, connection: AsyncioConnection) -> None:
        self._waiters: set[asyncio.Future[Any]] = set()
        self._loop = asyncio.get_running_loop()
        self._reason: BrokerError | None = None
        self._on_closed: Callable[[BrokerError], None] | None = None
        self._opened: asyncio.Future[Any] = self._new_waiter()
        try:
            self.raw = connection.channel(on_open_callback=lambda _: _settle(self._opened, None))
        except AMQPError as error:
            self._waiters.discard(self._opened)
            raise BrokerUnavailableError("There is no connection to RabbitMQ.") from error
        self.raw.add_on_close_callback(self._closed)

    @classmethod
    async def open(cls, connection: AsyncioConnection) -> Self:
        """Open a channel."""
        channel = cls(connection)
        await channel._opened
        return channel

    @property
    def is_open(self) -> bool:
        """Whether the channel can be used."""
        return self.raw.is_open

    def on_closed(self, hook: Callable[[BrokerError], None]) -> None:
        """Call the hook when the channel closes for a reason other than :meth:`close`."""
        self._on_closed = hook

    def close(self) -> None:
        """Close the channel without waiting; what is in flight on it is redelivered."""
        self._on_closed = None
        if self.raw.is_open:
            self.raw.close()

    async def declare_exchange(
        self, name: str, *, kind: str, arguments: Mapping[str, Any] | None = None, internal: bool = False
    ) -> None:
        """Make a durable exchange where it does not exist; nobody publishes to an internal one."""
        await self._call(
            lambda done: self.raw.exchange_declare(
                name, kind, durable=True, internal=internal, arguments=arguments, callback=done
            )
        )

    async def delete_exchange(self, name: str) -> None:
        """Delete an exchange; one that does not exist is deleted already."""
        await self._call(lambda done: self.raw.exchange_delete(name, callback=done))

    async def declare_queue(
        self, name: str, *, durable: bool, exclusive: bool, arguments: Mapping[str, Any]
    ) -> Queue.DeclareOk:
        """Make a queue where it does not exist; an exclusive one goes with its connection."""
        method: Queue.DeclareOk = await self._call(
            lambda done: self.raw.queue_declare(
                name, durable=durable, exclusive=exclusive, auto_delete=exclusive, arguments=arguments, callback=done
            )
        )
        return method

    async def look_at_queue(self, name: str) -> Queue.DeclareOk:
        """Count what is in a queue; the channel closes with 404 where it does not exist."""
        method: Queue.DeclareOk = await self._call(
            lambda done: self.raw.queue_declare(name, passive=True, callback=done)
        )
        return method

    async def bind(self, queue: str, exchange: str) -> None:
        """Let a queue have all that is published to a fanout exchange."""
        await self._call(lambda done: self.raw.queue_bind(queue, exchange, routing_key="", callback=done))

    async def delete_queue(self, name: str, *, if_unused: bool = False, if_empty: bool = False) -> None:
        """Delete a queue; one that does not exist is deleted already."""
        await self._call(
            lambda done: self.raw.queue_delete(name, if_unused=if_unused, if_empty=if_empty, callback=done)
        )

    async def prefetch(self, count: int) -> None:
        """Bound how many messages a consumer has in flight."""
        await self._call(lambda done: self.raw.basic_qos(prefetch_count=count, callback=done))

    async def consume(self, queue: str, on_message: OnMessage, *, auto_ack: bool) -> str:
        """Consume a queue; return the consumer's tag."""
        method: Basic.ConsumeOk = await self._call(
            lambda done: self.raw.basic_consume(queue, on_message, auto_ack=auto_ack, callback=done)
        )
        return str(method.consumer_tag)

    async def cancel(self, consumer_tag: str) -> None:
        """End a consumption."""
        await self._call(lambda done: self.raw.basic_cancel(consumer_tag, callback=done))

    async def confirm(self, on_confirm: Callable[[Method[Basic.Ack | Basic.Nack]], object]) -> None:
        """Ask for confirms of all that is published."""

        def start(done: Callable[[Method[Confirm.SelectOk]], object]) -> None:
            self.raw.confirm_delivery(on_confirm, callback=done)

        await self._call(start)

    async def _call(self, start: Callable[[Callable[[Method[Any]], object]], object]) -> Any:
        waiter = self._new_waiter()
        try:
            start(lambda frame: _settle(waiter, frame.method))
        except AMQPError as error:
            self._waiters.discard(waiter)
            raise self._reason or BrokerUnavailableError("The connection to RabbitMQ is closing.") from error
        return await waiter

    def _new_waiter(self) -> asyncio.Future[Any]:
        waiter: asyncio.Future[Any] = self._loop.create_future()
        self._waiters.add(waiter)
        waiter.add_done_callback(self._waiters.discard)
        return waiter

    def _closed(self, _: pika.channel.Channel, cause: Exception) -> None:
        reason: BrokerError
        if isinstance(cause, ChannelClosedByBroker):
            reason = ChannelClosedError(cause.reply_code, cause.reply_text)
        else:
            reason = BrokerUnavailableError(f"The connection to RabbitMQ was lost: {cause!r}")
        self._reason = reason
        for waiter in list(self._waiters):
            if not waiter.done():
                waiter.set_exception(reason)
        hook, self._on_closed = self._on_closed, None
        if hook is not None:
            hook(reason)


def _settle(waiter: asyncio.Future[Any], value: object) -> None:
    if not waiter.done():
        waiter.set_result(value)
