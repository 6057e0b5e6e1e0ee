"""Who holds an invocation or a delivery, and how it goes from hand to hand."""

from __future__ import annotations

from typing import Final

import pytest

from homing_core.lifecycle import Custody, Held, Refusal, Step, Token, Transfer, custody
from homing_core.wire.v1 import Token as WireToken

NONE, STORE, SENT, BROKER, LEASE, CALLER = Custody
LATER: Final = 77

TRANSFERS: Final = {
    "CLAIM": ({STORE}, SENT),
    "CONFIRM": ({SENT}, BROKER),
    "TAKE_BACK": ({SENT}, STORE),
    "RECEIVE": ({SENT, BROKER}, BROKER),
    "REDELIVER": ({STORE, SENT, BROKER, LEASE}, BROKER),
    "GRANT_LEASE": ({SENT, BROKER}, LEASE),
    "RETURN": ({SENT, BROKER, LEASE}, STORE),
    "EXPIRE_LEASE": ({LEASE}, STORE),
    "HOLD_BACK": ({STORE}, BROKER),
    "LOSE": ({SENT, BROKER, LEASE}, STORE),
    "END": ({STORE, SENT, BROKER, LEASE, CALLER}, NONE),
    "REDRIVE": ({NONE}, STORE),
}


def held(by: Custody, *, due_us: int = 0, sent_us: int = 0) -> Held:
    return Held(token=Token(generation=3, redelivery_count=2), custody=by, due_us=due_us, sent_us=sent_us)


def transfer(name: str) -> Transfer:
    found = getattr(custody, name)
    assert isinstance(found, Transfer)
    return found


def test_these_are_all_transfers() -> None:
    assert {name for name in vars(custody) if isinstance(getattr(custody, name), Transfer)} == set(TRANSFERS)


def test_numbers_are_those_in_stores() -> None:
    numbers = {"NONE": 0, "STORE": 1, "SENT": 2, "BROKER": 3, "LEASE": 4, "CALLER": 5}
    assert {each.name: each.value for each in Custody} == numbers
    assert {STORE, SENT, BROKER, LEASE, CALLER} == custody.LIVE
    assert {SENT, BROKER} == custody.AT_BROKER


@pytest.mark.parametrize("name", TRANSFERS)
@pytest.mark.parametrize("by", Custody)
def test_a_transfer_starts_where_it_may_and_says_when_it_is_due_or_was_sent(name: str, by: Custody) -> None:
    sources, target = TRANSFERS[name]
    one = held(by, due_us=5, sent_us=6)
    refused = Refusal.ENDED if by is NONE else Refusal.ELSEWHERE
    assert transfer(name).refuses(one, generation=3) is (None if by in sources else refused)

    changes = transfer(name).changes(one, time_us=LATER)
    assert changes["custody"] is target
    assert (changes["due_us"], changes["sent_us"]) == (LATER if target is STORE else 0, LATER if target is SENT else 0)
    token = changes.get("token", one.token)
    assert token == (Token(generation=4, redelivery_count=0) if name == "CLAIM" else one.token)


@pytest.mark.parametrize("name", TRANSFERS)
def test_what_is_said_of_a_dispatch_is_stale_once_there_is_a_later_one(name: str) -> None:
    one = held(next(iter(TRANSFERS[name][0])))
    fenced = name in {"CONFIRM", "TAKE_BACK"}
    assert transfer(name).fenced is fenced
    for generation in (2, 4):
        assert transfer(name).refuses(one, generation=generation) is (Refusal.STALE if fenced else None)
    assert transfer(name).refuses(one) is (Refusal.STALE if fenced else None)


def test_times_are_unset_unless_they_are_told() -> None:
    assert transfer("RETURN").changes(held(BROKER))["due_us"] == 0
    assert held(BROKER).sent_us == 0


def test_a_worker_says_under_which_token_it_speaks() -> None:
    token = Token(generation=3, redelivery_count=4)
    assert transfer("REDELIVER").changes(held(LEASE), token=token)["token"] == token


def test_confirmed_is_what_was_sent_and_has_not_gone_further() -> None:
    step = custody.confirmed(held(SENT, sent_us=6), generation=3)
    assert step == Step(after=held(BROKER))
    assert custody.confirmed(held(SENT), generation=2) is Refusal.STALE
    assert custody.confirmed(held(BROKER), generation=3) is Refusal.ELSEWHERE
    assert custody.confirmed(held(NONE), generation=3) is Refusal.ENDED


def test_it_leaves_the_broker_when_neither_a_dispatcher_nor_the_broker_holds_it_any_more() -> None:
    left = {
        (before, after) for before in Custody for after in Custody if custody.left_broker(held(before), held(after))
    }
    assert left == {(before, after) for before in (SENT, BROKER) for after in (NONE, STORE, LEASE, CALLER)}


def test_tokens_are_ordered_by_generation_then_by_redelivery() -> None:
    first, second, third = (
        Token(generation=generation, redelivery_count=count) for generation, count in ((1, 9), (2, 0), (2, 1))
    )
    assert first < second < third
    assert Token.of(WireToken(generation=2, redelivery_count=1)) == third
