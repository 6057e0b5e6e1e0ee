"""One function at this worker: its queues consumed, with a prefetch, and its invocations in flight run on its pool."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog
from google.protobuf.message import DecodeError

from homing_core.broker import BrokerError, Consumer, Received
from homing_core.limits import MAX_BROKER_MESSAGES
from homing_core.wire.v1 import CancelledCall, FunctionState, SyncRequest, WorkMessage
from homing_worker.execution.attempt import BY_REQUEST, CALLER_GONE
from homing_worker.execution.execution import Execution
from homing_worker.execution.pool import Pool
from homing_worker.execution.services import RunServices
from homing_worker.execution.sync_call import SyncCall
from homing_worker.runtime import Runtime

_log = structlog.get_logger(__name__)

RENEWALS: Final = 3
"""How often a lease is renewed in its term."""

Run = Execution | SyncCall


@dataclass(slots=True, eq=False)
class InFlight:
    """An asynchronous invocation that this worker has: its message is not acknowledged, or it is leased."""

    task: asyncio.Task[None]
    execution: Execution
    epoch: int
    """Of which connection its message is: those of earlier connections are in flight no more."""
    since: float
    """When it was delivered, in the loop's time."""
    leased_at: float = 0.0
    """When it was last leased, in the loop's time; 0 where it was not."""


class Lane:
    """Serves one function."""

    def __init__(
        self,
        state: FunctionState,
        runtime: Runtime,
        services: RunServices,
    ) -> None:
        self.name = state.function.name
        self.runtime = runtime
        self.pool = Pool(
            state.function,
            runtime,
            services.secrets,
            secrets_version=state.secrets_version,
            deleted_revision=state.deleted_revision,
        )
        self._services = services
        self._paused = state.function.paused
        self._consumers: list[Consumer] = []
        self._consumed_capacity = 0
        self._consuming = asyncio.Lock()
        self._epoch = 0
        self._runs: dict[asyncio.Task[None], Run] = {}
        self._in_flight: dict[tuple[str, int], InFlight] = {}
        """By invocation and generation."""
        self._calls: dict[str, SyncCall] = {}
        """The synchronous calls, by invocation."""
        self._loop = asyncio.get_running_loop()

    @property
    def in_flight(self) -> int:
        """Work messages that were delivered and are not acknowledged yet."""
        return sum(1 for _ in self._unacknowledged())

    @property
    def begun(self) -> int:
        """Those in flight of which an attempt has begun."""
        return sum(1 for execution in self._unacknowledged() if execution.runs)

    @property
    def leased(self) -> int:
        """Executions that this worker answers for instead of the broker."""
        return sum(1 for held in self._in_flight.values() if held.execution.settled)

    @property
    def busy(self) -> int:
        """Attempts that run."""
        return self.pool.busy

    @property
    def instances(self) -> int:
        """Running instances."""
        return self.pool.instances

    def update(self, state: FunctionState) -> None:
        """Take the function as it is now; what of it concerns consuming is applied by :meth:`consume`."""
        self._paused = state.function.paused
        self.pool.update(state.function, secrets_version=state.secrets_version, deleted_revision=state.deleted_revision)

    async def consume(self) -> None:
        """Begin to consume, or consume anew where the connection or the capacity has changed.

        A paused function's queues are not consumed, and what has not begun is requeued.

        :raises BrokerError: There is no connection.
        """
        async with self._consuming:
            if self._paused:
                await self._stop_consuming()
                # What came last begins first: a task that is cancelled before it has begun requeues nothing.
                await asyncio.sleep(0)
                self.requeue_waiting()
                return
            capacity = self.pool.capacity
            if len(self._consumers) == 2 and capacity == self._consumed_capacity:
                return
            await self._stop_consuming()
            self._consumed_capacity = capacity
            # A prefetch beyond the capacity keeps instances busy while confirms are awaited.
            prefetch = min(2 * capacity + 2, MAX_BROKER_MESSAGES)
            self._consumers.append(
                await self._services.broker.consume_sync(
                    self.name, self._on_sync, prefetch=min(capacity, MAX_BROKER_MESSAGES)
                )
            )
            self._consumers.append(
                await self._services.broker.consume_work(self.name, self._on_work, prefetch=prefetch)
            )
            self.pool.warm_up()

    def _unacknowledged(self) -> Iterator[Execution]:
        for held in self._in_flight.values():
            if held.epoch == self._epoch and not held.execution.settled:
                yield held.execution

    async def stop_consuming(self) -> None:
        """Ask for no more messages."""
        async with self._consuming:
            await self._stop_consuming()

    def on_connection_lost(self) -> None:
        """Give up what has not begun, since it is redelivered; the rest goes on."""
        self._consumers = []
        self._epoch += 1
        self.requeue_waiting()

    def requeue_waiting(self) -> None:
        """Requeue what has not begun."""
        for task, run in self._runs.items():
            if run.waits:
                task.cancel()

    def renew_leases_and_hand_back(self, now: float, *, after: float, term: float, renew: bool) -> None:
        """Take from the broker what has been in flight for long: what runs is leased, what waits is handed back.

        :param now: The loop's time.
        :param after: Seconds that a message may be in flight.
        :param term: Seconds that a lease lasts.
        :param renew: Whether leases are renewed now.
        """
        term_us = round(term * 1e6)
        for held in list(self._in_flight.values()):
            execution = held.execution
            if held.leased_at:
                due = renew and execution.runs and now - held.leased_at >= term / RENEWALS
            else:
                due = held.epoch == self._epoch and now - held.since >= after
            if due and execution.runs:
                held.leased_at = now
                execution.lease(term_us)
            elif due and execution.waits:
                execution.hand_back()
                held.task.cancel()

    def stop(self, stops: Mapping[str, int]) -> set[str]:
        """Stop what this worker has of these invocations, up to their generations; return the ids of what it has."""
        found = set()
        for (invocation_id, generation), held in self._in_flight.items():
            if generation <= stops.get(invocation_id, 0):
                held.execution.stop()
                found.add(invocation_id)
        for invocation_id in stops.keys() & self._calls.keys():
            self._calls[invocation_id].stop(BY_REQUEST)
            found.add(invocation_id)
        return found

    def cancel_calls(self, calls: Iterable[CancelledCall]) -> None:
        """Stop what this worker has of these synchronous calls, whose callers went away."""
        for cancelled in calls:
            call = self._calls.get(cancelled.invocation_id)
            if call is not None:
                call.stop(CALLER_GONE)

    async def finish(self) -> None:
        """Wait until everything that runs has ended."""
        while self._runs:
            await asyncio.wait(self._runs)

    async def retire(self, deleted_revision: int) -> None:
        """Wind up, since the function is gone, or another kind now: let go what waits here, and finish what runs.

        What lost its function ends. What else is in its queues, and what is requeued, is for others.

        :param deleted_revision: Up to which revision it is gone.
        """
        self.pool.refuse(deleted_revision)
        try:
            await self.stop_consuming()
        except BrokerError as error:
            _log.info("consumer_not_cancelled", function=self.name, error=str(error))
        await self.finish()
        await self.close()

    async def close(self) -> None:
        """Cancel what runs, stop all instances, and return the leases."""
        left = list(self._in_flight.values())
        for task in self._runs:
            task.cancel()
        await asyncio.gather(*self._runs, return_exceptions=True)
        await self.pool.close()
        for held in left:
            if held.task.cancelled():
                held.execution.return_lease()

    async def _stop_consuming(self) -> None:
        consumers, self._consumers = self._consumers, []
        for consumer in consumers:
            await consumer.cancel()

    def _on_work(self, received: Received) -> None:
        try:
            message = WorkMessage.FromString(received.body)
        except DecodeError:
            _log.error("work_message_unreadable", function=self.name, size=len(received.body))
            received.reject()
            return
        key = message.invocation_id, message.generation
        same = self._in_flight.get(key)
        if same is not None:
            # A redelivery, after the connection was lost while it was here: it is not run twice at a time.
            same.epoch = self._epoch
            same.execution.redelivered(received)
            return
        execution = Execution(self._services, self.pool, received, message)
        task = self._begin(execution.run(), execution)
        self._in_flight[key] = InFlight(task, execution, self._epoch, self._loop.time())
        task.add_done_callback(lambda _: self._in_flight.pop(key))

    def _on_sync(self, received: Received) -> None:
        try:
            request = SyncRequest.FromString(received.body)
        except DecodeError:
            _log.error("sync_call_unreadable", function=self.name, size=len(received.body))
            received.reject()
            return
        call = self._calls[request.invocation_id] = SyncCall(self._services, self.pool, received, request)
        self._begin(call.run(), call).add_done_callback(lambda _: self._forget(call))

    def _forget(self, call: SyncCall) -> None:
        # One that was passed on may have come back here before its first run was over.
        if self._calls.get(call.invocation_id) is call:
            del self._calls[call.invocation_id]

    def _begin(self, work: Coroutine[Any, Any, None], run: Run) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._runs[task] = run
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        run = self._runs.pop(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("run_crashed", invocation_id=run.invocation_id, exc_info=error)
