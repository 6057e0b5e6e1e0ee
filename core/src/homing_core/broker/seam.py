"""What homing asks of a broker, in homing's own terms: work, sync calls, events, deliveries and control.

The store is the truth about invocations; a broker only moves them. So a broker promises little, but exactly:

* A publish that returns without error is confirmed: the message survives a restart of the broker
  (sync calls, replies and control excepted, which may be lost with the process that waits for them, and logs, of
  which the broker keeps a bounded part).
* A message that is consumed and not acknowledged is redelivered, with a higher ``redelivery_count``.
* An acknowledgement that belongs to a lost connection does nothing; the message is redelivered.

All methods belong to one event loop and must be called on it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from homing_core.limits import MAX_MESSAGE


class BrokerError(Exception):
    """The broker could not do what was asked."""


class BrokerUnavailableError(BrokerError):
    """There is no connection to the broker, or it does not accept messages now. Nothing was sent."""


class PublishUnknownError(BrokerError):
    """The connection was lost, or the time was over, before the broker confirmed a message: it may have it or not."""


class PublishRefusedError(BrokerError):
    """The broker refused a message, because its queue is full or in trouble. It does not have it."""


class ForeignBrokerError(BrokerError):
    """The broker belongs to another store: two would take each other's work."""


class UnroutableError(BrokerError):
    """The queue that a message was meant for does not exist. The broker does not have it."""


class MessageTooLargeError(BrokerError):
    """The message has more bytes than any may have, see :data:`homing_core.limits.MAX_MESSAGE`. It was not sent."""


def check_size(body: bytes) -> None:
    """Check that a broker takes a message of this size.

    :raises MessageTooLargeError: None does.
    """
    if len(body) > MAX_MESSAGE:
        raise MessageTooLargeError(f"a message must have at most {MAX_MESSAGE} bytes, has {len(body)}")


class Received(Protocol):
    """A message in flight: delivered, not acknowledged. One of its methods is to be called once it is dealt with."""

    @property
    def body(self) -> bytes:
        """The message."""

    @property
    def redelivery_count(self) -> int:
        """How often the message was delivered before this time; 0 at the first delivery."""

    @property
    def dead_reason(self) -> str:
        """Why the message was dead-lettered: ``expired``, ``delivery_limit``, ``rejected``; else empty."""

    def ack(self) -> None:
        """Acknowledge the message: it was dealt with."""

    def requeue(self) -> None:
        """Return the message to its queue, for another consumer."""

    def reject(self) -> None:
        """Refuse the message for ever: it goes to the dead letters where its queue has them, else it is gone."""


class Consumer(Protocol):
    """A running consumption."""

    async def cancel(self) -> None:
        """Ask for no more messages. Those in flight stay so."""


Handler = Callable[[Received], None]
"""Takes a message on the event loop; must not block and must not raise."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outgoing:
    """A work message to publish."""

    function: str
    body: bytes
    expires_in: float | None = None
    """Seconds after which the message is dead-lettered as ``expired`` instead of being delivered; None: never."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExchangeMessage:
    """A message for an exchange that is not homing's own: the outcome of an invocation, for a destination."""

    exchange: str
    """Empty for the default exchange, which routes to the queue that is named as the key."""
    routing_key: str
    body: bytes
    content_type: str
    message_id: str
    """The same in every attempt."""
    kind: str
    """The kind of event: AMQP's property ``type``."""
    timestamp: int
    """In seconds since the epoch."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Depth:
    """How many messages wait in the queues of a function, those in flight not counted."""

    work: int
    sync: int


class Broker(ABC):
    """Moves messages between servers and workers.

    Connections are made and made again by the broker itself. What a process consumes it sets up in the
    callbacks that it gives to :meth:`on_connected`: they run, in order, at the first and at every later connection.
    """

    @abstractmethod
    def on_connected(self, setup: Callable[[], Awaitable[None]]) -> None:
        """Add a callback that sets up what this process consumes. Where it raises, the connection is made anew."""

    @abstractmethod
    def on_lost(self, hook: Callable[[], None]) -> None:
        """Add a callback that runs when the connection is lost: every message in flight is stale from then on."""

    @abstractmethod
    async def start(self) -> None:
        """Begin to connect and return once the first connection is set up.

        Waits for as long as the broker is away: callers bound it with a time-out where they need to.
        """

    @abstractmethod
    async def close(self) -> None:
        """Wait for outstanding confirms (for 5 s at most), then disconnect."""

    @property
    @abstractmethod
    def connected(self) -> bool:
        """Whether messages can be published and are consumed now."""

    @property
    @abstractmethod
    def keeps_messages(self) -> bool:
        """Whether messages outlive this process. Where they do not, the store publishes anew at the next start."""

    @abstractmethod
    async def claim(self, store: str, *, take_over: bool) -> None:
        """Make a store the owner of what this broker keeps, where it has none yet.

        Servers do so at each connection, before they take anything from it.

        :param store: The identity of the store.
        :param take_over: Whether to take it from the store that has it.
        :raises ForeignBrokerError: Another store owns it.
        :raises BrokerUnavailableError: There is no connection.
        """

    @abstractmethod
    async def open_function(self, function: str) -> None:
        """Make the work queue and the sync lane of a function where they do not exist.

        :raises BrokerUnavailableError: There is no connection.
        """

    @abstractmethod
    async def close_function(self, function: str) -> bool:
        """Remove a function's queues where they are empty and unused; return whether they are gone.

        :raises BrokerUnavailableError: There is no connection.
        """

    @abstractmethod
    async def depth(self, function: str) -> Depth:
        """Count the messages that wait in a function's queues; zeros where it has none.

        :raises BrokerUnavailableError: There is no connection.
        """

    @abstractmethod
    async def events_depth(self) -> int:
        """Count the event messages that wait for the recorder, those in flight not counted.

        :raises BrokerUnavailableError: There is no connection.
        """

    @abstractmethod
    async def publish_work(self, messages: Sequence[Outgoing]) -> Sequence[BrokerError | None]:
        """Publish work; return for each message, in order, why it failed, or None where it is confirmed."""

    @abstractmethod
    async def publish_sync(self, function: str, body: bytes, *, expires_in: float) -> None:
        """Publish a sync call that vanishes unless a worker takes it within ``expires_in`` seconds.

        :raises BrokerError: It was not, or perhaps not, published.
        """

    @abstractmethod
    async def publish_reply(self, address: str, body: bytes) -> None:
        """Answer a sync call at the address that its server consumes replies at. Lost where nobody listens.

        :raises BrokerUnavailableError: There is no connection.
        """

    @abstractmethod
    async def publish_event(self, body: bytes) -> None:
        """Publish a batch of events for the recorder.

        :raises BrokerError: It was not, or perhaps not, published.
        """

    @abstractmethod
    async def publish_deliveries(self, bodies: Sequence[bytes]) -> Sequence[BrokerError | None]:
        """Publish deliveries; return for each, in order, why it failed, or None where it is confirmed."""

    @abstractmethod
    async def publish_to_exchange(self, message: ExchangeMessage) -> None:
        """Publish a message to its exchange; confirmed, it is in every queue that takes it.

        :raises UnroutableError: There is no such exchange, or no queue that takes the message.
        :raises BrokerError: It was not, or perhaps not, published.
        """

    @abstractmethod
    async def publish_logs(self, body: bytes) -> None:
        """Publish log lines. Where many wait the oldest messages are dropped; all are lost with the broker.

        :raises BrokerError: It was not, or perhaps not, published.
        """

    @abstractmethod
    async def publish_control(self, body: bytes) -> None:
        """Broadcast to all workers and servers. Lost where nobody listens.

        :raises BrokerUnavailableError: There is no connection.
        """

    @abstractmethod
    async def publish_control_to(self, address: str, body: bytes) -> None:
        """Send to the one process that consumes control at this address. Lost where it is gone.

        :raises BrokerUnavailableError: There is no connection.
        """

    @abstractmethod
    async def publish_status(self, body: bytes) -> None:
        """Send the heartbeat of a worker to all servers. Lost where nobody listens.

        :raises BrokerUnavailableError: There is no connection.
        """

    @abstractmethod
    async def consume_work(self, function: str, handler: Handler, *, prefetch: int) -> Consumer:
        """Consume a function's work, with ``prefetch`` messages in flight at most; make its queues where none are."""

    @abstractmethod
    async def consume_sync(self, function: str, handler: Handler, *, prefetch: int) -> Consumer:
        """Consume a function's sync calls; make its queues where there are none."""

    @abstractmethod
    async def consume_events(self, handler: Handler, *, prefetch: int) -> Consumer:
        """Consume events. One consumer of all servers' is active; another takes over when it goes."""

    @abstractmethod
    async def consume_deliveries(self, handler: Handler, *, prefetch: int) -> Consumer:
        """Consume deliveries."""

    @abstractmethod
    async def consume_logs(self, handler: Handler, *, prefetch: int) -> Consumer:
        """Consume log lines, in order. One consumer of all servers' is active; another takes over when it goes."""

    @abstractmethod
    async def consume_dead_work(self, handler: Handler, *, prefetch: int) -> Consumer:
        """Consume work messages that were dead-lettered."""

    @abstractmethod
    async def consume_replies(self, handler: Handler) -> str:
        """Consume the answers to this process's sync calls; return their address."""

    @abstractmethod
    async def consume_control(self, handler: Handler) -> str:
        """Consume what servers broadcast; return the address at which this process alone is reached."""

    @abstractmethod
    async def consume_status(self, handler: Handler) -> None:
        """Consume the heartbeats of workers."""
