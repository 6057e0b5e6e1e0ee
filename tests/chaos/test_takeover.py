"""One server of several feeds the broker, and another goes on when it is frozen, killed or stopped."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta

from homing import AsyncClient, InvocationState
from support.gauges import Gauges, gauges_when
from support.inbox import eventually
from support.processes import Cluster, Server

COUNT = 50
EVERY = timedelta(milliseconds=250)
TAKEOVER = 5.0


def leads(gauges: Gauges) -> bool:
    return gauges.value("homing_dispatching") == 1


async def count_ended(client: AsyncClient) -> int:
    return len([one async for one in client.list_invocations() if one.ended])


async def takes_over(server: Server, *, within: float = TAKEOVER) -> None:
    begun = time.monotonic()
    await gauges_when(server, leads, within=within)
    assert time.monotonic() - begun < within


async def test_another_server_feeds_within_five_seconds_and_a_former_one_does_no_harm(cluster: Cluster) -> None:
    first = await asyncio.to_thread(cluster.start_server)
    second = await asyncio.to_thread(cluster.start_server)
    await asyncio.to_thread(cluster.start_worker)
    await gauges_when(first, leads)
    assert not leads(await asyncio.to_thread(Gauges.read, second))
    async with AsyncClient(second.target) as client:
        await client.functions.deploy(name="true", command=["true"], max_instances=8)
        begin = datetime.now(UTC) + timedelta(seconds=1)
        for number in range(COUNT):
            await client.invoke_async("true", schedule_time=begin + number * EVERY)

    first.suspend()
    await takes_over(second)
    first.resume()
    await gauges_when(first, lambda gauges: not leads(gauges))
    second.kill()
    await takes_over(first)
    await asyncio.to_thread(second.start)
    assert not leads(await asyncio.to_thread(Gauges.read, second))
    assert await asyncio.to_thread(first.terminate) == 0
    await takes_over(second, within=2.5)

    async with AsyncClient(second.target) as client:
        await eventually(lambda: count_ended(client), COUNT)
        records = [one async for one in client.list_invocations()]
    assert {(one.state, one.attempt_count) for one in records} == {(InvocationState.SUCCEEDED, 1)}
    late = sorted((one.start_time - one.schedule_time).total_seconds() for one in records)  # type: ignore[operator]
    assert (len(late), late[0] >= 0) == (COUNT, True)
    assert late[-1] < TAKEOVER + 1.0
    assert late[COUNT // 2] < 1.0
