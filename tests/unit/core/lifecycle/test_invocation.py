"""The life of an invocation, by examples; what holds of every history is in ``test_histories.py``."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest

from homing.v1 import invocation_pb2 as api
from homing_core import limits
from homing_core.lifecycle import Custody, Effect, Record, Refusal, State, Step, Token, custody, invocation
from homing_core.lifecycle.attempts import key_of
from homing_core.lifecycle.states import DEAD_STATES, ENDS, ENDS_OF_RUNS, TRANSITIONS
from homing_core.wire.v1 import AttemptRecord, Event, HistoryEntry
from homing_core.wire.v1 import Token as WireToken
from support.lives import (
    SECOND,
    accept,
    after,
    ask_to_stop,
    confirm,
    dispatch,
    effects,
    history,
    outcomes,
    report,
    take_back,
)
from support.reporter import NOW, Reporter

LATER = NOW + 60 * SECOND


def entry(kind: str, event: Event, *, attempt: int = 0, detail: str = "", time_us: int = 0) -> HistoryEntry:
    """Return the history entry that an event leaves."""
    return HistoryEntry(
        time_us=time_us or event.time_us,
        type=api.InvocationEventType.Value(f"INVOCATION_EVENT_TYPE_{kind}"),
        attempt=attempt,
        worker=event.worker,
        detail=detail,
    )


# --- A life without trouble


def test_accepted_is_held_by_the_store() -> None:
    accepted = HistoryEntry(time_us=NOW, type=api.INVOCATION_EVENT_TYPE_ACCEPTED)
    assert accept() == Record(
        state=State.ENQUEUED,
        token=Token(generation=0, redelivery_count=0),
        custody=Custody.STORE,
        due_us=NOW,
        sent_us=0,
        start_us=0,
        end_us=0,
        attempts=(),
        entries=(accepted,),
    )
    assert accept(due_us=NOW + 1) == replace(accept(), state=State.SCHEDULED, due_us=NOW + 1)


def test_accepted_and_dispatched_at_once_is_what_it_is_one_after_the_other() -> None:
    assert invocation.accepted_and_dispatched(time_us=NOW) == after(invocation.dispatched(accept(), time_us=NOW))


@pytest.mark.parametrize("due_us", [NOW, NOW + SECOND])
def test_dispatched_is_stored_before_it_is_published(due_us: int) -> None:
    record = accept(due_us=due_us)
    step = invocation.dispatched(record, time_us=LATER)
    enqueued = HistoryEntry(time_us=LATER, type=api.INVOCATION_EVENT_TYPE_ENQUEUED)
    assert after(step) == replace(
        record,
        state=State.ENQUEUED,
        token=Token(generation=1, redelivery_count=0),
        custody=Custody.SENT,
        due_us=0,
        sent_us=LATER,
        entries=(*record.entries, enqueued),
    )
    assert effects(step) == {Effect.PUBLISH}
    assert invocation.dispatched(after(step), time_us=LATER) is Refusal.ELSEWHERE


def test_first_attempt_succeeds() -> None:
    worker = Reporter(1)
    base = dispatch(accept())
    dequeued = worker.dequeued(cold_start=True)
    record = report(base, dequeued)
    entries = (*base.entries, entry("DEQUEUED", dequeued), entry("INSTANCE_STARTING", dequeued))
    assert record == replace(base, state=State.DEQUEUED, custody=Custody.BROKER, sent_us=0, entries=entries)
    assert history(report(base, Reporter(1).dequeued()))[-1] == ("DEQUEUED", 0)

    running = worker.running()
    begun = report(record, running)
    start_us = running.running.start_us
    entries += (entry("RUNNING", running, attempt=1, time_us=start_us),)
    assert begun == replace(
        record, state=State.RUNNING, start_us=start_us, attempts=(running.running,), entries=entries
    )

    ended = worker.ended(State.SUCCEEDED)
    step = invocation.reported(begun, ended)
    (attempt,) = ended.ended.attempts
    assert after(step) == replace(
        begun,
        state=State.SUCCEEDED,
        custody=Custody.NONE,
        end_us=ended.time_us,
        attempts=(attempt,),
        entries=(
            *entries,
            entry("ATTEMPT_ENDED", ended, attempt=1, time_us=attempt.end_us),
            entry("ENDED", ended, attempt=1, detail="SUCCEEDED"),
        ),
        result=api.Result(status_code=200),
    )
    assert effects(step) == {Effect.MAKE_DELIVERIES}


def test_attempts_at_one_worker_are_told_one_by_one() -> None:
    worker = Reporter(1)
    running, ended = worker.running(), worker.attempt_ended(503)
    begun = report(dispatch(accept()), running)
    assert begun.custody is Custody.BROKER
    record = report(begun, ended)
    attempt = ended.attempt_ended
    assert record == replace(
        begun,
        state=State.RETRYING,
        attempts=(attempt,),
        entries=(
            *begun.entries,
            entry("ATTEMPT_ENDED", ended, attempt=1, detail=attempt.failure.reason, time_us=attempt.end_us),
            entry("RETRYING", ended, attempt=1),
        ),
    )
    record = report(record, worker.running(), worker.attempt_ended(503), worker.running())
    assert (record.state, len(record.attempts)) == (State.RUNNING, 3)
    record = report(record, worker.ended(State.SUCCEEDED))
    assert outcomes(record) == ["FAILED", "FAILED", "SUCCEEDED"]
    assert [attempt.status_code for attempt in record.attempts] == [503, 503, 200]
    once = [("RUNNING", 1), ("ATTEMPT_ENDED", 1), ("RETRYING", 1), ("RUNNING", 2), ("ATTEMPT_ENDED", 2)]
    assert history(record)[2:] == [*once, ("RETRYING", 2), ("RUNNING", 3), ("ATTEMPT_ENDED", 3), ("ENDED", 3)]


def test_what_an_attempt_failed_by_is_in_the_history() -> None:
    worker = Reporter(1)
    failed = worker.attempt_ended()
    failed.attempt_ended.failure.reason = "HTTP_STATUS"
    record = report(dispatch(accept()), failed)
    assert [one.detail for one in record.entries][2:] == ["", "HTTP_STATUS", ""]
    assert (record.custody, record.sent_us) == (Custody.BROKER, 0)


def test_long_delay_is_waited_for_in_the_store() -> None:
    worker = Reporter(1)
    begun = report(dispatch(accept()), worker.running())
    deferred = worker.deferred(due_us=LATER)
    step = invocation.reported(begun, deferred)
    record = after(step)
    (attempt,) = deferred.deferred.attempts
    assert record == replace(
        begun,
        state=State.RETRYING,
        custody=Custody.STORE,
        due_us=LATER,
        attempts=(attempt,),
        entries=(
            *begun.entries,
            entry("ATTEMPT_ENDED", deferred, attempt=1, time_us=attempt.end_us),
            entry("RETRYING", deferred, attempt=1),
        ),
        result=api.Result(status_code=503),
    )
    assert effects(step) == set()
    assert (record.counted_attempts, record.lost_starts) == (1, 0)
    record = dispatch(record, time_us=LATER)
    assert record.token == Token(generation=2, redelivery_count=0)
    record = report(record, Reporter(2, worker="w2").ended(State.FAILED))
    assert (record.state, outcomes(record)) == (State.FAILED, ["FAILED", "FAILED"])
    assert record.failure == api.Failure(reason="HTTP_STATUS")
    assert [number for kind, number in history(record) if kind == "RUNNING"] == [1, 2]


def test_requeued_before_it_started_waits_again() -> None:
    worker = Reporter(1)
    begun = report(dispatch(accept()), worker.dequeued())
    requeued = worker.requeued("DRAINING")
    assert invocation.reported(begun, requeued) == Step(
        after=replace(
            begun,
            state=State.ENQUEUED,
            custody=Custody.STORE,
            due_us=requeued.time_us,
            entries=(*begun.entries, entry("REQUEUED", requeued, detail="DRAINING")),
        )
    )


@pytest.mark.parametrize("state", [State.EXPIRED, State.INVALID])
def test_ends_without_having_started(state: State) -> None:
    ended = Reporter(1).ended(state)
    step = invocation.reported(dispatch(accept()), ended)
    record = after(step)
    assert (record.state, record.attempts, record.start_us) == (state, (), 0)
    assert record.failure == api.Failure(reason=state.name)
    assert effects(step) == {Effect.MAKE_DELIVERIES, Effect.MAKE_DEAD_LETTER}


def ended_by_server(before: Record, state: State, failure: api.Failure) -> Record:
    """Return what becomes of an invocation that waited and ends without its worker's word."""
    ended = HistoryEntry(time_us=LATER, type=api.INVOCATION_EVENT_TYPE_ENDED, detail=state.name)
    entries = (*before.entries, ended)
    return replace(
        before, state=state, custody=Custody.NONE, due_us=0, sent_us=0, end_us=LATER, entries=entries, failure=failure
    )


IN_VAIN = {Effect.MAKE_DELIVERIES, Effect.MAKE_DEAD_LETTER}
EXPIRED = api.Failure(reason="EXPIRED", message="max_age passed before it started")
DELETED = api.Failure(reason="FUNCTION_DELETED", message="function 'f' was deleted")
GIVEN_UP = api.Failure(
    reason="POISON",
    message="the broker gave up redelivering it (limit): too many workers were lost while they had it in flight",
)


def test_what_waits_ends_when_it_is_too_old_or_its_function_is_deleted() -> None:
    record = accept()
    step = invocation.expired(record, time_us=LATER)
    assert (after(step), effects(step)) == (ended_by_server(record, State.EXPIRED, EXPIRED), IN_VAIN)
    step = invocation.function_deleted(record, function="f", time_us=LATER)
    assert (after(step), effects(step)) == (ended_by_server(record, State.INVALID, DELETED), IN_VAIN)
    started = report(dispatch(record), Reporter(1).running(), Reporter(1).requeued())
    failed = after(invocation.function_deleted(started, function="f", time_us=LATER))
    assert (failed.state, failed.failure) == (State.FAILED, DELETED)


@pytest.mark.parametrize(
    ("why", "state", "failure"),
    [
        ("", State.INVALID, DELETED),
        ("expired", State.EXPIRED, EXPIRED),
        ("limit", State.FAILED, GIVEN_UP),
    ],
)
def test_what_the_broker_drops_ends(why: str, state: State, failure: api.Failure) -> None:
    record = confirm(dispatch(accept()))
    step = invocation.dropped(record, generation=1, why=why, function="f", time_us=LATER)
    assert (after(step), effects(step)) == (ended_by_server(record, state, failure), IN_VAIN)
    assert invocation.dropped(after(step), generation=1, why=why, function="f", time_us=LATER) is Refusal.ENDED
    for other in (0, 2):
        assert invocation.dropped(record, generation=other, why=why, function="f", time_us=LATER) is Refusal.STALE


def test_what_was_started_in_time_and_then_expires_at_the_broker_goes_on() -> None:
    record = report(dispatch(accept()), Reporter(1).running())
    step = invocation.dropped(record, generation=1, why="expired", function="f", time_us=LATER)
    requeued = HistoryEntry(time_us=LATER, type=api.INVOCATION_EVENT_TYPE_REQUEUED, detail="EXPIRED_AFTER_START")
    assert (after(step).state, after(step).custody, after(step).due_us) == (State.RETRYING, Custody.STORE, LATER)
    assert (outcomes(after(step)), after(step).entries[-1]) == (["LOST"], requeued)
    assert (
        invocation.dropped(after(step), generation=1, why="expired", function="f", time_us=LATER) is Refusal.ELSEWHERE
    )


def test_p6_every_end_has_its_deliveries_made_and_what_came_to_nothing_a_dead_letter() -> None:
    assert {State.FAILED, State.TIMED_OUT, State.EXPIRED, State.INVALID} == DEAD_STATES
    for state in ENDS_OF_RUNS:
        worker = Reporter(1)
        step = invocation.reported(report(dispatch(accept()), worker.running()), worker.ended(state))
        in_vain = {Effect.MAKE_DEAD_LETTER} if state in {State.FAILED, State.TIMED_OUT} else set()
        assert effects(step) == {Effect.MAKE_DELIVERIES} | in_vain


# --- The outbox


def test_what_is_confirmed_is_the_brokers() -> None:
    record = dispatch(accept())
    assert confirm(record) == replace(record, custody=Custody.BROKER, sent_us=0)


def test_p3_what_was_not_confirmed_is_taken_back_and_goes_under_a_new_generation() -> None:
    record = dispatch(accept())
    assert invocation.taken_back(record, generation=1, due_us=LATER) == Step(
        after=replace(record, custody=Custody.STORE, due_us=LATER, sent_us=0)
    )
    again = dispatch(take_back(record))
    assert again.token == Token(generation=2, redelivery_count=0)
    assert invocation.taken_back(again, generation=1, due_us=LATER) is Refusal.STALE
    assert invocation.taken_back(confirm(again), generation=2, due_us=LATER) is Refusal.ELSEWHERE
    ended = report(again, Reporter(2).ended(State.SUCCEEDED))
    assert invocation.taken_back(ended, generation=2, due_us=LATER) is Refusal.ENDED
    assert invocation.reported(again, Reporter(1).ended(State.FAILED)) is Refusal.STALE


def test_what_is_stopping_is_not_taken_back() -> None:
    asked = ask_to_stop(dispatch(accept()))
    step = invocation.taken_back(asked, generation=1, due_us=LATER)
    assert step == Step(after=replace(asked, custody=Custody.BROKER, sent_us=0))
    assert invocation.taken_back(asked, generation=2, due_us=LATER) is Refusal.STALE
    assert invocation.taken_back(after(step), generation=1, due_us=LATER) is Refusal.ELSEWHERE


def test_what_a_broker_has_lost_is_enqueued_again_and_what_is_stopping_is_not() -> None:
    sent = dispatch(accept())
    worker = Reporter(1)
    begun = report(sent, worker.running())
    for record in (sent, begun, report(begun, worker.leased())):
        assert invocation.broker_lost(record, due_us=LATER) == Step(
            after=replace(record, state=State.ENQUEUED, custody=Custody.STORE, due_us=LATER, sent_us=0)
        )
    assert invocation.broker_lost(accept(), due_us=LATER) is Refusal.ELSEWHERE
    assert invocation.broker_lost(ask_to_stop(sent), due_us=LATER) is Refusal.ELSEWHERE
    assert invocation.broker_lost(ask_to_stop(accept()), due_us=LATER) is Refusal.ENDED


def test_end_of_work_that_was_taken_back_counts() -> None:
    """Its publish was never seen confirmed, and a worker has done it nonetheless."""
    worker = Reporter(1)
    taken_back = take_back(dispatch(accept()))
    assert invocation.reported(taken_back, worker.running()) is Refusal.DUPLICATE
    record = report(taken_back, worker.ended(State.SUCCEEDED))
    assert (record.state, record.custody, record.due_us) == (State.SUCCEEDED, Custody.NONE, 0)


# --- Trouble


def test_attempt_of_a_lost_worker_is_closed_when_the_next_one_speaks() -> None:
    lost, next_ = Reporter(1, 0), Reporter(1, 1, worker="w2", time_us=NOW + SECOND)
    running, dequeued = lost.running(), next_.dequeued()
    begun = report(dispatch(accept()), running)
    record = report(begun, dequeued)
    (attempt,) = record.attempts
    expected = AttemptRecord()
    expected.CopyFrom(running.running)
    expected.end_us, expected.outcome = dequeued.time_us, api.ATTEMPT_OUTCOME_LOST
    expected.failure.reason, expected.failure.retryable = "WORKER_LOST", True
    expected.failure.message = "the worker was not heard of again; whether the attempt finished is unknown"
    assert attempt == expected
    assert record == replace(
        begun,
        state=State.DEQUEUED,
        token=Token(generation=1, redelivery_count=1),
        attempts=(expected,),
        entries=(*begun.entries, entry("DEQUEUED", dequeued)),
    )
    assert (record.lost_starts, record.counted_attempts) == (1, 0)
    assert (begun.lost_starts, begun.counted_attempts) == (0, 0)
    record = report(record, next_.running(), next_.ended(State.SUCCEEDED))
    assert outcomes(record) == ["LOST", "SUCCEEDED"]
    assert [one for one in history(record) if one[0] == "RUNNING"] == [("RUNNING", 1), ("RUNNING", 2)]


def test_a_redelivery_takes_it_out_of_the_store_and_off_a_lease() -> None:
    """The message was let go, and the acknowledgement was lost with its connection."""
    worker, again = Reporter(1, 0), Reporter(1, 1, worker="w2")
    deferred = report(dispatch(accept()), worker.running(), worker.deferred(due_us=LATER))
    record = report(deferred, again.dequeued())
    assert (record.state, record.custody, record.due_us) == (State.DEQUEUED, Custody.BROKER, 0)
    leased = report(dispatch(accept()), Reporter(1, 0).leased(), again.running())
    assert (leased.state, leased.custody) == (State.RUNNING, Custody.BROKER)


def test_a_clock_that_is_behind_lets_no_attempt_end_before_it_began() -> None:
    running = Reporter(1).running()
    record = report(dispatch(accept()), running, Reporter(1, 1, time_us=NOW - SECOND).dequeued())
    assert record.attempts[0].end_us == running.running.start_us


def test_attempt_of_a_lost_worker_is_closed_when_it_is_dispatched_again() -> None:
    record = report(dispatch(accept()), Reporter(1).running())
    record = dispatch(after(invocation.broker_lost(record, due_us=NOW)), time_us=NOW + SECOND)
    assert (record.state, outcomes(record), record.attempts[0].end_us) == (State.ENQUEUED, ["LOST"], NOW + SECOND)


def test_attempt_of_a_lost_worker_is_closed_by_an_end_that_nobody_reports() -> None:
    record = report(dispatch(accept()), Reporter(1).running())
    step = invocation.function_deleted(record, function="f", time_us=NOW + SECOND)
    assert (outcomes(after(step)), after(step).attempts[0].end_us) == (["LOST"], NOW + SECOND)
    assert history(after(step))[-1] == ("ENDED", 1)


def test_p3_stale_attempt_cannot_settle() -> None:
    stale, current = Reporter(1, 0), Reporter(1, 1, worker="w2")
    record = report(dispatch(accept()), stale.running(), current.running())
    assert invocation.reported(record, stale.ended(State.FAILED)) is Refusal.STALE
    record = report(record, current.ended(State.SUCCEEDED))
    assert record.state is State.SUCCEEDED


def test_p2_end_is_final() -> None:
    worker = Reporter(1)
    record = report(dispatch(accept()), worker.running(), worker.ended(State.SUCCEEDED))
    assert invocation.reported(record, Reporter(1, 1).running()) is Refusal.ENDED
    assert invocation.reported(record, Reporter(9).ended(State.FAILED)) is Refusal.ENDED
    assert invocation.reported(record, Reporter(0).ended(State.FAILED)) is Refusal.ENDED
    assert invocation.dispatched(record, time_us=NOW) is Refusal.ENDED
    assert invocation.lease_expired(record, time_us=NOW) is Refusal.ENDED
    assert invocation.expired(record, time_us=NOW) is Refusal.ENDED
    assert invocation.function_deleted(record, function="f", time_us=NOW) is Refusal.ENDED


def test_started_in_time_and_lost_is_not_expired() -> None:
    late = Reporter(1, 1, worker="w2").ended(State.EXPIRED)
    begun = report(dispatch(accept()), Reporter(1, 0).running())
    record = report(begun, late)
    assert (record.state, record.custody, record.due_us) == (State.RETRYING, Custody.STORE, late.time_us)
    assert outcomes(record) == ["LOST"]
    assert record.entries == (*begun.entries, entry("REQUEUED", late, detail="STARTED"))
    assert invocation.reported(record, late) is Refusal.DUPLICATE
    # Of the start only the end tells.
    worker = Reporter(1)
    worker.attempt_ended()
    record = report(dispatch(accept()), worker.ended(State.EXPIRED))
    assert (record.state, outcomes(record)) == (State.RETRYING, ["FAILED"])


def test_started_and_its_function_then_deleted_is_failed() -> None:
    record = report(dispatch(accept()), Reporter(1, 0).running(), Reporter(1, 1).ended(State.INVALID))
    assert (record.state, outcomes(record)) == (State.FAILED, ["LOST"])


def test_poison_ends_after_three_lost_starts() -> None:
    record = dispatch(accept())
    for count in range(limits.POISON_STARTS - 1):
        record = report(record, Reporter(1, count).running())
    suspected = report(record, Reporter(1, limits.POISON_STARTS).requeued("REDELIVERED"))
    assert (suspected.state, suspected.lost_starts) == (State.RETRYING, limits.POISON_STARTS - 1)
    record = report(record, Reporter(1, limits.POISON_STARTS).running())
    requeued = Reporter(1, limits.POISON_STARTS + 1, worker="w9").requeued("REDELIVERED")
    step = invocation.reported(record, requeued)
    assert after(step).state is State.FAILED
    assert after(step).failure == api.Failure(
        reason="POISON", message="3 workers were lost while they ran it; it is not started again"
    )
    assert outcomes(after(step)) == ["LOST"] * 3
    assert after(step).entries[-1] == entry("ENDED", requeued, attempt=3, detail="FAILED")
    assert effects(step) == {Effect.MAKE_DELIVERIES, Effect.MAKE_DEAD_LETTER}


def test_suspected_poison_that_never_started_is_none() -> None:
    """The broker counts deliveries of messages that were only prefetched too."""
    record = report(dispatch(accept()), Reporter(1, 7).requeued("REDELIVERED"))
    assert (record.state, record.custody) == (State.ENQUEUED, Custody.STORE)


def test_what_is_requeued_after_it_began_is_lost() -> None:
    worker = Reporter(1)
    begun = dispatch(accept())
    running = worker.running()
    requeued = worker.requeued()
    record = report(begun, requeued)
    assert (record.state, outcomes(record)) == (State.RETRYING, ["LOST"])
    assert record.attempts[0].end_us == requeued.time_us
    assert record.start_us == running.running.start_us


# --- Progress


def test_progress_is_the_last_that_was_said_since_the_dispatch() -> None:
    worker = Reporter(1)
    base = report(dispatch(accept()), worker.running())
    early, late = worker.progressed(40), worker.progressed(50, "half")
    record = report(base, late)
    assert record == replace(base, progress=late.progress)
    assert invocation.reported(record, early) is Refusal.DUPLICATE
    assert invocation.reported(record, late) is Refusal.DUPLICATE
    assert report(record, worker.ended(State.FAILED)).progress == record.progress
    assert report(record, Reporter(1, 1).running()).progress is None
    assert dispatch(report(record, worker.deferred(due_us=NOW))).progress is None
    assert report(base, early, late).progress == late.progress


# --- Leases


def test_a_lease_takes_the_message_from_the_broker_and_is_renewed_without_a_trace() -> None:
    worker = Reporter(1)
    begun = report(dispatch(accept()), worker.dequeued(), worker.running())
    event = worker.leased()
    leased = report(begun, event)
    assert leased == replace(begun, custody=Custody.LEASE, entries=(*begun.entries, entry("LEASED", event, attempt=1)))
    assert invocation.reported(leased, worker.leased()) is Refusal.DUPLICATE
    record = report(leased, worker.attempt_ended())
    assert (record.state, record.custody) == (State.RETRYING, Custody.LEASE)
    record = report(record, worker.running())
    assert (record.state, record.custody) == (State.RUNNING, Custody.LEASE)
    assert report(record, worker.ended(State.SUCCEEDED)).custody is Custody.NONE
    assert report(record, worker.deferred(due_us=NOW)).custody is Custody.STORE
    assert report(report(dispatch(accept()), worker.leased()), worker.dequeued()).custody is Custody.LEASE


def test_a_lease_that_expires_or_is_returned_loses_the_attempt() -> None:
    worker = Reporter(1)
    record = report(dispatch(accept()), worker.running(), worker.leased())
    expired = invocation.lease_expired(record, time_us=LATER)
    requeued = HistoryEntry(time_us=LATER, type=api.INVOCATION_EVENT_TYPE_REQUEUED, detail="LEASE_ENDED")
    assert after(expired) == replace(
        record,
        state=State.RETRYING,
        custody=Custody.STORE,
        due_us=LATER,
        attempts=after(expired).attempts,
        entries=(*record.entries, requeued),
    )
    assert (outcomes(after(expired)), after(expired).attempts[0].end_us) == (["LOST"], LATER)
    assert invocation.lease_expired(after(expired), time_us=NOW) is Refusal.ELSEWHERE
    assert invocation.reported(after(expired), worker.leased()) is Refusal.DUPLICATE

    event = worker.leased(term_us=0)
    returned = report(record, event)
    assert (returned.state, returned.custody, returned.due_us) == (State.RETRYING, Custody.STORE, event.time_us)
    assert returned.entries[-1] == entry("REQUEUED", event, detail="LEASE_RETURNED")
    assert (outcomes(returned), returned.attempts[0].end_us) == (["LOST"], event.time_us)
    assert report(dispatch(returned), Reporter(2).running()).state is State.RUNNING
    unleased = report(dispatch(accept()), Reporter(1).running())
    assert invocation.reported(unleased, worker.leased(term_us=0)) is Refusal.DUPLICATE


def test_three_leases_that_expire_are_poison() -> None:
    record = accept()
    for generation in range(1, limits.POISON_STARTS + 1):
        worker = Reporter(generation)
        record = report(dispatch(record), worker.running(), worker.leased())
        record = after(invocation.lease_expired(record, time_us=NOW))
    assert (record.state, record.failure and record.failure.reason) == (State.FAILED, "POISON")
    assert record.entries[-1].worker == ""
    assert invocation.lease_expired(record, time_us=NOW) is Refusal.ENDED


# --- Stops


@pytest.mark.parametrize("due_us", [NOW, NOW + SECOND])
def test_what_was_never_dispatched_is_stopped_at_once(due_us: int) -> None:
    before = accept(due_us=due_us)
    step = invocation.stop_requested(before, caller="me", reason="enough", time_us=LATER)
    record = after(step)
    request = api.StopRequest(caller="me", reason="enough")
    request.time.FromMicroseconds(LATER)
    asked = HistoryEntry(time_us=LATER, type=api.INVOCATION_EVENT_TYPE_STOP_REQUESTED, detail="enough")
    ended = HistoryEntry(time_us=LATER, type=api.INVOCATION_EVENT_TYPE_ENDED, detail="STOPPED")
    assert record == replace(
        before,
        state=State.STOPPED,
        custody=Custody.NONE,
        due_us=0,
        end_us=LATER,
        stop_request=request,
        failure=api.Failure(reason="STOPPED", message="stopped by request: enough"),
        entries=(*before.entries, asked, ended),
    )
    assert effects(step) == {Effect.MAKE_DELIVERIES}
    assert invocation.stop_requested(record, caller="", reason="", time_us=NOW) is Refusal.ENDED


def test_what_somebody_may_have_in_flight_is_stopping_until_nobody_has() -> None:
    worker = Reporter(1)
    sent = dispatch(accept())
    leased = report(sent, Reporter(1).running(), Reporter(1).leased())
    back = report(sent, worker.running(), worker.deferred(due_us=LATER))
    for record in (sent, report(sent, Reporter(1).dequeued()), confirm(sent), leased, back):
        step = invocation.stop_requested(record, caller="me", reason="", time_us=LATER)
        asked = after(step)
        # It is not dispatched any more, whoever held it; of what came back to the store a message may linger.
        holder = Custody.BROKER if record is back else record.custody
        assert (asked.state, asked.custody, asked.due_us) == (State.STOPPING, holder, 0)
        assert effects(step) == {Effect.WRITE_TOMBSTONE}
        assert invocation.stop_requested(asked, caller="", reason="again", time_us=NOW) is Refusal.DUPLICATE
        settled = invocation.stopped(asked, time_us=LATER)
        assert (after(settled).state, after(settled).end_us) == (State.STOPPED, LATER)
        assert after(settled).failure == api.Failure(reason="STOPPED", message="stopped by request")
        assert effects(settled) == {Effect.MAKE_DELIVERIES}
        assert invocation.stopped(after(settled), time_us=NOW) is Refusal.ENDED
        assert invocation.stopped(record, time_us=NOW) is Refusal.DUPLICATE


def test_its_worker_decides_between_stop_and_finish() -> None:
    for state in (State.STOPPED, State.SUCCEEDED, State.FAILED, State.TIMED_OUT):
        worker = Reporter(1)
        record = ask_to_stop(report(dispatch(accept()), worker.running()))
        assert report(record, worker.progress()).state is State.STOPPING
        ended = worker.ended(state)
        record = report(record, ended)
        assert (record.state, outcomes(record)) == (state, [state.name])
        assert record.result == (ended.ended.result if ended.ended.HasField("result") else None)
        assert record.entries[-1] == entry("ENDED", ended, attempt=1, detail=state.name)
        assert record.end_us == ended.time_us
        assert invocation.stopped(record, time_us=NOW) is Refusal.ENDED
        assert invocation.reported(record, worker.ended(State.SUCCEEDED)) is Refusal.ENDED


def test_what_was_stopped_by_its_worker_keeps_its_answer_and_says_why() -> None:
    worker = Reporter(1)
    record = ask_to_stop(report(dispatch(accept()), worker.running()))
    ended = worker.ended(State.STOPPED)
    ended.ended.result.status_code = 206
    record = report(record, ended)
    assert record.result == api.Result(status_code=206)
    assert record.failure == api.Failure(reason="STOPPED", message="stopped by request: enough")


def test_what_would_be_dispatched_again_is_stopped_instead() -> None:
    worker, idle = Reporter(1), Reporter(1)
    running = report(dispatch(accept()), worker.running(), worker.leased())
    asked = ask_to_stop(report(dispatch(accept()), idle.dequeued()))
    later = Reporter(1).deferred(due_us=LATER)
    ends = [
        invocation.lease_expired(ask_to_stop(running), time_us=NOW),
        invocation.reported(asked, idle.requeued()),
        invocation.reported(asked, idle.ended(State.EXPIRED)),
        invocation.reported(asked, idle.ended(State.INVALID)),
        invocation.function_deleted(asked, function="f", time_us=LATER),
        invocation.reported(asked, Reporter(1, 2).requeued("REDELIVERED")),
        invocation.reported(asked, later),
    ]
    assert [after(end).state for end in ends] == [State.STOPPED] * len(ends)
    assert [after(end).end_us for end in ends[4::2]] == [LATER, later.time_us]
    assert history(after(ends[1]))[-2:] == [("REQUEUED", 0), ("ENDED", 0)]


def test_what_is_stopping_and_poison_is_stopped() -> None:
    record = dispatch(accept())
    for count in range(limits.POISON_STARTS):
        record = report(record, Reporter(1, count).running())
    record = report(ask_to_stop(record), Reporter(1, limits.POISON_STARTS).requeued())
    assert (record.state, record.lost_starts) == (State.STOPPED, limits.POISON_STARTS)


def test_a_stop_outlasts_a_redelivery_and_an_attempt_that_ends() -> None:
    record = ask_to_stop(report(dispatch(accept()), Reporter(1).running()))
    again = Reporter(1, 1, worker="w2")
    record = report(record, again.running())
    assert (record.state, outcomes(record)) == (State.STOPPING, ["LOST", "UNSPECIFIED"])
    before = history(record)
    record = report(record, again.attempt_ended())
    assert record.state is State.STOPPING
    assert history(record) == [*before, ("ATTEMPT_ENDED", 2)], "no other attempt follows"
    assert report(record, again.ended(State.STOPPED)).state is State.STOPPED


def test_a_stop_that_the_invocation_is_too_young_for_counts_nonetheless() -> None:
    """Workers heed tombstones, whatever the record says."""
    worker = Reporter(1)
    record = report(dispatch(accept()), worker.ended(State.STOPPED))
    assert (record.state, record.failure and record.failure.message) == (State.STOPPED, "stopped by request")


def test_a_worker_says_why_it_has_stopped_what_nobody_asked_to_stop() -> None:
    """The caller of a synchronous invocation went away."""
    event = Reporter(1).ended(State.STOPPED)
    event.ended.failure.message = "its caller went away"
    record = report(dispatch(accept()), event)
    assert (record.state, record.failure and record.failure.message) == (State.STOPPED, "its caller went away")

    asked = after(invocation.stop_requested(dispatch(accept()), caller="me", reason="enough", time_us=NOW))
    asked = report(asked, event)
    assert (asked.state, asked.failure and asked.failure.message) == (State.STOPPED, "stopped by request: enough")


def test_when_a_worker_lets_its_message_go() -> None:
    worker = Reporter(1)
    assert invocation.lets_go(worker.deferred(due_us=NOW))
    assert invocation.lets_go(worker.requeued())
    assert invocation.lets_go(worker.ended(State.FAILED))
    assert invocation.lets_go(worker.leased(term_us=1))
    for event in (worker.leased(term_us=0), worker.dequeued(), worker.running(), worker.progress()):
        assert not invocation.lets_go(event)


# --- Synchronous invocations


def call() -> Record:
    return invocation.called(time_us=NOW, lost_us=LATER)


def test_a_synchronous_invocation_is_held_by_its_caller_and_never_published() -> None:
    accepted = HistoryEntry(time_us=NOW, type=api.INVOCATION_EVENT_TYPE_ACCEPTED)
    assert call() == Record(
        state=State.ENQUEUED,
        token=Token(generation=1, redelivery_count=0),
        custody=Custody.CALLER,
        due_us=LATER,
        entries=(accepted,),
    )
    running = report(call(), Reporter(1).running())
    assert (running.state, running.custody, running.due_us) == (State.RUNNING, Custody.CALLER, LATER)
    for record in (call(), running, ask_to_stop(running)):
        assert invocation.dispatched(record, time_us=NOW) is Refusal.ELSEWHERE
        assert invocation.broker_lost(record, due_us=NOW) is Refusal.ELSEWHERE
        assert invocation.lease_expired(record, time_us=NOW) is Refusal.ELSEWHERE
        assert invocation.reported(record, Reporter(1, 1).running()) is Refusal.ELSEWHERE


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.FAILED, State.TIMED_OUT, State.STOPPED])
def test_the_end_of_a_synchronous_invocation_is_its_callers_alone(state: State) -> None:
    worker = Reporter(1)
    running = worker.running()
    ended = worker.ended(state)
    for begun in (call(), report(call(), running)):
        step = invocation.reported(begun, ended)
        record = after(step)
        assert (record.state, record.custody, record.due_us, outcomes(record)) == (state, Custody.NONE, 0, [state.name])
        assert effects(step) == set(), "nothing is delivered, and nothing is to be looked after"
        assert invocation.reported(record, running) is Refusal.ENDED
    assert history(record) == [("ACCEPTED", 0), ("RUNNING", 1), ("ATTEMPT_ENDED", 1), ("ENDED", 1)]


def test_a_synchronous_invocation_that_nobody_reports_of_is_lost() -> None:
    step = invocation.call_lost(report(call(), Reporter(1).running()), time_us=LATER)
    lost = after(step)
    assert (lost.state, lost.end_us, outcomes(lost), effects(step)) == (State.FAILED, LATER, ["LOST"], set())
    words = "its worker has not reported how it ended; whether the function finished is unknown"
    assert lost.failure == api.Failure(reason="WORKER_LOST", message=words)

    never = after(invocation.call_lost(call(), time_us=LATER))
    words = "its caller waits no more, and it has not started"
    assert (never.state, never.end_us) == (State.EXPIRED, LATER)
    assert never.failure == api.Failure(reason="EXPIRED", message=words)

    for record in (call(), report(call(), Reporter(1).running())):
        assert after(invocation.call_lost(ask_to_stop(record), time_us=LATER)).state is State.STOPPED
    assert invocation.call_lost(lost, time_us=LATER) is Refusal.ENDED
    assert invocation.call_lost(dispatch(accept()), time_us=LATER) is Refusal.ELSEWHERE


def test_a_synchronous_invocation_is_stopped_as_others_are() -> None:
    for record in (call(), report(call(), Reporter(1).running())):
        step = invocation.stop_requested(record, caller="me", reason="enough", time_us=NOW)
        assert (after(step).state, after(step).custody, after(step).due_us) == (State.STOPPING, Custody.CALLER, LATER)
        assert effects(step) == {Effect.WRITE_TOMBSTONE}
        stopped = invocation.stopped(after(step), time_us=NOW)
        assert (after(stopped).state, effects(stopped)) == (State.STOPPED, set())


# --- What is odd


def test_the_last_answer_is_kept_when_the_end_brings_none() -> None:
    """The acknowledgement of a deferral was lost, and the redelivery times out, all in one batch of events."""
    deferred = Reporter(1, 0).deferred(due_us=LATER, status_code=503)
    record = report(dispatch(accept()), deferred, Reporter(1, 1).ended(State.TIMED_OUT))
    assert record.result == api.Result(status_code=503)
    silent = Reporter(1, 1).deferred(due_us=LATER)
    silent.deferred.ClearField("result")
    assert report(dispatch(accept()), deferred, silent).result == api.Result(status_code=503)


def test_events_that_make_no_sense_are_errors() -> None:
    record = dispatch(accept())
    with pytest.raises(ValueError, match=r"^an event of kind None does not belong to the life of an invocation$"):
        invocation.reported(record, Event(token=WireToken(generation=1)))
    with pytest.raises(ValueError, match=r"^an event says that the invocation ended RUNNING, which is no end$"):
        invocation.reported(record, Reporter(1).ended(State.RUNNING))


# --- Events of one dispatch in the wrong order


def test_dequeued_after_running_tells_nothing_new() -> None:
    worker = Reporter(1)
    dequeued, running = worker.dequeued(), worker.running()
    record = report(dispatch(accept()), running)
    assert invocation.reported(record, dequeued) is Refusal.DUPLICATE


def test_running_twice_tells_nothing_new() -> None:
    running = Reporter(1).running()
    assert invocation.reported(report(dispatch(accept()), running), running) is Refusal.DUPLICATE


def test_attempt_ended_after_the_next_running() -> None:
    worker = Reporter(1)
    running, ended, next_ = worker.running(), worker.attempt_ended(), worker.running()
    record = report(dispatch(accept()), running, next_, ended)
    assert (record.state, outcomes(record)) == (State.RUNNING, ["FAILED", "UNSPECIFIED"])
    assert history(record)[-1] == ("ATTEMPT_ENDED", 1)
    assert invocation.reported(record, ended) is Refusal.DUPLICATE


def test_running_after_its_end() -> None:
    worker = Reporter(1)
    running, ended = worker.running(), worker.attempt_ended()
    record = report(dispatch(accept()), ended)
    assert (record.state, outcomes(record)) == (State.RETRYING, ["FAILED"])
    assert history(record)[-3:] == [("RUNNING", 1), ("ATTEMPT_ENDED", 1), ("RETRYING", 1)]
    assert invocation.reported(record, running) is Refusal.DUPLICATE


def test_second_attempt_before_the_first() -> None:
    worker = Reporter(1)
    first, _, second = worker.running(), worker.attempt_ended(), worker.running()
    record = report(dispatch(accept()), second)
    assert record.start_us == second.running.start_us
    record = report(record, first)
    assert record.state is State.RUNNING
    assert [attempt.ordinal for attempt in record.attempts] == [1, 2]
    assert record.start_us == first.running.start_us
    assert [one for one in history(record) if one[0] == "RUNNING"] == [("RUNNING", 2), ("RUNNING", 1)]


def test_second_attempt_ends_before_the_first_began() -> None:
    worker = Reporter(1)
    first, ended, _, second = worker.running(), worker.attempt_ended(), worker.running(), worker.attempt_ended()
    record = report(dispatch(accept()), second)
    assert (record.state, history(record)[-1]) == (State.RETRYING, ("RETRYING", 1))
    record = report(record, first, ended)
    assert (record.state, outcomes(record)) == (State.RETRYING, ["FAILED", "FAILED"])
    assert history(record)[-2:] == [("RUNNING", 1), ("ATTEMPT_ENDED", 1)]


def test_running_after_the_end_of_all() -> None:
    worker = Reporter(1)
    running, ended = worker.running(), worker.ended(State.SUCCEEDED)
    record = report(dispatch(accept()), ended)
    assert (record.state, outcomes(record)) == (State.SUCCEEDED, ["SUCCEEDED"])
    assert record.start_us == running.running.start_us
    assert invocation.reported(record, running) is Refusal.ENDED


def test_attempts_are_ordered_by_token_and_ordinal() -> None:
    keys = [(1, 0, 2), (1, 1, 1), (2, 0, 1)]
    made = [
        AttemptRecord(token=WireToken(generation=generation, redelivery_count=count), ordinal=ordinal)
        for generation, count, ordinal in keys
    ]
    assert [key_of(attempt) for attempt in made] == keys == sorted(keys)


# --- The table


def test_transitions_cover_every_state_and_none_leaves_an_end() -> None:
    assert TRANSITIONS.keys() == set(State)
    assert all(not TRANSITIONS[state] for state in ENDS)
    assert all(TRANSITIONS[state] & ENDS for state in State if state not in ENDS)
    assert {State.SUCCEEDED, State.FAILED, State.TIMED_OUT, State.STOPPED} == ENDS_OF_RUNS
    assert ENDS_OF_RUNS | {State.EXPIRED, State.INVALID} == ENDS


def test_states_are_those_of_the_api() -> None:
    names = {name.removeprefix("INVOCATION_STATE_"): number for name, number in api.InvocationState.items()}
    del names["UNSPECIFIED"]
    assert {state.name: state.value for state in State} == names


def test_every_transition_of_the_table_happens_and_no_other() -> None:
    """Goes through all that can happen to an invocation, in every order, up to a small number of steps."""
    seen: set[tuple[State, State]] = set()
    known: set[object] = set()
    front = [accept(), accept(due_us=NOW + SECOND), call()]
    for _ in range(4):
        reached = []
        for before in front:
            for step in every_step(before):
                if isinstance(step, Step):
                    if step.after.state is not before.state:
                        seen.add((before.state, step.after.state))
                    shape = shape_of(step.after)
                    if shape not in known:
                        known.add(shape)
                        reached.append(step.after)
        front = reached
    assert seen == {(before, after_) for before, afters in TRANSITIONS.items() for after_ in afters}


def every_step(record: Record) -> list[Step[Record] | Refusal]:
    generation = record.token.generation
    steps = [
        invocation.dispatched(record, time_us=NOW),
        custody.confirmed(record, generation=generation),
        invocation.taken_back(record, generation=generation, due_us=NOW),
        invocation.broker_lost(record, due_us=NOW),
        invocation.stop_requested(record, caller="", reason="", time_us=NOW),
        invocation.stopped(record, time_us=NOW),
        invocation.lease_expired(record, time_us=NOW),
        invocation.function_deleted(record, function="f", time_us=NOW),
        invocation.call_lost(record, time_us=NOW),
    ]
    if not record.attempts:
        steps.append(invocation.expired(record, time_us=NOW))
    if generation:
        steps += [
            invocation.dropped(record, generation=generation, why=why, function="f", time_us=NOW)
            for why in ("", "expired", "delivery_limit")
        ]
    for count in (0, 1) if generation else ():
        steps += [invocation.reported(record, event) for event in every_event(generation, count)]
    return steps


@functools.cache
def every_event(generation: int, count: int) -> list[Event]:
    ends = [State.SUCCEEDED, State.FAILED, State.TIMED_OUT, State.STOPPED, State.EXPIRED, State.INVALID]
    return [
        Reporter(generation, count).dequeued(),
        Reporter(generation, count).running(),
        Reporter(generation, count).attempt_ended(),
        Reporter(generation, count).deferred(due_us=LATER),
        Reporter(generation, count).requeued(),
        Reporter(generation, count).leased(),
        *(Reporter(generation, count).ended(state) for state in ends),
    ]


def shape_of(record: Record) -> object:
    """Return what decides on what may follow."""
    newest = record.token.redelivery_count, min(record.token.generation, 2)
    return record.state, record.custody, newest, len(record.attempts), all(each.end_us for each in record.attempts)
