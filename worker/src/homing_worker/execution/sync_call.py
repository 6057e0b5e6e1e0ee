"""A synchronous invocation at this worker: the caller waits for it, and holds its outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog

from homing.v1 import invocation_pb2 as api
from homing_core.broker import BrokerError, Received
from homing_core.clock import now_us
from homing_core.reasons import FailureReason
from homing_core.retry import FinalReason, RetryDecision
from homing_core.wire.v1 import (
    AttemptRecord,
    BodyAccess,
    Ended,
    Event,
    SyncEnded,
    SyncReply,
    SyncRequest,
    SyncStarted,
    Token,
)
from homing_worker.execution import features
from homing_worker.execution.attempt import BY_REQUEST, CALLER_GONE, FinishedAttempt
from homing_worker.execution.attempts import Attempts, FunctionDeletedError, RequeueError
from homing_worker.execution.dispatch import Bounds, Dispatch, TooLateError
from homing_worker.execution.pool import Pool
from homing_worker.execution.services import RunServices
from homing_worker.metrics import state_name

_log = structlog.get_logger(__name__)

_SHORT_US: Final = 500_000
"""A call that took less than so many microseconds has no record before its end."""
_NO_MORE: Final = RetryDecision(delay=None, reason=FinalReason.ATTEMPTS_USED_UP)


class CallerGoneError(Exception):
    """The caller went away before the call started: it never starts."""


class SyncCall:
    """Owns the message of a synchronous call, and acknowledges it when the call starts: it is never redelivered then.

    It is the journal of its own attempts, and reports nothing of them: the call is recorded as a whole at its end.
    """

    def __init__(self, services: RunServices, pool: Pool, received: Received, request: SyncRequest) -> None:
        self.invocation_id = request.invocation_id
        self._services = services
        self._pool = pool
        self._received = received
        self._request = request
        self._acked = False
        self._token = Token(generation=1, redelivery_count=0)
        dispatch = Dispatch(
            invocation_id=request.invocation_id,
            spec=request.spec,
            token=self._token,
            create_us=request.create_us,
            function_revision=request.function_revision,
            traceparent=request.traceparent,
            bodies=BodyAccess.FromString(request.bodies.SerializeToString()),
            sync=True,
            stream_url=request.stream_url,
        )
        # The record of the call has no use for them.
        request.ClearField("bodies")
        request.ClearField("stream_url")
        self._bounds = Bounds(deadline_us=request.deadline_us)
        log = None
        if self._recorded:
            spec = request.spec
            log = services.logs.open(request.invocation_id, function=spec.function, call_id=spec.call_id)
        self._attempts = Attempts(
            services, pool, dispatch, self._bounds, self, log, reader_gone=lambda: self.stop(CALLER_GONE)
        )
        self._decided = False
        self._task: asyncio.Task[None] | None = None

    @property
    def waits(self) -> bool:
        """Whether its message is requeued where it is cancelled: no attempt has begun, or is about to."""
        return not (self._attempts.begun or self._attempts.stopping or self._acked)

    async def run(self) -> None:
        """Run the request and answer its caller. The message is requeued where this is cancelled before it began."""
        self._task = asyncio.current_task()
        missing = features.unknown(self._request.requires)
        try:
            ended = await self._until_decided(missing)
        except asyncio.CancelledError:
            if not self._acked:
                self._received.requeue()
            raise
        except TooLateError:
            self._ack()
            self._services.metrics.execution("sync", "TOO_LATE")
            return
        except CallerGoneError:
            self._ack()
            self._services.metrics.execution("sync", "CALLER_GONE")
            return
        except RequeueError:
            self._received.requeue()
            return
        except Exception:  # noqa: BLE001 whatever it is, the message must not stay in flight
            _log.exception("sync_call_crashed", invocation_id=self.invocation_id)
            self._ack()
            return
        self._ack()
        if ended is not None:
            await self._report(ended)

    def stop(self, why: str) -> None:
        """Stop the call: what has not begun never starts. Where its end is decided already, that one counts.

        :param why: BY_REQUEST; or CALLER_GONE, and then nobody is told where it has not begun.
        """
        if self._decided or self._attempts.stopping:
            return
        self._attempts.stopping = why
        if self._task is not None:
            self._task.cancel()

    def cold_start(self) -> None:
        """Report nothing."""

    async def admit(self, *, first: bool) -> None:
        """Acknowledge the message before the first attempt, and let the caller know that the call has started.

        :raises TooLateError: The caller's deadline has passed, or the caller cannot be reached.
        """
        self._bounds.check_start(first=first)
        if self._acked:
            return
        self._ack()
        try:
            await self._reply(started=SyncStarted(worker=self._services.worker))
        except BrokerError as error:
            # The caller learns that the connection is lost too; nobody would get the outcome.
            raise TooLateError from error

    async def started(self, record: AttemptRecord) -> None:
        """Report nothing."""

    def retrying(self, record: AttemptRecord) -> None:
        """Report nothing."""

    def progress(self, progress: api.Progress) -> None:
        """Report nothing."""

    @property
    def _recorded(self) -> bool:
        """Whether there will be a record of the call."""
        function = self._pool.function
        return not function.HasField("record_sync") or function.record_sync

    def _ack(self) -> None:
        if not self._acked:
            self._acked = True
            self._received.ack()

    async def _until_decided(self, missing: Sequence[str]) -> Ended | None:
        """Run the request until its end is decided, and return it; None where it was passed on.

        :raises TooLateError: The caller's deadline has passed.
        :raises CallerGoneError: The caller went away before it began.
        """
        try:
            if self._services.cancelled_calls.get(self.invocation_id) is not None:
                raise CallerGoneError
            if self._services.tombstones.covers(self.invocation_id, self._token.generation):
                return self._stopped(BY_REQUEST)
            if missing:
                await self._pass_on(missing)
                return None
            return await self._run()
        except asyncio.CancelledError:
            if not self._attempts.stopping or self._task is None or self._task.uncancel():
                raise  # it is to be requeued, or the worker leaves
            if self._attempts.stopping == CALLER_GONE and not self._acked:
                raise CallerGoneError from None
            return self._stopped(self._attempts.stopping)
        finally:
            self._decided = True

    async def _pass_on(self, missing: Sequence[str]) -> None:
        """Send the request to the end of the queue, after a pause: at its head it would keep others from being taken.

        It is acknowledged before, since it must not run twice. Where it is lost in between it never starts.

        :raises TooLateError: The caller's deadline has passed.
        """
        _log.warning("work_not_supported", invocation_id=self.invocation_id, missing=missing)
        await self._services.sleep(features.SYNC_RETURN_DELAY_SECONDS)
        self._bounds.check_start(first=True)
        self._ack()
        self._services.metrics.execution("sync", "REQUEUED")
        try:
            await self._services.broker.publish_sync(
                self._request.spec.function,
                self._received.body,
                expires_in=self._bounds.start_timeout(first=True) or 0.0,
            )
        except BrokerError as error:
            _log.warning("sync_call_lost", invocation_id=self.invocation_id, error=str(error))

    async def _run(self) -> Ended:
        self._bounds.check_start(first=True)
        attempts = self._attempts
        try:
            last = await attempts.make()
        except FunctionDeletedError as error:
            return self._ended(api.INVOCATION_STATE_INVALID, error.failure)
        except (TooLateError, RequeueError):
            if not attempts.records:
                raise
            # The deadline passed, or the function became another, before an attempt that was to follow: the last one
            # that was made is the last.
            last = FinishedAttempt(record=attempts.records[-1], decision=_NO_MORE)
        return self._ended(*last.end)

    def _stopped(self, why: str) -> Ended:
        return self._ended(api.INVOCATION_STATE_STOPPED, api.Failure(reason=FailureReason.STOPPED, message=why))

    def _ended(self, state: api.InvocationState.ValueType, failure: api.Failure | None) -> Ended:
        attempts = self._attempts
        return Ended(state=state, attempts=attempts.records, result=attempts.result, failure=failure)

    async def _report(self, ended: Ended) -> None:
        """Record the end, where that is wanted, and answer the caller."""
        self._services.metrics.execution("sync", state_name(ended.state))
        confirmed = None
        # What never started leaves no record: its caller's server may know of a later function, and ask again.
        if self._recorded and (ended.attempts or ended.state != api.INVOCATION_STATE_INVALID):
            now = now_us()
            event = Event(
                invocation_id=self.invocation_id,
                token=self._token,
                time_us=now,
                worker=self._services.worker,
                sync_ended=SyncEnded(request=self._request, ended=ended),
            )
            if now - self._request.create_us < _SHORT_US:
                self._services.events.post(event)
            else:
                confirmed = self._services.events.publish(event)
        try:
            await self._reply(ended=ended)
        except BrokerError as error:
            _log.warning("sync_reply_lost", invocation_id=self.invocation_id, error=str(error))
        if confirmed is not None:
            # It may have a record by now, and be asked to stop: that counts once no worker holds it.
            await confirmed

    async def _reply(self, *, started: SyncStarted | None = None, ended: Ended | None = None) -> None:
        reply = SyncReply(invocation_id=self.invocation_id, started=started, ended=ended)
        await self._services.broker.publish_reply(self._request.reply_to, reply.SerializeToString())
