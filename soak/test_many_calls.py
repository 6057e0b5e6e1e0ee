"""Very many calls at once, over one connection and over several."""

from __future__ import annotations

import pytest

from support.confidential import confidential
from support.processes import Cluster
from support.strangers import call_at_once, invoke_at_once

ROOT_KEY = confidential("the-root-key-of-very-many-calls-0123456789")
NUMBER = 10_000


@pytest.mark.timeout(0)
def test_all_are_accepted_or_told_when_to_come(cluster: Cluster) -> None:
    cluster.start_server(HOMING_ROOT_KEY=ROOT_KEY)
    cluster.client(api_key=ROOT_KEY).functions.deploy(name="quiet", command=["cat"])

    assert len(invoke_at_once(cluster.target, ROOT_KEY, NUMBER)) == NUMBER
    outcomes = call_at_once(cluster.target, ROOT_KEY, 10, NUMBER)
    assert sum(outcomes.values()) == NUMBER
    assert outcomes.keys() <= {"OK", "SERVER_BUSY"}
