"""Many storms over one installation, whose records grow all the while."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from support.processes import Cluster
from support.rabbitmq import RabbitNode
from support.storm import Storm

_log = logging.getLogger(__name__)


@pytest.mark.timeout(0)
async def test_p2_p3_p4_p5_p7_hold_in_many_storms(
    cluster: Cluster, rabbit_node: RabbitNode, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    first = pytestconfig.getoption("--seed")
    async with Storm.over(cluster, rabbit_node, tmp_path / "starts") as storm:
        for seed in range(first, first + pytestconfig.getoption("--storms")):
            await storm.blow(seed)
            _log.info("storm %d: %s", seed, storm.ledger.summary())
