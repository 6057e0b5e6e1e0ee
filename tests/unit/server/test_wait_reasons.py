"""What is said of why an invocation waits."""

from __future__ import annotations

from pathlib import Path

import pytest

from homing.v1 import function_pb2
from homing.v1 import invocation_pb2 as api
from homing_core.clock import now_us
from homing_core.wire.v1 import FunctionLoad, FunctionState, WorkerStatus
from homing_server.cluster.presence import Presence
from homing_server.cluster.wait_reasons import WaitReasons
from homing_server.functions.catalog import Catalog
from homing_server.store.engine import Database

MINUTE = 60 * 1_000_000


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return Catalog(Database(f"sqlite:///{tmp_path / 'homing.db'}"))


@pytest.fixture
def presence() -> Presence:
    return Presence()


def waiting(reason: str, *, until_us: int = 0) -> api.Invocation:
    invocation = api.Invocation(function="f", wait_reason=api.WaitReason.Value(f"WAIT_REASON_{reason}"))
    if until_us:
        invocation.wait_until.FromMicroseconds(until_us)
    return invocation


@pytest.mark.parametrize("served", [True, False])
@pytest.mark.parametrize("paused", [True, False])
@pytest.mark.parametrize(
    ("recorded", "until", "served_says", "unserved_says"),
    [
        ("SCHEDULED", MINUTE, "SCHEDULED", "SCHEDULED"),
        ("SCHEDULED", -MINUTE, "BACKLOG", "NO_WORKER"),
        ("BACKOFF", MINUTE, "BACKOFF", "BACKOFF"),
        ("BACKOFF", -MINUTE, "BACKLOG", "NO_WORKER"),
        ("BACKLOG", 0, "BACKLOG", "NO_WORKER"),
        ("COLD_START", 0, "COLD_START", "COLD_START"),
    ],
)
def test_the_reason_is_the_one_that_holds_now(
    catalog: Catalog,
    presence: Presence,
    *,
    recorded: str,
    until: int,
    served_says: str,
    unserved_says: str,
    paused: bool,
    served: bool,
) -> None:
    catalog.learn(FunctionState(function=function_pb2.Function(name="f", revision=1, paused=paused)))
    functions = [FunctionLoad(function="f")] if served else []
    presence.on_status(WorkerStatus(worker="w", functions=functions))
    until_us = now_us() + until if until else 0
    said = WaitReasons(catalog, presence).explain(waiting(recorded, until_us=until_us))

    expected = served_says if served else unserved_says
    if paused and until <= 0:
        expected = "PAUSED"
    assert api.WaitReason.Name(said.wait_reason) == f"WAIT_REASON_{expected}"
    assert said.HasField("wait_until") is (until > 0)


def test_what_does_not_wait_has_no_reason(catalog: Catalog, presence: Presence) -> None:
    catalog.learn(FunctionState(function=function_pb2.Function(name="f", revision=1, paused=True)))
    assert WaitReasons(catalog, presence).explain(waiting("UNSPECIFIED")) == waiting("UNSPECIFIED")
