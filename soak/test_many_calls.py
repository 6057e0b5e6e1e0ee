"""Very many calls at once, over one connection and over several: none is lost, and others are served meanwhile."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from support.confidential import confidential
from support.processes import Cluster
from support.strangers import MIB, call_at_once, invoke_at_once, watching

ROOT_KEY = confidential("the-root-key-of-very-many-calls-0123456789")
NUMBER = 10_000
SOON = 1.0


@pytest.fixture
def elsewhere() -> Iterator[ProcessPoolExecutor]:
    """Yield a process for those who call at once, so that they do not hold up who measures."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        pool.submit(os.nice, 10).result()
        yield pool


@pytest.mark.timeout(0)
def test_all_are_accepted_or_told_when_to_come_and_others_are_served(
    cluster: Cluster, elsewhere: ProcessPoolExecutor
) -> None:
    server = cluster.start_server(HOMING_ROOT_KEY=ROOT_KEY)
    for _ in range(2):
        cluster.start_worker()
    client = cluster.client(api_key=ROOT_KEY)
    client.functions.deploy(name="quiet", command=["cat"])
    client.functions.pause("quiet")

    def other() -> None:
        assert client.invoke_async("quiet", b"x").id

    with watching(server.pid, other) as measured:
        assert len(elsewhere.submit(invoke_at_once, cluster.target, ROOT_KEY, NUMBER).result()) == NUMBER
    assert measured.slowest < SOON
    assert measured.grown < 200 * MIB

    with watching(server.pid, other) as measured:
        outcomes = elsewhere.submit(call_at_once, cluster.target, ROOT_KEY, 10, NUMBER).result()
    assert sum(outcomes.values()) == NUMBER
    assert outcomes.keys() <= {"OK", "SERVER_BUSY"}
    assert measured.slowest < SOON
    assert measured.grown < 200 * MIB
