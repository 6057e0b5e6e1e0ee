"""Hundreds of deletions, deploys and invocations, on two servers and two workers."""

from __future__ import annotations

import contextlib

import pytest

from homing import AsyncClient
from support.processes import Cluster
from support.redeploys import PATIENCE, redeploy


@pytest.mark.timeout(0)
async def test_p1_300_cycles_of_deleting_deploying_and_invoking(cluster: Cluster, pytestconfig: pytest.Config) -> None:
    servers = [cluster.start_server() for _ in range(2)]
    for _ in range(2):
        cluster.start_worker()
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(AsyncClient(server.target, timeout=PATIENCE)) for server in servers]
        await redeploy(clients, names=10, cycles=30, seed=pytestconfig.getoption("--seed"))
