"""P9: an execution may last for long, whatever restarts meanwhile; only a worker that is lost has it repeated.

Times are scaled: what runs leaves the broker after a second, and a worker that says nothing for three is lost.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from homing import AsyncClient, AttemptOutcome, Invocation, InvocationState
from support.gauges import settled_gauges
from support.ledger import PATIENCE, Ledger
from support.processes import Cluster
from support.rabbitmq import RabbitNode

TERM = 3.0
RENEWED = TERM / 3 + 0.5
"""Seconds within which a lease is renewed, at the latest."""
SERVER = {"HOMING_LEASE_GRACE": str(TERM)}
WORKER = {"HOMING_LEASE_AFTER": "1", "HOMING_LEASE_TERM": str(TERM)}
RUN = """
import os, pathlib, sys, time, urllib.request
folder = pathlib.Path(sys.argv[1])
with (folder / "starts").open("a") as starts:
    starts.write(os.environ["Http_X_Call_Id"] + "\\n")
begun = time.time()
while not (folder / "gate").exists():
    text = f"{time.time() - begun:.0f} s".encode()
    headers = {"Content-Type": "text/plain"}
    urllib.request.urlopen(urllib.request.Request(os.environ["Http_X_Homing_Progress_Url"], text, headers))
    time.sleep(0.1)
"""
"""Runs until it may end, and says meanwhile for how long it has run."""


def starts(folder: Path) -> list[str]:
    """Return the ids of the invocations that were started, as often as they were."""
    return (folder / "starts").read_text().split()


def seconds(record: Invocation) -> int:
    """Return for how long it said last that it has run."""
    assert record.progress is not None
    return int(record.progress.text.removesuffix(" s"))


def told(record: Invocation, kind: str) -> list[str]:
    """Return the details of the events of that kind."""
    return [event.detail for event in record.events if event.type.name == kind]


async def record_when(client: AsyncClient, invocation_id: str, wanted: Callable[[Invocation], bool]) -> Invocation:
    """Return the record as soon as it is as wanted."""
    async with asyncio.timeout(PATIENCE):
        while True:
            record = await client.get(invocation_id)
            if wanted(record):
                return record
            await asyncio.sleep(0.1)


async def test_p9_a_long_run_outlasts_its_broker_and_its_server(
    cluster: Cluster, rabbit_node: RabbitNode, tmp_path: Path
) -> None:
    server = await asyncio.to_thread(cluster.start_server, **SERVER)
    await asyncio.to_thread(cluster.start_worker, **WORKER)
    ledger = Ledger()
    async with AsyncClient(cluster.target, timeout=60) as client, ledger.watching(client):
        await client.functions.deploy(name="long", command=[sys.executable, "-c", RUN, str(tmp_path)], max_instances=1)
        (long,) = await ledger.accept(client, "long")
        await record_when(client, long, lambda record: record.state is InvocationState.RUNNING)
        waiting = await ledger.accept(client, "long", 3)
        await record_when(client, long, lambda record: bool(told(record, "LEASED")))
        for each in waiting:
            # Handed out again it waits again, and is handed back again.
            await record_when(client, each, lambda record: told(record, "REQUEUED")[:1] == ["WAITED"])

        await asyncio.to_thread(rabbit_node.sync)
        await asyncio.to_thread(rabbit_node.kill)
        await asyncio.to_thread(rabbit_node.start)
        await asyncio.to_thread(server.kill)
        # Away for longer than a lease lasts, and then there for longer than that and the grace.
        await asyncio.sleep(TERM + 1)
        await asyncio.to_thread(server.start)
        before = len(told(await client.get(waiting[0]), "REQUEUED"))
        await record_when(client, waiting[0], lambda record: len(told(record, "REQUEUED")) > before)
        told_before = await client.get(long)
        await asyncio.sleep(2 * TERM)

        record = await client.get(long)
        assert seconds(record) > seconds(told_before) >= TERM
        assert (record.state, record.attempt_count) == (InvocationState.RUNNING, 1)
        assert starts(tmp_path) == [long]
        (tmp_path / "gate").touch()
        await ledger.close(client, "long")
        record = await client.get(long)

    assert ledger.states() == {InvocationState.SUCCEEDED: 5}
    assert sorted(starts(tmp_path)) == sorted(ledger.accepted)
    assert len(told(record, "LEASED")) == 1
    assert not told(record, "REQUEUED")
    gauges = await settled_gauges(server)
    assert (gauges.record_drift, gauges.broker_drift) == (0, {})


@pytest.fixture
def impatient(rabbit_node: RabbitNode) -> Iterator[None]:
    """Have RabbitMQ close channels that keep a message for longer than 4 s, and look twice a second."""

    def be_patient(milliseconds: int, *, tick: int) -> None:
        settings = {"consumer_timeout": milliseconds, "channel_tick_interval": tick}
        changes = [f"application:set_env(rabbit, {name}, {value})" for name, value in settings.items()]
        rabbit_node.ctl("eval", f"{', '.join(changes)}.")

    be_patient(4000, tick=500)
    yield
    be_patient(1_800_000, tick=60_000)


@pytest.mark.usefixtures("impatient")
async def test_p9_what_a_lost_worker_had_leased_runs_again_when_the_lease_has_ended(
    cluster: Cluster, tmp_path: Path
) -> None:
    """For as long as it lives the time-out of RabbitMQ, here shorter than the run, does not come about."""
    await asyncio.to_thread(cluster.start_server, **SERVER)
    lost = await asyncio.to_thread(cluster.start_worker, **WORKER)
    async with AsyncClient(cluster.target, timeout=60) as client:
        await client.functions.deploy(name="long", command=[sys.executable, "-c", RUN, str(tmp_path)], max_instances=1)
        handle = await client.invoke_async("long")
        await record_when(client, handle.id, lambda record: bool(told(record, "LEASED")))
        other = await asyncio.to_thread(cluster.start_worker, **WORKER)
        await asyncio.sleep(4)
        killed = datetime.now(UTC)
        await asyncio.to_thread(lost.kill)
        record = await record_when(client, handle.id, lambda record: record.attempt_count == 2)
        (tmp_path / "gate").touch()
        assert (await handle.wait(PATIENCE)).state is InvocationState.SUCCEEDED
        first, second = record.attempts

    for worker in (lost, other):
        assert not [line for line in worker.lines if line["event"] == "consumer_restarting"]
    assert [(each.worker, each.outcome) for each in (first, second)] == [
        (lost.worker, AttemptOutcome.LOST),
        (other.worker, None),
    ]
    assert told(record, "REQUEUED") == ["LEASE_ENDED"]
    assert second.start_time is not None
    assert second.start_time - killed >= timedelta(seconds=TERM - RENEWED)
    assert starts(tmp_path) == [handle.id] * 2
