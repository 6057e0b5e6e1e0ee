"""Functions are deleted and deployed again while others invoke them: what is accepted runs (P1)."""

from __future__ import annotations

import contextlib
from pathlib import Path

from homing import AsyncClient
from support.processes import Cluster, Dev
from support.redeploys import PATIENCE, redeploy


async def test_p1_what_is_accepted_after_a_deploy_runs_it_on_two_servers_and_two_workers(cluster: Cluster) -> None:
    servers = [cluster.start_server() for _ in range(2)]
    for _ in range(2):
        cluster.start_worker()
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(AsyncClient(server.target, timeout=PATIENCE)) for server in servers]
        await redeploy(clients, names=6, cycles=3, seed=7)


async def test_p1_what_is_accepted_after_a_deploy_runs_it_on_the_embedded_broker(tmp_path: Path) -> None:
    dev = Dev(tmp_path)
    dev.start()
    try:
        async with AsyncClient(dev.target, timeout=PATIENCE) as client:
            await redeploy([client], names=6, cycles=3, seed=7)
    finally:
        dev.terminate()
