"""The broker seam on queues in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_exponential_jitter

from homing_core.broker.embedded.exchange import Exchange, Listener
from homing_core.broker.embedded.queue import Consumption, Message, Queue
from homing_core.broker.seam import (
    Broker,
    BrokerError,
    BrokerUnavailableError,
    Consumer,
    Depth,
    ExchangeMessage,
    Handler,
    Outgoing,
    UnroutableError,
    check_size,
)
from homing_core.ids import new_id

T = TypeVar("T")

_log = structlog.stdlib.get_logger(__name__)


class EmbeddedBroker(Broker):
    """One part's view of an exchange that it shares with the other parts of its process."""

    def __init__(self, exchange: Exchange) -> None:
        """Prepare to connect to an exchange."""
        self._exchange = exchange
        self._setups: list[Callable[[], Awaitable[None]]] = []
        self._held: list[Consumption | Listener] = []
        self._connected = False
        self._starting = False
        self._loop = asyncio.get_running_loop()

    def on_connected(self, setup: Callable[[], Awaitable[None]]) -> None:
        """See :meth:`Broker.on_connected`."""
        self._setups.append(setup)

    def on_lost(self, hook: Callable[[], None]) -> None:
        """See :meth:`Broker.on_lost`: this connection is never lost."""

    async def start(self) -> None:
        """See :meth:`Broker.start`."""
        await AsyncRetrying(
            retry=retry_if_exception_type(Exception),
            wait=wait_exponential_jitter(multiplier=0.05, max=5),
            before_sleep=_log_retry,
        )(self._set_up)

    async def close(self) -> None:
        """See :meth:`Broker.close`."""
        self._connected = False
        self._abandon()

    @property
    def connected(self) -> bool:
        """See :attr:`Broker.connected`."""
        return self._connected

    @property
    def keeps_messages(self) -> bool:
        """See :attr:`Broker.keeps_messages`."""
        return False

    async def claim(self, store: str, *, take_over: bool) -> None:
        """See :meth:`Broker.claim`: nobody else reaches this one."""

    async def open_function(self, function: str) -> None:
        """See :meth:`Broker.open_function`."""
        self._check()
        self._exchange.open_function(function)

    async def close_function(self, function: str) -> bool:
        """See :meth:`Broker.close_function`."""
        self._check()
        return self._exchange.close_function(function)

    async def depth(self, function: str) -> Depth:
        """See :meth:`Broker.depth`."""
        self._check()
        return Depth(work=len(self._exchange.work.get(function, ())), sync=len(self._exchange.sync.get(function, ())))

    async def events_depth(self) -> int:
        """See :meth:`Broker.events_depth`."""
        self._check()
        return len(self._exchange.events)

    async def publish_work(self, messages: Sequence[Outgoing]) -> Sequence[BrokerError | None]:
        """See :meth:`Broker.publish_work`."""
        return [self._outcome(self._put_work, message) for message in messages]

    async def publish_sync(self, function: str, body: bytes, *, expires_in: float) -> None:
        """See :meth:`Broker.publish_sync`."""
        self._check()
        check_size(body)
        queue = self._exchange.sync.get(function)
        if queue is None:
            raise UnroutableError(f"function {function!r} has no queues")
        queue.put(self._message(body, expires_in))

    async def publish_reply(self, address: str, body: bytes) -> None:
        """See :meth:`Broker.publish_reply`."""
        self._put(self._exchange.replies.get(address), body)

    async def publish_event(self, body: bytes) -> None:
        """See :meth:`Broker.publish_event`."""
        self._put(self._exchange.events, body)

    async def publish_deliveries(self, bodies: Sequence[bytes]) -> Sequence[BrokerError | None]:
        """See :meth:`Broker.publish_deliveries`."""
        return [self._outcome(self._put_delivery, body) for body in bodies]

    async def publish_to_exchange(self, message: ExchangeMessage) -> None:
        """See :meth:`Broker.publish_to_exchange`: there are no exchanges but homing's own."""
        self._check()
        raise UnroutableError(f"the embedded broker has no exchange {message.exchange!r}; RabbitMQ has them")

    async def publish_logs(self, body: bytes) -> None:
        """See :meth:`Broker.publish_logs`."""
        self._put(self._exchange.logs, body)

    async def publish_control(self, body: bytes) -> None:
        """See :meth:`Broker.publish_control`."""
        self._check()
        check_size(body)
        for queue in self._exchange.control.values():
            queue.put(Message(body))

    async def publish_control_to(self, address: str, body: bytes) -> None:
        """See :meth:`Broker.publish_control_to`."""
        self._put(self._exchange.control.get(address), body)

    async def publish_status(self, body: bytes) -> None:
        """See :meth:`Broker.publish_status`."""
        self._check()
        check_size(body)
        for queue in self._exchange.status.values():
            queue.put(Message(body))

    async def consume_work(self, function: str, handler: Handler, *, prefetch: int) -> Consumer:
        """See :meth:`Broker.consume_work`."""
        self._check()
        self._exchange.open_function(function)
        return self._consume(self._exchange.work[function], handler, prefetch)

    async def consume_sync(self, function: str, handler: Handler, *, prefetch: int) -> Consumer:
        """See :meth:`Broker.consume_sync`."""
        self._check()
        self._exchange.open_function(function)
        return self._consume(self._exchange.sync[function], handler, prefetch)

    async def consume_events(self, handler: Handler, *, prefetch: int) -> Consumer:
        """See :meth:`Broker.consume_events`."""
        return self._consume(self._exchange.events, handler, prefetch)

    async def consume_deliveries(self, handler: Handler, *, prefetch: int) -> Consumer:
        """See :meth:`Broker.consume_deliveries`."""
        return self._consume(self._exchange.deliveries, handler, prefetch)

    async def consume_logs(self, handler: Handler, *, prefetch: int) -> Consumer:
        """See :meth:`Broker.consume_logs`."""
        return self._consume(self._exchange.logs, handler, prefetch)

    async def consume_dead_work(self, handler: Handler, *, prefetch: int) -> Consumer:
        """See :meth:`Broker.consume_dead_work`."""
        return self._consume(self._exchange.dead, handler, prefetch)

    async def consume_replies(self, handler: Handler) -> str:
        """See :meth:`Broker.consume_replies`."""
        return self._listen(self._exchange.replies, handler)

    async def consume_control(self, handler: Handler) -> str:
        """See :meth:`Broker.consume_control`."""
        return self._listen(self._exchange.control, handler)

    async def consume_status(self, handler: Handler) -> None:
        """See :meth:`Broker.consume_status`."""
        self._listen(self._exchange.status, handler)

    async def _set_up(self) -> None:
        self._starting = True
        try:
            for setup in self._setups:
                await setup()
        except BaseException:
            self._abandon()
            raise
        finally:
            self._starting = False
        self._connected = True

    def _abandon(self) -> None:
        held, self._held = self._held, []
        for item in held:
            item.abandon()

    def _check(self) -> None:
        # What a process consumes is set up before it counts as connected.
        if not (self._connected or self._starting):
            raise _unavailable()

    def _put(self, queue: Queue | None, body: bytes) -> None:
        self._check()
        check_size(body)
        if queue is not None:
            queue.put(Message(body))

    @staticmethod
    def _outcome(put: Callable[[T], None], message: T) -> BrokerError | None:
        try:
            put(message)
        except BrokerError as error:
            return error
        return None

    def _put_delivery(self, body: bytes) -> None:
        if not self._connected:
            raise _unavailable()
        check_size(body)
        self._exchange.deliveries.put(Message(body))

    def _put_work(self, message: Outgoing) -> None:
        if not self._connected:
            raise _unavailable()
        check_size(message.body)
        queue = self._exchange.work.get(message.function)
        if queue is None:
            raise UnroutableError(f"function {message.function!r} has no queues")
        queue.put(self._message(message.body, message.expires_in))

    def _message(self, body: bytes, expires_in: float | None) -> Message:
        return Message(body, expires_at=None if expires_in is None else self._loop.time() + expires_in)

    def _consume(self, queue: Queue, handler: Handler, prefetch: int) -> Consumption:
        self._check()
        consumption = queue.consume(handler, prefetch)
        self._held.append(consumption)
        return consumption

    def _listen(self, place: dict[str, Queue], handler: Handler) -> str:
        self._check()
        address = new_id()
        self._held.append(Listener(place, address, handler))
        return address


def _unavailable() -> BrokerUnavailableError:
    return BrokerUnavailableError("The embedded broker is not connected.")


def _log_retry(state: RetryCallState) -> None:
    _log.warning("broker_setup_failed", error=str(state.outcome and state.outcome.exception()))
