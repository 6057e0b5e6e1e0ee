"""Scheduled invocations start at their time, however many wait and whatever goes on."""

from __future__ import annotations

import asyncio

from homing import AsyncClient, InvocationState
from support.processes import Cluster
from support.schedules import accept_waiting, lateness, running_function

WAITING = 10_000
DUE = 120
SECONDS = 6.0
BESIDE = 10.0


async def test_they_start_within_a_second_of_their_time_while_thousands_wait(cluster: Cluster) -> None:
    server = await asyncio.to_thread(cluster.start_server)
    await asyncio.to_thread(cluster.start_worker)
    async with running_function() as url, AsyncClient(server.target, timeout=60) as client:
        await client.functions.deploy(name="soon", url=url)
        await client.functions.deploy(name="later", url=url)
        await accept_waiting(client, "soon", WAITING // 2)
        await accept_waiting(client, "later", WAITING // 2)
        late, others = await lateness(client, "soon", count=DUE, seconds=SECONDS, beside=BESIDE)
        counts = await client.count()
    assert late[0] >= 0
    assert late[int(0.99 * DUE)] < 1.0, late[-10:]
    assert counts.by_state == {InvocationState.SCHEDULED: WAITING, InvocationState.SUCCEEDED: DUE + others}
