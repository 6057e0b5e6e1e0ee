"""What the worker does for one function: consumes its work and its synchronous calls, and runs them on its pool."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog
from google.protobuf.message import DecodeError

from homing_core.broker import Broker, BrokerError, Consumer, Received
from homing_core.limits import MAX_BROKER_MESSAGES
from homing_core.wire.v1 import FunctionState, SyncRequest, WorkMessage
from homing_worker.execution.attempts import Run, Surroundings
from homing_worker.execution.execution import Execution
from homing_worker.execution.pool import Pool
from homing_worker.execution.sync_call import SyncCall
from homing_worker.reporting.events import EventPublisher
from homing_worker.runtime import Runtime

_log = structlog.get_logger(__name__)

RENEWALS: Final = 3
"""How often a lease is renewed in its term."""


@dataclass(slots=True, eq=False)
class Work:
    """An asynchronous invocation in the hand of this worker."""

    task: asyncio.Task[None]
    execution: Execution
    epoch: int
    """Counts the connections: the messages of earlier ones are not in hand any more."""
    since: float
    """When it came, in the loop's time."""
    leased_at: float = 0.0
    """When it was last leased, in the loop's time; 0 where it was not."""


class Lane:
    """Serves one function."""

    def __init__(
        self,
        state: FunctionState,
        runtime: Runtime,
        broker: Broker,
        events: EventPublisher,
        surroundings: Surroundings,
    ) -> None:
        self.name = state.function.name
        self.runtime = runtime
        self.pool = Pool(state.function, runtime, surroundings.secrets, secrets_version=state.secrets_version)
        self._broker = broker
        self._events = events
        self._surroundings = surroundings
        self._paused = state.function.paused
        self._consumers: list[Consumer] = []
        self._consumed_capacity = 0
        self._consuming = asyncio.Lock()
        self._epoch = 0
        self._runs: dict[asyncio.Task[None], Run] = {}
        self._work: dict[tuple[str, int], Work] = {}
        self._loop = asyncio.get_running_loop()

    @property
    def in_flight(self) -> int:
        """Work messages that are not acknowledged yet."""
        return sum(1 for work in self._work.values() if work.epoch == self._epoch and not work.execution.settled)

    @property
    def leased(self) -> int:
        """Executions that this worker answers for instead of the broker."""
        return sum(1 for work in self._work.values() if work.execution.settled)

    @property
    def busy(self) -> int:
        """Attempts that run."""
        return self.pool.busy

    @property
    def instances(self) -> int:
        """Running instances."""
        return self.pool.instances

    def update(self, state: FunctionState) -> None:
        """Take the function as it is now; what of it concerns consuming is heeded by :meth:`consume`."""
        self._paused = state.function.paused
        self.pool.update(state.function, secrets_version=state.secrets_version)

    async def consume(self) -> None:
        """Begin to consume, or consume anew where the connection or the capacity has changed.

        A paused function's queues are not consumed, and what has not begun is given back to them.

        :raises BrokerError: There is no connection.
        """
        async with self._consuming:
            if self._paused:
                await self._stop_consuming()
                # What came last begins first: a task that is cancelled before it has begun gives nothing back.
                await asyncio.sleep(0)
                self.give_back()
                return
            capacity = self.pool.capacity
            if len(self._consumers) == 2 and capacity == self._consumed_capacity:
                return
            await self._stop_consuming()
            self._consumed_capacity = capacity
            # Work beyond the capacity keeps instances busy while confirms are on their way.
            prefetch = min(2 * capacity + 2, MAX_BROKER_MESSAGES)
            self._consumers.append(
                await self._broker.consume_sync(self.name, self._on_sync, prefetch=min(capacity, MAX_BROKER_MESSAGES))
            )
            self._consumers.append(await self._broker.consume_work(self.name, self._on_work, prefetch=prefetch))
            self.pool.open()

    async def stop_consuming(self) -> None:
        """Ask for no more messages."""
        async with self._consuming:
            await self._stop_consuming()

    def lost(self) -> None:
        """Heed that the connection was lost: what has not begun is given up, since it comes again; the rest goes on."""
        self._consumers = []
        self._epoch += 1
        self.give_back()

    def give_back(self) -> None:
        """Give back what has not begun."""
        for task, run in self._runs.items():
            if run.waits:
                task.cancel()

    def relieve(self, now: float, *, after: float, term: float, renew: bool) -> None:
        """Take from the broker what has been in hand for long: what runs is leased, what waits is handed back.

        :param now: The loop's time.
        :param after: Seconds that a message may be in hand.
        :param term: Seconds that a lease lasts.
        :param renew: Whether leases are renewed now.
        """
        term_us = round(term * 1e6)
        for work in list(self._work.values()):
            execution = work.execution
            if work.leased_at:
                due = renew and execution.runs and now - work.leased_at >= term / RENEWALS
            else:
                due = work.epoch == self._epoch and now - work.since >= after
            if due and execution.runs:
                work.leased_at = now
                execution.lease(term_us)
            elif due and execution.waits:
                execution.hand_back()
                work.task.cancel()

    def stop(self, stops: Mapping[str, int]) -> set[str]:
        """Stop what is in hand of these invocations, up to their generations; return the ids of what is."""
        held = set()
        for (invocation_id, generation), work in self._work.items():
            if generation <= stops.get(invocation_id, 0):
                work.execution.stop()
                held.add(invocation_id)
        return held

    async def finish(self) -> None:
        """Wait until everything that runs has ended."""
        while self._runs:
            await asyncio.wait(self._runs)

    async def retire(self, deleted_us: int) -> None:
        """Heed that the function is gone: end what waits for it here, and finish what runs.

        What is left in its queues is for the servers to end.
        """
        self.pool.refuse(deleted_us)
        try:
            await self.stop_consuming()
        except BrokerError as error:
            _log.info("consumer_not_cancelled", function=self.name, error=str(error))
        await self.finish()
        await self.close()

    async def close(self) -> None:
        """Cancel what runs, stop all instances, and answer no more for what was leased."""
        left = list(self._work.values())
        for task in self._runs:
            task.cancel()
        await asyncio.gather(*self._runs, return_exceptions=True)
        await self.pool.close()
        for work in left:
            if work.task.cancelled():
                work.execution.return_lease()

    async def _stop_consuming(self) -> None:
        consumers, self._consumers = self._consumers, []
        for consumer in consumers:
            await consumer.cancel()

    def _on_work(self, received: Received) -> None:
        try:
            message = WorkMessage.FromString(received.body)
        except DecodeError:
            _log.error("unreadable_work", function=self.name, size=len(received.body))
            received.reject()
            return
        key = message.invocation_id, message.generation
        same = self._work.get(key)
        if same is not None:
            # The connection was lost while it was here: it is not run twice at a time.
            same.epoch = self._epoch
            same.execution.receive_again(received)
            return
        execution = Execution(self._surroundings, self.pool, self._events, received, message)
        task = self._begin(execution.run(), execution)
        self._work[key] = Work(task, execution, self._epoch, self._loop.time())
        task.add_done_callback(lambda _: self._work.pop(key))

    def _on_sync(self, received: Received) -> None:
        try:
            request = SyncRequest.FromString(received.body)
        except DecodeError:
            _log.error("unreadable_sync_call", function=self.name, size=len(received.body))
            received.reject()
            return
        call = SyncCall(self._surroundings, self.pool, self._broker, self._events, received, request)
        self._begin(call.run(), call)

    def _begin(self, work: Coroutine[Any, Any, None], run: Run) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._runs[task] = run
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        run = self._runs.pop(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("run_broke", invocation_id=run.invocation_id, exc_info=error)
