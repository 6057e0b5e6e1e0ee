"""The invocations of a fake server: run as soon as they are accepted, kept until the end."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import grpc

from homing._core.headers import header_messages
from homing.testing._bodies import Bodies
from homing.testing._deliveries import FakeDelivery, deliver
from homing.testing._function import FakeCall, FakeFunction, Outcome
from homing.testing._records import (
    DEAD_ENDS,
    ENDS,
    add_attempt,
    add_stopped_attempt,
    call_of,
    copy,
    dead_letter,
    matches,
    matches_dead_letter,
    new_record,
)
from homing.testing._refusal import Refusal, request_id_reused
from homing.v1 import DeadLetter, DeadLetterFilter, InvocationFilter, invocation_pb2
from homing.v1.function_pb2 import Function
from homing.v1.invocation_pb2 import Invocation, InvocationSpec
from homing.v1.log_service_pb2 import LogStream, TailFunctionLogsResponse, TailLogsResponse

_RETRIED: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_ATTEMPTS: Final = 3


class Store:
    """The records, in the order of their acceptance, with all their changes and log lines."""

    def __init__(self, deployed: Mapping[str, Function]) -> None:
        """Begin without any.

        :param deployed: The functions by name, as they are when it is looked.
        """
        self._deployed = deployed
        self.changed = threading.Condition()
        self.records: dict[str, Invocation] = {}
        self.changes: list[Invocation] = []
        """Each record as it was after a change; an end is the last change of a record."""
        self.logs: defaultdict[str, list[TailLogsResponse]] = defaultdict(list)
        self.function_logs: defaultdict[str, list[TailFunctionLogsResponse]] = defaultdict(list)
        self.calls: list[FakeCall] = []
        self.deliveries: list[FakeDelivery] = []
        self.bodies = Bodies()
        self.parts: dict[str, Sequence[bytes]] = {}
        """By invocation, how its answer comes; empty where nobody said it."""
        self.dead: dict[str, Invocation] = {}
        """The records of asynchronous invocations that came to nothing, until they are redriven or purged."""
        self._requests: dict[str, str] = {}
        self._functions: dict[str, FakeFunction] = {}
        self._begun: set[str] = set()

    def accept(
        self, spec: InvocationSpec, function: FakeFunction, *, sync: bool, request_id: str = "", rerun_of: str = ""
    ) -> tuple[Invocation, bool]:
        """Return a new record, or the one that an earlier call with the same request id made, and whether it did.

        :raises Refusal: The request id was used for something else.
        """
        body = self.bodies.data_of(spec.payload)
        with self.changed:
            if request_id in self._requests:
                earlier = self.records[self._requests[request_id]]
                if (earlier.spec, earlier.rerun_of) != (spec, rerun_of):
                    raise request_id_reused(request_id)
                return copy(earlier), True
            record = new_record(len(self.records) + 1, spec, sync=sync, rerun_of=rerun_of)
            self.records[record.id] = record
            self._functions[record.id] = function
            if request_id:
                self._requests[request_id] = record.id
            self.calls.append(call_of(record, request_id, body))
            self._changed(record)
            return copy(record), False

    def run(self, invocation_id: str) -> None:
        """Run an invocation to its end; leave it RUNNING where its function is held, waiting where it is paused."""
        record, function = self.records[invocation_id], self._functions[invocation_id]
        with self.changed:
            if record.state in ENDS or invocation_id in self._begun:
                return
            if not self._start(record, function):
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
                if record.state in ENDS:  # it was stopped meanwhile
                    return
                add_attempt(record, number, outcome)
                if outcome.succeeded or not again or number >= allowed:
                    self._end(record, outcome)
                    return
                self._changed(record)

    def release(self, function: FakeFunction) -> None:
        """Run what waits of a function."""
        for invocation_id in [one for one, its in self._functions.items() if its is function]:
            self.run(invocation_id)

    def stop(self, invocation_id: str, reason: str) -> Invocation:
        """Stop an invocation; return its record as the answer to the stop: STOPPING where it was running.

        :raises Refusal: There is none, or it has ended.
        """
        with self.changed:
            record = self._get(invocation_id)
            if record.state in ENDS:
                raise _in_state(record, "INVOCATION_ENDED", "has ended")
            record.stop_request.reason = reason
            record.stop_request.time.GetCurrentTime()
            running = record.state == invocation_pb2.INVOCATION_STATE_RUNNING
            if running:
                record.state = invocation_pb2.INVOCATION_STATE_STOPPING
                self._changed(record)
            answer = copy(record)
            if running:
                add_stopped_attempt(record)
            self._finish(record, invocation_pb2.INVOCATION_STATE_STOPPED)
            return answer if running else copy(record)

    def check_ended(self, invocation_id: str) -> Invocation:
        """Return a record that has ended.

        :raises Refusal: There is none, or it has not ended.
        """
        record = self.get(invocation_id)
        if record.state not in ENDS:
            raise _in_state(record, "INVOCATION_NOT_ENDED", "has not ended")
        return record

    def invalidate(self, function: FakeFunction) -> int:
        """End what waits of a function INVALID; return how many that were."""
        with self.changed:
            waiting = [
                record
                for record in self.records.values()
                if record.state == invocation_pb2.INVOCATION_STATE_ENQUEUED and self._functions[record.id] is function
            ]
            for record in waiting:
                self._finish(record, invocation_pb2.INVOCATION_STATE_INVALID)
            return len(waiting)

    def log(self, invocation_id: str, text: str, stream: LogStream.ValueType) -> None:
        """Keep a line that an invocation wrote.

        :raises Refusal: There is no such invocation.
        """
        with self.changed:
            self._get(invocation_id)
            line = TailLogsResponse(stream=stream, text=text)
            line.time.GetCurrentTime()
            self.logs[invocation_id].append(line)
            of_function = self.function_logs[self.records[invocation_id].spec.function]
            told = TailFunctionLogsResponse(invocation_id=invocation_id, time=line.time, stream=stream, text=text)
            told.resume_token = str(len(of_function) + 1)
            of_function.append(told)
            self.changed.notify_all()

    def progress(self, invocation_id: str, percent: float, text: str) -> None:
        """Keep how far an invocation is.

        :raises Refusal: There is no such invocation.
        """
        with self.changed:
            record = self._get(invocation_id)
            record.progress.percent = percent
            record.progress.text = text
            record.progress.time.GetCurrentTime()
            self._changed(record)

    def wait(self, true: Callable[[], object], timeout: float | None) -> None:
        """Wait until something has become true, or the time is over."""
        with self.changed:
            self.changed.wait_for(true, timeout)

    def wake(self) -> None:
        """Let all who wait look again."""
        with self.changed:
            self.changed.notify_all()

    def get(self, invocation_id: str) -> Invocation:
        """Return a record.

        :raises Refusal: There is none.
        """
        with self.changed:
            return copy(self._get(invocation_id))

    def find(self, wanted: InvocationFilter) -> list[Invocation]:
        """Return the records that a filter selects, in the order of their acceptance."""
        with self.changed:
            return [copy(record) for record in self.records.values() if matches(wanted, record)]

    def was_rerun(self, invocation_id: str) -> bool:
        """Tell whether an invocation was run again."""
        with self.changed:
            return any(record.rerun_of == invocation_id for record in self.records.values())

    def find_dead(self, wanted: DeadLetterFilter) -> list[DeadLetter]:
        """Return the dead letters that a filter selects, the newest first."""
        with self.changed:
            letters = [dead_letter(record) for record in self.dead.values()]
        return sorted(
            (letter for letter in letters if matches_dead_letter(wanted, letter)),
            key=lambda letter: (letter.time.ToNanoseconds(), letter.id),
            reverse=True,
        )

    def forget_dead_letter(self, invocation_id: str) -> bool:
        """Forget a dead letter; tell whether there was one."""
        with self.changed:
            return self.dead.pop(invocation_id, None) is not None

    def _get(self, invocation_id: str) -> Invocation:
        if invocation_id not in self.records:
            raise Refusal(
                code=grpc.StatusCode.NOT_FOUND,
                reason="INVOCATION_NOT_FOUND",
                message=f"there is no invocation {invocation_id!r}",
                metadata={"invocation": invocation_id},
            )
        return self.records[invocation_id]

    def _start(self, record: Invocation, function: FakeFunction) -> bool:
        """Let an invocation start, and tell whether it may go on to its end."""
        if record.state == invocation_pb2.INVOCATION_STATE_RUNNING:
            return not function.held
        if function.paused:
            record.wait_reason = invocation_pb2.WAIT_REASON_PAUSED
            self._changed(record)
            return False
        record.wait_reason = invocation_pb2.WAIT_REASON_UNSPECIFIED
        record.start_time.GetCurrentTime()
        record.state = invocation_pb2.INVOCATION_STATE_RUNNING
        for text, stream in function.lines:
            self.log(record.id, text, stream)
        self._changed(record)
        return not function.held

    def _end(self, record: Invocation, outcome: Outcome) -> None:
        if not outcome.timed_out:
            record.result.status_code = outcome.status
            record.result.headers.extend(header_messages("headers", outcome.headers))
            record.result.payload.CopyFrom(outcome.payload)
            record.result.cut = outcome.broke_off
            self.bodies.set_aside(record.result.payload)
            self.parts[record.id] = outcome.parts
        if outcome.succeeded:
            self._finish(record, invocation_pb2.INVOCATION_STATE_SUCCEEDED)
            return
        record.failure.CopyFrom(record.attempts[-1].failure)
        self._finish(
            record,
            invocation_pb2.INVOCATION_STATE_TIMED_OUT if outcome.timed_out else invocation_pb2.INVOCATION_STATE_FAILED,
        )

    def _finish(self, record: Invocation, state: invocation_pb2.InvocationState.ValueType) -> None:
        record.state = state
        record.wait_reason = invocation_pb2.WAIT_REASON_UNSPECIFIED
        record.end_time.GetCurrentTime()
        if not record.sync:
            self.deliveries += deliver(record, self._deployed.get(record.function), self.bodies.data_of)
        if not record.sync and state in DEAD_ENDS:
            self.dead[record.id] = record
        if state == invocation_pb2.INVOCATION_STATE_SUCCEEDED:
            self._forget_cured(record)
        self._changed(record)

    def _forget_cured(self, record: Invocation) -> None:
        """Forget the dead letters of what an invocation ran again, and of what that ran again."""
        earlier: Invocation | None = record
        while earlier is not None and earlier.rerun_of:
            self.dead.pop(earlier.rerun_of, None)
            earlier = self.records.get(earlier.rerun_of)

    def _changed(self, record: Invocation) -> None:
        self.changes.append(copy(record))
        self.changed.notify_all()


def _in_state(record: Invocation, reason: str, words: str) -> Refusal:
    state = invocation_pb2.InvocationState.Name(record.state).removeprefix("INVOCATION_STATE_")
    return Refusal(
        code=grpc.StatusCode.FAILED_PRECONDITION,
        reason=reason,
        message=f"invocation {record.id!r} {words}: it is {state}",
        metadata={"invocation": record.id, "state": state},
    )
