"""A live installation is backed up, lost, and restored: all that the backup knew of comes to its end."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sqlite3
from pathlib import Path

from homing import AsyncClient, InvocationState
from support.gauges import gauges_after
from support.ledger import Ledger
from support.processes import Cluster
from support.rabbitmq import RabbitNode
from support.receivers import receiving, take

LARGE = "x" * 400_000


def back_up(source: Path, target: Path) -> None:
    """Copy a database that is in use, as docs/upgrading.md says."""
    with contextlib.closing(sqlite3.connect(source)) as live, contextlib.closing(sqlite3.connect(target)) as copy:
        live.backup(copy)


def restore(folder: Path, database: Path) -> None:
    """Put a backup in the place of what was lost."""
    for left in folder.glob("homing.sqlite3*"):
        left.unlink()
    shutil.rmtree(folder / "server-1" / "blobs")
    shutil.move(database, folder / "homing.sqlite3")
    shutil.move(folder / "blobs", folder / "server-1" / "blobs")


async def test_p5_what_a_backup_of_a_live_system_knew_ends_after_it_was_restored(
    cluster: Cluster, rabbit_node: RabbitNode, tmp_path: Path
) -> None:
    server = await asyncio.to_thread(cluster.start_server)
    worker = await asyncio.to_thread(cluster.start_worker)
    ledger = Ledger()
    copy = tmp_path / "backup.sqlite3"
    async with receiving(take) as receiver:
        async with AsyncClient(cluster.target, timeout=60) as client:
            await client.functions.deploy(name="slow", command=["sh", "-c", "sleep 0.1; cat"])
            await client.functions.deploy(name="held", command=["sleep", "600"])
            async with ledger.watching(client):
                calls = [
                    await client.invoke_async("slow", LARGE if number < 2 else f"{number}", callback_url=receiver.url)
                    for number in range(60)
                ]
                running = await client.invoke_async("held")
                await ledger.until(lambda book: len(book.seen) > 10)
                await running.stop(reason="on its way while the backup is made")
                await asyncio.to_thread(back_up, tmp_path / "homing.sqlite3", copy)
                shutil.copytree(tmp_path / "server-1" / "blobs", tmp_path / "blobs")
                # After the backup life goes on, for a while.
                await ledger.accept(client, "slow", 5)
        server.kill()
        worker.kill()

        restore(tmp_path, copy)
        fresh = rabbit_node.new_vhost()
        for process in (server, worker):
            process.environment["HOMING_BROKER_URL"] = fresh
        server.environment["HOMING_REPUBLISH_ALL"] = "true"
        await asyncio.to_thread(server.start)
        await asyncio.to_thread(worker.start)
        async with AsyncClient(cluster.target, timeout=60) as client:
            for call in calls:
                result = await client.handle(call.id).result(timeout=60)
                assert result.data
            stopped = await client.handle(running.id).wait(timeout=60)
            assert stopped.state is InvocationState.STOPPED
            # What ended after the backup has another delivery after it, so calls are counted and not deliveries.
            await receiver.until(
                lambda seen: {request.headers["x-call-id"] for request in seen.requests} >= {call.id for call in calls}
            )
            gauges = await gauges_after(server, lambda gauges: not gauges.broker_drift)
            assert (gauges.record_drift, gauges.broker_drift) == (0, {})
            # What was accepted after the backup is gone with what was lost; the counters agree on that.
            assert len([one async for one in client.list_invocations(limit=200)]) == len(calls) + 1
    await asyncio.to_thread(cluster.close)
    rabbit_node.leave_vhost(fresh)
