"""An asynchronous invocation at this worker: its work message in flight, from the delivery to the confirmed end."""

from __future__ import annotations

import asyncio

import structlog

from homing.v1 import invocation_pb2 as api
from homing_core.broker import Received
from homing_core.reasons import FailureReason, RequeueReason
from homing_core.wire.v1 import Deferred, Ended, Event, Leased, Requeued, Token, WorkMessage
from homing_worker.execution import features
from homing_worker.execution.attempt import BY_REQUEST, FinishedAttempt
from homing_worker.execution.attempts import Attempts, FunctionDeletedError, RequeueError
from homing_worker.execution.dispatch import Bounds, Dispatch, TooLateError
from homing_worker.execution.journal import EventJournal, StoppedError
from homing_worker.execution.poison import PoisonRisk
from homing_worker.execution.pool import Pool
from homing_worker.execution.services import RunServices
from homing_worker.metrics import state_name

_log = structlog.get_logger(__name__)


class Execution:
    """Owns a work message until it is settled. Whatever it reports last is confirmed before it acknowledges.

    The slot of the function is free again as soon as the function has answered; confirms are waited for after that.
    No message stays in flight for long: an execution that runs is leased, one that waits is handed back.
    """

    def __init__(self, services: RunServices, pool: Pool, received: Received, message: WorkMessage) -> None:
        self.invocation_id = message.invocation_id
        self.settled = False
        """Whether the message was acknowledged or requeued."""
        self._services = services
        self._received = received
        self._missing = features.unknown(message.requires)
        self._risk = PoisonRisk(prior_lost_starts=message.prior_lost_starts, redelivery_count=received.redelivery_count)
        dispatch = Dispatch(
            invocation_id=message.invocation_id,
            spec=message.spec,
            token=Token(generation=message.generation, redelivery_count=received.redelivery_count),
            create_us=message.create_us,
            function_revision=message.function_revision,
            traceparent=message.traceparent,
            bodies=message.bodies,
            prior_attempts=message.prior_attempts,
        )
        bounds = Bounds(start_by_us=message.start_by_us)
        self._journal = EventJournal(services, dispatch, bounds, confirm_starts=self._risk.redelivered)
        log = services.logs.open(message.invocation_id, function=message.spec.function, call_id=message.spec.call_id)
        self._attempts = Attempts(services, pool, dispatch, bounds, self._journal, log)
        self._overtaken = False
        self._requeued = False
        self._handing_back = False
        self._done = False
        self._task: asyncio.Task[None] | None = None

    @property
    def waits(self) -> bool:
        """Whether no attempt has begun, so that its message is requeued where it is cancelled."""
        return not (self._attempts.begun or self._attempts.stopping or self._handing_back or self._done)

    @property
    def runs(self) -> bool:
        """Whether an attempt has begun and the end is not known yet."""
        return self._attempts.begun and not self._done

    async def run(self) -> None:
        """Run the invocation, report how it went and acknowledge the message.

        The message is requeued where this is cancelled before an attempt has begun.
        """
        self._task = asyncio.current_task()
        try:
            last = await self._until_decided()
        except asyncio.CancelledError:
            if not self._handing_back:
                if not self._attempts.begun:
                    self._settle(requeue=True)
                raise
            self._services.metrics.execution("async", "REQUEUED")
            last = self._journal.event(requeued=Requeued(reason=RequeueReason.WAITED, attempts=self._attempts.records))
        except RequeueError:
            if not self._attempts.records:
                self._settle(requeue=True)
                return
            self._services.metrics.execution("async", "REQUEUED")
            last = self._journal.event(
                requeued=Requeued(reason=RequeueReason.REPLACED, attempts=self._attempts.records)
            )
        except Exception:  # noqa: BLE001 whatever it is, the message must not stay in flight
            _log.exception("execution_crashed", invocation_id=self.invocation_id)
            self.return_lease()
            self._settle(requeue=True)
            return
        self._done = True
        await self._journal.publish(last)
        self._settle()

    def stop(self) -> None:
        """Stop the invocation.

        Where its end is decided already, that one counts; what is handed back is stopped by the store.
        """
        if self._done or self._attempts.stopping or self._handing_back:
            return
        self._attempts.stopping = BY_REQUEST
        if self._task is not None:
            self._task.cancel()

    def redelivered(self, received: Received) -> None:
        """Take the redelivery of the message, after the connection was lost that it came by before.

        Where it was delivered to somebody else in between, this run may count as lost, and nothing that it
        reports counts: then the message is not acknowledged but requeued when this run has ended, whatever its end.
        """
        if received.redelivery_count > self._received.redelivery_count + 1:
            self._overtaken = True
            self.settled = False
        self._received = received
        if self.settled:
            self._answer()

    def lease(self, term_us: int) -> None:
        """Lease the invocation for so long: this worker answers for it, instead of the broker, once the store knows."""
        leased = self._journal.publish(self._journal.event(leased=Leased(term_us=term_us)))
        if not self.settled:
            leased.add_done_callback(lambda _: self._settle())

    def return_lease(self) -> None:
        """End the lease of an invocation that did not end: it is to be run again."""
        if self.settled and not (self._requeued or self._done):
            self._journal.post(self._journal.event(leased=Leased(term_us=0)))

    def hand_back(self) -> None:
        """Prepare to be cancelled while it waits: it then goes back to the store, and not to the broker's queue."""
        self._handing_back = True

    def _settle(self, *, requeue: bool = False) -> None:
        """Acknowledge the message or requeue it, unless that was done before."""
        if not self.settled:
            self.settled, self._requeued = True, requeue
            self._answer()

    def _answer(self) -> None:
        if self._requeued or self._overtaken:
            self._received.requeue()
        else:
            self._received.ack()

    async def _until_decided(self) -> Event:
        """Run the invocation until it is decided how it is reported; stops are decided here."""
        try:
            self._journal.check_stopped()
            return await (self._give_back() if self._missing else self._run())
        except StoppedError:
            return self._stopped()
        except asyncio.CancelledError:
            if not self._attempts.stopping or self._task is None or self._task.uncancel():
                raise  # it is to be requeued or handed back, or the worker leaves
            return self._stopped()

    async def _give_back(self) -> Event:
        """Give the invocation back to the store after a pause.

        It goes by an event, and not to its queue: there each round would count towards the broker's delivery limit.
        """
        _log.warning("work_not_supported", invocation_id=self.invocation_id, missing=self._missing)
        await self._services.sleep(features.RETURN_DELAY_SECONDS)
        self._services.metrics.execution("async", "REQUEUED")
        return self._journal.event(requeued=Requeued(reason=RequeueReason.UNSUPPORTED))

    async def _run(self) -> Event:
        if self._risk.suspected:
            self._services.metrics.execution("async", "REQUEUED")
            return self._journal.event(requeued=Requeued(reason=RequeueReason.REDELIVERED))
        try:
            last = await self._make_attempts()
        except TooLateError:
            message = "the invocation waited for its first start longer than its max_age"
            failure = api.Failure(reason=FailureReason.EXPIRED, message=message)
            return self._ended(api.INVOCATION_STATE_EXPIRED, failure)
        except FunctionDeletedError as error:
            return self._ended(api.INVOCATION_STATE_INVALID, error.failure)
        if last.retry_delay is None:
            return self._ended(*last.end)
        self._services.metrics.execution("async", "DEFERRED")
        due_us = last.record.end_us + round(last.retry_delay * 1e6)
        deferred = Deferred(attempts=self._attempts.records, due_us=due_us, result=self._attempts.result)
        return self._journal.event(deferred=deferred)

    async def _make_attempts(self) -> FinishedAttempt:
        if not self._risk.quarantined:
            return await self._attempts.make()
        async with self._services.quarantine:
            return await self._attempts.make()

    def _stopped(self) -> Event:
        failure = api.Failure(reason=FailureReason.STOPPED, message=BY_REQUEST)
        return self._ended(api.INVOCATION_STATE_STOPPED, failure)

    def _ended(self, state: api.InvocationState.ValueType, failure: api.Failure | None) -> Event:
        self._services.metrics.execution("async", state_name(state))
        attempts = self._attempts
        return self._journal.event(
            ended=Ended(state=state, attempts=attempts.records, result=attempts.result, failure=failure)
        )
