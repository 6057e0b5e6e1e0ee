"""What a server's composition root does with its broker, for parts that a test puts together."""

from __future__ import annotations

from typing import Protocol

from homing_core.broker import Broker


class Consuming(Protocol):
    """A part that takes something from the broker."""

    async def consume(self) -> None:
        """Set up what it takes over a new connection."""

    def lost(self) -> None:
        """Forget what came over a lost one."""


def connect(broker: Broker, *parts: Consuming) -> None:
    """Have parts set up, in this order, over each connection."""
    for part in parts:
        broker.on_connected(part.consume)
        broker.on_lost(part.lost)
