"""P2 and P3: one end, whoever else still runs the same invocation or records the same events."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path

import pytest

from homing import AsyncClient, AttemptOutcome, Invocation, InvocationState
from support.gauges import Gauges, gauges_when
from support.ledger import PATIENCE, Ledger
from support.processes import Cluster
from support.proxy import TcpProxy
from support.rabbitmq import RabbitNode

HELD = 10


async def until_running(client: AsyncClient, invocation_id: str, *, attempt: int) -> Invocation:
    """Return the record once an attempt of it runs."""
    async with asyncio.timeout(PATIENCE):
        while True:
            record = await client.get(invocation_id)
            if record.state is InvocationState.RUNNING and record.attempt_count == attempt:
                return record
            await asyncio.sleep(0.1)


def writable(store_url: str) -> bool:
    """Tell whether the store can be written: whether nobody stays in the middle of a transaction."""
    path = store_url.removeprefix("sqlite:///")
    with contextlib.closing(sqlite3.connect(path, timeout=2, isolation_level=None)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
        connection.execute("ROLLBACK")
        return True


@pytest.mark.parametrize("first", ["stale", "current"])
async def test_p3_redelivery_while_the_original_still_runs(
    cluster: Cluster, rabbit_node: RabbitNode, tmp_path: Path, first: str
) -> None:
    """A worker is cut off in the middle of executions and goes on; another one gets the same messages."""
    gates = {attempt: tmp_path / f"gate-{attempt}" for attempt in (1, 2)}
    answer = 'a=$Http_X_Homing_Attempt; while [ ! -e "$0-$a" ]; do sleep 0.1; done; echo attempt $a'
    async with TcpProxy("127.0.0.1", rabbit_node.port) as proxy:
        through = cluster.broker_url.replace(f":{rabbit_node.port}/", f":{proxy.port}/")
        server = await asyncio.to_thread(cluster.start_server)
        cut_off = await asyncio.to_thread(cluster.start_worker, HOMING_BROKER_URL=through)
        ledger = Ledger()
        async with AsyncClient(cluster.target, timeout=60) as client:
            await client.functions.deploy(
                name="hold", command=["sh", "-c", answer, str(tmp_path / "gate")], max_instances=HELD
            )
            async with ledger.watching(client):
                ids = await ledger.accept(client, "hold", HELD)
                for each in ids:
                    await until_running(client, each, attempt=1)
                other = await asyncio.to_thread(cluster.start_worker)

                # Cut off for so long that the other one has taken everything.
                proxy.pause()
                proxy.strand()
                for each in ids:
                    record = await until_running(client, each, attempt=2)
                    assert [attempt.outcome for attempt in record.attempts] == [AttemptOutcome.LOST, None]
                await proxy.cut()
                proxy.resume()
                await asyncio.to_thread(server.wait_for_log, "worker_connected", worker=cut_off.worker, after=0)

                if first == "stale":
                    gates[1].touch()

                    def refused(gauges: Gauges) -> bool:
                        return gauges.value("homing_events_refused_total") >= HELD

                    await gauges_when(server, refused)
                    records = [await client.get(each) for each in ids]
                    assert {(each.state, each.result) for each in records} == {(InvocationState.RUNNING, None)}
                    gates[2].touch()
                else:
                    gates[2].touch()
                    await ledger.until_ended(ids)
                    gates[1].touch()
                await ledger.close(client, "hold")

            for each in ids:
                record = await client.get(each)
                assert record.state is InvocationState.SUCCEEDED
                assert record.result is not None
                assert record.result.text == "attempt 2\n"
                assert [(attempt.outcome, attempt.worker) for attempt in record.attempts] == [
                    (AttemptOutcome.LOST, cut_off.worker),
                    (AttemptOutcome.SUCCEEDED, other.worker),
                ]
        # Its last events are confirmed while it can reach the broker.
        await asyncio.to_thread(cut_off.terminate)


async def test_p2_p3_two_servers_record_and_the_active_one_freezes(
    cluster: Cluster, rabbit_node: RabbitNode, tmp_path: Path
) -> None:
    """The one that freezes still believes that it is active when it wakes up, with events in hand."""
    runs = tmp_path / "runs"

    async def events_in_hand() -> int:
        queues = await asyncio.to_thread(rabbit_node.queues, cluster.broker_url, "messages_unacknowledged")
        return int(queues["homing.events.v1"]["messages_unacknowledged"])

    async with TcpProxy("127.0.0.1", rabbit_node.port) as proxy:
        through = cluster.broker_url.replace(f":{rabbit_node.port}/", f":{proxy.port}/")
        active = await asyncio.to_thread(cluster.start_server, HOMING_BROKER_URL=through, HOMING_RESEND_AFTER="3")
        other = await asyncio.to_thread(cluster.start_server, HOMING_RESEND_AFTER="3")
        await asyncio.to_thread(cluster.start_worker)
        ledger = Ledger()
        async with (
            AsyncClient(active.target, timeout=120) as first,
            AsyncClient(other.target, timeout=120) as second,
            ledger.watching(second),
        ):
            await first.functions.deploy(name="tee", command=["tee", "-a", str(runs)], max_instances=4)

            async def load(client: AsyncClient) -> None:
                for _ in range(20):
                    await ledger.until(lambda book: len(book.accepted) - len(book.seen) < 300)
                    await ledger.accept(client, "tee", 20, payload="run\n")

            async def more_seen(count: int) -> None:
                enough = len(ledger.seen) + count
                await ledger.until(lambda book: len(book.seen) >= enough)

            async def freeze() -> None:
                await more_seen(100)
                active.suspend()
                while not await asyncio.to_thread(writable, cluster.store_url):
                    # It froze in the middle of a transaction: nobody could write before it wakes up.
                    active.resume()
                    await more_seen(1)
                    active.suspend()
                # Meanwhile work goes on, and its events are handed to the one that is frozen.
                handed = await events_in_hand()
                while await events_in_hand() <= handed:
                    assert active.running
                proxy.strand()
                await asyncio.to_thread(other.wait_for_log, "recording_started")
                active.resume()
                await asyncio.to_thread(active.wait_for_log, "recorder_superseded")
                await more_seen(100)
                await proxy.cut()

            async with asyncio.TaskGroup() as group:
                for client in (first, second):
                    group.create_task(load(client))
                group.create_task(freeze())
            await ledger.close(second, "tee")

            # The one that was frozen takes over when the other one dies.
            before = len(active.lines)
            await asyncio.to_thread(other.kill)
            await ledger.accept(first, "tee", 50, payload="run\n")
            await asyncio.to_thread(active.wait_for_log, "recording_started", after=before)
            await asyncio.to_thread(other.start)
            await ledger.close(second, "tee")

    assert ledger.states() == {InvocationState.SUCCEEDED: 852}


async def test_p3_an_invocation_that_kills_its_workers_is_poison(cluster: Cluster, tmp_path: Path) -> None:
    """It is started three times and harms its neighbours only by the time that new workers take to start."""
    await asyncio.to_thread(cluster.start_server)
    worker = await asyncio.to_thread(cluster.start_worker)
    starts = tmp_path / "starts"
    ledger = Ledger()
    async with AsyncClient(cluster.target, timeout=60) as client:
        await client.functions.deploy(
            name="poison", command=["sh", "-c", f"echo $PPID >> {starts}; sleep 0.5; kill -9 $PPID"]
        )
        await client.functions.deploy(name="sudden", command=["sh", "-c", "kill -9 $PPID"])
        await client.functions.deploy(name="nap", command=["sleep", "0.2"], max_instances=4)
        async with ledger.watching(client):

            async def restart() -> None:
                while await asyncio.to_thread(worker.wait, timeout=PATIENCE) != 0:
                    # It may die before it is ready.
                    worker.launch()

            restarting = asyncio.create_task(restart())
            (poison,) = await ledger.accept(client, "poison")
            neighbours = await ledger.accept(client, "nap", 100)
            await ledger.until_ended([poison])
            # This one kills so fast that the news of its start may die with the worker.
            (sudden,) = await ledger.accept(client, "sudden")
            await ledger.until_ended([*neighbours, sudden])
            await ledger.close(client, "nap")
            await asyncio.to_thread(worker.terminate)
            await restarting

    for each in (poison, sudden):
        record = ledger.ends[each].invocation
        assert record.state is InvocationState.FAILED
        assert record.failure is not None
        assert record.failure.reason == "POISON"
        assert {attempt.outcome for attempt in record.attempts} == {AttemptOutcome.LOST}
        assert record.attempt_count == 3
    assert len(starts.read_text().split()) == 3
    assert ledger.states("nap") == {InvocationState.SUCCEEDED: 101}
