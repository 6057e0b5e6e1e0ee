"""What the brokers of one process share: its queues and addresses."""

from __future__ import annotations

from homing_core.broker.embedded.queue import Queue
from homing_core.broker.seam import Handler
from homing_core.limits import MAX_BROKER_LOGS

_DELIVERY_LIMIT = 100


class Exchange:
    """All queues and addresses. They live as long as the process: the store publishes again what was in them."""

    def __init__(self) -> None:
        """Make the queues; needs a running event loop."""
        self.dead = Queue("dead")
        self.events = Queue("events", single_active=True)
        self.deliveries = Queue("deliveries")
        self.logs = Queue("logs", single_active=True, max_bytes=MAX_BROKER_LOGS)
        self.work: dict[str, Queue] = {}
        self.sync: dict[str, Queue] = {}
        self.control: dict[str, Queue] = {}
        """Where each process hears control messages, by address."""
        self.status: dict[str, Queue] = {}
        """Where each server hears of workers, by address."""
        self.replies: dict[str, Queue] = {}
        """Where each server hears answers, by address."""

    def open_function(self, function: str) -> None:
        """Make the queues of a function where they do not exist."""
        if function not in self.work:
            self.work[function] = Queue(f"work {function}", dead_letters=self.dead, delivery_limit=_DELIVERY_LIMIT)
            self.sync[function] = Queue(f"sync {function}")

    def close_function(self, function: str) -> bool:
        """Remove a function's queues where they are unused; return whether they are gone."""
        if function not in self.work:
            return True
        if self.work[function].used or self.sync[function].used:
            return False
        self.work.pop(function).close()
        self.sync.pop(function).close()
        return True


class Listener:
    """A process's own queue, of which nothing is left when the process goes."""

    def __init__(self, place: dict[str, Queue], address: str, handler: Handler) -> None:
        self._place = place
        self._address = address
        queue = Queue(address)
        queue.consume(handler, prefetch=1_000_000)
        place[address] = queue

    def abandon(self) -> None:
        """End with the process."""
        self._place.pop(self._address, None)
