"""The exchanges and queues that homing uses in RabbitMQ, and how they are declared.

A queue's arguments cannot be changed once it exists, so a change of them needs a new version in its name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import uuid4

from homing_core.broker.rabbitmq.channel import Channel, ChannelClosedError
from homing_core.broker.seam import BrokerError, ForeignBrokerError
from homing_core.limits import MAX_BROKER_LOGS

WORK_DELIVERY_LIMIT: Final = 100
"""Redeliveries. Each crash of a worker counts for every message it had in flight, so the limit is far above what makes
a message poison."""

CONTROL_EXCHANGE: Final = "homing.control.v1"
STATUS_EXCHANGE: Final = "homing.status.v1"
DEAD_EXCHANGE: Final = "homing.dead.v1"
STORE_EXCHANGE: Final = "homing.store.v1"
"""Nothing is published to it: it tells, by its arguments, which store the virtual host belongs to."""
DEAD_QUEUE: Final = "homing.dead.v1"
EVENTS_QUEUE: Final = "homing.events.v1"
DELIVERIES_QUEUE: Final = "homing.deliveries.v1"
LOGS_QUEUE: Final = "homing.logs.v1"

CLASSIC: Final[Mapping[str, Any]] = {"x-queue-type": "classic"}
"""Said outright, because a virtual host may have another default."""

_PRECONDITION_FAILED: Final = 406
_CURRENT_OWNER: Final = re.compile(r"current is '([^']*)'")
_DECLARATION_REFUSED: Final = frozenset({403, 405, 406})
_NO_LIMIT_NEEDED_BEFORE: Final = (4, 0)


class TopologyError(BrokerError):
    """RabbitMQ has a queue or exchange of homing's with other properties, or does not let homing make it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class QueueSpec:
    """A queue as it is to be declared."""

    name: str
    exclusive: bool = False
    """Whether the queue belongs to one connection and goes with it; else it is durable."""
    arguments: Mapping[str, Any] = field(default_factory=lambda: CLASSIC)
    exchange: str | None = None
    """The fanout exchange that the queue is bound to."""

    async def declare(self, channel: Channel) -> None:
        """Make the queue where it does not exist.

        :raises TopologyError: It exists with other arguments, or may not be made.
        """
        with _explained(f"queue {self.name!r}"):
            await channel.declare_queue(
                self.name, durable=not self.exclusive, exclusive=self.exclusive, arguments=self.arguments
            )
            if self.exchange is not None:
                await channel.declare_exchange(self.exchange, kind="fanout")
                await channel.bind(self.name, self.exchange)


class Topology:
    """What is declared, by the version of the broker."""

    def __init__(self, version: tuple[int, int]) -> None:
        # From 4.0 on a quorum queue that says nothing has a limit of 20; before, -1 is not understood.
        self._no_limit: dict[str, Any] = {} if version < _NO_LIMIT_NEEDED_BEFORE else {"x-delivery-limit": -1}

    @classmethod
    def of(cls, server_properties: Mapping[str, Any] | None) -> Topology:
        """Read the broker's version from what it said of itself when the connection was made."""
        version = (server_properties or {}).get("version", "0.0")
        if isinstance(version, bytes):
            version = version.decode()
        major, minor, *_ = version.split(".")
        return cls((int(major), int(minor)))

    @staticmethod
    def work(function: str) -> QueueSpec:
        """The work queue of a function."""
        return QueueSpec(
            name=work_queue(function),
            arguments={
                "x-queue-type": "quorum",
                "x-delivery-limit": WORK_DELIVERY_LIMIT,
                "x-dead-letter-exchange": DEAD_EXCHANGE,
                # A dead letter is a message that the store still counts, so it must not be lost in transit;
                # RabbitMQ grants that only to queues that refuse rather than drop.
                "x-dead-letter-strategy": "at-least-once",
                "x-overflow": "reject-publish",
            },
        )

    @staticmethod
    def sync(function: str) -> QueueSpec:
        """The sync lane of a function."""
        return QueueSpec(name=sync_queue(function))

    def dead(self) -> QueueSpec:
        """The queue of dead letters."""
        return QueueSpec(
            name=DEAD_QUEUE, arguments={"x-queue-type": "quorum", **self._no_limit}, exchange=DEAD_EXCHANGE
        )

    def events(self) -> QueueSpec:
        """The queue of the recorder."""
        return QueueSpec(
            name=EVENTS_QUEUE,
            arguments={"x-queue-type": "quorum", "x-single-active-consumer": True, **self._no_limit},
        )

    def deliveries(self) -> QueueSpec:
        """The queue of callbacks and destinations."""
        return QueueSpec(name=DELIVERIES_QUEUE, arguments={"x-queue-type": "quorum", **self._no_limit})

    @staticmethod
    def logs() -> QueueSpec:
        """The queue of log lines, which may be lost: bounded, and never in the way of what may not."""
        return QueueSpec(
            name=LOGS_QUEUE,
            arguments={
                **CLASSIC,
                "x-single-active-consumer": True,
                "x-max-length-bytes": MAX_BROKER_LOGS,
                "x-overflow": "drop-head",
            },
        )

    @staticmethod
    def replies() -> QueueSpec:
        """A queue for the answers to one process, new at each call."""
        return QueueSpec(name=f"homing.replies.v1.{uuid4().hex}", exclusive=True)

    @staticmethod
    def control() -> QueueSpec:
        """A queue for the control messages to one process, new at each call."""
        return QueueSpec(name=f"homing.control.v1.{uuid4().hex}", exclusive=True, exchange=CONTROL_EXCHANGE)

    @staticmethod
    def status() -> QueueSpec:
        """A queue for the heartbeats of workers, of one process, new at each call."""
        return QueueSpec(name=f"homing.status.v1.{uuid4().hex}", exclusive=True, exchange=STATUS_EXCHANGE)

    @staticmethod
    async def claim(channel: Channel, store: str) -> None:
        """Make a store the owner of the virtual host, where it has none.

        RabbitMQ compares: it refuses to declare an exchange with other arguments than it has, of several who try at a
        time lets one, and says what they are.

        :raises ForeignBrokerError: It belongs to another store.
        :raises TopologyError: The exchange may not be made.
        """
        # The argument alone of which RabbitMQ heeds any value: where messages go that find no queue. There are none.
        owner = {"alternate-exchange": f"{STORE_EXCHANGE}.{store}"}
        try:
            await channel.declare_exchange(STORE_EXCHANGE, kind="fanout", arguments=owner, internal=True)
        except ChannelClosedError as error:
            current = _CURRENT_OWNER.search(error.text)
            if error.code == _PRECONDITION_FAILED and current is not None:
                other = current[1].removeprefix(f"{STORE_EXCHANGE}.")
                raise ForeignBrokerError(
                    f"this virtual host of RabbitMQ belongs to another store, {other}, and this server's is {store}:"
                    " name another one in HOMING_BROKER_URL, or, where this store takes the other's place, start once"
                    " with HOMING_TAKE_OVER_BROKER=true; see docs/upgrading.md"
                ) from None
            with _explained(f"exchange {STORE_EXCHANGE!r}"):
                raise

    async def declare(self, channel: Channel) -> None:
        """Make everything that is shared by all functions and processes, where it does not exist.

        :raises TopologyError: Something of it exists with other properties, or may not be made.
        """
        for exchange in (CONTROL_EXCHANGE, STATUS_EXCHANGE, DEAD_EXCHANGE):
            with _explained(f"exchange {exchange!r}"):
                await channel.declare_exchange(exchange, kind="fanout")
        for queue in (self.dead(), self.events(), self.deliveries(), self.logs()):
            await queue.declare(channel)


def work_queue(function: str) -> str:
    """Return the name of a function's work queue."""
    return f"homing.work.v1.{function}"


def sync_queue(function: str) -> str:
    """Return the name of a function's sync lane."""
    return f"homing.sync.v1.{function}"


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Say what could not be declared, and what to do about it."""
    try:
        yield
    except ChannelClosedError as error:
        if error.code not in _DECLARATION_REFUSED:
            raise
        raise TopologyError(
            f"RabbitMQ refuses the {what} that homing needs ({error.code} {error.text}). "
            "Where it exists with other properties, empty and delete it, and it will be made anew."
        ) from error
