"""The receivers of deliveries, each with a bulkhead and a circuit breaker: one that hangs holds up nobody else."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import Final

from homing_worker.deliveries.circuit_breaker import MAX_OPEN_SECONDS, BreakerOpenError, BreakerState, CircuitBreaker

MAX_IN_FLIGHT_PER_RECEIVER: Final = 4
"""So many attempts are made at one receiver at a time."""
MAX_IN_FLIGHT: Final = 256
"""So many attempts are made at all receivers together."""
_MAX_REMEMBERED: Final = 10_000
"""So many receivers are remembered that nothing goes to now."""


@dataclass(slots=True, eq=False)
class Permit:
    """The right to make one attempt, which says at its end whether there was an answer."""

    answered: bool | None = None
    """None where the receiver was not even asked."""


class Receiver:
    """Who gets deliveries: so many attempts at a time, the others in the order in which they came."""

    def __init__(self, breaker: CircuitBreaker) -> None:
        self.breaker = breaker
        self._in_flight = 0
        self._waiting: deque[_Waiter] = deque()

    @property
    def busy(self) -> bool:
        """Whether attempts are made at it, or wait to be."""
        return bool(self._in_flight or self._waiting)

    async def acquire(self, *, insist: bool) -> None:
        """Wait until one more attempt may be made.

        :param insist: Whether to make it although the breaker is open.
        :raises BreakerOpenError: The breaker is open, or opens while this waits.
        """
        if not insist and self.breaker.rejects_attempts(in_flight=self._in_flight):
            raise BreakerOpenError(self.breaker.retry_at)
        if self._in_flight < MAX_IN_FLIGHT_PER_RECEIVER and not self._waiting:
            self._in_flight += 1
            return
        waiter = _Waiter(insist=insist)
        self._waiting.append(waiter)
        try:
            await waiter.admitted
        except asyncio.CancelledError:
            if waiter.admitted.done() and not waiter.admitted.cancelled() and waiter.admitted.exception() is None:
                self._admit_next()
            raise

    def release(self, permit: Permit) -> None:
        """End an attempt."""
        if permit.answered:
            self.breaker.answered()
        elif permit.answered is False and self.breaker.not_answered():
            self._reject_waiting()
        self._admit_next()

    def _admit_next(self) -> None:
        self._in_flight -= 1
        while self._waiting and self._in_flight < MAX_IN_FLIGHT_PER_RECEIVER:
            waiter = self._waiting.popleft()
            if not waiter.admitted.done():
                self._in_flight += 1
                waiter.admitted.set_result(None)

    def _reject_waiting(self) -> None:
        waiting, self._waiting = self._waiting, deque()
        for waiter in waiting:
            if waiter.insist:
                self._waiting.append(waiter)
            elif not waiter.admitted.done():
                waiter.admitted.set_exception(BreakerOpenError(self.breaker.retry_at))


class _Waiter:
    """An attempt that waits to be made."""

    def __init__(self, *, insist: bool) -> None:
        self.insist = insist
        self.admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Receivers:
    """All receivers that there is anything to remember of."""

    def __init__(
        self, rng: Random, *, max_open: float = MAX_OPEN_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Prepare to permit attempts.

        :param max_open: For how many seconds a circuit breaker stays open at the most.
        """
        self.clock = clock
        self._rng = rng
        self._max_open = max_open
        self._all = asyncio.Semaphore(MAX_IN_FLIGHT)
        self._receivers: dict[str, Receiver] = {}

    @property
    def open_breakers(self) -> int:
        """How many circuit breakers are not closed."""
        return sum(receiver.breaker.state is not BreakerState.CLOSED for receiver in self._receivers.values())

    @asynccontextmanager
    async def permit(self, name: str, *, insist: bool) -> AsyncIterator[Permit]:
        """Wait until an attempt at a receiver may be made.

        :param insist: Whether to make it although the circuit breaker is open.
        :raises BreakerOpenError: The circuit breaker is open.
        """
        receiver = self._receivers.get(name)
        if receiver is None:
            self._forget()
            breaker = CircuitBreaker(self.clock, self._rng, max_open=self._max_open)
            receiver = self._receivers[name] = Receiver(breaker)
        permit = Permit()
        try:
            await receiver.acquire(insist=insist)
            try:
                async with self._all:
                    yield permit
            finally:
                receiver.release(permit)
        finally:
            if not receiver.busy and receiver.breaker.is_new:
                self._receivers.pop(name, None)

    def _forget(self) -> None:
        """Forget who was silent once, where those are very many: who still is opens a new circuit breaker."""
        if len(self._receivers) >= _MAX_REMEMBERED:
            self._receivers = {name: receiver for name, receiver in self._receivers.items() if receiver.busy}
