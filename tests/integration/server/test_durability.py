"""What was acknowledged outlives the process, and a disk that is full takes nothing by half."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from homing_core.lifecycle import State
from homing_server.store.dispatch import at_broker
from homing_server.store.state_counts import count_states
from support.store import accept_sent, count, counters, life, opened, read, record

TESTS = Path(__file__).parents[2]


async def start(folder: Path, *, limit: int = 0) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "support.accept_on",
        str(folder),
        str(limit),
        cwd=TESTS,
        stdout=asyncio.subprocess.PIPE,
    )


async def said(process: asyncio.subprocess.Process) -> list[list[str]]:
    """Return the lines that are still to come, words apart; a line that was cut off does not count."""
    assert process.stdout is not None
    rest = (await process.stdout.read()).decode()
    return [line.split() for line in rest.split("\n")[:-1]]


async def test_p1_every_acknowledged_accept_outlives_a_kill(tmp_path: Path) -> None:
    acknowledged: dict[str, str] = {}
    for _ in range(3):
        process = await start(tmp_path)
        assert process.stdout is not None
        lines: list[list[str]] = []
        async with asyncio.timeout(60):
            while len(lines) < 200:
                lines.append((await process.stdout.readline()).decode().split())
        process.send_signal(signal.SIGKILL)
        lines += await said(process)
        await process.wait()
        for verdict, request_id, key in lines:
            assert verdict == "accepted"
            assert acknowledged.setdefault(request_id, key) == key, "the same request is the same invocation"
    assert len(acknowledged) >= 200
    async with opened(tmp_path, functions=[]) as database:
        for request_id, key in acknowledged.items():
            invocation = await read(database, key, include_payload=True)
            assert invocation.spec.payload.data.startswith(request_id.encode())
        total = await count(database)
        assert total >= len(acknowledged)
        assert (await counters(database))["accepted"] == total
        with database.reading() as connection:
            assert count_states(connection) == {State.ENQUEUED: total}
            assert at_broker(connection) == {}
            for table in ("payloads", "labels"):
                query = text(f"SELECT count(*) FROM {table}")
                assert (connection.execute(query)).scalar_one() == total


async def test_p1_full_disk_takes_nothing_by_half(tmp_path: Path) -> None:
    """The files of the process may not grow over 2 MB. Once they may again, it goes on by itself."""
    process = await start(tmp_path, limit=2_000_000)
    lines = await said(process)
    assert await process.wait() == 0
    accepted = {request_id: rest[0] for verdict, request_id, *rest in lines if verdict == "accepted"}
    refused = {request_id: rest for verdict, request_id, *rest in lines if verdict == "refused"}
    assert len(accepted) > 16
    assert len(refused) == 16
    assert all(rest == ["UNAVAILABLE", "STORE_UNAVAILABLE"] for rest in refused.values())
    assert "after" in accepted
    async with opened(tmp_path, functions=[]) as database:
        assert await count(database) == len(accepted)
        for key in accepted.values():
            assert (await read(database, key)).id == key
        with database.reading() as connection:
            assert (connection.execute(text("PRAGMA integrity_check"))).scalar_one() == "ok"
        # What was refused was not accepted, and may be asked for again.
        (key,) = await accept_sent(database, 1)
        assert (await record(database, *life(key))).ended == {key: State.SUCCEEDED}


@pytest.mark.parametrize("ended", [False, True])
async def test_records_outlive_a_reopening(tmp_path: Path, *, ended: bool) -> None:
    async with opened(tmp_path) as database:
        (key,) = await accept_sent(database, 1, callback="http://127.0.0.1/")
        if ended:
            await record(database, *life(key))
        before = await read(database, key)
    async with opened(tmp_path, functions=[]) as database:
        assert await read(database, key) == before
        assert len(before.deliveries) == int(ended)
