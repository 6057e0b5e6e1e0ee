"""Functions say how far they are, and the worker reports it."""

from __future__ import annotations

import sys
from pathlib import Path

from homing.v1 import invocation_pb2 as api
from homing.v1.function_pb2 import Command, Function
from homing.v1.invocation_pb2 import InvocationSpec
from homing.v1.payload_pb2 import HttpOptions, Payload
from support.fake_server import FakeServer
from support.workers import running_worker

STEPS = """
import os, urllib.request
url = os.environ["Http_X_Homing_Progress_Url"]
for percent in range(0, 101, 5):
    print(urllib.request.urlopen(url, data=b'{"percent": %d, "text": "step"}' % percent).status)
"""


async def test_a_command_says_how_far_it_is(server: FakeServer, broker_url: str, tmp_path: Path) -> None:
    await server.deploy(Function(name="steps", command=Command(args=[sys.executable, "-c", STEPS])))

    async with running_worker(server, broker_url, tmp_path):
        id_ = await server.send(InvocationSpec(function="steps"))
        end = await server.event(id_, "ended")
        call = await server.reply(await server.call(InvocationSpec(function="steps")))

    assert end.ended.result.payload.data == b"204\n" * 21
    reports = server.of(id_, "progress")
    assert (reports[0].progress.percent, reports[-1].progress.percent, reports[-1].progress.text) == (0, 100, "step")
    attempt = end.ended.attempts[0]
    assert 2 <= len(reports) <= 2 + (attempt.end_us - attempt.start_us) / 1e6
    assert server.events.index(reports[-1]) < server.events.index(end)
    # A synchronous call has no record while it runs: what it says is taken, and left at that.
    assert call.ended.result.payload.data == b"204\n" * 21
    assert not server.of(call.invocation_id, "progress")


async def test_a_container_says_how_far_it_is(
    server: FakeServer, broker_url: str, tmp_path: Path, odd_image: str
) -> None:
    await server.deploy(Function(name="odd", image=odd_image))

    async with running_worker(server, broker_url, tmp_path, runtime="docker", stop_grace=1):
        half = Payload(data=b'{"percent": 50}')
        id_ = await server.send(InvocationSpec(function="odd", http=HttpOptions(path="/progress"), payload=half))
        end = await server.end(id_)

    assert (end.state, end.result.payload.data) == (api.INVOCATION_STATE_SUCCEEDED, b"204")
    assert [event.progress.percent for event in server.of(id_, "progress")] == [50]
