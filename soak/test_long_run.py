"""P9 for real: executions that outlast RabbitMQ's consumer time-out of 30 minutes, while broker and server restart."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from pathlib import Path

import pytest

from homing import AsyncClient, AttemptOutcome, InvocationState
from support.docker import ROOT
from support.gauges import settled_gauges
from support.ledger import Ledger, until
from support.processes import Cluster
from support.rabbitmq import RabbitNode

INTERVAL = 10.0
"""Seconds between two ticks."""
GONE_WITHIN = 2.0

START = 'echo "$Http_X_Call_Id $$" >> "$0"; exec "$@"'
"""Notes who starts, and becomes the ticker."""

_log = logging.getLogger(__name__)


class Starts:
    """Which processes were started for which invocation."""

    def __init__(self, file: Path) -> None:
        self._file = file
        file.touch()

    def of(self, invocation_id: str) -> list[int]:
        """Return the ids of its processes."""
        pairs = [line.split() for line in self._file.read_text().splitlines()]
        return [int(process) for each, process in pairs if each == invocation_id]


def runs(process: int) -> bool:
    """Tell whether a process is there."""
    return Path(f"/proc/{process}").exists()


@pytest.mark.timeout(0)
async def test_p9_long_executions_happen_once_and_can_be_stopped(
    cluster: Cluster, rabbit_node: RabbitNode, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    seconds = pytestconfig.getoption("--minutes") * 60
    starts = Starts(tmp_path / "starts")
    ticker = ["sh", "-c", START, str(tmp_path / "starts"), sys.executable, str(ROOT / "examples/ticker/ticker.py")]
    server = await asyncio.to_thread(cluster.start_server)
    await asyncio.to_thread(cluster.start_worker)
    ledger = Ledger()
    async with AsyncClient(cluster.target, timeout=60) as client, ledger.watching(client):
        await client.functions.deploy(name="ticker", command=ticker, max_instances=2, attempt_timeout=seconds + 600)
        order = json.dumps({"seconds": seconds, "interval": min(INTERVAL, seconds / 10)})
        whole, halted = await ledger.accept(client, "ticker", 2, payload=order)
        begin = time.monotonic()
        await until(lambda: all(len(starts.of(each)) == 1 for each in (whole, halted)))

        async def until_part(part: float, *running: str) -> None:
            """Wait until this part of the time has passed, while these run as they did."""
            while (left := begin + part * seconds - time.monotonic()) > 0:
                await asyncio.sleep(min(left, 60.0))
                for each in running:
                    record = await client.get(each)
                    events = " ".join(event.type.name for event in record.events)
                    passed, told = (time.monotonic() - begin) / 60, record.progress
                    _log.info("%4.1f min: %s is %s, %s: %s", passed, each, record.state.value, told, events)
                    assert (record.state, record.attempt_count) == (InvocationState.RUNNING, 1), record
                    assert len(starts.of(each)) == 1

        await until_part(0.3, whole, halted)
        _log.info("the broker is killed and started again")
        await asyncio.to_thread(rabbit_node.sync)
        await asyncio.to_thread(rabbit_node.kill)
        await asyncio.to_thread(rabbit_node.start)
        await until_part(0.6, whole, halted)
        _log.info("the server is killed and started again")
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        await until_part(0.8, whole, halted)
        _log.info("one is stopped")
        (process,) = starts.of(halted)
        assert runs(process)
        await client.stop(halted, reason="half of it is enough")
        await until(lambda: not runs(process), within=GONE_WITHIN)
        await ledger.until_ended([halted])
        _log.info("it is gone")
        await until_part(0.99, whole)
        await ledger.until_ended([whole], within=120)
        record, stopped = await client.get(whole), await client.get(halted)

    _log.info("ended after %.1f min: %s", (time.monotonic() - begin) / 60, record)
    assert stopped.state is InvocationState.STOPPED
    assert record.state is InvocationState.SUCCEEDED
    assert [attempt.outcome for attempt in record.attempts] == [AttemptOutcome.SUCCEEDED]
    assert record.start_time is not None
    assert record.end_time is not None
    assert (record.end_time - record.start_time).total_seconds() >= seconds
    assert len(starts.of(whole)) == len(starts.of(halted)) == 1
    assert ledger.seen == {whole: 1, halted: 1}
    gauges = await settled_gauges(server)
    assert (gauges.record_drift, gauges.broker_drift) == (0, {})
