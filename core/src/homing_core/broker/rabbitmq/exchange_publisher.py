"""Publishing to exchanges that are not homing's own.

Each exchange has a channel of its own: RabbitMQ closes the channel on which something was published to an exchange that
does not exist, and nothing else is to suffer from it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Final

import pika.channel
from pika.exceptions import AMQPError
from pika.frame import Method
from pika.spec import Basic, BasicProperties

from homing_core.broker.rabbitmq.channel import Channel, ChannelClosedError
from homing_core.broker.rabbitmq.connection import Connection
from homing_core.broker.rabbitmq.publisher import CONFIRM_TIMEOUT
from homing_core.broker.seam import (
    BrokerError,
    BrokerUnavailableError,
    ExchangeMessage,
    PublishRefusedError,
    PublishUnknownError,
    UnroutableError,
)

MAX_CHANNELS: Final = 32
"""So many exchanges have a channel open; the one that was not used for the longest time loses its."""
_NOT_FOUND: Final = 404
_ACCESS_REFUSED: Final = 403
_PERSISTENT: Final = 2


class ExchangePublisher:
    """Publishes to exchanges over one connection at a time, each message confirmed by itself."""

    def __init__(self) -> None:
        self._channels: OrderedDict[str, _ExchangeChannel] = OrderedDict()
        self._opening = asyncio.Lock()

    def detach(self) -> None:
        """Forget the connection, which is gone; what was not confirmed on it has failed."""
        self._channels.clear()

    async def publish(self, connection: Connection, message: ExchangeMessage) -> None:
        """Publish a message and wait until it is confirmed.

        :raises BrokerError: It was not, or perhaps not, published.
        """
        channel = await self._channel(connection, message.exchange)
        await channel.publish(message)

    async def _channel(self, connection: Connection, exchange: str) -> _ExchangeChannel:
        channel = self._channels.get(exchange)
        if channel is None or not channel.is_open:
            async with self._opening:
                channel = self._channels.get(exchange)
                if channel is None or not channel.is_open:
                    channel = self._channels[exchange] = await _ExchangeChannel.open(connection)
        self._channels.move_to_end(exchange)
        for name in list(self._channels)[: max(0, len(self._channels) - MAX_CHANNELS)]:
            if self._channels[name].idle:
                self._channels.pop(name).close()
        return channel


class _ExchangeChannel:
    """The channel of one exchange."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._sequence = 0
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._returned: dict[str, str] = {}

    @classmethod
    async def open(cls, connection: Connection) -> _ExchangeChannel:
        channel = await Channel.open(connection)
        exchange = cls(channel)
        try:
            await channel.confirm(exchange._on_confirm)
        except BaseException:
            channel.close()
            raise
        channel.raw.add_on_return_callback(exchange._on_return)
        channel.on_closed(exchange._on_closed)
        return exchange

    @property
    def is_open(self) -> bool:
        return self._channel.is_open

    @property
    def idle(self) -> bool:
        return not self._waiting

    def close(self) -> None:
        self._channel.close()

    async def publish(self, message: ExchangeMessage) -> None:
        self._sequence += 1
        sequence = self._sequence
        confirmed = self._waiting[sequence] = asyncio.get_running_loop().create_future()
        properties = BasicProperties(
            content_type=message.content_type,
            delivery_mode=_PERSISTENT,
            message_id=message.message_id,
            type=message.kind,
            timestamp=message.timestamp,
            app_id="homing",
        )
        try:
            self._channel.raw.basic_publish(
                message.exchange, message.routing_key, message.body, properties, mandatory=True
            )
        except AMQPError as error:
            self._waiting.pop(sequence, None)
            raise BrokerUnavailableError("The connection to RabbitMQ is closing.") from error
        try:
            async with asyncio.timeout(CONFIRM_TIMEOUT):
                await confirmed
        except TimeoutError:
            raise PublishUnknownError(f"RabbitMQ did not confirm the message within {CONFIRM_TIMEOUT:g} s.") from None
        finally:
            self._waiting.pop(sequence, None)
            # Another attempt has the same id.
            reason = self._returned.pop(message.message_id, "")
        if reason:
            raise UnroutableError(
                f"no queue takes what goes to the exchange {message.exchange!r} by the key {message.routing_key!r}"
                f" ({reason})"
            )

    def _on_confirm(self, frame: Method[Basic.Ack | Basic.Nack]) -> None:
        method = frame.method
        last = method.delivery_tag
        for sequence in [each for each in self._waiting if each == last or (method.multiple and each < last)]:
            waiting = self._waiting[sequence]
            if waiting.done():
                continue
            if isinstance(method, Basic.Nack):
                waiting.set_exception(PublishRefusedError("RabbitMQ refused the message: a queue is full."))
            else:
                waiting.set_result(None)

    def _on_return(self, _: pika.channel.Channel, method: Basic.Return, properties: BasicProperties, __: bytes) -> None:
        # The confirm follows.
        self._returned[properties.message_id or ""] = method.reply_text or "unroutable"

    def _on_closed(self, reason: BrokerError) -> None:
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(_reason_of(reason))


def _reason_of(reason: BrokerError) -> BrokerError:
    if isinstance(reason, ChannelClosedError) and reason.code == _NOT_FOUND:
        return UnroutableError(f"RabbitMQ has no such exchange ({reason.text})")
    if isinstance(reason, ChannelClosedError) and reason.code == _ACCESS_REFUSED:
        return PublishRefusedError(f"RabbitMQ does not allow it ({reason.text})")
    return PublishUnknownError(f"The channel was lost before the message was confirmed: {reason}")
