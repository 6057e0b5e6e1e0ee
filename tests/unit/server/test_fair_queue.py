"""Calls of one connection wait behind each other, and never all of them before a call of another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from homing_server.invocations.fair_queue import FairQueue

MOST = 64


class Calls:
    """Makes calls that last until they are told to end, and notes which of them have begun."""

    def __init__(self) -> None:
        self.queue = FairQueue()
        self.begun: list[str] = []
        self.asked: list[str] = []
        self._ends: dict[str, asyncio.Event] = {}

    async def _call(self, name: str, connection: Callable[[], str], invocations: int) -> None:
        async with self.queue.turn(connection, invocations):
            self.begun.append(name)
            await self._ends[name].wait()

    async def make(self, name: str, connection: str, invocations: int = 1) -> asyncio.Task[None]:
        def asked() -> str:
            self.asked.append(name)
            return connection

        self._ends[name] = asyncio.Event()
        call = asyncio.create_task(self._call(name, asked, invocations))
        await turns()
        return call

    async def end(self, name: str) -> None:
        self._ends[name].set()
        await turns()


async def turns() -> None:
    """Let everything that can go on do so."""
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture
async def calls() -> Calls:
    """Return calls of which as many as can be are served, all of a connection ``greedy``."""
    calls = Calls()
    for number in range(MOST):
        await calls.make(f"first {number}", "greedy")
    assert len(calls.begun) == MOST
    assert calls.asked == [], "whose they are is of no interest while nobody waits"
    calls.begun.clear()
    return calls


async def test_connections_take_turns(calls: Calls) -> None:
    for number in range(3):
        await calls.make(f"greedy {number}", "greedy")
    await calls.make("a", "a")
    await calls.make("b", "b")
    assert calls.begun == []

    for number in range(5):
        await calls.end(f"first {number}")

    assert calls.begun == ["greedy 0", "a", "b", "greedy 1", "greedy 2"]


async def test_who_comes_later_does_not_overtake(calls: Calls) -> None:
    await calls.make("large", "a", 160)
    await calls.end("first 0")
    await calls.make("small", "b")
    assert calls.begun == [], "ten places are wanted, and one is free"

    for number in range(1, 10):
        await calls.end(f"first {number}")
    assert calls.begun == ["large"]
    await calls.end("first 10")
    assert calls.begun == ["large", "small"]


@pytest.mark.parametrize(("invocations", "places"), [(1, 1), (16, 1), (17, 2), (1000, 63), (10_000, 64)])
async def test_a_batch_takes_the_places_of_several_calls(invocations: int, places: int) -> None:
    calls = Calls()
    await calls.make("batch", "a", invocations)
    for number in range(MOST):
        await calls.make(str(number), "b")

    assert len(calls.begun) == 1 + MOST - places
    await calls.end("batch")
    assert len(calls.begun) == 1 + MOST


async def test_who_goes_away_keeps_no_place_and_holds_nobody_up(calls: Calls) -> None:
    waits = await calls.make("large", "a", 10_000)
    await calls.make("small", "b")
    waits.cancel()
    await calls.end("first 0")
    assert calls.begun == ["small"]


async def test_a_turn_that_comes_as_its_call_goes_away_is_anothers() -> None:
    calls = Calls()
    async with calls.queue.turn(lambda: "a", 10_000):
        leaves = await calls.make("leaves", "b", 10_000)
        await calls.make("stays", "c", 10_000)
    leaves.cancel()  # it has its turn, and does not know it yet
    await turns()

    assert calls.begun == ["stays"]
