"""Commands that serve HTTP and stay: the runtime by itself, and a worker that runs them on a real RabbitMQ."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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
from homing_worker.runtime import Instance, Request, StartFailedError, http_command
from homing_worker.runtime.bodies import Bodies
from homing_worker.runtime.command_users import CommandUsers
from homing_worker.runtime.data_ports import DataPorts
from homing_worker.runtime.http_command import HttpCommandRuntime
from homing_worker.runtime.listening_port import free_port
from homing_worker.runtime.secret_files import SecretFiles
from support import served
from support.fake_server import FakeServer
from support.workers import running_worker

ONCE = RetryPolicy(max_attempts=1)


def serving(tmp_path: Path, *arguments: str, name: str = "served", **fields: Any) -> Function:
    return Function(
        name=name,
        http_command=Command(args=[sys.executable, served.__file__, *arguments]),
        env={"GREETING": "hello", "STOPPED": str(tmp_path / "stopped")},
        **fields,
    )


def python(code: str, **fields: Any) -> Function:
    return Function(name="served", http_command=Command(args=[sys.executable, "-c", code]), **fields)


@asynccontextmanager
async def runtime(
    tmp_path: Path, *, owner: str = "w", start_timeout: float = 30.0, stop_grace: float = 5.0
) -> AsyncIterator[HttpCommandRuntime]:
    files = SecretFiles(tmp_path)
    made = HttpCommandRuntime(
        files,
        CommandUsers(range(0)),
        data_dir=tmp_path,
        owner=owner,
        start_timeout=start_timeout,
        stop_grace=stop_grace,
    )
    await made.open()
    try:
        yield made
    finally:
        await made.close()
        files.close()


@asynccontextmanager
async def instance(tmp_path: Path, function: Function, *, stop_grace: float = 5.0) -> AsyncIterator[Instance]:
    async with runtime(tmp_path, stop_grace=stop_grace) as made:
        started = await made.start(function, {"token": b"s3cret"})
        try:
            yield started
        finally:
            await started.stop()


async def asked(started: Instance, path: str, body: bytes = b"", **headers: str) -> bytes:
    bodies = Bodies(Path("/nowhere"), ports=DataPorts(), tls=None)
    try:
        async with bodies.spools() as spools:
            request = Request(method="POST", target=path, headers=list(headers.items()), body=body, spools=spools)
            answer = await started.call(request, None)
    finally:
        await bodies.close()
    assert isinstance(answer.body, bytes)
    return answer.body


def has_ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


async def test_one_process_serves_call_after_call_with_its_environment_and_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOMING_BROKER_URL", "amqp://secret")
    async with instance(tmp_path, serving(tmp_path)) as started:
        pids = [int(await asked(started, "/pid")) for _ in range(3)]
        seen = json.loads(await asked(started, "/env"))
        assert await asked(started, "/", b"now") == b"now"

    assert len(set(pids)) == 1
    assert seen["secrets"] == {"token": "s3cret"}
    assert seen["env"]["GREETING"] == "hello"
    assert "HOMING_BROKER_URL" not in seen["env"]
    assert not list(Path(seen["env"]["HOMING_SECRETS_DIR"]).glob("*"))  # noqa: ASYNC240 it is over
    assert (tmp_path / "stopped").read_text() == "by SIGTERM"
    assert has_ended(pids[0])


async def test_one_that_ends_before_it_listens_is_told_with_its_last_lines(tmp_path: Path) -> None:
    async with runtime(tmp_path) as made:
        with pytest.raises(StartFailedError) as failed:
            await made.start(python("import sys; print('loading', file=sys.stderr); sys.exit('no such model')"), {})

    assert failed.value.message == "the program ended, exit status 1, before it was ready\nloading\nno such model"


async def test_one_that_does_not_exist_is_told(tmp_path: Path) -> None:
    async with runtime(tmp_path) as made:
        with pytest.raises(StartFailedError, match=r"cannot be run: .*No such file.*no/such/program"):
            await made.start(Function(name="f", http_command=Command(args=["/no/such/program"])), {})


async def test_one_that_never_listens_is_told_and_killed(tmp_path: Path) -> None:
    code = "import os, sys, time; print(os.getpid(), file=sys.stderr, flush=True); time.sleep(3600)"
    async with runtime(tmp_path, start_timeout=1.0) as made:
        with pytest.raises(StartFailedError) as failed:
            await made.start(python(code), {})

    why, pid = failed.value.message.splitlines()
    assert why == ("the program was not ready within 1 s: it does not listen on the port that the variable PORT names")
    assert has_ended(int(pid))


@pytest.mark.parametrize("arguments", [(), ("stubborn",)])
async def test_a_port_that_another_took_leads_to_no_stranger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    """Whether the program ends over it, or goes on without listening."""
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        ports = [stranger.getsockname()[1]]
        monkeypatch.setattr(http_command, "free_port", lambda: ports.pop() if ports else free_port())
        async with instance(tmp_path, serving(tmp_path, *arguments), stop_grace=1.0) as started:
            assert await asked(started, "/", b"mine") == b"mine"
    assert not ports


async def test_one_that_heeds_no_sigterm_is_killed_with_what_it_started(tmp_path: Path) -> None:
    async with instance(tmp_path, serving(tmp_path, "stubborn"), stop_grace=1.0) as started:
        pid = int(await asked(started, "/pid"))

    assert has_ended(pid)
    assert not (tmp_path / "stopped").exists()


async def test_one_that_listens_no_more_is_found_out(tmp_path: Path) -> None:
    """It takes the connection of the probe, and one more."""
    code = (
        "import os, socket, time\n"
        "with socket.create_server(('127.0.0.1', int(os.environ['PORT']))) as it: it.accept(), it.accept()\n"
        "time.sleep(3600)"
    )
    async with instance(tmp_path, python(code), stop_grace=0.0) as started, asyncio.timeout(20):
        assert await started.verify()
        while await started.verify():
            pass
        assert started.alive


async def test_its_health_check_says_when_it_is_ready(tmp_path: Path) -> None:
    named = serving(tmp_path, annotations={"com.openfaas.health.http.path": "/_/health"})
    async with instance(tmp_path, named) as started:
        assert await asked(started, "/", b"ready") == b"ready"


async def test_a_health_check_that_never_passes_is_told(tmp_path: Path) -> None:
    code = (
        "import os; from http.server import *\n"
        "HTTPServer(('127.0.0.1', int(os.environ['PORT'])), BaseHTTPRequestHandler).serve_forever()"
    )
    annotations = {"com.openfaas.health.http.path": "/health", "com.openfaas.ready.http.path": "ready"}
    async with runtime(tmp_path, start_timeout=2.0) as made:
        with pytest.raises(StartFailedError, match=r"within 2 s: its /ready answers with status 501\n"):
            await made.start(python(code, annotations=annotations), {})


async def test_what_a_dead_worker_left_behind_is_ended_by_the_next_one(tmp_path: Path) -> None:
    async with runtime(tmp_path, owner="living") as living, runtime(tmp_path, owner="dying") as dying:
        kept = await living.start(serving(tmp_path, "stubborn"), {})
        left = await dying.start(serving(tmp_path, "stubborn"), {})
        # As the system does when a process dies.
        dying._lock.release()
        gone = asyncio.Event()
        left.on_exit(gone.set)
        async with runtime(tmp_path, owner="next"), asyncio.timeout(10):
            await gone.wait()
        assert kept.alive
        await left.stop()
        await kept.kill()
        await kept.stop()


def at(path: str, data: bytes = b"", **fields: Any) -> InvocationSpec:
    return InvocationSpec(function="served", http=HttpOptions(path=path), payload=Payload(data=data), **fields)


async def test_calls_are_served_at_a_time_as_the_function_says(
    server: FakeServer, broker_url: str, tmp_path: Path
) -> None:
    await server.deploy(serving(tmp_path, concurrency=4, max_instances=1))

    async with running_worker(server, broker_url, tmp_path):
        ids = await server.send_all([at("/together", b"%d" % number) for number in range(4)])
        ends = [await server.end(id_) for id_ in ids]

    assert [end.result.payload.data for end in ends] == [b"0", b"1", b"2", b"3"]
    assert len({end.attempts[0].instance for end in ends}) == 1


async def test_one_that_is_killed_ends_its_calls_and_is_replaced(
    server: FakeServer, broker_url: str, tmp_path: Path
) -> None:
    await server.deploy(serving(tmp_path, concurrency=2, max_instances=1))

    async with running_worker(server, broker_url, tmp_path):
        pid = int((await server.end(await server.send(at("/pid")))).result.payload.data)
        held = await server.send(at("/hang", retry_policy=ONCE))
        await server.event(held, "running")
        os.kill(pid, signal.SIGKILL)
        lost = await server.end(held)
        crashed = await server.end(await server.send(at("/die", retry_policy=ONCE)))
        after = await server.end(await server.send(at("/pid")))

    assert (lost.state, lost.failure.reason) == (api.INVOCATION_STATE_FAILED, "CONNECTION_LOST")
    assert lost.failure.message.endswith(": the program ended, killed by SIGKILL,")
    assert crashed.failure.message.endswith(": the program ended, exit status 3,\nit was too much")
    assert after.state == api.INVOCATION_STATE_SUCCEEDED
    assert int(after.result.payload.data) != pid


async def test_one_that_does_not_start_fails_its_calls_and_no_others(
    server: FakeServer, broker_url: str, tmp_path: Path
) -> None:
    await server.deploy(python("raise SystemExit('no such model')"))
    await server.deploy(serving(tmp_path, name="good"))

    async with running_worker(server, broker_url, tmp_path):
        bad = await server.end(await server.send(at("/", retry_policy=ONCE)))
        good = await server.end(await server.send(InvocationSpec(function="good", payload=Payload(data=b"ok"))))

    assert (bad.state, bad.failure.reason) == (api.INVOCATION_STATE_FAILED, "START_FAILED")
    assert bad.failure.message.endswith("\nno such model")
    assert good.result.payload.data == b"ok"


async def test_what_it_writes_belongs_to_the_call_that_it_serves(
    server: FakeServer, broker_url: str, tmp_path: Path
) -> None:
    await server.deploy(serving(tmp_path, max_instances=1))

    async with running_worker(server, broker_url, tmp_path):
        flood = await server.send(at("/flood"))
        ids = await server.send_all([at("/say", b"%d" % number) for number in range(4)])
        for number, id_ in enumerate(ids):
            await server.end(id_)
            lines = await server.log(id_, lines=2)
            assert {(line.text, line.stream, line.shared) for line in lines} == {
                (f"out {number}", LOG_STREAM_STDOUT, False),
                (f"err {number}", LOG_STREAM_STDERR, False),
            }
        assert (await server.end(flood)).state == api.INVOCATION_STATE_SUCCEEDED


@pytest.mark.parametrize("how", ["stopped", "timed out"])
async def test_a_call_that_is_given_up_ends_the_instance_that_served_it_alone(
    server: FakeServer, broker_url: str, tmp_path: Path, how: str
) -> None:
    await server.deploy(serving(tmp_path, "stubborn", max_instances=1))

    async with running_worker(server, broker_url, tmp_path, stop_grace=1):
        pid = int((await server.end(await server.send(at("/pid")))).result.payload.data)
        timeout = Duration(seconds=1 if how == "timed out" else 60)
        held = await server.send(at("/hang", retry_policy=ONCE, attempt_timeout=timeout))
        await server.event(held, "running")
        if how == "stopped":
            await server.stop(held)
        end = await server.end(held)
        after = int((await server.end(await server.send(at("/pid")))).result.payload.data)

    assert end.state == (api.INVOCATION_STATE_STOPPED if how == "stopped" else api.INVOCATION_STATE_TIMED_OUT)
    assert after != pid
    assert has_ended(pid)


async def test_a_command_that_is_deployed_anew_as_one_that_serves_is_run_as_such(
    server: FakeServer, broker_url: str, tmp_path: Path
) -> None:
    await server.deploy(Function(name="served", command=Command(args=["cat"])))

    async with running_worker(server, broker_url, tmp_path):
        assert (await server.end(await server.send(at("/pid", b"cat")))).result.payload.data == b"cat"
        await server.deploy(serving(tmp_path))
        assert int(await answered(server, at("/pid")))
        await server.deploy(Function(name="served", command=Command(args=["cat"])))
        assert await answered(server, at("/pid", b"cat")) == b"cat"


async def answered(server: FakeServer, spec: InvocationSpec) -> bytes:
    """Send until it is run: what comes while the function becomes another may go back to the store."""
    while True:
        word = await server.last_word(await server.send(spec))
        if word.HasField("ended"):
            return word.ended.result.payload.data
