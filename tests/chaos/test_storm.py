"""P2 to P5 and P7 while users and fate do random things; a failure names the seed that does them again."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import SystemRandom

from support.gauges import settled_gauges
from support.processes import Cluster
from support.rabbitmq import RabbitNode, lose_one
from support.storm import Storm

SEED = SystemRandom().randrange(10**6)
"""Of one storm; `make soak` has many."""


async def test_p2_p3_p4_p5_p6_p7_hold_in_a_storm(cluster: Cluster, rabbit_node: RabbitNode, tmp_path: Path) -> None:
    async with Storm.over(cluster, rabbit_node, tmp_path / "starts") as storm:
        await storm.blow(SEED)

        # The drift is 0 because nothing is lost, and not because nobody looks, or because what is lost is made up for.
        assert not [line for each in cluster.servers for line in each.lines if line["event"] == "lost_work_taken_back"]
        for worker in cluster.workers:
            await asyncio.to_thread(worker.terminate)
        await storm.ledger.accept(storm.client, "quick", 3, payload="0 0")
        await asyncio.to_thread(lose_one, cluster.broker_url, "homing.work.v1.quick")
        gauges = await settled_gauges(cluster.server)
        assert (gauges.record_drift, gauges.broker_drift) == (0, {"quick": 1})
