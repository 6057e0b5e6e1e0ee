"""A broker in the test's own hands: it takes what the test lets it take, and says what the test has it say."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from homing_core.broker import (
    Broker,
    BrokerError,
    BrokerUnavailableError,
    Consumer,
    Depth,
    ExchangeMessage,
    Handler,
    Outgoing,
)
from homing_core.wire.v1 import DeliveryMessage, Event, EventBatch, SyncRequest, WorkMessage


@dataclass(eq=False)
class Handed:
    """A message in hand, and what became of it."""

    body: bytes
    redelivery_count: int = 0
    dead_reason: str = ""
    fate: str = ""

    def ack(self) -> None:
        self._settle("acked")

    def requeue(self) -> None:
        self._settle("requeued")

    def reject(self) -> None:
        self._settle("rejected")

    def _settle(self, fate: str) -> None:
        assert not self.fate, f"{fate}, though {self.fate} before"
        self.fate = fate


@dataclass(eq=False)
class Consumption:
    """A consumer that the test hands messages to."""

    handler: Handler
    cancelled: bool = False

    async def cancel(self) -> None:
        self.cancelled = True

    def hand(self, *bodies: bytes, dead_reason: str = "") -> list[Handed]:
        """Hand out messages."""
        messages = [Handed(body, dead_reason=dead_reason) for body in bodies]
        for message in messages:
            self.handler(message)
        return messages

    def hand_events(self, *events: Event) -> Handed:
        """Hand out a message with events."""
        (message,) = self.hand(EventBatch(events=events).SerializeToString())
        return message


@dataclass(repr=False)
class ScriptedBroker(Broker):
    """A broker that keeps everything in lists."""

    up: bool = True
    work: list[WorkMessage] = field(default_factory=list)
    """The work that was confirmed."""
    sync: list[SyncRequest] = field(default_factory=list)
    """The synchronous calls that were published."""
    replies: list[Consumption] = field(default_factory=list)
    """The consumers of replies, the latest last."""
    deliveries: list[DeliveryMessage] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)
    events: list[Consumption] = field(default_factory=list)
    """The consumers of events, the latest last."""
    marks: list[bytes] = field(default_factory=list)
    """What the server itself published with the events; it comes back when the test hands it to a consumer."""
    logs: list[Consumption] = field(default_factory=list)
    dead: list[Consumption] = field(default_factory=list)
    """The consumers of dead work."""
    taken: dict[str, Consumption] = field(default_factory=dict)
    """By function, who consumes its work, where it is the server."""
    control: list[bytes] = field(default_factory=list)
    controls: list[Consumption] = field(default_factory=list)
    """The consumers of control messages, the latest last."""
    statuses: list[Consumption] = field(default_factory=list)
    """The consumers of workers' statuses, the latest last."""
    depths: dict[str, int] = field(default_factory=dict)
    """By function, how many work messages wait, where that is not the number of those that were published."""
    fail_work: Callable[[WorkMessage], BrokerError | None] = lambda _: None
    """Says why a work message is not confirmed. Raising, it lets the whole publish raise."""
    fail_deliveries: Callable[[DeliveryMessage], BrokerError | None] = lambda _: None
    published: Callable[[], Awaitable[None]] | None = None
    """Is waited for before confirms are given."""
    setups: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    hooks: list[Callable[[], None]] = field(default_factory=list)

    def on_connected(self, setup: Callable[[], Awaitable[None]]) -> None:
        self.setups.append(setup)

    def on_lost(self, hook: Callable[[], None]) -> None:
        self.hooks.append(hook)

    async def start(self) -> None:
        self.up = True
        for setup in self.setups:
            await setup()

    def lose(self) -> None:
        """Lose the connection."""
        self.up = False
        for hook in self.hooks:
            hook()

    async def close(self) -> None:
        self.up = False

    @property
    def connected(self) -> bool:
        return self.up

    @property
    def keeps_messages(self) -> bool:
        return True

    async def claim(self, store: str, *, take_over: bool) -> None:
        """See :meth:`Broker.claim`."""

    async def open_function(self, function: str) -> None:
        self.opened.append(function)

    async def close_function(self, function: str) -> bool:
        return True

    async def depth(self, function: str) -> Depth:
        published = sum(message.spec.function == function for message in self.work)
        return Depth(work=self.depths.get(function, published), sync=0)

    async def events_depth(self) -> int:
        return 0

    async def publish_work(self, messages: Sequence[Outgoing]) -> Sequence[BrokerError | None]:
        read = [WorkMessage.FromString(message.body) for message in messages]
        outcomes = [self.fail_work(message) for message in read]
        if self.published is not None:
            await self.published()
        self.work += [message for message, outcome in zip(read, outcomes, strict=True) if outcome is None]
        return outcomes

    async def publish_deliveries(self, bodies: Sequence[bytes]) -> Sequence[BrokerError | None]:
        read = [DeliveryMessage.FromString(body) for body in bodies]
        outcomes = [self.fail_deliveries(message) for message in read]
        self.deliveries += [message for message, outcome in zip(read, outcomes, strict=True) if outcome is None]
        return outcomes

    async def consume_events(self, handler: Handler, *, prefetch: int) -> Consumer:
        self.events.append(Consumption(handler))
        return self.events[-1]

    async def publish_sync(self, function: str, body: bytes, *, expires_in: float) -> None:
        self.sync.append(SyncRequest.FromString(body))

    async def publish_reply(self, address: str, body: bytes) -> None:
        raise NotImplementedError

    async def publish_event(self, body: bytes) -> None:
        self.marks.append(body)

    async def publish_to_exchange(self, message: ExchangeMessage) -> None:
        raise NotImplementedError

    async def publish_logs(self, body: bytes) -> None:
        raise NotImplementedError

    async def publish_control(self, body: bytes) -> None:
        if not self.connected:
            raise BrokerUnavailableError("not connected")
        self.control.append(body)

    async def publish_control_to(self, address: str, body: bytes) -> None:
        await self.publish_control(body)

    async def publish_status(self, body: bytes) -> None:
        raise NotImplementedError

    async def consume_work(self, function: str, handler: Handler, *, prefetch: int) -> Consumer:
        self.taken[function] = Consumption(handler)
        return self.taken[function]

    async def consume_sync(self, function: str, handler: Handler, *, prefetch: int) -> Consumer:
        return Consumption(handler)

    async def consume_deliveries(self, handler: Handler, *, prefetch: int) -> Consumer:
        raise NotImplementedError

    async def consume_logs(self, handler: Handler, *, prefetch: int) -> Consumer:
        self.logs.append(Consumption(handler))
        return self.logs[-1]

    async def consume_dead_work(self, handler: Handler, *, prefetch: int) -> Consumer:
        self.dead.append(Consumption(handler))
        return self.dead[-1]

    async def consume_replies(self, handler: Handler) -> str:
        self.replies.append(Consumption(handler))
        return "replies"

    async def consume_control(self, handler: Handler) -> str:
        self.controls.append(Consumption(handler))
        return "control"

    async def consume_status(self, handler: Handler) -> None:
        self.statuses.append(Consumption(handler))
