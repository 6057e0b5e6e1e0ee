"""The functions that this worker serves: those whose kind of source it can run."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from typing import Any

import structlog
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from homing_core.broker import BrokerError
from homing_core.wire.v1 import CancelledCall, FunctionLoad, FunctionState, Tombstone
from homing_worker.execution.lane import Lane
from homing_worker.execution.services import RunServices
from homing_worker.runtime import Runtime

_log = structlog.get_logger(__name__)


class Lanes:
    """Keeps a lane for each function, as the catalog has it."""

    def __init__(self, runtimes: Mapping[str, Runtime], services: RunServices) -> None:
        """Prepare to serve functions.

        :param runtimes: By the kind of source that each can run.
        """
        self._runtimes = runtimes
        self._services = services
        self._lanes: dict[str, Lane] = {}
        self._retiring: set[Lane] = set()
        self._consuming = False
        self._tasks: set[asyncio.Task[None]] = set()

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._all())

    @property
    def loads(self) -> list[FunctionLoad]:
        """What this worker does for each function."""
        return [
            FunctionLoad(function=lane.name, in_flight=lane.in_flight, begun=lane.begun, instances=lane.pool.instances)
            for lane in self._lanes.values()
        ]

    def change(self, name: str, state: FunctionState | None, revision: int) -> None:
        """Take what the catalog says of a function: it is new or changed, or gone (None) up to this revision."""
        runtime = self._runtimes.get(state.function.WhichOneof("source") or "") if state is not None else None
        lane = self._lanes.get(name)
        if lane is not None and (runtime is None or runtime is not lane.runtime):
            # Gone, or another kind of function now.
            del self._lanes[name]
            self._retiring.add(lane)
            self._spawn(self._retire(lane, revision if state is None else state.deleted_revision))
            lane = None
        if state is None or runtime is None:
            return
        if lane is None:
            lane = self._lanes[name] = Lane(state, runtime, self._services)
        else:
            lane.update(state)
        if self._consuming:
            self._spawn(self._consume(lane))

    async def consume(self) -> None:
        """Consume for all functions from now on; those that are consumed already are left as they are.

        :raises BrokerError: Not all could be consumed.
        """
        self._consuming = True
        failed: BrokerError | None = None
        for lane in list(self._lanes.values()):
            try:
                await lane.consume()
            except BrokerError as error:
                # One function's trouble is not the others'.
                _log.warning("function_not_consumed", function=lane.name, error=str(error))
                failed = error
        if failed is not None:
            raise failed

    def stop(self, stops: Sequence[Tombstone]) -> set[str]:
        """Stop what this worker has of these; return the ids of what it has."""
        wanted = {stop.invocation_id: stop.generation for stop in stops}
        return set[str]().union(*(lane.stop(wanted) for lane in self._all())) if wanted else set()

    def cancel_calls(self, calls: Sequence[CancelledCall]) -> None:
        """Stop what this worker has of these synchronous calls, and remember not to start the others."""
        self._services.cancelled_calls.add(calls)
        for lane in self._all():
            lane.cancel_calls(calls)

    def on_connection_lost(self) -> None:
        """Give up what has not begun; the rest goes on."""
        self._consuming = False
        for lane in self._all():
            lane.on_connection_lost()

    async def drain(self) -> None:
        """Take no more, requeue what has not begun, and wait until the rest has ended."""
        self._consuming = False
        lanes = self._all()
        for lane in lanes:
            try:
                await lane.stop_consuming()
            except BrokerError as error:
                _log.info("consumer_not_cancelled", function=lane.name, error=str(error))
            lane.requeue_waiting()
        await asyncio.gather(*(lane.finish() for lane in lanes))

    async def close(self) -> None:
        """Cancel what runs and stop all instances."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(lane.close() for lane in self._all()))

    def _all(self) -> list[Lane]:
        return [*self._lanes.values(), *self._retiring]

    async def _retire(self, lane: Lane, deleted_revision: int) -> None:
        await lane.retire(deleted_revision)
        self._retiring.discard(lane)

    async def _consume(self, lane: Lane) -> None:
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(BrokerError), wait=wait_random_exponential(multiplier=0.5, max=10.0)
        ):
            with attempt:
                # Once a connection is lost and back all lanes are consumed.
                if self._consuming and lane in self._lanes.values():
                    await lane.consume()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
