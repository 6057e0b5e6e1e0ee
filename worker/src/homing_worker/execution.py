"""An asynchronous invocation in the hands of this worker: from its work message to its confirmed end."""

from __future__ import annotations

import asyncio

import structlog

from homing.v1 import invocation_pb2 as api
from homing_core import limits
from homing_core.broker import Received
from homing_core.clock import now_us
from homing_core.reasons import FailureReason
from homing_core.wire.v1 import (
    AttemptRecord,
    Deferred,
    Dequeued,
    Ended,
    Event,
    HandedBack,
    Token,
    WorkMessage,
)
from homing_worker.events import EventPublisher
from homing_worker.metrics import state_name
from homing_worker.pool import Pool, PoolClosedError, Slot
from homing_worker.run import GiveBackError, Run, Surroundings, Tried

_log = structlog.get_logger(__name__)


class _ExpiredError(Exception):
    """The invocation waited for its first start longer than it may."""


class Execution(Run):
    """Runs a work message. Whatever it reports last is confirmed before the message is acknowledged.

    The slot of the function is free again as soon as the function has answered; confirms are waited for after that.
    """

    sync = False

    def __init__(
        self,
        surroundings: Surroundings,
        pool: Pool,
        events: EventPublisher,
        received: Received,
        message: WorkMessage,
    ) -> None:
        super().__init__(
            surroundings,
            pool,
            invocation_id=message.invocation_id,
            spec=message.spec,
            token=Token(generation=message.generation, delivery=received.delivery_count),
            create_us=message.create_us,
            traceparent=message.traceparent,
            bodies=message.bodies,
            prior_attempts=message.prior_attempts,
        )
        self._events = events
        self._received = received
        self._start_by_us = message.start_by_us
        self._lost_starts = message.prior_lost_starts + received.delivery_count
        # Not every hand-out was a start. Before the last one that might be, the store is asked how many there were.
        self._suspected = max(self._lost_starts, received.delivery_count + 1) >= limits.POISON_STARTS

    async def run(self) -> bool:
        """Run the invocation, report how it went and let the message go; tell whether it did.

        Otherwise the message was given back, as it is where this is cancelled before an attempt has begun.
        """
        try:
            last = await self._run()
        except asyncio.CancelledError:
            if not self.started:
                self._received.requeue()
            raise
        except GiveBackError:
            self._received.requeue()
            return False
        except Exception:  # noqa: BLE001 whatever it is, the message must not stay in hand
            _log.exception("execution_broke", invocation_id=self.invocation_id)
            self._received.requeue()
            return False
        await self._events.publish(last)
        self._received.ack()
        return True

    async def _run(self) -> Event:
        if self._suspected:
            self._surroundings.metrics.execution("async", "HANDED_BACK")
            return self._event(handed_back=HandedBack(reason="SUSPECTED_POISON"))
        try:
            tried = await self._attempts_with_care()
        except _ExpiredError:
            message = "the invocation waited for its first start longer than its max_age"
            return self._over(api.INVOCATION_STATE_EXPIRED, api.Failure(reason=FailureReason.EXPIRED, message=message))
        except PoolClosedError as error:
            return self._over(api.INVOCATION_STATE_INVALID, self.deleted(error))
        delay = tried.decision.delay if tried.decision is not None else None
        if delay is not None:
            self._surroundings.metrics.execution("async", "DEFERRED")
            due_us = tried.record.end_us + round(delay * 1e6)
            return self._event(deferred=Deferred(attempts=self.records, due_us=due_us, result=self.result))
        state, failure = self.end(tried)
        self._surroundings.metrics.execution("async", state_name(state))
        return self._event(ended=Ended(state=state, attempts=self.records, result=self.result, failure=failure))

    async def _attempts_with_care(self) -> Tried:
        """Make attempts; where the next lost start would be the last one, with no other invocation of that kind.

        An invocation that kills its worker takes down what runs beside it. Those that were unlucky twice go one at
        a time, so that their third start is lost only if they are the ones that kill.
        """
        if self._lost_starts < limits.POISON_STARTS - 1:
            return await self.attempts()
        async with self._surroundings.quarantine:
            return await self.attempts()

    async def _wait_for_slot(self) -> Slot:
        if self._ordinal == 1 and self._pool.cold:
            self._events.post(self._event(dequeued=Dequeued(cold_start=True)))
        if not self._start_by_us or self.started or self.records:
            return await self._pool.wait(sync=False)
        try:
            async with asyncio.timeout(max(0.0, (self._start_by_us - now_us()) / 1e6)):
                return await self._pool.wait(sync=False)
        except TimeoutError as error:
            raise _ExpiredError from error

    async def _admit(self) -> None:
        if self._start_by_us and not self.started and not self.records and now_us() > self._start_by_us:
            raise _ExpiredError

    async def _announce(self, record: AttemptRecord) -> None:
        event = self._event(running=record)
        if self._lost_starts:
            # It may have been started before: the store counts starts, so this one must be known before it is made.
            await self._events.publish(event)
        else:
            self._events.post(event)

    def _waits_here(self, delay: float) -> bool:
        return delay <= limits.SHORT_RETRY_DELAY

    def _will_retry(self, record: AttemptRecord) -> None:
        self._events.post(self._event(attempt_ended=record))

    def _over(self, state: api.InvocationState.ValueType, failure: api.Failure) -> Event:
        self._surroundings.metrics.execution("async", state_name(state))
        return self._event(ended=Ended(state=state, attempts=self.records, result=self.result, failure=failure))

    def _event(
        self,
        *,
        dequeued: Dequeued | None = None,
        running: AttemptRecord | None = None,
        attempt_ended: AttemptRecord | None = None,
        deferred: Deferred | None = None,
        handed_back: HandedBack | None = None,
        ended: Ended | None = None,
    ) -> Event:
        return Event(
            invocation_id=self.invocation_id,
            token=self.token,
            time_us=now_us(),
            worker=self._surroundings.worker,
            dequeued=dequeued,
            running=running,
            attempt_ended=attempt_ended,
            deferred=deferred,
            handed_back=handed_back,
            ended=ended,
        )
