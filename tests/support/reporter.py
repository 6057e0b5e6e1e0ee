"""What a worker reports of an invocation."""

from __future__ import annotations

from typing import Final

from homing.v1 import invocation_pb2 as api
from homing_core.lifecycle import State
from homing_core.wire.v1 import (
    AttemptRecord,
    Deferred,
    DeliveryAttemptRecord,
    DeliveryReport,
    Dequeued,
    Ended,
    Event,
    Leased,
    Requeued,
)
from homing_core.wire.v1 import Token as WireToken

NOW: Final = 1_700_000_000_000_000
"""When reporters begin, in microseconds since the epoch."""


class Reporter:
    """A worker with one dispatch in flight: makes the events that a worker makes of it, each a millisecond later."""

    def __init__(
        self,
        generation: int,
        redelivery_count: int = 0,
        *,
        invocation_id: str = "i",
        worker: str = "w1",
        time_us: int = NOW,
    ) -> None:
        self.token = WireToken(generation=generation, redelivery_count=redelivery_count)
        self.worker = worker
        self.invocation_id = invocation_id
        self.attempts: list[AttemptRecord] = []
        self._time_us = time_us

    def dequeued(self, *, cold_start: bool = False) -> Event:
        return self._event(dequeued=Dequeued(cold_start=cold_start))

    def running(self) -> Event:
        start_us = self._tick()
        attempt = AttemptRecord(
            token=self.token, ordinal=len(self.attempts) + 1, worker=self.worker, start_us=start_us, instance="i1"
        )
        self.attempts.append(attempt)
        return self._event(running=attempt)

    def attempt_ended(self, status_code: int = 503) -> Event:
        return self._event(attempt_ended=self._close(api.ATTEMPT_OUTCOME_FAILED, status_code))

    def deferred(self, *, due_us: int, status_code: int = 503) -> Event:
        self._close(api.ATTEMPT_OUTCOME_FAILED, status_code)
        result = api.Result(status_code=status_code)
        return self._event(deferred=Deferred(attempts=self.attempts, due_us=due_us, result=result))

    def progressed(self, percent: float, text: str = "") -> Event:
        progress = api.Progress(percent=percent, text=text)
        progress.time.FromMicroseconds(self._tick())
        return self._event(progress=progress)

    def leased(self, term_us: int = 60_000_000) -> Event:
        return self._event(leased=Leased(term_us=term_us))

    def progress(self, text: str = "on its way") -> Event:
        progress = api.Progress(text=text)
        progress.time.FromMicroseconds(self._tick())
        return self._event(progress=progress)

    def requeued(self, reason: str = "DRAINING") -> Event:
        return self._event(requeued=Requeued(reason=reason, attempts=self.attempts))

    def ended(self, state: State) -> Event:
        match state:
            case State.SUCCEEDED:
                self._close(api.ATTEMPT_OUTCOME_SUCCEEDED, 200)
                return self._ended(state, result=api.Result(status_code=200))
            case State.FAILED:
                self._close(api.ATTEMPT_OUTCOME_FAILED, 500)
                return self._ended(state, result=api.Result(status_code=500), failure=api.Failure(reason="HTTP_STATUS"))
            case State.TIMED_OUT:
                self._close(api.ATTEMPT_OUTCOME_TIMED_OUT, 0)
                return self._ended(state, failure=api.Failure(reason="TIMEOUT"))
            case State.STOPPED if self.attempts and not self.attempts[-1].end_us:
                self._close(api.ATTEMPT_OUTCOME_STOPPED, 0)
                return self._ended(state, failure=api.Failure(reason="STOPPED"))
            case _:
                return self._ended(state, failure=api.Failure(reason=state.name))

    def _ended(self, state: State, *, result: api.Result | None = None, failure: api.Failure | None = None) -> Event:
        end = Ended(state=api.InvocationState.ValueType(state), attempts=self.attempts, result=result, failure=failure)
        return self._event(ended=end)

    def _close(self, outcome: api.AttemptOutcome.ValueType, status_code: int) -> AttemptRecord:
        """End the running attempt, or make one that failed before it could run, as a cold start does."""
        if not self.attempts or self.attempts[-1].end_us:
            self.running()
        attempt = AttemptRecord()
        attempt.CopyFrom(self.attempts[-1])
        attempt.end_us, attempt.outcome, attempt.status_code = self._tick(), outcome, status_code
        self.attempts[-1] = attempt
        return attempt

    def _tick(self) -> int:
        self._time_us += 1000
        return self._time_us

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
            time_us=self._tick(),
            worker=self.worker,
            dequeued=dequeued,
            running=running,
            attempt_ended=attempt_ended,
            deferred=deferred,
            requeued=requeued,
            ended=ended,
            leased=leased,
            progress=progress,
        )


class DeliveryReporter:
    """A worker with one dispatch of a delivery in flight: makes the reports that a worker makes of it."""

    def __init__(self, generation: int, redelivery_count: int = 0, *, worker: str = "w1", time_us: int = NOW) -> None:
        self.token = WireToken(generation=generation, redelivery_count=redelivery_count)
        self.worker = worker
        self.attempts: list[DeliveryAttemptRecord] = []
        self._time_us = time_us

    def fail(self) -> None:
        """Make an attempt in vain, and say nothing of it yet."""
        failure = api.Failure(reason="HTTP_STATUS")
        self.attempts.append(DeliveryAttemptRecord(start_us=self._tick(), status_code=503, failure=failure))

    def delivering(self) -> Event:
        return self._report(api.DELIVERY_STATE_DELIVERING)

    def pending(self, *, due_us: int) -> Event:
        return self._report(api.DELIVERY_STATE_PENDING, due_us=due_us)

    def delivered(self) -> Event:
        self.attempts.append(DeliveryAttemptRecord(start_us=self._tick(), status_code=204))
        return self._report(api.DELIVERY_STATE_DELIVERED)

    def dead(self) -> Event:
        return self._report(api.DELIVERY_STATE_DEAD)

    def _report(self, state: api.DeliveryState.ValueType, *, due_us: int = 0) -> Event:
        report = DeliveryReport(state=state, attempts=self.attempts, due_us=due_us)
        return Event(token=self.token, time_us=self._tick(), worker=self.worker, delivery=report)

    def _tick(self) -> int:
        self._time_us += 1000
        return self._time_us
