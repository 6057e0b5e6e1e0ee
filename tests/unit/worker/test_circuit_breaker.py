"""How many attempts receivers get, what is done about those that do not answer, and when a delivery is made again."""

from __future__ import annotations

import asyncio
import contextlib
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homing_worker.deliveries.circuit_breaker import (
    FIRST_OPEN_SECONDS,
    MAX_OPEN_SECONDS,
    TRIPS_AFTER,
    BreakerOpenError,
    BreakerState,
    CircuitBreaker,
)
from homing_worker.deliveries.receivers import MAX_IN_FLIGHT_PER_RECEIVER, Receivers
from homing_worker.deliveries.schedule import DEFAULT_DELAYS, JITTER, MAX_PAUSE, MAX_RETRY_AFTER, Schedule


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def receivers(clock: Clock) -> Receivers:
    return Receivers(Random(1), clock=clock)


async def attempt(receivers: Receivers, name: str, *, answered: bool | None, insist: bool = False) -> None:
    async with receivers.permit(name, insist=insist) as permit:
        permit.answered = answered


async def occupy(receivers: Receivers, name: str, count: int) -> tuple[list[asyncio.Task[None]], asyncio.Event]:
    """Have so many attempts under way, or waiting, until the event; they are not answered."""
    release = asyncio.Event()

    async def hang() -> None:
        async with receivers.permit(name, insist=False) as permit:
            permit.answered = False
            await release.wait()

    tasks = [asyncio.create_task(hang()) for _ in range(count)]
    await asyncio.sleep(0)
    return tasks, release


async def test_a_receiver_has_few_attempts_in_flight_and_others_have_their_own(receivers: Receivers) -> None:
    tasks, release = await occupy(receivers, "slow", MAX_IN_FLIGHT_PER_RECEIVER + TRIPS_AFTER)

    waits = asyncio.create_task(attempt(receivers, "slow", answered=True))
    await attempt(receivers, "quick", answered=True)
    assert not waits.done()
    release.set()
    results = await asyncio.gather(*tasks, waits, return_exceptions=True)
    assert results[:MAX_IN_FLIGHT_PER_RECEIVER] == [None] * MAX_IN_FLIGHT_PER_RECEIVER
    # They were silent: what was not in flight by then is not tried.
    assert isinstance(results[-1], BreakerOpenError)


async def test_the_breaker_of_a_silent_receiver_is_open_until_one_probe_is_answered(
    receivers: Receivers, clock: Clock
) -> None:
    for _ in range(TRIPS_AFTER):
        await attempt(receivers, "hook", answered=False)
    assert receivers.open_breakers == 1
    with pytest.raises(BreakerOpenError) as down:
        await attempt(receivers, "hook", answered=True)
    assert 0.8 * FIRST_OPEN_SECONDS <= down.value.until - clock.now <= 1.2 * FIRST_OPEN_SECONDS

    clock.now = down.value.until
    (probe,), release = await occupy(receivers, "hook", 1)
    with pytest.raises(BreakerOpenError):
        await attempt(receivers, "hook", answered=True)
    release.set()
    await probe
    with pytest.raises(BreakerOpenError) as still:
        await attempt(receivers, "hook", answered=True)
    assert still.value.until - clock.now >= 1.6 * FIRST_OPEN_SECONDS

    clock.now = still.value.until
    await attempt(receivers, "hook", answered=True)
    assert receivers.open_breakers == 0
    await attempt(receivers, "hook", answered=True)


async def test_the_time_for_which_a_breaker_is_open_is_bounded(receivers: Receivers, clock: Clock) -> None:
    for _ in range(30):
        with contextlib.suppress(BreakerOpenError):
            await attempt(receivers, "hook", answered=False)
        clock.now += 1.2 * MAX_OPEN_SECONDS
    clock.now -= MAX_OPEN_SECONDS
    with pytest.raises(BreakerOpenError) as down:
        await attempt(receivers, "hook", answered=False)
    assert down.value.until - clock.now <= 1.2 * MAX_OPEN_SECONDS


async def test_the_breaker_of_who_answers_now_and_then_stays_closed(receivers: Receivers) -> None:
    for _ in range(10):
        await attempt(receivers, "hook", answered=False)
        await attempt(receivers, "hook", answered=False)
        await attempt(receivers, "hook", answered=True)

    assert receivers.open_breakers == 0


async def test_who_insists_is_not_turned_away(receivers: Receivers) -> None:
    tasks, release = await occupy(receivers, "hook", MAX_IN_FLIGHT_PER_RECEIVER)
    insisting = asyncio.create_task(attempt(receivers, "hook", answered=False, insist=True))
    waiting = [asyncio.create_task(attempt(receivers, "hook", answered=False)) for _ in range(TRIPS_AFTER)]
    late = asyncio.create_task(attempt(receivers, "hook", answered=False, insist=True))
    await asyncio.sleep(0)
    release.set()

    await asyncio.gather(*tasks, insisting, late)
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(results[-1], BreakerOpenError)


async def test_one_that_is_cancelled_while_it_waits_takes_no_place(receivers: Receivers) -> None:
    tasks, release = await occupy(receivers, "hook", MAX_IN_FLIGHT_PER_RECEIVER)
    waiting = asyncio.create_task(attempt(receivers, "hook", answered=True))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    release.set()
    for _ in range(MAX_IN_FLIGHT_PER_RECEIVER):
        await attempt(receivers, "hook", answered=True, insist=True)


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
    assert Schedule().duration == pytest.approx(sum(DEFAULT_DELAYS) * (1 + JITTER))


@pytest.mark.parametrize(
    ("waited", "planned"),
    [(0.0, 5.0), (20.0, 5.0), (100.0, 25.0), (4 * MAX_PAUSE, MAX_PAUSE), (1e9, MAX_PAUSE)],
)
def test_what_is_put_off_waits_for_a_part_of_what_it_has_waited(waited: float, planned: float) -> None:
    pauses = [Schedule().pause(waited, rng=Random(seed)) for seed in range(50)]

    assert planned * (1 - JITTER) <= min(pauses) < planned < max(pauses) <= planned * (1 + JITTER)


async def test_an_attempt_that_never_reached_the_receiver_says_nothing_of_it(
    receivers: Receivers, clock: Clock
) -> None:
    for _ in range(TRIPS_AFTER):
        await attempt(receivers, "hook", answered=None)
    assert receivers.open_breakers == 0
    for _ in range(TRIPS_AFTER - 1):
        await attempt(receivers, "hook", answered=False)
    await attempt(receivers, "hook", answered=None)
    await attempt(receivers, "hook", answered=False)
    assert receivers.open_breakers == 1
    clock.now += 2 * FIRST_OPEN_SECONDS
    await attempt(receivers, "hook", answered=None)
    assert receivers.open_breakers == 1
    await attempt(receivers, "hook", answered=True)
    assert receivers.open_breakers == 0


def state(breaker: CircuitBreaker) -> BreakerState:
    return breaker.state


def test_a_breaker_is_closed_open_and_half_open_in_turn(clock: Clock) -> None:
    breaker = CircuitBreaker(clock, Random(1))
    assert (breaker.state, breaker.is_new) == (BreakerState.CLOSED, True)

    assert [breaker.not_answered() for _ in range(TRIPS_AFTER)] == [False] * (TRIPS_AFTER - 1) + [True]
    assert state(breaker) is BreakerState.OPEN
    assert breaker.rejects_attempts(in_flight=0)
    assert not breaker.not_answered()  # one that was in flight before it opened

    clock.now = breaker.retry_at
    assert state(breaker) is BreakerState.HALF_OPEN
    assert not breaker.rejects_attempts(in_flight=0)
    assert breaker.rejects_attempts(in_flight=1)

    assert breaker.not_answered()
    assert state(breaker) is BreakerState.OPEN
    clock.now = breaker.retry_at
    breaker.answered()
    assert (breaker.state, breaker.is_new) == (BreakerState.CLOSED, True)
    assert not breaker.rejects_attempts(in_flight=MAX_IN_FLIGHT_PER_RECEIVER)


def test_a_breaker_that_was_closed_early_opens_again_as_any_other(clock: Clock) -> None:
    breaker = CircuitBreaker(clock, Random(1))
    for _ in range(TRIPS_AFTER):
        breaker.not_answered()
    breaker.answered()  # an attempt that was made all the same

    assert state(breaker) is BreakerState.CLOSED
    assert [breaker.not_answered() for _ in range(TRIPS_AFTER)][-1]
    assert state(breaker) is BreakerState.OPEN
