"""P5: what went in is what waits, runs or has ended, and one message that is lost is seen."""

from __future__ import annotations

import asyncio

from homing import AsyncClient
from support.gauges import settled_gauges
from support.ledger import Ledger
from support.processes import Cluster
from support.rabbitmq import lose_one


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

        # The others are not harmed by it.
        async with ledger.watching(client):
            await asyncio.to_thread(worker.start)
            await ledger.until(lambda book: sum(each in book.seen for each in waiting) == 4)
        gauges = await settled_gauges(server)
        assert gauges.records == {"SUCCEEDED": 304, "ENQUEUED": 1}
        assert (gauges.record_drift, gauges.broker_drift) == (0, {"echo": 1})
