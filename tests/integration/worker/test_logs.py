"""What functions write, from containers and commands to the broker."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from homing.v1 import invocation_pb2 as api
from homing.v1.function_pb2 import Command, Function
from homing.v1.invocation_pb2 import InvocationSpec
from homing.v1.log_service_pb2 import LOG_STREAM_STDERR, LOG_STREAM_STDOUT
from homing.v1.payload_pb2 import HttpOptions, Payload
from homing.v1.policy_pb2 import RetryPolicy
from homing_core import limits
from homing_core.wire.v1 import LogLine
from homing_worker.app import Worker
from support.fake_server import FakeServer
from support.workers import running_worker

ONCE = RetryPolicy(max_attempts=1)
TWICE = RetryPolicy(max_attempts=2, initial_backoff=Duration(nanos=1_000_000))


@pytest.fixture
async def worker(server: FakeServer, broker_url: str, tmp_path: Path) -> AsyncIterator[Worker]:
    async with running_worker(server, broker_url, tmp_path, runtime="docker,process", stop_grace=1) as running:
        yield running


def at(path: str, function: str = "odd", data: bytes = b"", **fields: Any) -> InvocationSpec:
    return InvocationSpec(function=function, http=HttpOptions(path=path), payload=Payload(data=data), **fields)


def python(name: str, code: str, **fields: Any) -> Function:
    return Function(name=name, command=Command(args=[sys.executable, "-c", code]), **fields)


def texts(lines: list[LogLine]) -> list[str]:
    return [line.text for line in lines]


async def test_a_command_logs_on_stderr_up_to_its_very_end(server: FakeServer, worker: Worker) -> None:
    code = "import sys; sys.stdout.write('result'); sys.stderr.write('one\\ntwo\\nlast'); sys.exit(1)"
    await server.deploy(python("wordy", code, concurrency=4))

    ids = await server.send_all([at("", "wordy", retry_policy=TWICE)] * 8)

    for id_ in ids:
        assert (await server.end(id_)).result.payload.data == b"result"
        lines = await server.log(id_, lines=6)
        assert texts(lines) == ["one", "two", "last"] * 2
        assert {line.stream for line in lines} == {LOG_STREAM_STDERR}
        assert not any(line.shared for line in lines)


async def test_a_container_logs_on_both_streams_up_to_its_answer(
    server: FakeServer, worker: Worker, odd_image: str
) -> None:
    await server.deploy(Function(name="odd", image=odd_image, max_instances=1))

    for name in ("first", "second"):
        id_ = await server.send(at("/say/2/0.02", data=name.encode()))
        await server.end(id_)
        lines = await server.log(id_, f"{name} 2", f"{name} done")
        wanted = {
            (f"{name} 1", LOG_STREAM_STDOUT),
            (f"{name} 2", LOG_STREAM_STDOUT),
            (f"{name} done", LOG_STREAM_STDERR),
        }
        assert {(line.text, line.stream) for line in lines} == wanted
        assert not any(line.shared for line in lines)
        assert all(abs(line.time_us / 1e6 - time.time()) < 30 for line in lines)


async def test_a_line_belongs_to_whom_it_was_begun_for(server: FakeServer, worker: Worker, odd_image: str) -> None:
    await server.deploy(Function(name="odd", image=odd_image, max_instances=1))

    first = await server.send(at("/print", data=b"a" * 20_000))
    begun = await server.log(first, lines=1)
    second = await server.send(at("/print", data=b" and b\nb alone\n"))
    rest = await server.log(second, "b alone")
    whole = await server.log(first, lines=2)

    # The engine passes a long line in parts of 16 KiB, all with the time of the first.
    assert [(line.text, line.shared) for line in begun] == [("a" * 16_384, False)]
    assert [(line.text, line.shared) for line in rest] == [("b alone", False)]
    assert [(line.text, line.shared) for line in whole[1:]] == [("a" * 3616 + " and b", True)]


async def test_attempts_in_a_row_write_each_line_once(server: FakeServer, worker: Worker, odd_image: str) -> None:
    """Every attempt but the first begins so soon that its first lines may be of the one before, which is the same."""
    await server.deploy(Function(name="odd", image=odd_image, max_instances=1))
    policy = RetryPolicy(max_attempts=10, initial_backoff=Duration(nanos=1000), max_backoff=Duration(nanos=1000))

    id_ = await server.send(at("/say/1/0/500", data=b"x", retry_policy=policy))
    assert len((await server.end(id_)).attempts) == 10
    lines = await server.log(id_, lines=20)

    for stream, text in ((LOG_STREAM_STDOUT, "x 1"), (LOG_STREAM_STDERR, "x done")):
        assert [line.text for line in lines if line.stream == stream] == [text] * 10
    assert not any(line.shared for line in lines)


async def test_a_synchronous_call_has_a_log_if_it_will_have_a_record(server: FakeServer, worker: Worker) -> None:
    for name, recorded in (("kept", True), ("lost", False)):
        await server.deploy(python(name, "import sys; sys.stderr.write('text\\n')", record_sync=recorded))

    lost, kept = await server.call(at("", "lost")), await server.call(at("", "kept"))
    await server.reply(lost)
    asynchronous = await server.send(at("", "lost"))

    for id_ in (kept, asynchronous):
        await server.log(id_, "text")
    assert lost not in server.logs


async def test_a_line_that_may_be_anothers_is_marked(server: FakeServer, worker: Worker, odd_image: str) -> None:
    await server.deploy(Function(name="odd", image=odd_image, concurrency=4, max_instances=1))

    ids = await server.send_all([at("/say/8/0.2", data=str(number).encode()) for number in range(4)])

    for number, id_ in enumerate(ids):
        lines = await server.log(id_, *(f"{number} {tick}" for tick in range(1, 9)), f"{number} done")
        assert {line.text[0] for line in lines if line.shared} == set("0123")
        assert {line.text[0] for line in lines if not line.shared} <= {str(number)}


async def test_what_a_killed_function_wrote_is_kept(server: FakeServer, worker: Worker, odd_image: str) -> None:
    await server.deploy(Function(name="odd", image=odd_image))
    await server.deploy(python("wordy", "import sys, time; sys.stderr.write('text\\n'); time.sleep(60)"))
    short = Duration(seconds=1)

    container = await server.send(at("/say/60/0.1", data=b"tick", retry_policy=ONCE, attempt_timeout=short))
    command = await server.send(at("", "wordy", retry_policy=ONCE, attempt_timeout=short))

    for id_ in (container, command):
        assert (await server.end(id_)).state == api.INVOCATION_STATE_TIMED_OUT
    assert texts(await server.log(container, "tick 5"))[:5] == [f"tick {number}" for number in range(1, 6)]
    assert texts(await server.log(command, "text")) == ["text"]


async def test_p10_neighbours_of_functions_that_shout_notice_nothing(
    server: FakeServer, worker: Worker, odd_image: str
) -> None:
    await server.deploy(Function(name="odd", image=odd_image, max_instances=2))
    await server.deploy(python("shout", "import os\nwhile True: os.write(2, b'x' * 99 + b'\\n')", max_instances=1))
    await server.deploy(Function(name="good", image=odd_image))
    await server.end(await server.send(at("/", "good")))
    shouting = [
        *await server.send_all([at("/shout/240", attempt_timeout=Duration(seconds=240))] * 2),
        await server.send(at("", "shout", attempt_timeout=Duration(seconds=240))),
    ]
    for id_ in shouting:
        await server.log(id_, lines=1)
    slowest = 0.0
    for _ in range(10):
        begun = time.monotonic()
        id_ = await server.send(at("/say/1/0", "good", b"good"))
        await server.end(id_)
        slowest = max(slowest, time.monotonic() - begun)
        await server.log(id_, "good 1", "good done")
    # They go on until the server sees of each that there were more, however little of a flood is read in a second.
    for id_ in shouting:
        await server.log(id_, lines=limits.MAX_LOG_LINES + 1)
        await server.stop(id_)
        await server.end(id_)

    assert slowest < 2.0
    for id_ in shouting:
        assert len(server.logs[id_]) < limits.MAX_LOG_LINES + 10
