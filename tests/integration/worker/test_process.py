"""A worker that runs commands, on a real RabbitMQ."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from homing.v1 import invocation_pb2 as api
from homing.v1.function_pb2 import Command, Function
from homing.v1.invocation_pb2 import InvocationSpec
from homing.v1.payload_pb2 import HttpOptions, Payload
from homing.v1.policy_pb2 import RetryPolicy
from homing_core import limits
from homing_core.broker import Outgoing
from homing_core.clock import now_us
from support.fake_server import FakeServer
from support.http_headers import headers_of
from support.workers import running_worker

ONCE = RetryPolicy(max_attempts=1)
UPPER = "import sys; sys.stdout.write(sys.stdin.read().upper())"


def python(name: str, code: str, **fields: Any) -> Function:
    return Function(name=name, command=Command(args=[sys.executable, "-c", code]), **fields)


async def test_work_is_run_reported_and_acknowledged(server: FakeServer, broker_url: str, tmp_path: Path) -> None:
    await server.deploy(python("upper", UPPER))

    async with running_worker(server, broker_url, tmp_path) as worker:
        id_ = await server.send(
            InvocationSpec(function="upper", payload=Payload(content_type="text/plain", data=b"later"))
        )
        end = await server.end(id_)
        await server.drained("upper")

    assert end.state == api.INVOCATION_STATE_SUCCEEDED
    assert end.result.payload == Payload(content_type="text/plain", data=b"LATER")
    (attempt,) = end.attempts
    assert (attempt.ordinal, attempt.outcome, attempt.status_code) == (1, api.ATTEMPT_OUTCOME_SUCCEEDED, 200)
    assert (attempt.worker, attempt.function_revision) == (worker.name, 1)
    assert 0 < attempt.start_us <= attempt.end_us
    running = await server.event(id_, "running")
    assert running.running.end_us == 0
    assert (running.token.generation, running.token.redelivery_count) == (1, 0)


async def test_a_command_sees_its_request_and_not_the_workers_secrets(
    server: FakeServer, broker_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOMING_BROKER_URL", broker_url)
    await server.deploy(
        python("env", "import json, os; print(json.dumps(dict(os.environ)))", env={"GREETING": "hello"})
    )
    http = HttpOptions(
        method="PUT", path="/some/path", query="a=b", headers=headers_of([("X-Mine", "yes"), ("x-mine", "no")])
    )

    async with running_worker(server, broker_url, tmp_path):
        id_ = await server.send(InvocationSpec(function="env", http=http, payload=Payload(data=b"four")))
        end = await server.end(id_)

    seen = end.result.payload.data.decode()
    for pair in (
        '"Http_Method": "PUT"', '"Http_Path": "/some/path"', '"Http_Query": "a=b"', '"Http_X_Mine": "yes, no"',
        f'"Http_X_Call_Id": "{id_}"', '"Http_Content_Length": "4"', '"GREETING": "hello"',
    ):  # fmt: skip
        assert pair in seen
    assert "HOMING_BROKER_URL" not in seen


async def test_an_exit_status_is_a_failure_with_the_last_lines(
    server: FakeServer, broker_url: str, tmp_path: Path
) -> None:
    await server.deploy(python("sad", "import sys; print('partly'); sys.exit('it rains')"))

    async with running_worker(server, broker_url, tmp_path):
        end = await server.end(await server.send(InvocationSpec(function="sad", retry_policy=ONCE)))

    assert end.state == api.INVOCATION_STATE_FAILED
    assert end.failure.reason == "EXIT_STATUS"
    assert end.failure.message == "exit status 1\nit rains"
    assert (end.result.status_code, end.result.payload.data) == (500, b"partly\n")
    assert end.attempts[0].status_code == 500


async def test_a_command_that_does_not_exist_is_a_failure(server: FakeServer, broker_url: str, tmp_path: Path) -> None:
    await server.deploy(Function(name="none", command=Command(args=["/no/such/program"])))

    async with running_worker(server, broker_url, tmp_path):
        end = await server.end(await server.send(InvocationSpec(function="none", retry_policy=ONCE)))

    assert (end.state, end.failure.reason) == (api.INVOCATION_STATE_FAILED, "START_FAILED")


async def test_a_flood_is_cut_off_and_a_neighbour_notices_nothing(
    server: FakeServer, broker_url: str, tmp_path: Path
) -> None:
    flood = "import sys\nwhile True: sys.stdout.write('x' * 100000)"
    noise = "import sys\nfor _ in range(2000): sys.stderr.write('x' * 10000)\nprint('done')"
    await server.deploy(python("flood", flood))
    await server.deploy(python("noise", noise))
    await server.deploy(python("upper", UPPER))

    async with running_worker(server, broker_url, tmp_path):
        bad = await server.send_all([InvocationSpec(function="flood")] * 4)
        loud = await server.send(InvocationSpec(function="noise"))
        good = await server.send(InvocationSpec(function="upper", payload=Payload(data=b"ok")))
        assert (await server.end(good)).result.payload.data == b"OK"
        ends = [await server.end(id_) for id_ in bad]
        assert (await server.end(loud)).result.payload.data == b"done\n"

    assert {(end.state, end.failure.reason, len(end.attempts)) for end in ends} == {
        (api.INVOCATION_STATE_FAILED, "RESULT_TOO_LARGE", 1)
    }


async def test_a_time_out_kills_the_command_and_what_it_started(
    server: FakeServer, broker_url: str, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    code = (
        "import os, subprocess, time\n"
        "child = subprocess.Popen(['sleep', '3600'])\n"
        f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
        "time.sleep(3600)"
    )
    await server.deploy(python("hang", code))

    async with running_worker(server, broker_url, tmp_path):
        end = await server.end(
            await server.send(InvocationSpec(function="hang", retry_policy=ONCE, attempt_timeout=Duration(seconds=2)))
        )

    assert (end.state, end.failure.reason) == (api.INVOCATION_STATE_TIMED_OUT, "TIMEOUT")
    for pid in map(int, pids.read_text().split()):
        assert await gone(pid)


async def gone(pid: int) -> bool:
    """Tell whether a process ends within 10 s."""
    for _ in range(200):
        if has_ended(pid):
            return True
        await asyncio.sleep(0.05)
    return False


def has_ended(pid: int) -> bool:
    """Tell whether a process has ended; a zombie has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True  # before it was looked up, or while its line was read


async def test_what_waited_too_long_expires(server: FakeServer, broker_url: str, tmp_path: Path) -> None:
    await server.deploy(python("slow", "import time; time.sleep(1.5)", max_instances=1))

    async with running_worker(server, broker_url, tmp_path):
        past = await server.send(InvocationSpec(function="slow"), start_by_us=now_us() - 1)
        assert (await server.end(past)).state == api.INVOCATION_STATE_EXPIRED
        first = await server.send(InvocationSpec(function="slow"))
        await server.event(first, "running")
        second = await server.send(InvocationSpec(function="slow"), start_by_us=now_us() + 300_000)
        end = await server.end(second)

        assert end.state == api.INVOCATION_STATE_EXPIRED
        assert end.failure.reason == "EXPIRED"
        assert not server.of(second, "running")
        assert not server.of(first, "ended")
        assert (await server.end(first)).state == api.INVOCATION_STATE_SUCCEEDED


async def test_a_message_that_cannot_be_read_is_refused_for_ever(
    server: FakeServer, broker_url: str, tmp_path: Path
) -> None:
    await server.deploy(python("upper", UPPER))

    async with running_worker(server, broker_url, tmp_path):
        assert await server.broker.publish_work([Outgoing(function="upper", body=b"\xff\xff")]) == [None]
        assert (await server.dead()).body == b"\xff\xff"
        assert (await server.end(await server.send(InvocationSpec(function="upper")))).result.status_code == 200


async def test_suspected_poison_is_handed_back_unstarted(server: FakeServer, broker_url: str, tmp_path: Path) -> None:
    await server.deploy(python("upper", UPPER))

    async with running_worker(server, broker_url, tmp_path):
        id_ = await server.send(InvocationSpec(function="upper"), prior_lost_starts=limits.POISON_STARTS)
        event = await server.event(id_, "requeued")
        await server.drained("upper")

    assert event.requeued.reason == "REDELIVERED"
    assert [event.WhichOneof("kind") for event in server.of(id_)] == ["requeued"]


async def test_attempts_of_earlier_hand_overs_count(server: FakeServer, broker_url: str, tmp_path: Path) -> None:
    await server.deploy(python("sad", "raise SystemExit(1)"))

    async with running_worker(server, broker_url, tmp_path):
        id_ = await server.send(
            InvocationSpec(function="sad", retry_policy=RetryPolicy(initial_backoff=Duration(nanos=1))),
            prior_attempts=1,
        )
        end = await server.end(id_)

    assert (end.state, len(end.attempts)) == (api.INVOCATION_STATE_FAILED, 2)


async def test_a_deleted_function_makes_the_work_in_flight_invalid(
    server: FakeServer, broker_url: str, tmp_path: Path
) -> None:
    await server.deploy(python("slow", "import time; time.sleep(4)", max_instances=1))

    async with running_worker(server, broker_url, tmp_path):
        # As many as the prefetch lets be in flight.
        ids = await server.send_all([InvocationSpec(function="slow")] * 4)
        await server.event(ids[0], "running")
        await server.status(lambda status: [load.in_flight for load in status.functions] == [4])
        await server.delete("slow")
        ends = [await server.end(id_) for id_ in ids]
        await server.status(lambda status: not status.functions)
        assert await server.closed("slow")

    assert [end.state for end in ends] == [api.INVOCATION_STATE_SUCCEEDED] + [api.INVOCATION_STATE_INVALID] * 3
    assert all(end.failure.reason == "FUNCTION_DELETED" for end in ends[1:])


async def test_a_function_deployed_again_after_its_deletion_is_another_one(
    server: FakeServer, broker_url: str, tmp_path: Path
) -> None:
    await server.deploy(python("twice", "print('one')"))

    async with running_worker(server, broker_url, tmp_path):
        first = await server.end(await server.send(InvocationSpec(function="twice")))
        await server.delete("twice")
        await server.deploy(python("twice", "print('two')"))
        second = await server.end(await server.send(InvocationSpec(function="twice")))

    assert first.result.payload.data == b"one\n"
    assert second.result.payload.data == b"two\n"


async def test_another_concurrency_takes_effect(server: FakeServer, broker_url: str, tmp_path: Path) -> None:
    await server.deploy(python("slow", "import time; time.sleep(1)", max_instances=1))

    async with running_worker(server, broker_url, tmp_path):
        await server.end(await server.send(InvocationSpec(function="slow")))
        await server.deploy(python("slow", "import time; time.sleep(1)", max_instances=8))
        ids = await server.send_all([InvocationSpec(function="slow")] * 8)
        ends = [await server.end(id_) for id_ in ids]

    starts = [end.attempts[0].start_us for end in ends]
    assert max(starts) < min(end.attempts[0].end_us for end in ends)
