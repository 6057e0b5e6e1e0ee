"""The life of an invocation: first as examples, then as properties of every history that can happen."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from homing.v1 import invocation_pb2 as api
from homing_core import lifecycle, limits
from homing_core.lifecycle import ENDS, TRANSITIONS, Custody, Record, Refusal, State, Token
from homing_core.wire.v1 import AttemptRecord, Event
from homing_core.wire.v1 import Token as WireToken
from support.reporter import NOW, Reporter

# The machine may be busy; slowness is no failure here.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


SECOND = 1_000_000


def accept(*, due_us: int = NOW) -> Record:
    return lifecycle.accepted(time_us=NOW, due_us=due_us)


def hand_over(record: Record, *, time_us: int = NOW) -> Record:
    after = lifecycle.handed_over(record, time_us=time_us)
    assert isinstance(after, Record)
    return after


def report(record: Record, *events: Event) -> Record:
    """Return the record after events that all tell something new."""
    for event in events:
        after = lifecycle.reported(record, event)
        assert isinstance(after, Record), after
        record = after
    return record


def ask_to_stop(record: Record, *, reason: str = "enough") -> Record:
    after = lifecycle.stop_requested(record, caller="me", reason=reason, time_us=NOW + SECOND)
    assert isinstance(after, Record), after
    return after


def history(record: Record) -> list[tuple[str, int]]:
    prefix = "INVOCATION_EVENT_TYPE_"
    return [(api.InvocationEventType.Name(entry.type).removeprefix(prefix), entry.attempt) for entry in record.entries]


def outcomes(record: Record) -> list[str]:
    prefix = "ATTEMPT_OUTCOME_"
    return [api.AttemptOutcome.Name(attempt.outcome).removeprefix(prefix) for attempt in record.attempts]


# --- A life without trouble


def test_accepted_is_held_by_the_store_until_it_is_handed_over() -> None:
    record = accept()
    assert (record.state, record.custody, record.due_us) == (State.ENQUEUED, Custody.STORE, NOW)
    assert history(record) == [("ACCEPTED", 0)]
    record = hand_over(record)
    assert (record.state, record.custody, record.due_us) == (State.ENQUEUED, Custody.SENT, 0)
    assert record.token == Token(generation=1, delivery=0)


def test_accepted_for_later_is_scheduled() -> None:
    record = accept(due_us=NOW + SECOND)
    assert (record.state, record.due_us) == (State.SCHEDULED, NOW + SECOND)
    assert hand_over(record).state is State.ENQUEUED


def test_first_attempt_succeeds() -> None:
    worker = Reporter(1)
    record = report(hand_over(accept()), worker.dequeued(cold_start=True))
    assert (record.state, record.custody) == (State.DEQUEUED, Custody.BROKER)
    record = report(record, worker.running())
    assert record.state is State.RUNNING
    assert record.start_us == worker.attempts[0].start_us
    record = report(record, worker.ended(State.SUCCEEDED))
    assert (record.state, record.custody, record.due_us) == (State.SUCCEEDED, Custody.NONE, 0)
    assert record.result == api.Result(status_code=200)
    assert record.failure is None
    assert record.end_us > record.start_us
    assert history(record) == [
        ("ACCEPTED", 0),
        ("ENQUEUED", 0),
        ("DEQUEUED", 0),
        ("INSTANCE_STARTING", 0),
        ("RUNNING", 1),
        ("ATTEMPT_ENDED", 1),
        ("ENDED", 1),
    ]


def test_attempts_at_one_worker_are_told_one_by_one() -> None:
    worker = Reporter(1)
    record = report(hand_over(accept()), worker.running(), worker.attempt_ended(503))
    assert (record.state, record.custody) == (State.RETRYING, Custody.BROKER)
    record = report(record, worker.running(), worker.attempt_ended(503), worker.running())
    assert (record.state, len(record.attempts)) == (State.RUNNING, 3)
    record = report(record, worker.ended(State.SUCCEEDED))
    assert outcomes(record) == ["FAILED", "FAILED", "SUCCEEDED"]
    assert [attempt.status_code for attempt in record.attempts] == [503, 503, 200]


def test_long_delay_is_waited_for_in_the_store() -> None:
    worker = Reporter(1)
    record = report(hand_over(accept()), worker.running(), worker.deferred(due_us=NOW + 60 * SECOND))
    assert (record.state, record.custody, record.due_us) == (State.RETRYING, Custody.STORE, NOW + 60 * SECOND)
    assert record.counted_attempts == 1
    record = hand_over(record, time_us=NOW + 60 * SECOND)
    assert record.token == Token(generation=2, delivery=0)
    record = report(record, Reporter(2, worker="w2").ended(State.FAILED))
    assert (record.state, outcomes(record)) == (State.FAILED, ["FAILED", "FAILED"])
    assert record.failure is not None
    assert record.failure.reason == "HTTP_STATUS"


def test_handed_back_before_it_started_waits_again() -> None:
    worker = Reporter(1)
    record = report(hand_over(accept()), worker.dequeued(), worker.requeued("DRAINING"))
    assert (record.state, record.custody, record.attempts) == (State.ENQUEUED, Custody.STORE, ())
    assert record.entries[-1].detail == "DRAINING"


@pytest.mark.parametrize("state", [State.EXPIRED, State.INVALID])
def test_ends_without_having_started(state: State) -> None:
    record = report(hand_over(accept()), Reporter(1).ended(state))
    assert (record.state, record.attempts, record.start_us) == (state, (), 0)


# --- Trouble


def test_attempt_of_a_lost_worker_is_closed_when_the_next_one_speaks() -> None:
    lost, next_ = Reporter(1, 0), Reporter(1, 1, worker="w2", time_us=NOW + SECOND)
    record = report(hand_over(accept()), lost.running(), next_.dequeued())
    assert (record.state, record.token) == (State.DEQUEUED, Token(generation=1, delivery=1))
    assert outcomes(record) == ["LOST"]
    assert (record.lost_starts, record.counted_attempts) == (1, 0)
    record = report(record, next_.running(), next_.ended(State.SUCCEEDED))
    assert outcomes(record) == ["LOST", "SUCCEEDED"]
    assert [entry for entry in history(record) if entry[0] == "RUNNING"] == [("RUNNING", 1), ("RUNNING", 2)]


def test_attempt_of_a_lost_worker_is_closed_when_it_is_handed_over_again() -> None:
    record = report(hand_over(accept()), Reporter(1).running())
    record = hand_over(record, time_us=NOW + SECOND)
    assert (record.state, outcomes(record)) == (State.ENQUEUED, ["LOST"])


def test_p3_stale_attempt_cannot_settle() -> None:
    stale, current = Reporter(1, 0), Reporter(1, 1, worker="w2")
    record = report(hand_over(accept()), stale.running(), current.running())
    assert lifecycle.reported(record, stale.ended(State.FAILED)) is Refusal.STALE
    record = report(record, current.ended(State.SUCCEEDED))
    assert record.state is State.SUCCEEDED
    again = hand_over(accept())
    assert lifecycle.reported(hand_over(again), Reporter(1).ended(State.FAILED)) is Refusal.STALE


def test_p2_end_is_final() -> None:
    worker = Reporter(1)
    record = report(hand_over(accept()), worker.running(), worker.ended(State.SUCCEEDED))
    assert lifecycle.reported(record, Reporter(1, 1).running()) is Refusal.ENDED
    assert lifecycle.reported(record, Reporter(9).ended(State.FAILED)) is Refusal.ENDED
    assert lifecycle.handed_over(record, time_us=NOW) is Refusal.ENDED
    poison = api.Failure(reason="POISON")
    assert lifecycle.ended(record, state=State.FAILED, failure=poison, time_us=NOW) is Refusal.ENDED


def test_end_of_work_that_was_taken_back_counts() -> None:
    """Its publish was never seen confirmed, and a worker has done it nonetheless."""
    worker = Reporter(1)
    taken_back = replace(hand_over(accept()), custody=Custody.STORE, due_us=NOW)
    assert lifecycle.reported(taken_back, worker.running()) is Refusal.DUPLICATE
    assert report(taken_back, worker.ended(State.SUCCEEDED)).state is State.SUCCEEDED


def test_started_in_time_and_lost_is_not_expired() -> None:
    late = Reporter(1, 1, worker="w2").ended(State.EXPIRED)
    record = report(hand_over(accept()), Reporter(1, 0).running(), late)
    assert (record.state, record.custody, outcomes(record)) == (State.RETRYING, Custody.STORE, ["LOST"])
    assert lifecycle.reported(record, late) is Refusal.DUPLICATE


def test_started_and_its_function_then_deleted_is_failed() -> None:
    record = report(hand_over(accept()), Reporter(1, 0).running(), Reporter(1, 1).ended(State.INVALID))
    assert (record.state, outcomes(record)) == (State.FAILED, ["LOST"])


def test_poison_ends_after_three_lost_starts() -> None:
    record = hand_over(accept())
    for delivery in range(limits.POISON_STARTS):
        record = report(record, Reporter(1, delivery).running())
    record = report(record, Reporter(1, limits.POISON_STARTS).requeued("REDELIVERED"))
    assert record.state is State.FAILED
    assert record.failure is not None
    assert record.failure.reason == "POISON"
    assert outcomes(record) == ["LOST"] * 3


def test_suspected_poison_that_never_started_is_none() -> None:
    """The broker counts deliveries of messages that were only prefetched too."""
    record = report(hand_over(accept()), Reporter(1, 7).requeued("REDELIVERED"))
    assert (record.state, record.custody) == (State.ENQUEUED, Custody.STORE)


def test_progress_is_the_last_that_was_said_since_the_hand_over() -> None:
    worker = Reporter(1)
    base = report(hand_over(accept()), worker.running())
    early, late = worker.progressed(40), worker.progressed(50, "half")
    record = report(base, late)
    assert record.progress is not None
    assert (record.progress.percent, record.progress.text) == (50, "half")
    assert lifecycle.reported(record, early) is Refusal.DUPLICATE
    assert report(record, worker.ended(State.FAILED)).progress == record.progress
    assert report(record, Reporter(1, 1).running()).progress is None
    assert hand_over(report(record, worker.deferred(due_us=NOW))).progress is None


def test_a_lease_takes_the_message_from_the_broker_and_is_renewed_without_a_trace() -> None:
    worker = Reporter(1)
    leased = report(hand_over(accept()), worker.dequeued(), worker.running(), worker.leased())
    assert (leased.state, leased.custody, leased.due_us) == (State.RUNNING, Custody.LEASE, 0)
    assert history(leased)[-1] == ("LEASED", 1)
    assert lifecycle.reported(leased, worker.leased()) is Refusal.DUPLICATE
    record = report(leased, worker.attempt_ended(), worker.running())
    assert (record.state, record.custody) == (State.RUNNING, Custody.LEASE)
    assert report(record, worker.ended(State.SUCCEEDED)).custody is Custody.NONE
    assert report(record, worker.deferred(due_us=NOW)).custody is Custody.STORE


def test_a_lease_that_ends_or_is_returned_loses_the_attempt() -> None:
    worker = Reporter(1)
    record = report(hand_over(accept()), worker.running(), worker.leased())
    ended = lifecycle.lease_ended(record, time_us=NOW)
    assert isinstance(ended, Record)
    assert lifecycle.lease_ended(ended, time_us=NOW) is Refusal.DUPLICATE
    assert lifecycle.reported(ended, worker.leased()) is Refusal.DUPLICATE
    returned = report(record, worker.leased(term_us=0))
    for record in (ended, returned):
        assert (record.state, record.custody, outcomes(record)) == (State.RETRYING, Custody.STORE, ["LOST"])
        assert report(hand_over(record), Reporter(2).running()).state is State.RUNNING


def test_three_leases_that_end_are_poison() -> None:
    record = accept()
    for generation in range(1, limits.POISON_STARTS + 1):
        worker = Reporter(generation)
        record = report(hand_over(record), worker.running(), worker.leased())
        after = lifecycle.lease_ended(record, time_us=NOW)
        assert isinstance(after, Record)
        record = after
    assert (record.state, record.failure and record.failure.reason) == (State.FAILED, "POISON")
    assert lifecycle.lease_ended(record, time_us=NOW) is Refusal.ENDED


# --- Stops


@pytest.mark.parametrize("due_us", [NOW, NOW + SECOND])
def test_what_was_never_handed_over_is_stopped_at_once(due_us: int) -> None:
    record = ask_to_stop(accept(due_us=due_us))
    assert (record.state, record.custody, record.end_us) == (State.STOPPED, Custody.NONE, NOW + SECOND)
    assert history(record)[1:] == [("STOP_REQUESTED", 0), ("ENDED", 0)]
    assert record.stop_request is not None
    assert (record.stop_request.caller, record.stop_request.reason) == ("me", "enough")
    assert record.failure == api.Failure(reason="STOPPED", message="stopped by request: enough")
    assert lifecycle.stop_requested(record, caller="", reason="", time_us=NOW) is Refusal.ENDED


def test_what_somebody_may_have_in_hand_is_stopping_until_nobody_has() -> None:
    worker = Reporter(1)
    sent = hand_over(accept())
    back = report(sent, worker.running(), worker.deferred(due_us=NOW + 60 * SECOND))
    for record in (sent, report(sent, Reporter(1).dequeued()), replace(sent, custody=Custody.BROKER), back):
        asked = ask_to_stop(record, reason="")
        assert asked.state is State.STOPPING
        # It is not handed over any more, whoever held it.
        assert (asked.custody is Custody.STORE, asked.due_us) == (False, 0)
        assert lifecycle.stop_requested(asked, caller="", reason="again", time_us=NOW) is Refusal.DUPLICATE
        stopped = lifecycle.stopped(asked, time_us=NOW)
        assert isinstance(stopped, Record)
        assert (stopped.state, stopped.failure and stopped.failure.message) == (State.STOPPED, "stopped by request")
        assert lifecycle.stopped(stopped, time_us=NOW) is Refusal.ENDED
        assert lifecycle.stopped(record, time_us=NOW) is Refusal.DUPLICATE


def test_its_worker_decides_between_stop_and_finish() -> None:
    for state in (State.STOPPED, State.SUCCEEDED, State.FAILED, State.TIMED_OUT):
        worker = Reporter(1)
        record = ask_to_stop(report(hand_over(accept()), worker.running()))
        assert report(record, worker.progress()).state is State.STOPPING
        record = report(record, worker.ended(state))
        assert (record.state, outcomes(record)) == (state, [state.name])
        assert lifecycle.stopped(record, time_us=NOW) is Refusal.ENDED
        assert lifecycle.reported(record, worker.ended(State.SUCCEEDED)) is Refusal.ENDED


def test_what_would_be_handed_over_again_is_stopped_instead() -> None:
    worker, idle = Reporter(1), Reporter(1)
    running = report(hand_over(accept()), worker.running(), worker.leased())
    lost = lifecycle.lease_ended(ask_to_stop(running), time_us=NOW)
    asked = ask_to_stop(report(hand_over(accept()), idle.dequeued()))
    ends: list[Record | Refusal] = [
        lost,
        lifecycle.reported(asked, idle.requeued()),
        lifecycle.reported(asked, idle.ended(State.EXPIRED)),
        lifecycle.reported(asked, idle.ended(State.INVALID)),
        lifecycle.ended(asked, state=State.INVALID, failure=api.Failure(), time_us=NOW),
        lifecycle.reported(asked, Reporter(1, 2).requeued("REDELIVERED")),
        lifecycle.reported(asked, Reporter(1).deferred(due_us=NOW + SECOND)),
    ]
    assert [end.state if isinstance(end, Record) else end for end in ends] == [State.STOPPED] * len(ends)


def test_a_stop_outlasts_a_redelivery() -> None:
    record = ask_to_stop(report(hand_over(accept()), Reporter(1).running()))
    again = Reporter(1, 1, worker="w2")
    record = report(record, again.running())
    assert (record.state, outcomes(record)) == (State.STOPPING, ["LOST", "UNSPECIFIED"])
    assert report(record, again.ended(State.STOPPED)).state is State.STOPPED


def test_the_latest_progress_counts() -> None:
    worker = Reporter(1)
    record = report(hand_over(accept()), worker.running())
    first, second = worker.progress("first"), worker.progress("second")
    record = report(record, second)
    assert lifecycle.reported(record, first) is Refusal.DUPLICATE
    assert record.progress is not None
    assert record.progress.text == "second"
    assert record.state is State.RUNNING


# --- What is odd


def test_the_last_answer_is_kept_when_the_end_brings_none() -> None:
    """The acknowledgement of a deferral was lost, and the redelivery times out, all in one batch of events."""
    deferred = Reporter(1, 0).deferred(due_us=NOW + 60 * SECOND, status_code=503)
    record = report(hand_over(accept()), deferred, Reporter(1, 1).ended(State.TIMED_OUT))
    assert record.result == api.Result(status_code=503)


def test_events_that_make_no_sense_are_errors() -> None:
    record = hand_over(accept())
    with pytest.raises(ValueError, match="kind None"):
        lifecycle.reported(record, Event(token=WireToken(generation=1)))
    with pytest.raises(ValueError, match="RUNNING, which is no end"):
        lifecycle.reported(record, Reporter(1).ended(State.RUNNING))


# --- Events of one hand-over in the wrong order


def test_dequeued_after_running_tells_nothing_new() -> None:
    worker = Reporter(1)
    dequeued, running = worker.dequeued(), worker.running()
    record = report(hand_over(accept()), running)
    assert lifecycle.reported(record, dequeued) is Refusal.DUPLICATE


def test_attempt_ended_after_the_next_running() -> None:
    worker = Reporter(1)
    running, ended, next_ = worker.running(), worker.attempt_ended(), worker.running()
    record = report(hand_over(accept()), running, next_, ended)
    assert (record.state, outcomes(record)) == (State.RUNNING, ["FAILED", "UNSPECIFIED"])


def test_running_after_its_end() -> None:
    worker = Reporter(1)
    running, ended = worker.running(), worker.attempt_ended()
    record = report(hand_over(accept()), ended)
    assert (record.state, outcomes(record)) == (State.RETRYING, ["FAILED"])
    assert lifecycle.reported(record, running) is Refusal.DUPLICATE


def test_second_attempt_before_the_first() -> None:
    worker = Reporter(1)
    first, _, second = worker.running(), worker.attempt_ended(), worker.running()
    record = report(hand_over(accept()), second, first)
    assert record.state is State.RUNNING
    assert [attempt.ordinal for attempt in record.attempts] == [1, 2]
    assert record.start_us == first.running.start_us
    assert [entry for entry in history(record) if entry[0] == "RUNNING"] == [("RUNNING", 2), ("RUNNING", 1)]


def test_running_after_the_end_of_all() -> None:
    worker = Reporter(1)
    running, ended = worker.running(), worker.ended(State.SUCCEEDED)
    record = report(hand_over(accept()), ended)
    assert (record.state, outcomes(record)) == (State.SUCCEEDED, ["SUCCEEDED"])
    assert lifecycle.reported(record, running) is Refusal.ENDED


ends_of_runs = st.sampled_from([State.SUCCEEDED, State.FAILED, State.TIMED_OUT])


@patient
@given(
    earlier=st.lists(st.booleans(), max_size=2),
    retries=st.integers(0, 4),
    end=ends_of_runs,
    noted=st.booleans(),
    data=st.data(),
)
def test_result_does_not_depend_on_the_order_of_events(
    earlier: list[bool], retries: int, end: State, *, noted: bool, data: st.DataObject
) -> None:
    """Once all events of the last hand-over are in, however often, the record is the same."""
    base = accept()
    for generation, ran in enumerate(earlier, 1):
        base = hand_over(base)
        if ran:
            base = report(base, Reporter(generation).running())
    base = hand_over(base)
    if noted:
        base = replace(base, custody=Custody.BROKER)
    worker = Reporter(base.token.generation, data.draw(st.integers(0, 2)), time_us=NOW + SECOND)
    events = [worker.dequeued()]
    for _ in range(retries):
        events += [worker.running(), worker.attempt_ended()]
    events += [worker.running(), worker.ended(end)]
    expected = _apply(base, events)
    twice = data.draw(st.lists(st.sampled_from(events), max_size=4))
    shuffled = data.draw(st.permutations(events + twice))
    actual = _apply(base, shuffled)
    assert _essence(actual) == _essence(expected)
    assert expected.state is end
    kinds = {api.INVOCATION_EVENT_TYPE_RUNNING, api.INVOCATION_EVENT_TYPE_ATTEMPT_ENDED}
    assert _entries(actual, kinds) == _entries(expected, kinds)


def _apply(record: Record, events: Sequence[Event]) -> Record:
    for event in events:
        after = lifecycle.reported(record, event)
        record = record if isinstance(after, Refusal) else after
    return record


def _essence(record: Record) -> object:
    ended = [attempt for attempt in record.attempts if attempt.outcome != api.ATTEMPT_OUTCOME_LOST]
    lost = [attempt.token.SerializeToString() for attempt in record.attempts if attempt not in ended]
    return replace(record, attempts=tuple(ended), entries=()), lost


def _entries(record: Record, kinds: set[api.InvocationEventType.ValueType]) -> Counter[tuple[int, int, int]]:
    return Counter((entry.type, entry.attempt, entry.time_us) for entry in record.entries if entry.type in kinds)


# --- Every history that can happen


@dataclass(kw_only=True, eq=False)
class Message:
    """A work message, in a queue of the broker or in the hand of a worker."""

    generation: int
    may_expire: bool
    lost_starts: int
    deliveries: int = 0
    holder: Holder | None = None


@dataclass(kw_only=True, eq=False)
class Holder:
    """A worker that runs a message. One that was cut off from the broker goes on, and holds nothing any more."""

    message: Message
    worker: Reporter
    said: list[Event] = field(default_factory=list)
    lease: Event | None = None
    """Confirmed where it was said, so that the message may go."""
    last: bool = False
    """Whether it has said its last, which is confirmed; only the acknowledgement is missing."""

    @property
    def holds(self) -> bool:
        return self.message.holder is self


class Lives(RuleBasedStateMachine):
    """A store, a broker and workers that do all that they may do, while events are late, repeated and out of order."""

    def __init__(self) -> None:
        super().__init__()
        self.time = itertools.count(NOW, SECOND)
        self.names = (f"w{number}" for number in itertools.count(1))
        self.record = accept()
        self.messages: list[Message] = []
        self.published = 0
        """The generation of the last message that reached the broker."""
        self.holders: list[Holder] = []
        self.events: list[Event] = []
        """Published and confirmed: the recorder gets each of them at least once."""
        self.delivered: list[Event] = []

    # The store and the dispatcher

    @initialize(scheduled=st.booleans())
    def accept(self, *, scheduled: bool) -> None:
        self.record = accept(due_us=NOW + SECOND if scheduled else NOW)

    @precondition(lambda self: self.record.custody is Custody.STORE)
    @rule(fate=st.sampled_from(["confirmed", "unknown", "not sent"]))
    def hand_over(self, fate: str) -> None:
        self._become(lifecycle.handed_over(self.record, time_us=next(self.time)))
        if fate != "not sent":
            message = Message(
                generation=self.record.token.generation,
                may_expire=not self.record.start_us,
                lost_starts=self.record.lost_starts,
            )
            self.messages.append(message)
            self.published = message.generation
        if fate == "confirmed":
            self.note_confirm()

    @precondition(lambda self: self.record.custody is Custody.SENT and self.published == self.record.token.generation)
    @rule()
    def note_confirm(self) -> None:
        self._become(replace(self.record, custody=Custody.BROKER))

    @precondition(lambda self: self.record.custody is Custody.SENT)
    @rule()
    def take_back(self) -> None:
        """As the sweeper does with what nobody saw confirmed; what is STOPPING is not published again."""
        if self.record.state is State.STOPPING:
            self._become(replace(self.record, custody=Custody.BROKER))
        else:
            self._become(replace(self.record, custody=Custody.STORE, due_us=next(self.time)))

    @precondition(lambda self: self.record.token.generation and not self.record.ended)
    @rule()
    def ask_to_stop(self) -> None:
        before = self.record
        after = lifecycle.stop_requested(before, caller="", reason="", time_us=next(self.time))
        if before.state is State.STOPPING:
            assert after is Refusal.DUPLICATE
            return
        self._become(after)
        assert self.record.custody is not Custody.STORE, "it is not to be handed over"

    @precondition(lambda self: self.record.state is State.STOPPING)
    @rule()
    def settle_stop(self) -> None:
        """All workers have said that they will not start it, or are lost; some may run it still."""
        self._become(lifecycle.stopped(self.record, time_us=next(self.time)))

    @precondition(lambda self: self.record.custody is Custody.STORE)
    @rule()
    def end_in_the_store(self) -> None:
        """As the dispatcher does with what has waited too long, and the deletion of a function with the rest."""
        state = State.FAILED if self.record.attempts else State.EXPIRED
        failure = api.Failure(reason="GONE")
        self._become(lifecycle.ended(self.record, state=state, failure=failure, time_us=next(self.time)))

    @precondition(lambda self: self.record.custody in {Custody.SENT, Custody.BROKER, Custody.LEASE})
    @rule()
    def forget(self) -> None:
        """The broker was one that keeps nothing, and everything starts anew: work and events are gone with it."""
        self.messages.clear()
        self.holders.clear()
        self.events.clear()
        if self.record.state is State.STOPPING:
            self.settle_stop()
        else:
            self._become(replace(self.record, custody=Custody.STORE, due_us=next(self.time)))

    @precondition(lambda self: self.record.ended)
    @rule(state=st.sampled_from([State.FAILED, State.EXPIRED, State.INVALID]))
    def end_again(self, state: State) -> None:
        failure = api.Failure(reason="POISON")
        assert lifecycle.ended(self.record, state=state, failure=failure, time_us=next(self.time)) is Refusal.ENDED
        assert lifecycle.handed_over(self.record, time_us=next(self.time)) is Refusal.ENDED
        assert lifecycle.stopped(self.record, time_us=next(self.time)) is Refusal.ENDED
        assert lifecycle.stop_requested(self.record, caller="", reason="", time_us=next(self.time)) is Refusal.ENDED

    # The broker and the workers

    @precondition(lambda self: self._queued())
    @rule(data=st.data())
    def take(self, data: st.DataObject) -> None:
        message = data.draw(st.sampled_from(self._queued()))
        worker = Reporter(message.generation, message.deliveries, worker=next(self.names), time_us=next(self.time))
        holder = message.holder = Holder(message=message, worker=worker)
        self.holders.append(holder)
        if message.lost_starts + message.deliveries >= limits.POISON_STARTS:
            self._say(holder, worker.requeued("REDELIVERED"), last=True)

    @precondition(lambda self: self._busy())
    @rule(data=st.data())
    def work(self, data: st.DataObject) -> None:
        """A worker goes one step on."""
        holder = data.draw(st.sampled_from(self._busy()))
        worker = holder.worker
        if worker.attempts and not worker.attempts[-1].end_us:
            step = data.draw(st.sampled_from(["fail", "defer", "lease", "return", *ends_while_running]))
        else:
            step = data.draw(st.sampled_from(self._steps_between_attempts(holder)))
        match step:
            case "dequeue":
                self._say(holder, worker.dequeued())
            case "run":
                self._say(holder, worker.running())
            case "fail":
                self._say(holder, worker.attempt_ended())
            case "defer":
                self._say(holder, worker.deferred(due_us=next(self.time)), last=True)
            case "hand back":
                self._say(holder, worker.requeued(), last=True)
            case "lease" if holder.holds or holder.lease:
                holder.lease = worker.leased()
                self._say(holder, holder.lease)
            case "return" if holder.lease and holder.message not in self.messages:
                self._say(holder, worker.leased(term_us=0), last=True)
            case "lease" | "return":
                pass
            case end:
                self._say(holder, worker.ended(State[end]), last=True)

    @precondition(lambda self: self.record.stop_request is not None and self._busy())
    @rule(data=st.data())
    def heed_stop(self, data: st.DataObject) -> None:
        """A worker hears of the stop, early or late, before it has finished."""
        holder = data.draw(st.sampled_from(self._busy()))
        self._say(holder, holder.worker.ended(State.STOPPED), last=True)

    @precondition(lambda self: self._busy())
    @rule(data=st.data())
    def tell_progress(self, data: st.DataObject) -> None:
        holder = data.draw(st.sampled_from(self._busy()))
        self._say(holder, holder.worker.progress())

    @precondition(lambda self: any(holder.last for holder in self.holders))
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        """What a worker has said last is confirmed, so it lets the message go, where it still has it."""
        holder = data.draw(st.sampled_from([holder for holder in self.holders if holder.last]))
        if holder.holds:
            self.messages.remove(holder.message)
        self.holders.remove(holder)

    @precondition(lambda self: any(holder.lease and holder.holds for holder in self.holders))
    @rule(data=st.data())
    def acknowledge_lease(self, data: st.DataObject) -> None:
        """That a worker answers for its message is confirmed, so it lets it go."""
        holder = data.draw(st.sampled_from([each for each in self.holders if each.lease and each.holds]))
        self.messages.remove(holder.message)
        holder.message.holder = None
        holder.said.clear()

    @precondition(lambda self: self.record.custody is Custody.LEASE)
    @rule()
    def end_lease(self) -> None:
        """The worker was not heard of for long, whether it lives or not."""
        self._become(lifecycle.lease_ended(self.record, time_us=next(self.time)))

    @precondition(lambda self: self.holders)
    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        """A worker dies; of what it said some may never have been confirmed, and its message comes again."""
        holder = data.draw(st.sampled_from(self.holders))
        self.holders.remove(holder)
        if holder.holds:
            self._redeliver(holder.message)
        if not holder.last:
            for event in holder.said:
                if event in self.events and event not in self.delivered and data.draw(st.booleans()):
                    self.events.remove(event)

    @precondition(lambda self: any(holder.holds for holder in self.holders))
    @rule(data=st.data())
    def cut(self, data: st.DataObject) -> None:
        """The connection of a worker breaks: its message comes again while it goes on with its run."""
        holder = data.draw(st.sampled_from([holder for holder in self.holders if holder.holds]))
        self._redeliver(holder.message)

    # The recorder

    @precondition(lambda self: self.events)
    @rule(data=st.data())
    def record_event(self, data: st.DataObject) -> None:
        """Any event that was published arrives next, and may arrive again."""
        event = data.draw(st.sampled_from(self.events))
        self.delivered.append(event)
        if data.draw(st.booleans()):
            self.events.remove(event)
        before = self.record
        after = lifecycle.reported(before, event)
        if isinstance(after, Refusal):
            if before.ended:
                assert after is Refusal.ENDED
            elif Token.of(event.token) < before.token:
                assert after is Refusal.STALE
            else:
                assert after is Refusal.DUPLICATE
            return
        assert Token.of(event.token) >= before.token, "a stale event changed something"
        assert after.token >= Token.of(event.token)
        assert isinstance(lifecycle.reported(after, event), Refusal), "the same event twice is more than once"
        self._become(after)

    # What must hold

    @invariant()
    def makes_sense(self) -> None:
        record = self.record
        assert (record.custody is Custody.NONE) == record.ended
        assert bool(record.end_us) == record.ended
        assert bool(record.due_us) == (record.custody is Custody.STORE)
        assert record.start_us == (record.attempts[0].start_us if record.attempts else 0)
        if record.state in {State.EXPIRED, State.INVALID, State.SCHEDULED}:
            assert not record.attempts
        if record.state in {State.STOPPING, State.STOPPED}:
            assert record.stop_request is not None
        if record.ended:
            assert all(attempt.end_us for attempt in record.attempts)
            assert (record.failure is None) == (record.state is State.SUCCEEDED)

    @invariant()
    def never_lost(self) -> None:
        """What has not ended is in a hand that will end it or give it on."""
        record = self.record
        if record.state is State.STOPPING:
            return  # the servers see to it until all workers have answered
        if record.custody is not Custody.BROKER:
            return  # ended; or the store holds it; or it was sent, and the sweeper takes back what was
        held = any(message.generation == record.token.generation for message in self.messages)
        told = any(_lets_go(event) and Token.of(event.token) >= record.token for event in self.events)
        assert held or told

    def teardown(self) -> None:
        """Whatever has happened: when all that was said is heard and one worker goes on, the invocation ends."""
        for _ in range(10):
            for event in self.events:
                after = lifecycle.reported(self.record, event)
                if isinstance(after, Record):
                    self._become(after)
            self.events = []
            if self.record.custody is Custody.LEASE:
                self.end_lease()
            if self.record.state is State.STOPPING:
                self.settle_stop()
            if self.record.ended:
                return
            self._back_to_the_broker()
            for holder in self.holders:
                if holder.holds:
                    self._redeliver(holder.message)
            self.holders = []
            message = next(each for each in self.messages if each.generation == self.record.token.generation)
            worker = Reporter(message.generation, message.deliveries, worker="last", time_us=next(self.time))
            if message.lost_starts + message.deliveries >= limits.POISON_STARTS:
                self.events.append(worker.requeued("REDELIVERED"))
            else:
                self.events.append(worker.ended(State.SUCCEEDED))
            self.messages.remove(message)
        raise AssertionError("it never ends")

    # Helpers

    def _back_to_the_broker(self) -> None:
        if self.record.custody is Custody.SENT:
            self.take_back()
        if self.record.custody is Custody.STORE:
            self.hand_over("confirmed")

    def _queued(self) -> list[Message]:
        return [message for message in self.messages if message.holder is None]

    def _busy(self) -> list[Holder]:
        return [holder for holder in self.holders if not holder.last]

    @staticmethod
    def _steps_between_attempts(holder: Holder) -> list[str]:
        if holder.worker.attempts:
            return ["run", "INVALID"]
        first = ["dequeue", "run", "hand back", "INVALID"]
        return [*first, "EXPIRED"] if holder.message.may_expire else first

    def _say(self, holder: Holder, event: Event, *, last: bool = False) -> None:
        holder.said.append(event)
        holder.last = last
        self.events.append(event)

    @staticmethod
    def _redeliver(message: Message) -> None:
        message.deliveries += 1
        message.holder = None

    def _become(self, after: Record | Refusal) -> None:
        assert isinstance(after, Record)
        before, self.record = self.record, after
        assert not before.ended, "an end is final"
        assert after.token >= before.token
        assert after.state is before.state or after.state in TRANSITIONS[before.state]
        assert before.stop_request is None or after.stop_request is before.stop_request, "the first request counts"
        assert after.entries[: len(before.entries)] == before.entries
        keys = [_key(attempt) for attempt in after.attempts]
        assert keys == sorted(set(keys))
        known = dict(zip(keys, after.attempts, strict=True))
        for attempt in before.attempts:
            assert _key(attempt) in known, "an attempt vanished"
            assert not attempt.end_us or known[_key(attempt)] == attempt, "an attempt that had ended changed"


ends_while_running = ["SUCCEEDED", "FAILED", "TIMED_OUT"]

Lives.TestCase.settings = settings(
    patient, max_examples=200, stateful_step_count=40, suppress_health_check=list(HealthCheck)
)
TestLives = Lives.TestCase


def _key(attempt: AttemptRecord) -> tuple[int, int, int]:
    return attempt.token.generation, attempt.token.redelivery_count, attempt.ordinal


def _lets_go(event: Event) -> bool:
    return event.WhichOneof("kind") in {"deferred", "requeued", "ended", "leased"}


# --- The table


def test_transitions_cover_every_state_and_none_leaves_an_end() -> None:
    assert TRANSITIONS.keys() == set(State)
    assert all(not TRANSITIONS[state] for state in ENDS)
    reachable = {State.SCHEDULED, State.ENQUEUED}
    for _ in State:
        reachable |= {after for state in reachable for after in TRANSITIONS[state]}
    assert reachable == set(State)
    assert all(TRANSITIONS[state] & ENDS for state in State if state not in ENDS)


def test_states_are_those_of_the_api() -> None:
    names = {name.removeprefix("INVOCATION_STATE_"): number for name, number in api.InvocationState.items()}
    del names["UNSPECIFIED"]
    assert {state.name: state.value for state in State} == names
