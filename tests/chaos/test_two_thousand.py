"""2,000 invocations in, 2,000 ends out, each watched once, while everything is killed in turn."""

from __future__ import annotations

import asyncio
from collections import Counter

from homing import AsyncClient, InvocationState, RetryPolicy
from support.gauges import settled_gauges
from support.ledger import Ledger
from support.processes import Cluster
from support.proxy import TcpProxy
from support.rabbitmq import RabbitNode

ONCE = RetryPolicy(max_attempts=1)


async def test_p1_p2_p5_p8_all_that_goes_in_comes_out_while_everything_is_killed(
    cluster: Cluster, rabbit_node: RabbitNode
) -> None:
    server = cluster.start_server(HOMING_RESEND_AFTER="3")
    first, second = cluster.start_worker(), cluster.start_worker()
    host, port = cluster.target.rsplit(":", 1)
    ledger = Ledger()
    async with (
        TcpProxy(host, int(port)) as proxy,
        AsyncClient(cluster.target, timeout=120) as client,
        AsyncClient(f"127.0.0.1:{proxy.port}", timeout=120) as watcher,
        ledger.watching(watcher),
    ):
        await client.functions.deploy(name="echo", command=["cat"], max_instances=4)
        await client.functions.deploy(name="nap", command=["sleep", "0.1"], max_instances=8)
        await client.functions.deploy(name="fail", command=["false"], max_instances=2, retry_policy=ONCE)

        async def load() -> None:
            for _ in range(20):
                # Held back so that the load lasts: accepting is faster than running.
                await ledger.until(lambda book: len(book.accepted) - len(book.seen) < 500)
                async with asyncio.TaskGroup() as group:
                    group.create_task(ledger.accept(client, "echo", 50))
                    group.create_task(ledger.accept(client, "nap", 40))
                    group.create_task(ledger.accept(client, "fail", 10))

        async def ended(count: int) -> None:
            await ledger.until(lambda book: len(book.seen) >= count)

        async def cuts() -> None:
            for number in range(10):
                await ended(100 + 180 * number)
                await proxy.cut()

        async def kills() -> None:
            await ended(200)
            await asyncio.to_thread(first.kill)
            await ended(500)
            await asyncio.to_thread(first.start)
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
            await ended(900)
            await asyncio.to_thread(rabbit_node.sync)
            await asyncio.to_thread(rabbit_node.kill)
            await asyncio.to_thread(rabbit_node.start)
            await ended(1200)
            await asyncio.to_thread(second.kill)
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
            await asyncio.to_thread(second.start)

        async with asyncio.TaskGroup() as group:
            for part in (load, cuts, kills):
                group.create_task(part())
        await ledger.until_ended()
        assert len(ledger.accepted) == 2000
        await ledger.close(client, "echo")

    assert ledger.states("echo") == Counter({InvocationState.SUCCEEDED: 1001})
    assert ledger.states("nap") == Counter({InvocationState.SUCCEEDED: 800})
    assert ledger.states("fail") == Counter({InvocationState.FAILED: 200})
    gauges = await settled_gauges(server)
    assert gauges.records == {"SUCCEEDED": 1801, "FAILED": 200}
    assert gauges.record_drift == 0
    assert gauges.broker_drift == {}
