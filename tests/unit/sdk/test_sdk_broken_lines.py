"""What a client does when connections break in the middle of its calls: accepts are neither lost nor made twice."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest

from homing import AsyncClient, Client
from homing.testing import FakeServer
from support.proxy import TcpProxy

PATIENCE = 60.0
ITEMS = [str(number) for number in range(300)]


@pytest.fixture
def upper(homing_fake: FakeServer) -> FakeServer:
    homing_fake.function("upper").answers(lambda call: f"<{call.text}>")
    return homing_fake


async def keep_cutting(proxy: TcpProxy, fake: FakeServer, work: asyncio.Task[Any]) -> int:
    """Reset all connections each time that the server has got so many calls more; return how often."""
    cuts = 0
    seen = 0
    while not work.done() and cuts < 5:
        if len(fake.calls()) >= seen + 40:
            seen = len(fake.calls())
            cuts += bool(await proxy.cut())
        await asyncio.sleep(0.01)
    return cuts


@pytest.mark.parametrize("kind", ["Client", "AsyncClient"])
async def test_a_map_outlasts_broken_connections(upper: FakeServer, kind: str) -> None:
    host, port = upper.target.split(":")
    async with TcpProxy(host, int(port)) as proxy:
        target = f"127.0.0.1:{proxy.port}"

        def sync() -> list[str]:
            with Client(target) as client:
                return [result.text for result in client.map("upper", ITEMS, concurrency=10, timeout=PATIENCE)]

        async def aio() -> list[str]:
            async with AsyncClient(target) as client:
                return [result.text async for result in client.map("upper", ITEMS, concurrency=10, timeout=PATIENCE)]

        work = asyncio.create_task(aio() if kind == "AsyncClient" else asyncio.to_thread(sync))
        cuts = await keep_cutting(proxy, upper, work)

        assert await work == [f"<{item}>" for item in ITEMS]
        assert cuts >= 1
    assert Counter(call.text for call in upper.calls()) == Counter(ITEMS)


async def test_a_batch_whose_answer_is_lost_is_accepted_once(upper: FakeServer) -> None:
    host, port = upper.target.split(":")
    accepted = upper._state.store
    async with TcpProxy(host, int(port)) as proxy, AsyncClient(f"127.0.0.1:{proxy.port}") as client:
        await client.invoke_async("upper", "first")
        proxy.pause(answers_only=True)
        work = asyncio.create_task(client.invoke_batch("upper", ITEMS))
        await asyncio.to_thread(accepted.wait, lambda: len(accepted.calls) == 1 + len(ITEMS), PATIENCE)
        await proxy.cut()
        proxy.resume()

        outcomes = await work

    assert all(not isinstance(outcome, Exception) and outcome.duplicate for outcome in outcomes)
    assert len(upper.calls()) == 1 + len(ITEMS)
