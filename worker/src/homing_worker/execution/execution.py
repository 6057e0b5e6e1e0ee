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
    Leased,
    Requeued,
    Token,
    WorkMessage,
)
from homing_worker.execution.attempts import GiveBackError, Run, Surroundings, Tried
from homing_worker.execution.pool import Pool, PoolClosedError, Slot
from homing_worker.metrics import state_name
from homing_worker.reporting.events import EventPublisher

_log = structlog.get_logger(__name__)


class _ExpiredError(Exception):
    """The invocation waited for its first start longer than it may."""


class _StoppedError(Exception):
    """The invocation was stopped before it could start."""


class Execution(Run):
    """Runs a work message. Whatever it reports last is confirmed before the message is acknowledged.

    The slot of the function is free again as soon as the function has answered; confirms are waited for after that.
    No message stays unacknowledged for long: an execution that runs is leased, one that waits is handed back.
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
            token=Token(generation=message.generation, redelivery_count=received.redelivery_count),
            create_us=message.create_us,
            traceparent=message.traceparent,
            bodies=message.bodies,
            prior_attempts=message.prior_attempts,
        )
        self.settled = False
        """Whether the message was acknowledged or given back."""
        self._events = events
        self._received = received
        self._overtaken = False
        self._requeued = False
        self._handing_back = False
        self._done = False
        self._start_by_us = message.start_by_us
        self._lost_starts = message.prior_lost_starts + received.redelivery_count
        # Not every hand-out was a start. Before the last one that might be, the store is asked how many there were.
        self._suspected = max(self._lost_starts, received.redelivery_count + 1) >= limits.POISON_STARTS
        self._task: asyncio.Task[None] | None = None

    def stop(self) -> None:
        """Heed that the invocation is to be stopped.

        Where its end is decided already, that one counts; what is handed back is stopped by the store.
        """
        if self._done or self.stopping or self._handing_back:
            return
        self.stopping = True
        if self._task is not None:
            self._task.cancel()

    @property
    def waits(self) -> bool:
        """Whether no attempt has begun, so that it can be given back by cancelling it."""
        return not (self.started or self.stopping or self._handing_back or self._done)

    @property
    def runs(self) -> bool:
        """Whether an attempt has begun and the end is not known yet."""
        return self.started and not self._done

    async def run(self) -> None:
        """Run the invocation, report how it went and let the message go.

        The message is given back where this is cancelled before an attempt has begun.
        """
        self._task = asyncio.current_task()
        try:
            last = await self._until_decided()
        except asyncio.CancelledError:
            if not self._handing_back:
                if not self.started:
                    self._let_go(requeue=True)
                raise
            self._surroundings.metrics.execution("async", "REQUEUED")
            last = self._event(requeued=Requeued(reason="WAITED", attempts=self.records))
        except GiveBackError:
            self._let_go(requeue=True)
            return
        except Exception:  # noqa: BLE001 whatever it is, the message must not stay in hand
            _log.exception("execution_broke", invocation_id=self.invocation_id)
            self.return_lease()
            self._let_go(requeue=True)
            return
        self._done = True
        await self._events.publish(last)
        self._let_go()

    def receive_again(self, received: Received) -> None:
        """Take the message that came again, after what it came by before was lost.

        Where it came to somebody else in between, this run may have been taken for lost, and nothing that is told of
        it counts: then the message is not let go but given back when this run has ended, whatever its end.
        """
        if received.redelivery_count > self._received.redelivery_count + 1:
            self._overtaken = True
            self.settled = False
        self._received = received
        if self.settled:
            self._settle()

    def lease(self, term_us: int) -> None:
        """Answer for the invocation for so long, from now on instead of the broker, once the store will know of it."""
        leased = self._events.publish(self._event(leased=Leased(term_us=term_us)))
        if not self.settled:
            leased.add_done_callback(lambda _: self._let_go())

    def return_lease(self) -> None:
        """Answer no more for an invocation that was leased and did not end: it is to be run again."""
        if self.settled and not (self._requeued or self._done):
            self._events.post(self._event(leased=Leased(term_us=0)))

    def hand_back(self) -> None:
        """Prepare to be cancelled while it waits: it then goes back to the store, and not to the broker's queue."""
        self._handing_back = True

    def _let_go(self, *, requeue: bool = False) -> None:
        """Acknowledge the message or give it back, unless that was done before."""
        if not self.settled:
            self.settled, self._requeued = True, requeue
            self._settle()

    def _settle(self) -> None:
        if self._requeued or self._overtaken:
            self._received.requeue()
        else:
            self._received.ack()

    async def _until_decided(self) -> Event:
        try:
            self._check_stopped()
            return await self._run()
        except _StoppedError:
            return self._stopped()
        except asyncio.CancelledError:
            if not self.stopping or self._task is None or self._task.uncancel():
                raise  # it is to be given back, or the worker leaves
            return self._stopped()

    async def _run(self) -> Event:
        if self._suspected:
            self._surroundings.metrics.execution("async", "REQUEUED")
            return self._event(requeued=Requeued(reason="REDELIVERED"))
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
        self._check_stopped()
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

    def _check_stopped(self) -> None:
        if self._surroundings.tombstones.covers(self.invocation_id, self.token.generation):
            raise _StoppedError

    def _stopped(self) -> Event:
        failure = api.Failure(reason=FailureReason.STOPPED, message="it was stopped by request")
        return self._over(api.INVOCATION_STATE_STOPPED, failure)

    def _progressed(self, progress: api.Progress) -> None:
        self._events.post(self._event(progress=progress))

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
        requeued: Requeued | None = None,
        ended: Ended | None = None,
        leased: Leased | None = None,
        progress: api.Progress | None = None,
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
            requeued=requeued,
            ended=ended,
            leased=leased,
            progress=progress,
        )
