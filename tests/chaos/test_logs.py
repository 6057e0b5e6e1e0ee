"""Whoever follows a log meets servers that die and a broker that is cut off; the work goes on, whatever lines do."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import grpc
import pytest

from homing import AsyncClient, InvocationState
from homing.v1.log_service_pb2 import TailLogsResponse
from support.caller import calling
from support.processes import Cluster
from support.proxy import TcpProxy
from support.rabbitmq import RabbitNode

TICKS = """
import pathlib, sys, time
number = 0
while not pathlib.Path(sys.argv[1]).exists():
    number += 1
    print(number, file=sys.stderr, flush=True)
    time.sleep(0.02)
print(number)
"""


async def read(lines: AsyncIterator[TailLogsResponse], *, beyond: int) -> list[int]:
    """Read until a number beyond this one comes."""
    seen: list[int] = []
    async for line in lines:
        seen.append(int(line.text))
        if seen[-1] > beyond:
            break
    return seen


def rises(numbers: list[int]) -> bool:
    return all(one < next_ for one, next_ in pairwise(numbers))


@pytest.mark.parametrize("how", ["kill", "terminate"])
async def test_a_follower_of_a_server_that_goes_tails_again(cluster: Cluster, tmp_path: Path, how: str) -> None:
    server = await asyncio.to_thread(cluster.start_server)
    await asyncio.to_thread(cluster.start_worker)
    enough = tmp_path / "enough"
    async with calling(cluster) as caller:
        await caller.deploy(name="ticks", command={"args": [sys.executable, "-c", TICKS, str(enough)]})
        id_ = await caller.send("ticks")
        lines = caller.tail(id_)
        before = await read(lines, beyond=20)
        begun = time.monotonic()
        stopping = asyncio.create_task(asyncio.to_thread(getattr(server, how)))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read(lines, beyond=10**9)
        await stopping
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert time.monotonic() - begun < 10

        await asyncio.to_thread(server.start)
        again = caller.tail(id_)
        after = await read(again, beyond=before[-1] + 50)
        enough.touch()
        after += [int(line.text) async for line in again]

        last = int((await caller.end(id_)).result.payload.data)
        assert before == list(range(1, before[-1] + 1))
        if how == "terminate":
            assert after == list(range(1, last + 1))
        else:
            # What was in the hand of the server may be lost; nothing comes twice.
            assert rises(after)
            assert after[-1] == last
            assert len(after) > last / 2


async def test_a_broker_that_is_cut_off_costs_lines_and_no_invocation(
    cluster: Cluster, rabbit_node: RabbitNode, tmp_path: Path
) -> None:
    await asyncio.to_thread(cluster.start_server)
    enough = tmp_path / "enough"
    async with TcpProxy("127.0.0.1", rabbit_node.port) as proxy, AsyncClient(cluster.target, timeout=60) as client:
        through = cluster.broker_url.replace(f":{rabbit_node.port}/", f":{proxy.port}/")
        await asyncio.to_thread(cluster.start_worker, HOMING_BROKER_URL=through)
        await client.functions.deploy(name="ticks", command=[sys.executable, "-c", TICKS, str(enough)])
        call = await client.invoke_async("ticks")
        async with call.logs(follow=True) as lines:
            seen = [int((await anext(lines)).text)]
            proxy.pause()
            await proxy.cut()
            # Longer than a message waits for the broker.
            lost = await asyncio.to_thread(cluster.worker.wait_for_log, "log_lines_lost")
            proxy.resume()
            gap = ""
            async for line in lines:
                if not line.text.startswith("…"):
                    seen.append(int(line.text))
                    if gap and seen[-1] > 100:
                        enough.touch()
                else:
                    gap = line.text
        ended = await call.wait()
        await asyncio.to_thread(cluster.worker.terminate)

    assert ended.state is InvocationState.SUCCEEDED
    assert ended.attempt_count == 1
    assert ended.result is not None
    assert seen[-1] == int(ended.result.text)
    assert rises(seen)
    assert len(seen) + int(lost["lines"]) >= seen[-1] - 10
