"""How late scheduled invocations start while a hundred thousand wait and others are invoked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from homing import AsyncClient
from support.processes import Cluster
from support.rabbitmq import RabbitNode
from support.schedules import accept_waiting, lateness, running_function

_DUE = 6000
_SECONDS = 120.0
_BESIDE = 50.0

Tell = Callable[[str], None]


async def measure(folder: Path, waiting: int, tell: Tell) -> list[str]:
    """Have so many wait, measure and return the lines of a table."""
    with RabbitNode(folder / "rabbitmq") as node, Cluster(node.new_vhost(), folder) as cluster:
        await asyncio.to_thread(cluster.start_server)
        await asyncio.to_thread(cluster.start_worker)
        async with running_function() as url, AsyncClient(cluster.target, timeout=120) as client:
            for name in ("soon", "later"):
                await client.functions.deploy(name=name, url=url, max_instances=8)
            begin = time.monotonic()
            for name in ("soon", "later"):
                await accept_waiting(client, name, waiting // 2)
            tell(f"{waiting:,} scheduled invocations accepted in {time.monotonic() - begin:.0f} s")
            late, others = await lateness(client, "soon", count=_DUE, seconds=_SECONDS, beside=_BESIDE)
    milliseconds = [1000 * late[int(share * (_DUE - 1))] for share in (0.5, 0.99, 1.0)]
    conditions = (
        f"{_DUE:,} due evenly over {_SECONDS:g} s, {others / _SECONDS:.0f} others a second, {waiting:,} waiting"
    )
    return [
        f"{conditions}:",
        "",
        "| started after its time | ms |",
        "| ---------------------- | -: |",
        *(f"| {name} | {value:.0f} |" for name, value in zip(("p50", "p99", "latest"), milliseconds, strict=True)),
    ]
