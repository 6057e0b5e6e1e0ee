"""What functions write, as callers see it: live and stored."""

from __future__ import annotations

import asyncio
import time

import grpc
import pytest

from homing.v1.log_service_pb2 import LOG_STREAM_STDERR, LOG_STREAM_STDOUT, TailLogsResponse
from support.caller import calling
from support.processes import Cluster

STDOUT, STDERR = LOG_STREAM_STDOUT, LOG_STREAM_STDERR


def texts(lines: list[TailLogsResponse]) -> list[tuple[str, int]]:
    return [(line.text, line.stream) for line in lines]


async def test_a_follower_sees_lines_while_they_are_written_and_ends_with_the_invocation(
    docker_cluster: Cluster, odd_image: str
) -> None:
    await asyncio.to_thread(docker_cluster.start_server)
    await asyncio.to_thread(docker_cluster.start_worker)
    async with calling(docker_cluster) as caller:
        await caller.deploy(name="odd", image=odd_image)
        id_ = await caller.send("odd", "/say/6/0.5", b"tick")

        seen: list[TailLogsResponse] = []
        async for line in caller.tail(id_):
            seen.append(line)
            assert time.time() - line.time.ToMicroseconds() / 1e6 < 1.0
        ended = (await caller.end(id_)).end_time.ToMicroseconds() / 1e6
        assert time.time() - ended < 2.5

        expected = [(f"tick {number}", STDOUT) for number in range(1, 7)] + [("tick done", STDERR)]
        assert texts(seen) == expected
        assert not any(line.shared for line in seen)
        assert await caller.log(id_, follow=False) == seen
        begun = time.monotonic()
        assert await caller.log(id_, follow=True) == seen
        assert time.monotonic() - begun < 2.0

        for unknown, code in (("", grpc.StatusCode.INVALID_ARGUMENT), ("unknown", grpc.StatusCode.NOT_FOUND)):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await caller.log(unknown)
            assert caught.value.code() is code
