"""P5: what went in is what waits, runs or has ended; what the broker loses is seen, and a whole queue made up for."""

from __future__ import annotations

import asyncio

from homing import AsyncClient
from homing_core.broker.rabbitmq.topology import work_queue
from support.gauges import settled_gauges
from support.ledger import Ledger
from support.processes import Cluster
from support.rabbitmq import RabbitNode, lose_one, vhost_of


async def test_p5_drift_is_0_after_load_and_1_after_a_loss(cluster: Cluster) -> None:
    server = await asyncio.to_thread(cluster.start_server)
    worker = await asyncio.to_thread(cluster.start_worker)
    ledger = Ledger()
    async with AsyncClient(cluster.target, timeout=60) as client:
        await client.functions.deploy(name="echo", command=["cat"])
        await client.functions.deploy(name="other", command=["cat"])
        async with ledger.watching(client):
            await asyncio.gather(ledger.accept(client, "echo", 200), ledger.accept(client, "other", 100))
            await ledger.until_ended()
        await asyncio.to_thread(worker.terminate)
        waiting = await ledger.accept(client, "echo", 5)

        gauges = await settled_gauges(server)
        assert gauges.value("homing_invocations_accepted_total") == 305
        assert gauges.records == {"SUCCEEDED": 300, "ENQUEUED": 5}
        assert (gauges.record_drift, gauges.broker_drift) == (0, {})

        await asyncio.to_thread(lose_one, cluster.broker_url, "homing.work.v1.echo")
        gauges = await settled_gauges(server)
        assert gauges.records == {"SUCCEEDED": 300, "ENQUEUED": 5}
        assert (gauges.record_drift, gauges.broker_drift) == (0, {"echo": 1})

        # The others are not harmed by it. Once they are through nothing is left of the function at the broker, and what
        # the store believes to be there is published again.
        async with ledger.watching(client):
            await asyncio.to_thread(worker.start)
            await ledger.until(lambda book: all(each in book.seen for each in waiting))
        assert server.wait_for_log("lost_work_taken_back", function="echo")["invocations"] == 1
        gauges = await settled_gauges(server)
        assert gauges.records == {"SUCCEEDED": 305}
        assert (gauges.record_drift, gauges.broker_drift) == (0, {})


async def test_p5_what_was_in_a_queue_that_is_deleted_runs_while_other_work_goes_on(
    cluster: Cluster, rabbit_node: RabbitNode
) -> None:
    server = await asyncio.to_thread(cluster.start_server)
    ledger = Ledger()
    over = asyncio.Event()

    async def until_seen(ids: list[str]) -> None:
        await ledger.until(lambda book: all(each in book.seen for each in ids))

    async def go_on(client: AsyncClient, function: str) -> None:
        while not over.is_set():
            await until_seen(await ledger.accept(client, function, 2))

    async with AsyncClient(cluster.target, timeout=60) as client:
        for function in ("echo", "other"):
            await client.functions.deploy(name=function, command=["cat"])
        waiting = await ledger.accept(client, "echo", 50)
        await settled_gauges(server)
        await asyncio.to_thread(rabbit_node.ctl, "delete_queue", "-p", vhost_of(cluster.broker_url), work_queue("echo"))
        async with ledger.watching(client), asyncio.TaskGroup() as others:
            for _ in range(2):
                await asyncio.to_thread(cluster.start_worker)
            for function in ("echo", "other"):
                others.create_task(go_on(client, function))
            await until_seen(waiting)
            over.set()
            await ledger.until_ended()
        gauges = await settled_gauges(server)
        assert gauges.records == {"SUCCEEDED": len(ledger.accepted)}
        assert (gauges.record_drift, gauges.broker_drift) == (0, {})
    taken_back = [line for line in server.lines if line["event"] == "lost_work_taken_back"]
    assert sum(line["invocations"] for line in taken_back) == 50
