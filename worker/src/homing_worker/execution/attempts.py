"""The attempts of one dispatch: each waits for a slot, calls the function and is judged; backoffs are tenacity's."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_result

from homing.v1 import invocation_pb2 as api
from homing.v1.payload_pb2 import Header, Payload
from homing_core.clock import now_us
from homing_core.reasons import FailureReason
from homing_core.retry import FailedAttempt, RetryAdvice, RetryDecision, RetryPolicy, resolve_attempt_timeout
from homing_core.wire.v1 import AttemptRecord
from homing_worker.execution import attempt
from homing_worker.execution.attempt import AttemptFailure, FinishedAttempt
from homing_worker.execution.dispatch import Bounds, Dispatch, TooLateError
from homing_worker.execution.journal import Journal
from homing_worker.execution.pool import Pool
from homing_worker.execution.request import RequestHead
from homing_worker.execution.services import RunServices
from homing_worker.execution.slots import PoolClosedError, Slot
from homing_worker.reporting.logs import InvocationLog
from homing_worker.runtime import Answer, Body, CallFailedError, Request, StartFailedError
from homing_worker.runtime.answer_stream import AnswerStream
from homing_worker.runtime.headers import Headers
from homing_worker.runtime.spool import Spool, SpoolError, Spools

_log = structlog.get_logger(__name__)
_stdlib_log = logging.getLogger(__name__)
"""Tells for a fiftieth of the time whether a line would be written, which is asked in every run."""


_CATCH_UP_SECONDS: Final = 5.0
"""How long an invocation waits to hear of the function that it was accepted for, before another worker has its turn."""


class RequeueError(Exception):
    """The dispatch is not for this pool: it is to be passed on."""


class FunctionDeletedError(Exception):
    """The function was deleted before the next attempt could start."""

    @property
    def failure(self) -> api.Failure:
        """Why the invocation did not succeed."""
        return api.Failure(reason=FailureReason.FUNCTION_DELETED, message="the function was deleted")


class Attempts:
    """Makes the attempts of a dispatch on the instances of a pool, and notes them in a journal."""

    def __init__(  # noqa: PLR0917 its parts, each of a type of its own
        self,
        services: RunServices,
        pool: Pool,
        dispatch: Dispatch,
        bounds: Bounds,
        journal: Journal,
        log: InvocationLog | None,
        *,
        reader_gone: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare to make attempts.

        :param log: Where the lines go that the function writes; None drops them.
        :param reader_gone: Called where nobody takes the answer any more that is passed on as it comes; it is to cancel
            this.
        """
        self.records: list[AttemptRecord] = []
        """The attempts that are over."""
        self.result: api.Result | None = None
        """The last answer of the function."""
        self.begun = False
        """Whether an attempt was let start: from then on the dispatch is not requeued."""
        self.stopping = ""
        """Why, set before this is cancelled because the invocation is to be stopped: the attempt ends STOPPED then."""
        self._services = services
        self._pool = pool
        self._dispatch = dispatch
        self._bounds = bounds
        self._journal = journal
        self._log = log
        self._reader_gone = reader_gone
        self._head = RequestHead(dispatch)
        self._policy = pool.policy
        self._timeout = pool.attempt_timeout
        self._ordinal = 0

    async def make(self) -> FinishedAttempt:
        """Make attempts until one succeeds, none may follow, or the backoff is not to be waited for here.

        :returns: The last one.
        :raises FunctionDeletedError: The function is gone.
        :raises RequeueError: It belongs to a later function of the same name, of which this pool does not know, or is
            not for; or the worker stops.
        :raises TooLateError: No attempt may start any more.
        """
        try:
            if self._dispatch.function_revision > self._pool.function.revision:
                await self._catch_up()
            return await self._make()
        except PoolClosedError as error:
            self._check_deleted()
            raise RequeueError from error

    async def _catch_up(self) -> None:
        """Wait to hear of the function as it was when the invocation was accepted."""
        try:
            async with asyncio.timeout(_CATCH_UP_SECONDS):
                await self._pool.reach(self._dispatch.function_revision)
        except TimeoutError as error:
            self._services.gate.doubt()
            raise RequeueError from error

    def _check_deleted(self) -> None:
        """Check that the function is there that the invocation was accepted for.

        :raises FunctionDeletedError: It was deleted since, whatever was deployed later.
        """
        gone = self._pool.deleted_revision
        if gone and self._dispatch.function_revision <= gone:
            raise FunctionDeletedError

    async def _make(self) -> FinishedAttempt:
        first = await self._attempt()
        if not self._retries_here(first):
            # Most invocations end here, and are spared the machinery.
            return first
        made = [first]

        async def next_attempt() -> FinishedAttempt:
            return made.pop() if made else await self._attempt()

        last: FinishedAttempt = await AsyncRetrying(
            sleep=self._services.sleep,
            # Exceptions, a cancellation among them, are not retried: failures of functions come as results.
            retry=retry_if_result(self._retries_here),
            wait=_backoff,
            before_sleep=self._before_backoff,
        )(next_attempt)
        return last

    def _retries_here(self, finished: FinishedAttempt) -> bool:
        delay = finished.retry_delay
        return delay is not None and self._bounds.waits_here(delay)

    def _before_backoff(self, state: RetryCallState) -> None:
        if state.outcome is not None:
            self._journal.retrying(state.outcome.result().record)

    async def _attempt(self) -> FinishedAttempt:
        self._ordinal += 1
        record = AttemptRecord(
            token=self._dispatch.token, ordinal=self._ordinal, worker=self._services.worker, start_us=now_us()
        )
        try:
            slot = self._pool.take() or await self._wait_for_slot()
        except StartFailedError as error:
            await self._admit()
            record.function_revision = self._pool.function.revision
            return self._failed(record, AttemptFailure(reason=error.reason, message=error.message))
        try:
            if not self._services.gate.open:
                await self._services.gate.wait()
            await self._admit()
            self.begun = True
            record.instance = slot.instance.name
            record.function_revision = slot.instance.revision
            record.image_id = slot.instance.image_id
            record.start_us = now_us()
            await self._journal.started(record)
            return await self._call(record, slot)
        except asyncio.CancelledError:
            if self.stopping and record.instance:
                slot.retire = slot.exclusive
                attempt.stop(record, self.stopping, ended=await slot.abandon())
                self.records.append(record)
            raise
        finally:
            self._pool.release(slot)

    async def _wait_for_slot(self) -> Slot:
        if self._ordinal == 1 and self._pool.cold:
            self._journal.cold_start()
        try:
            async with asyncio.timeout(self._bounds.start_timeout(first=self._is_first)):
                return await self._pool.wait(sync=self._dispatch.sync)
        except TimeoutError as error:
            raise TooLateError from error

    @property
    def _is_first(self) -> bool:
        return not (self.begun or self.records)

    async def _admit(self) -> None:
        """Let the attempt start; the first one settles which settings hold: those of the function's revision now."""
        self._check_deleted()
        if self._ordinal == 1:
            spec, pool = self._dispatch.spec, self._pool
            self._policy, self._timeout = pool.policy, pool.attempt_timeout
            if spec.HasField("retry_policy"):
                self._policy = RetryPolicy.resolve(spec.retry_policy, pool.function.retry_policy)
            if spec.HasField("attempt_timeout"):
                self._timeout = resolve_attempt_timeout(spec.attempt_timeout, None)
        await self._journal.admit(first=self._is_first)

    async def _call(self, record: AttemptRecord, slot: Slot) -> FinishedAttempt:
        """Call the function, and judge what comes of it."""
        timeout = self._bounds.attempt_timeout(self._timeout)
        reporter = self._services.progress.begin(self._pool.host, self._journal.progress)
        scope = asyncio.timeout(timeout)
        stream = self._stream(scope) if self._dispatch.stream_url else None
        try:
            async with self._services.bodies.spools() as spools, scope:
                headers = self._head.headers(
                    attempt=self._dispatch.prior_attempts + self._ordinal + self._dispatch.token.redelivery_count,
                    deadline=time.time() + (timeout if stream is None else self._timeout),
                    progress_url=reporter.url if reporter is not None else "",
                )
                answer = await slot.instance.call(await self._request(headers, spools, stream), self._log)
                payload = await self._stored(answer)
        except SpoolError as error:
            failure = AttemptFailure(reason=FailureReason.RESULT_NOT_STORED, message=str(error))
        except CallFailedError as error:
            slot.suspect = error.suspect
            failure = AttemptFailure.of(error)
        except Exception as error:  # noqa: BLE001 whatever it is, it is the end of this attempt only
            if isinstance(error, TimeoutError) and scope.expired():
                # What serves one call at a time may still be busy with this one.
                slot.retire = slot.exclusive
                seconds = self._timeout if stream is not None and stream.opened else timeout
                message = f"there was no whole answer within {seconds:g} s"
                failure = AttemptFailure(reason=FailureReason.TIMEOUT, message=message, timed_out=True)
            else:
                _log.exception("attempt_crashed", invocation_id=self._dispatch.invocation_id)
                message = f"the worker failed: {type(error).__name__}"
                failure = AttemptFailure(reason=FailureReason.WORKER_ERROR, message=message, permanent=True)
        else:
            return self._answered(record, answer, payload)
        finally:
            if stream is not None:
                stream.close()
                if stream.opened:
                    self.result = stream.result
            if reporter is not None:
                self._services.progress.end(reporter)
            self._log_end()
        if stream is not None and stream.opened:
            # Whoever reads it has seen the beginning.
            failure = replace(failure, permanent=True)
        return self._failed(record, failure)

    def _log_end(self) -> None:
        if _stdlib_log.isEnabledFor(logging.DEBUG):
            spec, key = self._dispatch.spec, self._dispatch.invocation_id
            _log.debug("run_ended", function=spec.function, invocation_id=key, call_id=spec.call_id or key)

    def _stream(self, scope: asyncio.Timeout) -> AnswerStream:
        """Return where the answer of an attempt that begins now goes as it comes.

        :param scope: What bounds the attempt: once its answer is passed on its caller's deadline does so no more.
        """
        ends = asyncio.get_running_loop().time() + self._timeout
        return self._services.streams.stream(
            self._dispatch.stream_url,
            final=self._is_final,
            opened=lambda: scope.reschedule(ends),
            gone=self._reader_gone,
        )

    def _is_final(self, status_code: int, advice: RetryAdvice) -> bool:
        """Tell whether no other attempt follows an answer, whatever its body is."""
        failed = FailedAttempt(status_code=status_code, permanent=False, advice=advice)
        return 200 <= status_code < 300 or self._decide(failed).delay is None

    async def _request(self, headers: Headers, spools: Spools, stream: AnswerStream | None) -> Request:
        """Return the request to the function, with its body.

        :raises CallFailedError: Its body is stored apart and could not be read.
        """
        payload = self._dispatch.spec.payload
        body: Body = payload.data
        if payload.HasField("blob"):
            body = await self._services.bodies.fetch(self._dispatch.bodies.payload_url, payload.blob, spools)
        return Request(
            method=self._head.method,
            target=self._head.target,
            headers=headers,
            body=body,
            spools=spools,
            stream=stream,
        )

    async def _stored(self, answer: Answer) -> Payload:
        """Return the body of an answer as messages carry it, once a large one is stored.

        :raises CallFailedError: It could not be stored.
        """
        if not isinstance(answer.body, Spool):
            return Payload(content_type=answer.content_type, data=answer.body)
        blob = await self._services.bodies.store(self._dispatch.bodies.result_url, answer.body)
        return Payload(content_type=answer.content_type, blob=blob)

    def _answered(self, record: AttemptRecord, answer: Answer, payload: Payload) -> FinishedAttempt:
        headers = [Header(name=name, value=value) for name, value in answer.headers]
        self.result = api.Result(status_code=answer.status_code, headers=headers, payload=payload)
        if 200 <= answer.status_code < 300:
            self.records.append(record)
            return attempt.succeed(record, answer.status_code)
        reason, message = answer.failure or (
            FailureReason.HTTP_STATUS,
            f"the function answered with status {answer.status_code}",
        )
        failure = AttemptFailure(reason=reason, message=message, status_code=answer.status_code, advice=answer.advice)
        return self._failed(record, failure)

    def _failed(self, record: AttemptRecord, failure: AttemptFailure) -> FinishedAttempt:
        """Complete the record of a failed attempt and decide what follows."""
        decision = self._decide(failure.for_policy)
        self.records.append(record)
        self._services.metrics.failed_attempt(failure.reason)
        return attempt.fail(record, failure, decision, retryable=self._policy.is_retried(failure.for_policy))

    def _decide(self, failed: FailedAttempt) -> RetryDecision:
        return self._policy.decide(
            failed,
            attempts=self._dispatch.prior_attempts + self._ordinal,
            now=time.time(),
            rng=self._services.rng,
        )


def _backoff(state: RetryCallState) -> float:
    return (state.outcome.result().retry_delay or 0.0) if state.outcome is not None else 0.0
