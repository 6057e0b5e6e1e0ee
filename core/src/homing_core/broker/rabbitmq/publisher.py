"""Publishing with pipelined confirms."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import pika.channel
import structlog
from pika.frame import Method
from pika.spec import Basic, BasicProperties

from homing_core.broker.rabbitmq.channel import Channel, ChannelClosedError
from homing_core.broker.rabbitmq.connection import Connection
from homing_core.broker.seam import (
    BrokerError,
    BrokerUnavailableError,
    MessageTooLargeError,
    PublishRefusedError,
    PublishUnknownError,
    UnroutableError,
    check_size,
)
from homing_core.limits import MIB

WINDOW_MESSAGES: Final = 2000
WINDOW_BYTES: Final = 32 * MIB
"""So much may be published and not confirmed; who publishes more waits."""

MAX_EXPIRATION_MS: Final = 2**32 - 1

MAX_BURST: Final = 200
"""So many messages are written before the event loop gets its turn."""

CONFIRM_TIMEOUT: Final = 15.0
"""Seconds after which a message that was not confirmed counts as unknown, so that a queue without a leader, or a
broker short of memory, does not hold its publisher and the window for ever."""

AVAILABILITY_TIMEOUT: Final = 5.0
"""Seconds to wait for a broker that is away, or that accepts nothing because it is short of memory or disk."""


log = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """A message for one queue."""

    queue: str
    body: bytes
    persistent: bool = True
    expires_in: float | None = None
    """Seconds."""


class _Batch:
    """Messages whose confirms are waited for together."""

    __slots__ = ("confirmed", "left", "outcomes")

    def __init__(self, size: int) -> None:
        self.outcomes: list[BrokerError | None] = [None] * size
        self.left = size
        self.confirmed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def settle(self, index: int, outcome: BrokerError | None) -> None:
        self.outcomes[index] = outcome
        self.left -= 1
        if not self.left and not self.confirmed.done():
            self.confirmed.set_result(None)


class Publisher:
    """Publishes on one connection at a time, and knows of every message what became of it."""

    def __init__(self, *, reopen: Callable[[], None]) -> None:
        """``reopen`` is called when the broker closed a channel, to have :meth:`attach` called again."""
        self._reopen = reopen
        self._confirmed: Channel | None = None
        self._transient: Channel | None = None
        self._blocked = False
        self._closing = False
        self._check: asyncio.TimerHandle | None = None
        self._written: deque[tuple[float, int]] = deque()
        """Up to which sequence number was written by when."""
        self._available = asyncio.Event()
        self._drained = asyncio.Event()
        self._drained.set()
        self._room: deque[asyncio.Future[None]] = deque()
        self._pending: dict[int, tuple[_Batch, int, int]] = {}
        """By its sequence number, the batch, the index in it and the size of each message not confirmed."""
        self._pending_bytes = 0
        self._returned: dict[int, UnroutableError] = {}
        self._sequence = 0
        self._oldest = 1

    @property
    def available(self) -> bool:
        """Whether the broker takes messages now."""
        return self._available.is_set()

    async def attach(self, connection: Connection) -> None:
        """Publish on this connection from now on."""
        if self._transient is None or not self._transient.is_open:
            self._transient = await Channel.open(connection)
            self._transient.on_closed(self._reopen_channel)
        if self._confirmed is None:
            channel = await Channel.open(connection)
            try:
                await channel.confirm(self._on_confirm)
            except BaseException:
                channel.close()
                raise
            channel.raw.add_on_return_callback(self._on_return)
            channel.on_closed(self._on_channel_lost)
            self._sequence, self._oldest = 0, 1
            self._confirmed = channel
        self._update()

    def watch(self, connection: Connection) -> None:
        """Pause while the broker blocks this connection because it is short of memory or disk."""
        connection.add_on_connection_blocked_callback(lambda *_: self._on_blocked(blocked=True))
        connection.add_on_connection_unblocked_callback(lambda *_: self._on_blocked(blocked=False))

    def detach(self) -> None:
        """Forget the connection, which is gone."""
        self._transient = None
        self._on_blocked(blocked=False)
        self._drop("The connection to RabbitMQ was lost before the message was confirmed.")

    async def publish(self, messages: Sequence[Message]) -> list[BrokerError | None]:
        """Publish; return for each message, in order, why it failed, or None where it is confirmed."""
        if not messages:
            return []
        batch = _Batch(len(messages))
        index = 0
        while index < len(messages):
            try:
                await self._admission()
            except BrokerUnavailableError as error:
                for rest in range(index, len(messages)):
                    batch.settle(rest, BrokerUnavailableError(*error.args))
                break
            index = self._write(batch, messages, index)
            self._make_room()
            if index < len(messages):
                await asyncio.sleep(0)
        await batch.confirmed
        return batch.outcomes

    async def send(self, exchange: str, key: str, body: bytes, *, wait: bool = False) -> None:
        """Publish without a confirm; the message may be lost.

        :raises MessageTooLargeError: No broker takes it.
        :raises BrokerUnavailableError: There is no connection, or with ``wait`` there was none in time, see
            :data:`AVAILABILITY_TIMEOUT`.
        """
        check_size(body)
        if wait and not self._available.is_set():
            await self._availability()
        channel = self._transient
        if channel is None or not channel.is_open or not self._available.is_set():
            raise BrokerUnavailableError("RabbitMQ is not connected, or takes no messages now.")
        channel.raw.basic_publish(exchange, key, body)

    async def drain(self, timeout: float) -> None:  # noqa: ASYNC109
        """Accept no more; wait for what is not confirmed yet, for so many seconds at most."""
        self._closing = True
        self._update()
        try:
            async with asyncio.timeout(timeout):
                await self._drained.wait()
        except TimeoutError:
            self._drop("The broker was closed before the message was confirmed.")

    async def _admission(self) -> None:
        """Wait until one more message may be published; first come, first served."""
        called = False
        while True:
            if not self._available.is_set():
                await self._availability()
            elif self._has_room() and (called or not self._room):
                return
            else:
                place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._room.append(place)
                try:
                    await place
                except asyncio.CancelledError:
                    self._make_room()
                    raise
                called = True

    async def _availability(self) -> None:
        if self._closing:
            raise BrokerUnavailableError("The broker is being closed.")
        try:
            async with asyncio.timeout(AVAILABILITY_TIMEOUT):
                await self._available.wait()
        except TimeoutError:
            what = "is short of memory or disk and takes no messages" if self._blocked else "is not connected"
            raise BrokerUnavailableError(f"RabbitMQ {what}, for {AVAILABILITY_TIMEOUT:g} s or more.") from None

    def _has_room(self) -> bool:
        return len(self._pending) < WINDOW_MESSAGES and self._pending_bytes < WINDOW_BYTES

    def _make_room(self) -> None:
        """Call the first who waits, where there is room or nothing to wait for."""
        while self._room and (self._has_room() or not self._available.is_set()):
            place = self._room.popleft()
            if not place.done():
                place.set_result(None)
                if self._available.is_set():
                    return

    def _write(self, batch: _Batch, messages: Sequence[Message], index: int) -> int:
        """Publish messages from this index on while there is room; return the index of the first left."""
        assert self._confirmed is not None
        publish = self._confirmed.raw.basic_publish
        last = min(len(messages), index + MAX_BURST)
        loop = asyncio.get_running_loop()
        self._drained.clear()
        while index < last and self._has_room():
            message = messages[index]
            try:
                check_size(message.body)
            except MessageTooLargeError as error:
                batch.settle(index, error)
                index += 1
                continue
            self._sequence = sequence = self._sequence + 1
            # A returned message is identified by this; nothing else needs it.
            properties = BasicProperties(
                message_id=str(sequence),
                delivery_mode=2 if message.persistent else 1,
                expiration=None if message.expires_in is None else _expiration(message.expires_in),
            )
            self._pending[sequence] = (batch, index, len(message.body))
            self._pending_bytes += len(message.body)
            publish("", message.queue, message.body, properties, mandatory=True)
            index += 1
        if not self._pending:
            self._drained.set()
        self._written.append((loop.time() + CONFIRM_TIMEOUT, self._sequence))
        if self._check is None:
            self._check = loop.call_at(self._written[0][0], self._check_time)
        return index

    def _on_confirm(self, frame: Method[Basic.Ack | Basic.Nack]) -> None:
        method = frame.method
        last = method.delivery_tag
        refused = isinstance(method, Basic.Nack)
        for sequence in range(self._oldest, last + 1) if method.multiple else (last,):
            entry = self._pending.pop(sequence, None)
            if entry is not None:
                batch, index, size = entry
                self._pending_bytes -= size
                outcome: BrokerError | None = self._returned.pop(sequence, None)
                if refused:
                    outcome = PublishRefusedError("RabbitMQ refused the message: its queue is full or in trouble.")
                batch.settle(index, outcome)
        if method.multiple:
            self._oldest = last + 1
        while self._oldest <= self._sequence and self._oldest not in self._pending:
            self._oldest += 1
        while self._written and self._written[0][1] < self._oldest:
            self._written.popleft()
        if not self._pending:
            self._drained.set()
        self._make_room()

    def _on_return(self, _: pika.channel.Channel, method: Basic.Return, properties: BasicProperties, __: bytes) -> None:
        # The confirm follows: it says that the broker has done with the message, not that a queue has it.
        sequence = int(properties.message_id or 0)
        if sequence in self._pending:
            self._returned[sequence] = UnroutableError(
                f"RabbitMQ has no queue {method.routing_key!r} ({method.reply_text})."
            )

    def _on_channel_lost(self, reason: BrokerError) -> None:
        self._drop(f"The channel was lost before the message was confirmed: {reason}")
        self._reopen_channel(reason)

    def _reopen_channel(self, reason: BrokerError) -> None:
        if isinstance(reason, ChannelClosedError):
            self._reopen()

    def _on_blocked(self, *, blocked: bool) -> None:
        if blocked != self._blocked:
            log.warning("broker_blocked" if blocked else "broker_unblocked")
        self._blocked = blocked
        self._update()

    def _check_time(self) -> None:
        """Give up what was written too long ago."""
        now = asyncio.get_running_loop().time()
        last = 0
        while self._written and self._written[0][0] <= now:
            _, last = self._written.popleft()
        late = [sequence for sequence in range(self._oldest, last + 1) if sequence in self._pending]
        if late:
            log.warning("publish_confirms_timed_out", messages=len(late), timeout_s=CONFIRM_TIMEOUT)
            self._fail(late, f"RabbitMQ did not confirm the message within {CONFIRM_TIMEOUT:g} s.")
            self._oldest = last + 1
        self._check = None
        if self._written:
            self._check = asyncio.get_running_loop().call_at(self._written[0][0], self._check_time)

    def _drop(self, why: str) -> None:
        self._confirmed = None
        self._update()
        self._written.clear()
        if self._check is not None:
            self._check.cancel()
            self._check = None
        self._fail(list(self._pending), why)
        self._returned.clear()

    def _fail(self, sequences: Sequence[int], why: str) -> None:
        for sequence in sequences:
            batch, index, size = self._pending.pop(sequence)
            self._pending_bytes -= size
            batch.settle(index, PublishUnknownError(why))
        if not self._pending:
            self._drained.set()
        self._make_room()

    def _update(self) -> None:
        if self._confirmed is not None and not self._blocked and not self._closing:
            self._available.set()
        else:
            self._available.clear()
            self._make_room()


def _expiration(seconds: float) -> str:
    """Return a time as RabbitMQ takes it: whole milliseconds, as text; one out of its range would close the channel."""
    return str(min(max(0, round(seconds * 1000)), MAX_EXPIRATION_MS))
