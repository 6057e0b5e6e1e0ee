"""One hand-over of an invocation, run to its end: its attempts, driven by tenacity, with their records."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import Final
from urllib.parse import quote

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_result

from homing.v1 import invocation_pb2 as api
from homing.v1.payload_pb2 import Header, Payload
from homing_core.clock import now_us
from homing_core.reasons import FailureReason
from homing_core.retry import DelayReason, FailedAttempt, RetryDecision, RetryPolicy, resolve_attempt_timeout
from homing_core.wire.v1 import AttemptRecord, BodyAccess, Token
from homing_worker import __version__
from homing_worker.control.gate import Gate
from homing_worker.control.secrets import SecretLink
from homing_worker.control.tombstones import Tombstones
from homing_worker.execution.pool import Pool, PoolClosedError, Slot
from homing_worker.metrics import Metrics
from homing_worker.reporting.logs import InvocationLog, LogPublisher
from homing_worker.reporting.progress import HEADER as PROGRESS_HEADER
from homing_worker.reporting.progress import Report, Reports
from homing_worker.runtime import Answer, Body, CallFailedError, Request, StartFailedError
from homing_worker.runtime.bodies import Bodies
from homing_worker.runtime.headers import joined
from homing_worker.runtime.spool import Spool, SpoolError, Spools

_log = structlog.get_logger(__name__)

USER_AGENT: Final = f"homing-worker/{__version__}"

_SAFE_IN_PATH: Final = "/:@!$&'()*+,;=~%"
_SAFE_IN_QUERY: Final = _SAFE_IN_PATH + "?"
_MAX_MESSAGE: Final = 4000


@dataclass(frozen=True, kw_only=True, slots=True)
class Surroundings:
    """What all runs of a worker share."""

    worker: str
    gate: Gate
    logs: LogPublisher
    bodies: Bodies
    tombstones: Tombstones
    reports: Reports
    secrets: SecretLink
    metrics: Metrics
    rng: Random
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    quarantine: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by an invocation that is poison if its worker is lost once more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tried:
    """How an attempt went."""

    record: AttemptRecord
    decision: RetryDecision | None
    """What follows a failed attempt; None after a success."""


class GiveBackError(Exception):
    """The invocation is not for this pool: its message is to be given back."""


class Run(ABC):
    """One hand-over of an invocation, from the message to the outcome."""

    sync: bool

    def __init__(
        self,
        surroundings: Surroundings,
        pool: Pool,
        *,
        invocation_id: str,
        spec: api.InvocationSpec,
        token: Token,
        create_us: int,
        traceparent: str,
        bodies: BodyAccess,
        prior_attempts: int = 0,
    ) -> None:
        self.invocation_id = invocation_id
        self.token = token
        self.records: list[AttemptRecord] = []
        self.result: api.Result | None = None
        self.started = False
        """Whether an attempt of it has begun: from then on it is not given back."""
        self.stopping = False
        """Whether it was told to stop, and cancelled for that reason."""
        self._surroundings = surroundings
        self._pool = pool
        self._spec = spec
        self._create_us = create_us
        self._traceparent = traceparent
        self._access = bodies
        self._prior_attempts = prior_attempts
        self._ordinal = 0
        self._policy = pool.policy
        self._timeout = pool.attempt_timeout
        self._headers: dict[str, str] | None = None
        self._log: InvocationLog | None = surroundings.logs.open(invocation_id)

    @property
    def waits(self) -> bool:
        """Whether no attempt has begun, so that it can be given back by cancelling it."""
        return not self.started

    async def attempts(self) -> Tried:
        """Make attempts until one succeeds, none may follow, or the next one is not to be waited for here."""
        tried = await self._attempt()
        if not self._goes_on(tried):
            # Most invocations end here, and are spared the machinery.
            return tried
        made = [tried]

        async def attempt() -> Tried:
            return made.pop() if made else await self._attempt()

        last: Tried = await AsyncRetrying(
            sleep=self._surroundings.sleep,
            # Exceptions, a cancellation among them, are not retried: failures of functions come as results.
            retry=retry_if_result(self._goes_on),
            wait=_delay,
            before_sleep=self._before_sleep,
        )(attempt)
        return last

    def end(self, tried: Tried) -> tuple[api.InvocationState.ValueType, api.Failure | None]:
        """Return the state that the invocation ends in after its last attempt, and why."""
        record = tried.record
        if tried.decision is None:
            return api.INVOCATION_STATE_SUCCEEDED, None
        if record.outcome == api.ATTEMPT_OUTCOME_TIMED_OUT:
            return api.INVOCATION_STATE_TIMED_OUT, record.failure
        return api.INVOCATION_STATE_FAILED, record.failure

    def deleted(self, error: PoolClosedError) -> api.Failure:
        """Return the failure of an invocation whose function was deleted before it started.

        :raises GiveBackError: It is younger than the deletion: it belongs to a later function of the same name, or
            the worker stops.
        """
        if self._create_us > error.since_us and not self.records:
            raise GiveBackError from error
        return api.Failure(reason=FailureReason.FUNCTION_DELETED, message="the function was deleted")

    @abstractmethod
    async def _wait_for_slot(self) -> Slot:
        """Wait until the function has room."""

    @abstractmethod
    async def _admit(self) -> None:
        """Check that an attempt may start, and do what goes before the first. Raises where it may not."""

    @abstractmethod
    async def _announce(self, record: AttemptRecord) -> None:
        """Report that an attempt starts."""

    @abstractmethod
    def _waits_here(self, delay: float) -> bool:
        """Tell whether the next attempt, so many seconds from now, is waited for at this worker."""

    @abstractmethod
    def _will_retry(self, record: AttemptRecord) -> None:
        """Report that an attempt failed and another one follows here."""

    @abstractmethod
    def _progressed(self, progress: api.Progress) -> None:
        """Report how far the function says it is."""

    def _attempt_timeout(self) -> float:
        """Return how many seconds the attempt that starts now may run."""
        return self._timeout

    def _goes_on(self, tried: Tried) -> bool:
        delay = _delay_of(tried)
        return delay is not None and self._waits_here(delay)

    def _before_sleep(self, state: RetryCallState) -> None:
        if state.outcome is not None:
            self._will_retry(state.outcome.result().record)

    async def _attempt(self) -> Tried:
        self._ordinal += 1
        record = AttemptRecord(
            token=self.token, ordinal=self._ordinal, worker=self._surroundings.worker, start_us=now_us()
        )
        try:
            slot = self._pool.take() or await self._wait_for_slot()
        except StartFailedError as error:
            self._resolve()
            await self._admit()
            record.function_revision = self._pool.function.revision
            return self._failed(record, error.reason, error.message)
        retire = suspect = False
        report: Report | None = None
        try:
            if not self._surroundings.gate.open:
                await self._surroundings.gate.wait()
            self._resolve()
            await self._admit()
            self.started = True
            record.instance = slot.instance.name
            record.function_revision = slot.instance.revision
            record.start_us = now_us()
            await self._announce(record)
            timeout = self._attempt_timeout()
            report = self._surroundings.reports.begin(self._pool.host, self._progressed)
            try:
                async with self._surroundings.bodies.spools() as spools, asyncio.timeout(timeout) as scope:
                    request = await self._request(time.time() + timeout, spools, report)
                    answer = await slot.instance.call(request, self._log)
                    payload = await self._kept(answer)
            except SpoolError as error:
                return self._failed(record, FailureReason.RESULT_NOT_STORED, str(error))
            except CallFailedError as error:
                suspect = error.suspect
                return self._failed(
                    record, error.reason, error.message, status_code=error.status_code, permanent=error.permanent
                )
            except Exception as error:  # noqa: BLE001 whatever it is, it is the end of this attempt only
                if isinstance(error, TimeoutError) and scope.expired():
                    # What serves one call at a time may still be busy with this one.
                    retire = slot.member.concurrency == 1
                    return self._timed_out(record, timeout)
                _log.exception("attempt_broke", invocation_id=self.invocation_id)
                return self._failed(
                    record, FailureReason.WORKER_ERROR, f"the worker failed: {type(error).__name__}", permanent=True
                )
            return self._answered(record, answer, payload)
        except asyncio.CancelledError:
            if self.stopping and record.instance:
                retire = slot.member.concurrency == 1
                self._stop_attempt(record, over=await slot.abandon())
            raise
        finally:
            if report is not None:
                self._surroundings.reports.end(report)
            self._pool.release(slot, retire=retire, suspect=suspect)

    def _resolve(self) -> None:
        """Settle, at the first attempt, by which settings the invocation runs: those of the function's revision now."""
        if self._ordinal > 1:
            return
        spec, pool = self._spec, self._pool
        self._policy = (
            RetryPolicy.resolve(spec.retry_policy, pool.function.retry_policy)
            if spec.HasField("retry_policy")
            else pool.policy
        )
        self._timeout = (
            resolve_attempt_timeout(spec.attempt_timeout, None)
            if spec.HasField("attempt_timeout")
            else pool.attempt_timeout
        )

    async def _request(self, deadline: float, spools: Spools, report: Report | None) -> Request:
        """Return the request to the function.

        :raises CallFailedError: Its body is stored apart and could not be read.
        """
        if self._headers is None:
            self._headers = self._common_headers()
        headers = {
            **self._headers,
            "X-Homing-Attempt": str(self._prior_attempts + self._ordinal + self.token.redelivery_count),
            "X-Homing-Deadline": datetime.fromtimestamp(deadline, UTC)
            .isoformat(timespec="milliseconds")
            .replace("+00:00", "Z"),
        }
        if report is not None:
            headers[PROGRESS_HEADER] = report.url
        http = self._spec.http
        target = quote(http.path, safe=_SAFE_IN_PATH) if http.path else "/"
        if http.query:
            target += "?" + quote(http.query, safe=_SAFE_IN_QUERY)
        payload = self._spec.payload
        body: Body = payload.data
        if payload.HasField("blob"):
            body = await self._surroundings.bodies.fetch(self._access.payload_url, payload.blob, spools)
        return Request(method=http.method or "POST", target=target, headers=headers, body=body, spools=spools)

    async def _kept(self, answer: Answer) -> Payload:
        """Return the body of an answer as messages carry it, once a large one is stored.

        :raises CallFailedError: It could not be stored.
        """
        if not isinstance(answer.body, Spool):
            return Payload(content_type=answer.content_type, data=answer.body)
        blob = await self._surroundings.bodies.store(self._access.result_url, answer.body)
        return Payload(content_type=answer.content_type, blob=blob)

    def _common_headers(self) -> dict[str, str]:
        own = {
            "Content-Type": self._spec.payload.content_type or "application/octet-stream",
            "User-Agent": USER_AGENT,
            "X-Call-Id": self.invocation_id,
            "X-Start-Time": str(self._create_us * 1000),
        }
        if self._traceparent:
            own["traceparent"] = self._traceparent
        if not self._spec.http.headers:
            return own
        taken = {name.lower() for name in own}
        return {
            **{name: value for name, value in joined(self._spec.http.headers).items() if name.lower() not in taken},
            **own,
        }

    def _answered(self, record: AttemptRecord, answer: Answer, payload: Payload) -> Tried:
        headers = [Header(name=name, value=value) for name, value in answer.headers.items()]
        self.result = api.Result(status_code=answer.status_code, headers=headers, payload=payload)
        if 200 <= answer.status_code < 300:
            record.end_us = now_us()
            record.outcome = api.ATTEMPT_OUTCOME_SUCCEEDED
            record.status_code = answer.status_code
            self.records.append(record)
            return Tried(record=record, decision=None)
        reason, message = answer.failure or (
            FailureReason.HTTP_STATUS,
            f"the function answered with status {answer.status_code}",
        )
        return self._failed(record, reason, message, status_code=answer.status_code, headers=answer.headers)

    def _stop_attempt(self, record: AttemptRecord, *, over: bool) -> None:
        """Complete the record of an attempt that was stopped.

        :param over: Whether the function surely does not go on with it.
        """
        record.end_us = now_us()
        record.outcome = api.ATTEMPT_OUTCOME_STOPPED
        record.failure.reason = FailureReason.STOPPED
        record.failure.message = (
            "it was stopped by request"
            if over
            else "it was stopped by request: its call was abandoned, and the function may go on with it"
        )
        self.records.append(record)

    def _timed_out(self, record: AttemptRecord, timeout: float) -> Tried:
        tried = self._failed(record, FailureReason.TIMEOUT, f"there was no whole answer within {timeout:g} s")
        record.outcome = api.ATTEMPT_OUTCOME_TIMED_OUT
        return tried

    def _failed(
        self,
        record: AttemptRecord,
        reason: FailureReason,
        message: str,
        *,
        status_code: int = 0,
        permanent: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> Tried:
        """Complete the record of a failed attempt and decide what follows."""
        failed = FailedAttempt(status_code=status_code, permanent=permanent, headers=headers or {})
        decision = self._policy.decide(
            failed,
            attempts=self._prior_attempts + self._ordinal,
            now=time.time(),
            rng=self._surroundings.rng,
        )
        record.end_us = now_us()
        record.outcome = api.ATTEMPT_OUTCOME_FAILED
        record.status_code = status_code
        record.failure.reason = reason
        record.failure.message = message[:_MAX_MESSAGE]
        record.failure.retryable = self._policy.is_retried(failed)
        if decision.delay is not None:
            record.next_delay_us = round(decision.delay * 1e6)
            record.delay_reason = DelayReason(decision.reason)
        self.records.append(record)
        self._surroundings.metrics.failed_attempt(reason)
        return Tried(record=record, decision=decision)


def _delay_of(tried: Tried) -> float | None:
    return tried.decision.delay if tried.decision is not None else None


def _delay(state: RetryCallState) -> float:
    return (_delay_of(state.outcome.result()) or 0.0) if state.outcome is not None else 0.0
