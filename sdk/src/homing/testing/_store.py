"""The invocations of a fake server: run as soon as they are accepted, kept until the end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from homing.testing._function import FakeCall, FakeFunction, Outcome
from homing.testing._refusal import Refusal
from homing.v1 import InvocationFilter, TimeRange, invocation_pb2
from homing.v1.invocation_pb2 import Invocation, InvocationSpec

ENDS: Final = frozenset(
    {
        invocation_pb2.INVOCATION_STATE_SUCCEEDED,
        invocation_pb2.INVOCATION_STATE_FAILED,
        invocation_pb2.INVOCATION_STATE_TIMED_OUT,
    }
)
_RETRIED: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_ATTEMPTS: Final = 3


class Store:
    """The records, in the order of their acceptance, and those that ended, in the order of their ends."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.records: dict[str, Invocation] = {}
        self.ended: list[Invocation] = []
        self.calls: list[FakeCall] = []
        self._requests: dict[str, str] = {}
        self._functions: dict[str, FakeFunction] = {}
        self._begun: set[str] = set()

    def accept(
        self, spec: InvocationSpec, function: FakeFunction, *, sync: bool, request_id: str = ""
    ) -> tuple[Invocation, bool]:
        """Return a new record, or the one that an earlier call with the same request id made, and whether it did.

        :raises Refusal: The request id was used for something else.
        """
        with self.changed:
            if request_id in self._requests:
                earlier = self.records[self._requests[request_id]]
                if earlier.spec != spec:
                    raise Refusal(
                        code=grpc.StatusCode.ALREADY_EXISTS,
                        reason="REQUEST_ID_REUSED",
                        message=f"request_id {request_id!r} was used for an invocation with other content",
                    )
                return _copy(earlier), True
            # As with a real server, ids sort by time.
            number = len(self.records) + 1
            record = Invocation(
                id=f"01900000-0000-7000-8000-{number:012x}",
                function=spec.function,
                state=invocation_pb2.INVOCATION_STATE_ENQUEUED,
                spec=spec,
                sync=sync,
            )
            record.create_time.GetCurrentTime()
            self.records[record.id] = record
            self._functions[record.id] = function
            if request_id:
                self._requests[request_id] = record.id
            self.calls.append(_call(record, request_id))
            return _copy(record), False

    def run(self, invocation_id: str) -> None:
        """Run an invocation to its end, or leave it RUNNING where its function is held."""
        record, function = self.records[invocation_id], self._functions[invocation_id]
        with self.changed:
            if record.state in ENDS:
                return
            if not record.HasField("start_time"):
                record.start_time.GetCurrentTime()
            record.state = invocation_pb2.INVOCATION_STATE_RUNNING
            self.changed.notify_all()
            if function.held or invocation_id in self._begun:
                return
            self._begun.add(invocation_id)
        call = next(call for call in self.calls if call.invocation_id == invocation_id)
        policy = record.spec.retry_policy
        allowed = policy.max_attempts if policy.HasField("max_attempts") else _ATTEMPTS
        retried = frozenset(policy.retry_status_codes) or _RETRIED
        number = 0
        while True:
            number += 1
            outcome = function.run(call, number)
            again = outcome.retry and (outcome.timed_out or outcome.status in retried)
            with self.changed:
                _add_attempt(record, number, outcome)
                if 200 <= outcome.status < 300 or not again or number >= allowed:
                    self._end(record, outcome)
                    return

    def release(self, function: FakeFunction) -> None:
        """Run what waits of a function."""
        for invocation_id in [one for one, its in self._functions.items() if its is function]:
            self.run(invocation_id)

    def wait(self, true: Callable[[], object], timeout: float | None) -> None:
        """Wait until something has become true, or the time is over."""
        with self.changed:
            self.changed.wait_for(true, timeout)

    def get(self, invocation_id: str) -> Invocation:
        """Return a record.

        :raises Refusal: There is none.
        """
        with self.changed:
            if invocation_id not in self.records:
                raise Refusal(
                    code=grpc.StatusCode.NOT_FOUND,
                    reason="INVOCATION_NOT_FOUND",
                    message=f"there is no invocation {invocation_id!r}",
                    metadata={"invocation": invocation_id},
                )
            return _copy(self.records[invocation_id])

    def _end(self, record: Invocation, outcome: Outcome) -> None:
        record.end_time.GetCurrentTime()
        if not outcome.timed_out:
            record.result.status_code = outcome.status
            record.result.headers.update({name.lower(): value for name, value in outcome.headers.items()})
            record.result.payload.CopyFrom(outcome.payload)
        if 200 <= outcome.status < 300:
            record.state = invocation_pb2.INVOCATION_STATE_SUCCEEDED
        else:
            record.failure.CopyFrom(record.attempts[-1].failure)
            record.state = (
                invocation_pb2.INVOCATION_STATE_TIMED_OUT
                if outcome.timed_out
                else invocation_pb2.INVOCATION_STATE_FAILED
            )
        self.ended.append(_copy(record))
        self.changed.notify_all()


def slim(record: Invocation, *, payload: bool = False, result: bool = True) -> Invocation:
    """Return a record without what was not asked for."""
    shown = _copy(record)
    if not payload:
        shown.spec.payload.ClearField("body")
    if not result:
        shown.result.payload.ClearField("body")
    return shown


def matches(wanted: InvocationFilter, record: Invocation) -> bool:
    """Tell whether a filter selects a record."""
    return (
        (not wanted.functions or record.function in wanted.functions)
        and (not wanted.states or record.state in wanted.states)
        and record.id.startswith(wanted.id_prefix)
        and (not wanted.rerun_of or record.rerun_of == wanted.rerun_of)
        and all(record.spec.labels.get(key) == value for key, value in wanted.labels.items())
        and _within(wanted.create_time, record.create_time)
        and _within(wanted.start_time, record.start_time)
        and _within(wanted.end_time, record.end_time)
    )


def _within(bounds: TimeRange, time: Timestamp) -> bool:
    if not (bounds.HasField("start_time") or bounds.HasField("end_time")):
        return True
    moment = time.ToNanoseconds()
    return moment > 0 and not (
        (bounds.HasField("start_time") and moment < bounds.start_time.ToNanoseconds())
        or (bounds.HasField("end_time") and moment >= bounds.end_time.ToNanoseconds())
    )


def _copy(record: Invocation) -> Invocation:
    copy = Invocation()
    copy.CopyFrom(record)
    return copy


def _call(record: Invocation, request_id: str) -> FakeCall:
    spec = record.spec
    return FakeCall(
        function=record.function,
        payload=spec.payload.data,
        content_type=spec.payload.content_type,
        headers=dict(spec.http.headers),
        method=spec.http.method or "POST",
        path=spec.http.path or "/",
        query=spec.http.query,
        labels=dict(spec.labels),
        callback_url=spec.callback.url or None,
        request_id=request_id or None,
        invocation_id=record.id,
        sync=record.sync,
    )


def _add_attempt(record: Invocation, number: int, outcome: Outcome) -> None:
    attempt = record.attempts.add(
        number=number, worker="fake", instance="fake", function_revision=1, status_code=outcome.status
    )
    attempt.start_time.GetCurrentTime()
    attempt.end_time.GetCurrentTime()
    record.attempt_count = number
    if outcome.timed_out:
        attempt.outcome = invocation_pb2.ATTEMPT_OUTCOME_TIMED_OUT
        attempt.failure.CopyFrom(
            invocation_pb2.Failure(reason="ATTEMPT_TIMEOUT", message="it ran past its time-out", retryable=True)
        )
    elif 200 <= outcome.status < 300:
        attempt.outcome = invocation_pb2.ATTEMPT_OUTCOME_SUCCEEDED
    else:
        attempt.outcome = invocation_pb2.ATTEMPT_OUTCOME_FAILED
        attempt.failure.CopyFrom(
            invocation_pb2.Failure(
                reason="HTTP_STATUS", message=f"it answered {outcome.status}", retryable=outcome.retry
            )
        )
