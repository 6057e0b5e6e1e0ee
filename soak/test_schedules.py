"""100,000 scheduled invocations that start at their time while other work goes on."""

from __future__ import annotations

import asyncio
import logging

import pytest

from homing import AsyncClient, InvocationState
from support.processes import Cluster
from support.schedules import accept_waiting, lateness, running_function

WAITING = 100_000
DUE = 1200
SECONDS = 60.0
BESIDE = 20.0

_log = logging.getLogger(__name__)


@pytest.mark.timeout(0)
async def test_100_000_scheduled_ones_start_within_a_second_of_their_time(cluster: Cluster) -> None:
    server = await asyncio.to_thread(cluster.start_server)
    await asyncio.to_thread(cluster.start_worker)
    async with running_function() as url, AsyncClient(server.target, timeout=60) as client:
        for name in ("due", "later"):
            await client.functions.deploy(name=name, url=url)
            await accept_waiting(client, name, WAITING // 2)
            _log.info("%d of %s wait", WAITING // 2, name)
        late, others = await lateness(client, "due", count=DUE, seconds=SECONDS, beside=BESIDE)
        counts = await client.count(states=[InvocationState.SUCCEEDED])

    at = {share: late[round(share * (DUE - 1))] for share in (0.5, 0.99, 1.0)}
    _log.info("seconds late: %s; %d others ran meanwhile", at, others)
    assert late[0] >= 0
    assert at[0.99] < 1.0
    assert counts.by_state == {InvocationState.SUCCEEDED: DUE + others}
