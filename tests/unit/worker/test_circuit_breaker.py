"""Turns with receivers, what is done about those that do not answer, and when a delivery is made again."""

from __future__ import annotations

import asyncio
import contextlib
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homing_worker.deliveries import circuit_breaker
from homing_worker.deliveries.circuit_breaker import ReceiverDownError, Receivers
from homing_worker.deliveries.schedule import DEFAULT_DELAYS, JITTER, MAX_RETRY_AFTER, Schedule


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def turns(clock: Clock) -> Receivers:
    return Receivers(Random(1), clock=clock)


async def attempt(turns: Receivers, name: str, *, answered: bool | None, insist: bool = False) -> None:
    async with turns.turn(name, insist=insist) as turn:
        turn.answered = answered


async def occupy(turns: Receivers, name: str, count: int) -> tuple[list[asyncio.Task[None]], asyncio.Event]:
    """Have so many attempts under way, or waiting, until the event; they are not answered."""
    release = asyncio.Event()

    async def hang() -> None:
        async with turns.turn(name, insist=False) as turn:
            turn.answered = False
            await release.wait()

    tasks = [asyncio.create_task(hang()) for _ in range(count)]
    await asyncio.sleep(0)
    return tasks, release


async def test_a_receiver_has_few_turns_at_a_time_and_others_have_their_own(turns: Receivers) -> None:
    tasks, release = await occupy(turns, "slow", circuit_breaker.SLOTS + circuit_breaker.TRIPS_AFTER)

    waits = asyncio.create_task(attempt(turns, "slow", answered=True))
    await attempt(turns, "quick", answered=True)
    assert not waits.done()
    release.set()
    results = await asyncio.gather(*tasks, waits, return_exceptions=True)
    assert results[: circuit_breaker.SLOTS] == [None] * circuit_breaker.SLOTS
    # They were silent: who had not been called by then is not tried.
    assert isinstance(results[-1], ReceiverDownError)


async def test_a_receiver_that_is_silent_is_down_until_one_attempt_is_answered(turns: Receivers, clock: Clock) -> None:
    for _ in range(circuit_breaker.TRIPS_AFTER):
        await attempt(turns, "hook", answered=False)
    assert turns.down == 1
    with pytest.raises(ReceiverDownError) as down:
        await attempt(turns, "hook", answered=True)
    assert 0.8 * circuit_breaker.FIRST_PAUSE <= down.value.until - clock.now <= 1.2 * circuit_breaker.FIRST_PAUSE

    clock.now = down.value.until
    (probe,), release = await occupy(turns, "hook", 1)
    with pytest.raises(ReceiverDownError):
        await attempt(turns, "hook", answered=True)
    release.set()
    await probe
    with pytest.raises(ReceiverDownError) as still:
        await attempt(turns, "hook", answered=True)
    assert still.value.until - clock.now >= 1.6 * circuit_breaker.FIRST_PAUSE

    clock.now = still.value.until
    await attempt(turns, "hook", answered=True)
    assert turns.down == 0
    await attempt(turns, "hook", answered=True)


async def test_pauses_are_bounded(turns: Receivers, clock: Clock) -> None:
    for _ in range(30):
        with contextlib.suppress(ReceiverDownError):
            await attempt(turns, "hook", answered=False)
        clock.now += 1.2 * circuit_breaker.MAX_PAUSE
    clock.now -= circuit_breaker.MAX_PAUSE
    with pytest.raises(ReceiverDownError) as down:
        await attempt(turns, "hook", answered=False)
    assert down.value.until - clock.now <= 1.2 * circuit_breaker.MAX_PAUSE


async def test_who_answers_now_and_then_is_not_down(turns: Receivers) -> None:
    for _ in range(10):
        await attempt(turns, "hook", answered=False)
        await attempt(turns, "hook", answered=False)
        await attempt(turns, "hook", answered=True)

    assert turns.down == 0


async def test_who_insists_is_not_turned_away(turns: Receivers) -> None:
    tasks, release = await occupy(turns, "hook", circuit_breaker.SLOTS)
    insisting = asyncio.create_task(attempt(turns, "hook", answered=False, insist=True))
    waiting = [asyncio.create_task(attempt(turns, "hook", answered=False)) for _ in range(circuit_breaker.TRIPS_AFTER)]
    late = asyncio.create_task(attempt(turns, "hook", answered=False, insist=True))
    await asyncio.sleep(0)
    release.set()

    await asyncio.gather(*tasks, insisting, late)
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(results[-1], ReceiverDownError)


async def test_one_that_is_cancelled_while_it_waits_takes_no_turn(turns: Receivers) -> None:
    tasks, release = await occupy(turns, "hook", circuit_breaker.SLOTS)
    waiting = asyncio.create_task(attempt(turns, "hook", answered=True))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    release.set()
    for _ in range(circuit_breaker.SLOTS):
        await attempt(turns, "hook", answered=True, insist=True)


@given(st.integers(1, len(DEFAULT_DELAYS)), st.none() | st.floats(0, 10 * MAX_RETRY_AFTER), st.integers())
def test_delays_are_those_of_the_schedule_unless_the_receiver_asks_for_longer(
    number: int, asked: float | None, seed: int
) -> None:
    schedule = Schedule()

    delay = schedule.delay(number, asked=asked, rng=Random(seed))

    planned = DEFAULT_DELAYS[number - 1]
    least = max(planned * (1 - JITTER), min(asked or 0.0, MAX_RETRY_AFTER))
    assert least <= delay <= max(planned * (1 + JITTER), min(asked or 0.0, MAX_RETRY_AFTER))
    assert not schedule.is_last(number)


def test_the_default_schedule_has_ten_attempts_in_a_day() -> None:
    assert Schedule().attempts == 10
    assert Schedule().is_last(10)
    assert 23 <= sum(DEFAULT_DELAYS) / 3600 <= 24


async def test_an_attempt_that_never_reached_the_receiver_says_nothing_of_it(turns: Receivers, clock: Clock) -> None:
    for _ in range(circuit_breaker.TRIPS_AFTER):
        await attempt(turns, "hook", answered=None)
    assert turns.down == 0
    for _ in range(circuit_breaker.TRIPS_AFTER - 1):
        await attempt(turns, "hook", answered=False)
    await attempt(turns, "hook", answered=None)
    await attempt(turns, "hook", answered=False)
    assert turns.down == 1
    clock.now += 2 * circuit_breaker.FIRST_PAUSE
    await attempt(turns, "hook", answered=None)
    assert turns.down == 1
    await attempt(turns, "hook", answered=True)
    assert turns.down == 0
