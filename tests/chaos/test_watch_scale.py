"""Five hundred watchers of one server see every result once, and the server stays small."""

from __future__ import annotations

from support.processes import Cluster
from support.watchers import watched_by_many

MOST_MEMORY = 300 * 1024 * 1024


async def test_p8_five_hundred_watchers_see_every_result_once(cluster: Cluster, broker_url: str) -> None:
    memory = await watched_by_many(cluster, broker_url, watchers=500, results=200, within=120)
    assert memory < MOST_MEMORY
