"""A synchronous invocation in the hands of this worker: the caller waits for it, and holds its outcome."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from homing.v1 import invocation_pb2 as api
from homing_core.broker import Broker, BrokerError, Received
from homing_core.clock import now_us
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
from homing_worker.execution.attempts import GiveBackError, Run, Surroundings, Tried
from homing_worker.execution.pool import Pool, PoolClosedError, Slot
from homing_worker.metrics import state_name
from homing_worker.reporting.events import EventPublisher

_log = structlog.get_logger(__name__)

_NO_MORE: Final = RetryDecision(delay=None, reason=FinalReason.ATTEMPTS_USED_UP)


class _TooLateError(Exception):
    """The caller's deadline has passed, or the caller cannot be told."""


class SyncCall(Run):
    """Runs a synchronous request. Its message is acknowledged when it starts: it is never made twice."""

    sync = True

    def __init__(  # noqa: PLR0917 its parts, then the message
        self,
        surroundings: Surroundings,
        pool: Pool,
        broker: Broker,
        events: EventPublisher,
        received: Received,
        request: SyncRequest,
    ) -> None:
        super().__init__(
            surroundings,
            pool,
            invocation_id=request.invocation_id,
            spec=request.spec,
            token=Token(generation=1, redelivery_count=0),
            create_us=request.create_us,
            traceparent=request.traceparent,
            bodies=BodyAccess.FromString(request.bodies.SerializeToString()),
        )
        self._broker = broker
        self._events = events
        self._received = received
        self._request_message = request
        # The record of the call has no use for them.
        request.ClearField("bodies")
        self._deadline_us = request.deadline_us
        self._taken = False
        if not self._recorded:
            self._log = None

    async def run(self) -> None:
        """Run the request and answer its caller. The message is given back where this is cancelled before it began."""
        try:
            ended = await self._run()
        except asyncio.CancelledError:
            if not self._taken:
                self._received.requeue()
            raise
        except _TooLateError:
            if not self._taken:
                self._received.ack()
            self._surroundings.metrics.execution("sync", "TOO_LATE")
            return
        except GiveBackError:
            self._received.requeue()
            return
        except Exception:  # noqa: BLE001 whatever it is, the message must not stay in hand
            _log.exception("sync_call_broke", invocation_id=self.invocation_id)
            if not self._taken:
                self._received.ack()
            return
        if not self._taken:
            self._received.ack()
        await self._tell(ended)

    @property
    def _recorded(self) -> bool:
        """Whether there will be a record of the call."""
        function = self._pool.function
        return not function.HasField("record_sync") or function.record_sync

    async def _tell(self, ended: Ended) -> None:
        """Record the end, where that is wanted, and answer the caller."""
        self._surroundings.metrics.execution("sync", state_name(ended.state))
        if self._recorded:
            self._events.post(
                Event(
                    invocation_id=self.invocation_id,
                    token=self.token,
                    time_us=now_us(),
                    worker=self._surroundings.worker,
                    sync_ended=SyncEnded(request=self._request_message, ended=ended),
                )
            )
        try:
            await self._reply(ended=ended)
        except BrokerError as error:
            _log.warning("sync_reply_lost", invocation_id=self.invocation_id, error=str(error))

    async def _run(self) -> Ended:
        if now_us() >= self._deadline_us:
            raise _TooLateError
        try:
            tried = await self.attempts()
        except PoolClosedError as error:
            return Ended(state=api.INVOCATION_STATE_INVALID, attempts=self.records, failure=self.deleted(error))
        except _TooLateError:
            if not self.records:
                raise
            # The deadline passed before an attempt that was to follow: the last one that was made is the last.
            tried = Tried(record=self.records[-1], decision=_NO_MORE)
        state, failure = self.end(tried)
        return Ended(state=state, attempts=self.records, result=self.result, failure=failure)

    async def _wait_for_slot(self) -> Slot:
        try:
            async with asyncio.timeout(self._remaining()):
                return await self._pool.wait(sync=True)
        except TimeoutError as error:
            raise _TooLateError from error

    async def _admit(self) -> None:
        if now_us() >= self._deadline_us:
            raise _TooLateError
        if not self._taken:
            self._taken = True
            self._received.ack()
            try:
                await self._reply(started=SyncStarted(worker=self._surroundings.worker))
            except BrokerError as error:
                # The caller learns that the connection is lost too; nobody would get the outcome.
                raise _TooLateError from error

    async def _announce(self, record: AttemptRecord) -> None:
        """Report nothing: a synchronous invocation is recorded as a whole."""

    def _attempt_timeout(self) -> float:
        return min(self._timeout, self._remaining())

    def _waits_here(self, delay: float) -> bool:
        return now_us() + delay * 1e6 < self._deadline_us

    def _will_retry(self, record: AttemptRecord) -> None:
        """Report nothing: a synchronous invocation is recorded as a whole."""

    def _progressed(self, progress: api.Progress) -> None:
        """Report nothing: there is no record while a synchronous invocation runs."""

    def _remaining(self) -> float:
        return max(0.0, (self._deadline_us - now_us()) / 1e6)

    async def _reply(self, *, started: SyncStarted | None = None, ended: Ended | None = None) -> None:
        reply = SyncReply(invocation_id=self.invocation_id, started=started, ended=ended)
        await self._broker.publish_reply(self._request_message.reply_to, reply.SerializeToString())
