"""A queue in memory, with what homing asks of RabbitMQ's: redelivery counts, expiry, dead letters, prefetch."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

import structlog

from homing_core.broker.seam import Handler

_log = structlog.stdlib.get_logger(__name__)


@dataclass(slots=True, eq=False)
class Message:
    """A message that is ready or in flight."""

    body: bytes
    expires_at: float | None = None
    """In the loop's time; None means never."""
    redelivery_count: int = 0
    dead_reason: str = ""


class InFlight:
    """A message that is delivered to a consumer and not acknowledged."""

    __slots__ = ("_consumption", "_message")

    def __init__(self, consumption: Consumption, message: Message) -> None:
        self._consumption = consumption
        self._message = message

    @property
    def body(self) -> bytes:
        """The message."""
        return self._message.body

    @property
    def redelivery_count(self) -> int:
        """How often it was delivered before."""
        return self._message.redelivery_count

    @property
    def dead_reason(self) -> str:
        """Why it was dead-lettered."""
        return self._message.dead_reason

    def ack(self) -> None:
        """Acknowledge it."""
        self._consumption.settle(self._message)

    def requeue(self) -> None:
        """Return it to its queue."""
        if self._consumption.settle(self._message):
            self._consumption.queue.requeue([self._message])

    def reject(self) -> None:
        """Refuse it for ever."""
        if self._consumption.settle(self._message):
            self._consumption.queue.dead_letter(self._message, "rejected")


class Consumption:
    """A consumer of a queue."""

    def __init__(self, queue: Queue, handler: Handler, prefetch: int) -> None:
        self.queue = queue
        self._handler = handler
        self._prefetch = prefetch
        self._in_flight: dict[int, Message] = {}
        self.cancelled = False

    @property
    def ready(self) -> bool:
        """Whether it takes a message now."""
        return not self.cancelled and len(self._in_flight) < self._prefetch

    @property
    def has_in_flight(self) -> bool:
        """Whether messages were delivered to it that it has not acknowledged."""
        return bool(self._in_flight)

    def deliver(self, message: Message) -> None:
        """Deliver a message to it."""
        self._in_flight[id(message)] = message
        received = InFlight(self, message)
        try:
            self._handler(received)
        except Exception:  # noqa: BLE001 it is the handler's, whatever it is
            _log.exception("message_handler_failed", queue=self.queue.name)
            received.requeue()

    def settle(self, message: Message) -> bool:
        """Count a message as in flight no more; return whether it was."""
        if self._in_flight.pop(id(message), None) is None:
            return False
        self.queue.forget(self)
        self.queue.wake()
        return True

    async def cancel(self) -> None:
        """Ask for no more messages."""
        self.cancelled = True
        self.queue.forget(self)
        self.queue.wake()

    def abandon(self) -> None:
        """End with the process that it belongs to: what it has in flight is redelivered."""
        self.cancelled = True
        left = list(self._in_flight.values())
        self._in_flight.clear()
        self.queue.forget(self)
        self.queue.requeue(left)


class Queue:
    """Messages in order, and those who consume them."""

    def __init__(
        self,
        name: str,
        *,
        dead_letters: Queue | None = None,
        delivery_limit: int | None = None,
        single_active: bool = False,
        max_bytes: int | None = None,
    ) -> None:
        """Make an empty queue.

        :param dead_letters: Where what expired or was refused goes; None drops it.
        :param delivery_limit: How often a message may be redelivered before it is dead-lettered.
        :param single_active: Whether only the longest consumer gets messages while it has any in flight or consumes.
        :param max_bytes: How much may wait: where more comes the oldest messages are dropped.
        """
        self.name = name
        self._dead_letters = dead_letters
        self._delivery_limit = delivery_limit
        self._single_active = single_active
        self._max_bytes = max_bytes
        self._messages: deque[Message] = deque()
        self._consumptions: deque[Consumption] = deque()
        self._pumping = False
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def used(self) -> bool:
        """Whether it has messages, consumers, or messages in flight."""
        return bool(self._messages or self._consumptions)

    def put(self, message: Message) -> None:
        """Add a message at the end."""
        self._messages.append(message)
        if self._max_bytes is not None:
            self._drop_oldest(self._max_bytes)
        self.wake()

    def requeue(self, messages: list[Message]) -> None:
        """Put messages that were in flight in front again, in their order: they are redelivered."""
        for message in reversed(messages):
            message.redelivery_count += 1
            if self._delivery_limit is not None and message.redelivery_count > self._delivery_limit:
                self.dead_letter(message, "delivery_limit")
            else:
                self._messages.appendleft(message)
        self.wake()

    def dead_letter(self, message: Message, reason: str) -> None:
        """Move a message to the dead letters."""
        if self._dead_letters is not None:
            self._dead_letters.put(Message(message.body, dead_reason=reason))

    def consume(self, handler: Handler, prefetch: int) -> Consumption:
        """Deliver messages to a handler, with so many in flight at a time."""
        consumption = Consumption(self, handler, prefetch)
        self._consumptions.append(consumption)
        self.wake()
        return consumption

    def forget(self, consumption: Consumption) -> None:
        """Remove a consumer once it is cancelled and has nothing in flight."""
        if consumption.cancelled and not consumption.has_in_flight and consumption in self._consumptions:
            self._consumptions.remove(consumption)

    def close(self) -> None:
        """Stop its timer."""
        if self._timer is not None:
            self._timer.cancel()

    def wake(self) -> None:
        """Deliver what can be delivered, in the next turn of the loop."""
        if not self._pumping:
            self._pumping = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._pumping = False
        self._drop_expired()
        while self._messages and (consumption := self._next()) is not None:
            consumption.deliver(self._messages.popleft())
            self._drop_expired()
        self._arm()

    def _next(self) -> Consumption | None:
        if self._single_active:
            # A cancelled one is passed over though it may still have messages in flight, as RabbitMQ does.
            active = next((item for item in self._consumptions if not item.cancelled), None)
            return active if active is not None and active.ready else None
        for _ in range(len(self._consumptions)):
            self._consumptions.rotate(-1)
            if self._consumptions[-1].ready:
                return self._consumptions[-1]
        return None

    def _drop_expired(self) -> None:
        now = self._loop.time()
        while self._messages and (at := self._messages[0].expires_at) is not None and at <= now:
            self.dead_letter(self._messages.popleft(), "expired")

    def _drop_oldest(self, max_bytes: int) -> None:
        size = sum(len(message.body) for message in self._messages)
        while size > max_bytes:
            size -= len(self._messages.popleft().body)

    def _arm(self) -> None:
        """Wake again when the first message expires."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._messages and self._messages[0].expires_at is not None:
            self._timer = self._loop.call_at(self._messages[0].expires_at, self.wake)
