"""The life of a delivery, by examples; what holds of every history is in ``test_histories.py``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Final

import pytest

from homing.v1 import invocation_pb2 as api
from homing.v1.function_pb2 import Function
from homing.v1.policy_pb2 import Callback, Destination
from homing_core.lifecycle import (
    Custody,
    Delivery,
    DeliveryState,
    Effect,
    Refusal,
    State,
    Step,
    Token,
    custody,
    delivery,
)
from homing_core.lifecycle.delivery import ENDS, TRANSITIONS
from homing_core.wire.v1 import DeliveryAttemptRecord, DeliveryReport, Event
from homing_core.wire.v1 import Token as WireToken
from support.lives import after, confirm, effects, report_delivery
from support.reporter import NOW

PENDING, DELIVERING, DELIVERED, DEAD = DeliveryState
LATER: Final = NOW + 60_000_000


def made() -> Delivery:
    return delivery.made(time_us=NOW)


def dispatch(one: Delivery) -> Delivery:
    return after(delivery.dispatched(one, time_us=NOW))


def attempts(*starts_us: int, reason: str = "HTTP_STATUS") -> list[DeliveryAttemptRecord]:
    return [DeliveryAttemptRecord(start_us=each, failure=api.Failure(reason=reason)) for each in starts_us]


def says(
    state: DeliveryState,
    made: Sequence[DeliveryAttemptRecord] = (),
    *,
    generation: int = 1,
    count: int = 0,
    due_us: int = 0,
) -> Event:
    return Event(
        token=WireToken(generation=generation, redelivery_count=count),
        time_us=LATER,
        delivery=DeliveryReport(state=api.DeliveryState.ValueType(state), attempts=made, due_us=due_us),
    )


# --- What is made


def test_p6_outcomes_go_to_the_callback_and_to_what_the_end_asks_for() -> None:
    hook, good, bad = Callback(url="https://a.example/"), Destination(uri="amqp:x"), Destination(uri="function:f")
    spec = api.InvocationSpec(callback=hook, on_success=[good, bad], on_failure=[bad])
    assert list(delivery.targets_of(spec, None, state=State.SUCCEEDED)) == [
        (api.DELIVERY_KIND_CALLBACK, hook),
        (api.DELIVERY_KIND_ON_SUCCESS, good),
        (api.DELIVERY_KIND_ON_SUCCESS, bad),
    ]
    for state in (State.FAILED, State.TIMED_OUT, State.STOPPED, State.EXPIRED, State.INVALID):
        assert list(delivery.targets_of(spec, None, state=state)) == [
            (api.DELIVERY_KIND_CALLBACK, hook),
            (api.DELIVERY_KIND_ON_FAILURE, bad),
        ]
    assert not list(delivery.targets_of(api.InvocationSpec(), None, state=State.SUCCEEDED))
    assert not list(delivery.targets_of(api.InvocationSpec(), None, state=State.FAILED))


def test_p6_a_functions_destinations_hold_where_the_invocation_has_none() -> None:
    own, good, bad = Destination(uri="amqp:own"), Destination(uri="amqp:good"), Destination(uri="amqp:bad")
    function = Function(on_success=[good], on_failure=[bad])
    for spec, state, expected in (
        (api.InvocationSpec(), State.SUCCEEDED, (api.DELIVERY_KIND_ON_SUCCESS, good)),
        (api.InvocationSpec(), State.FAILED, (api.DELIVERY_KIND_ON_FAILURE, bad)),
        (api.InvocationSpec(on_success=[own]), State.SUCCEEDED, (api.DELIVERY_KIND_ON_SUCCESS, own)),
        (api.InvocationSpec(on_failure=[own]), State.FAILED, (api.DELIVERY_KIND_ON_FAILURE, own)),
    ):
        assert list(delivery.targets_of(spec, function, state=state)) == [expected]


def test_made_is_held_by_the_store_and_due_at_once() -> None:
    assert made() == Delivery(
        state=PENDING,
        token=Token(generation=0, redelivery_count=0),
        custody=Custody.STORE,
        due_us=NOW,
        sent_us=0,
        end_us=0,
        since_us=NOW,
        attempts=(),
        before_redrive=0,
        caused="",
    )


# --- A life without trouble


def test_dispatched_is_stored_before_it_is_published() -> None:
    step = delivery.dispatched(made(), time_us=LATER)
    assert after(step) == replace(
        made(), token=Token(generation=1, redelivery_count=0), custody=Custody.SENT, due_us=0, sent_us=LATER
    )
    assert effects(step) == {Effect.PUBLISH}
    assert delivery.dispatched(after(step), time_us=LATER) is Refusal.ELSEWHERE


def test_a_worker_delivers_it() -> None:
    sent = dispatch(made())
    begun = report_delivery(sent, says(DELIVERING))
    assert begun == replace(sent, state=DELIVERING, custody=Custody.BROKER, sent_us=0)
    tried = attempts(NOW + 1)
    step = delivery.reported(begun, says(DELIVERED, tried))
    assert after(step) == replace(begun, state=DELIVERED, custody=Custody.NONE, end_us=LATER, attempts=tuple(tried))
    assert effects(step) == set()


def test_what_is_given_up_is_a_dead_letter() -> None:
    step = delivery.reported(dispatch(made()), says(DEAD, attempts(1, 2)))
    assert (after(step).state, after(step).custody, after(step).end_us) == (DEAD, Custody.NONE, LATER)
    assert effects(step) == {Effect.MAKE_DEAD_LETTER}
    assert after(step).counted_attempts == 2


def test_long_delay_is_waited_for_in_the_store() -> None:
    begun = report_delivery(dispatch(made()), says(DELIVERING))
    tried = attempts(1, 2)
    step = delivery.reported(begun, says(PENDING, tried, due_us=LATER))
    assert after(step) == replace(begun, state=PENDING, custody=Custody.STORE, due_us=LATER, attempts=tuple(tried))
    assert effects(step) == set()
    again = dispatch(after(step))
    assert again.token == Token(generation=2, redelivery_count=0)
    more = report_delivery(again, says(PENDING, attempts(3), generation=2, due_us=LATER))
    assert [attempt.start_us for attempt in more.attempts] == [1, 2, 3]
    assert more.counted_attempts == 3


def test_only_attempts_that_were_made_for_real_count_as_tries() -> None:
    assert not made().tried
    put_off = says(PENDING, attempts(1, reason="RECEIVER_DOWN"), due_us=LATER)
    one = report_delivery(dispatch(made()), put_off)
    assert not one.tried
    assert report_delivery(dispatch(one), says(PENDING, attempts(2), generation=2, due_us=LATER)).tried
    assert report_delivery(dispatch(made()), says(PENDING, attempts(1), due_us=LATER)).tried


def test_attempts_that_were_left_out_count_for_nothing_and_the_last_in_a_row_stands_for_all() -> None:
    real, left_out = attempts, partial(attempts, reason="RECEIVER_DOWN")
    one = report_delivery(dispatch(made()), says(PENDING, [*left_out(1), *real(2), *left_out(3)], due_us=LATER))
    assert ([each.start_us for each in one.attempts], one.counted_attempts) == ([1, 2, 3], 1)
    two = report_delivery(dispatch(one), says(PENDING, left_out(4), generation=2, due_us=LATER))
    assert ([each.start_us for each in two.attempts], two.counted_attempts) == ([1, 2, 4], 1)
    dead = report_delivery(dispatch(two), says(DEAD, [*left_out(5, 6)], generation=3))
    assert ([each.start_us for each in dead.attempts], dead.counted_attempts) == ([1, 2, 6], 1)
    # What was made before a redrive stays as it was.
    redriven = after(delivery.redriven(dead, due_us=LATER))
    assert (redriven.counted_attempts, redriven.since_us) == (0, LATER)
    again = report_delivery(dispatch(redriven), says(PENDING, [*left_out(7), *real(8)], generation=4, due_us=LATER))
    assert ([each.start_us for each in again.attempts], again.counted_attempts) == ([1, 2, 6, 7, 8], 1)


# --- Trouble


def test_what_was_not_confirmed_is_taken_back_and_goes_under_a_new_generation() -> None:
    sent = dispatch(made())
    step = delivery.taken_back(sent, generation=1, due_us=LATER)
    assert step == Step(after=replace(sent, state=PENDING, custody=Custody.STORE, due_us=LATER, sent_us=0))
    again = dispatch(after(step))
    assert again.token == Token(generation=2, redelivery_count=0)
    assert delivery.taken_back(again, generation=1, due_us=LATER) is Refusal.STALE
    assert delivery.taken_back(confirm(again), generation=2, due_us=LATER) is Refusal.ELSEWHERE
    assert delivery.reported(again, says(DELIVERED)) is Refusal.STALE


def test_what_a_broker_has_lost_is_pending_again() -> None:
    sent = dispatch(made())
    for one in (sent, confirm(sent), report_delivery(sent, says(DELIVERING))):
        step = delivery.broker_lost(one, due_us=LATER)
        assert step == Step(after=replace(one, state=PENDING, custody=Custody.STORE, due_us=LATER, sent_us=0))
    assert delivery.broker_lost(made(), due_us=LATER) is Refusal.ELSEWHERE
    assert delivery.broker_lost(report_delivery(sent, says(DEAD)), due_us=LATER) is Refusal.ENDED


def test_a_redelivery_outdates_what_was_said_before() -> None:
    begun = report_delivery(dispatch(made()), says(DELIVERING, attempts(1)))
    again = report_delivery(begun, says(DELIVERING, attempts(2), count=1))
    assert again == replace(begun, token=Token(generation=1, redelivery_count=1), attempts=tuple(attempts(1, 2)))
    assert delivery.reported(again, says(DEAD)) is Refusal.STALE
    for state in (DELIVERED, DEAD, PENDING):
        later = report_delivery(begun, says(state, count=3, due_us=LATER))
        assert (later.state, later.token) == (state, Token(generation=1, redelivery_count=3))


def test_a_report_that_comes_twice_tells_nothing_new() -> None:
    sent = dispatch(made())
    begun = says(DELIVERING, attempts(1))
    one = report_delivery(sent, begun)
    assert delivery.reported(one, begun) is Refusal.DUPLICATE
    assert delivery.reported(one, says(DELIVERING)) is Refusal.DUPLICATE
    for last in (says(PENDING, due_us=LATER), says(DELIVERED), says(DEAD)):
        over = report_delivery(one, last)
        assert delivery.reported(over, last) is (Refusal.ENDED if over.ended else Refusal.DUPLICATE)
        assert isinstance(delivery.reported(over, begun), Refusal)


def test_p2_an_end_is_final() -> None:
    for state in ENDS:
        over = report_delivery(dispatch(made()), says(state))
        for event in (says(DELIVERED), says(DEAD), says(PENDING, generation=2), says(DELIVERING, count=1)):
            assert delivery.reported(over, event) is Refusal.ENDED
        assert delivery.reported(over, says(DELIVERED, generation=0)) is Refusal.ENDED
        assert delivery.dispatched(over, time_us=NOW) is Refusal.ENDED
        assert delivery.taken_back(over, generation=1, due_us=NOW) is Refusal.ENDED


def test_what_was_let_go_or_taken_back_heeds_only_that_it_has_arrived() -> None:
    let_go = report_delivery(dispatch(made()), says(PENDING, attempts(1), due_us=LATER))
    taken_back = after(delivery.taken_back(dispatch(made()), generation=1, due_us=LATER))
    for one in (let_go, taken_back):
        for count in (0, 1):
            for state in (PENDING, DELIVERING, DEAD):
                assert delivery.reported(one, says(state, attempts(2), count=count)) is Refusal.DUPLICATE
            arrived = report_delivery(one, says(DELIVERED, attempts(2), count=count))
            assert (arrived.state, arrived.custody, arrived.due_us) == (DELIVERED, Custody.NONE, 0)


def test_attempts_are_told_by_the_time_of_their_start() -> None:
    one = report_delivery(dispatch(made()), says(DELIVERING, attempts(5)))
    one = report_delivery(one, says(PENDING, [*attempts(5, reason="TIMEOUT"), *attempts(4)], due_us=LATER))
    assert [(each.start_us, each.failure.reason) for each in one.attempts] == [(4, "HTTP_STATUS"), (5, "TIMEOUT")]


# --- Deliveries to functions


def test_one_to_a_function_becomes_an_invocation_at_once() -> None:
    step = delivery.invoked(made(), invocation_id="i", time_us=LATER)
    assert after(step) == replace(
        made(),
        state=DELIVERED,
        token=Token(generation=1, redelivery_count=0),
        custody=Custody.NONE,
        due_us=0,
        end_us=LATER,
        attempts=(DeliveryAttemptRecord(start_us=LATER),),
        caused="i",
    )
    assert effects(step) == set()
    assert delivery.invoked(dispatch(made()), invocation_id="i", time_us=LATER) is Refusal.ELSEWHERE


def test_one_to_a_function_that_is_gone_is_dead() -> None:
    failure = api.Failure(reason="FUNCTION_NOT_FOUND")
    earlier = after(delivery.redriven(after(delivery.not_invoked(made(), failure=failure, time_us=NOW)), due_us=NOW))
    step = delivery.not_invoked(earlier, failure=failure, time_us=LATER)
    assert after(step) == replace(
        earlier,
        state=DEAD,
        token=Token(generation=2, redelivery_count=0),
        custody=Custody.NONE,
        due_us=0,
        end_us=LATER,
        attempts=tuple(DeliveryAttemptRecord(start_us=start_us, failure=failure) for start_us in (NOW, LATER)),
    )
    assert (effects(step), after(step).caused) == ({Effect.MAKE_DEAD_LETTER}, "")
    assert delivery.not_invoked(after(step), failure=failure, time_us=LATER) is Refusal.ENDED


# --- Redrives


def test_what_is_dead_may_be_made_again_by_its_whole_schedule() -> None:
    dead = report_delivery(dispatch(made()), says(DEAD, attempts(1, 2)))
    step = delivery.redriven(dead, due_us=LATER)
    assert step == Step(
        after=replace(
            dead, state=PENDING, custody=Custody.STORE, due_us=LATER, end_us=0, since_us=LATER, before_redrive=2
        )
    )
    redriven = after(step)
    assert redriven.counted_attempts == 0
    # The report that it is dead may come again.
    assert delivery.reported(redriven, says(DEAD, attempts(1, 2))) is Refusal.DUPLICATE
    dead = report_delivery(dispatch(redriven), says(DEAD, attempts(3), generation=2))
    assert (len(dead.attempts), dead.counted_attempts) == (3, 1)
    assert effects(delivery.reported(dispatch(redriven), says(DEAD, generation=2))) == {Effect.MAKE_DEAD_LETTER}


def test_nothing_else_is_redriven() -> None:
    delivered = report_delivery(dispatch(made()), says(DELIVERED))
    assert delivery.redriven(delivered, due_us=LATER) is Refusal.ENDED
    for one in (made(), dispatch(made())):
        assert delivery.redriven(one, due_us=LATER) is Refusal.DUPLICATE


# --- The table


def test_states_are_those_of_the_api() -> None:
    names = {name.removeprefix("DELIVERY_STATE_"): number for name, number in api.DeliveryState.items()}
    del names["UNSPECIFIED"]
    assert {state.name: state.value for state in DeliveryState} == names
    assert {DELIVERED, DEAD} == ENDS


def test_a_report_without_a_state_is_an_error() -> None:
    event = says(DELIVERED)
    event.delivery.state = api.DELIVERY_STATE_UNSPECIFIED
    with pytest.raises(ValueError, match="0 is not a valid DeliveryState"):
        delivery.reported(dispatch(made()), event)


def test_every_transition_of_the_table_happens_and_no_other() -> None:
    """Goes through all that can happen to a delivery, in every order, up to a small number of steps."""
    assert TRANSITIONS.keys() == set(DeliveryState)
    seen: set[tuple[DeliveryState, DeliveryState]] = set()
    known: set[object] = set()
    front = [made()]
    for _ in range(4):
        reached = []
        for before in front:
            for step in every_step(before):
                if isinstance(step, Step):
                    one = step.after
                    if one.state is not before.state:
                        seen.add((before.state, one.state))
                    shape = one.state, one.custody, one.token.redelivery_count, min(one.token.generation, 2)
                    if shape not in known:
                        known.add(shape)
                        reached.append(one)
        front = reached
    assert seen == {(before, after_) for before, afters in TRANSITIONS.items() for after_ in afters}


def every_step(one: Delivery) -> list[Step[Delivery] | Refusal]:
    generation = one.token.generation
    steps = [
        delivery.dispatched(one, time_us=NOW),
        custody.confirmed(one, generation=generation),
        delivery.taken_back(one, generation=generation, due_us=NOW),
        delivery.broker_lost(one, due_us=NOW),
        delivery.redriven(one, due_us=NOW),
        delivery.invoked(one, invocation_id="i", time_us=NOW),
        delivery.not_invoked(one, failure=api.Failure(), time_us=NOW),
    ]
    if generation:
        steps += [
            delivery.reported(one, says(state, generation=generation, count=count, due_us=NOW))
            for count in (0, 1)
            for state in DeliveryState
        ]
    return steps
