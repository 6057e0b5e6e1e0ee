"""Five hundred watchers of one server see each of 5,000 results once, while it stays small."""

from __future__ import annotations

import logging
import time

import pytest

from support.processes import Cluster
from support.watchers import watched_by_many

MOST_MEMORY = 300 * 1024 * 1024

_log = logging.getLogger(__name__)


@pytest.mark.timeout(0)
async def test_p8_five_hundred_watchers_see_each_of_5000_results_once(cluster: Cluster, broker_url: str) -> None:
    begin = time.monotonic()
    memory = await watched_by_many(cluster, broker_url, watchers=500, results=5000, within=1800)
    _log.info("2,500,000 messages in %.0f s; the server had %.0f MiB at most", time.monotonic() - begin, memory / 2**20)
    assert memory < MOST_MEMORY
