"""A worker that asks for secrets, on a real RabbitMQ."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration
from structlog.testing import capture_logs

from homing.v1 import invocation_pb2 as api
from homing.v1.function_pb2 import Command, Function
from homing.v1.invocation_pb2 import InvocationSpec
from homing.v1.policy_pb2 import RetryPolicy
from homing_worker import app
from homing_worker.control.secrets import SecretLink
from support.fake_server import FakeServer
from support.workers import running_worker

VALUE = b"correct horse battery staple"
READ = (
    "import hashlib, os, pathlib; folder = pathlib.Path(os.environ['HOMING_SECRETS_DIR']);"
    "print(*(hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()))"
)


def reader(*secrets: str) -> Function:
    return Function(name="read", command=Command(args=[sys.executable, "-c", READ]), secrets=secrets)


async def test_a_start_without_secrets_fails_and_is_tried_again(
    server: FakeServer, broker_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "SecretLink", partial(SecretLink, timeout=0.5))
    await server.deploy(reader("password"))
    policy = RetryPolicy(max_attempts=100, initial_backoff=Duration(nanos=100_000_000), max_backoff=Duration(seconds=1))

    async with running_worker(server, broker_url, tmp_path):
        id_ = await server.send(InvocationSpec(function="read", retry_policy=policy))
        failed = (await server.event(id_, "attempt_ended")).attempt_ended
        server.secrets = {"password": VALUE, "other": b"none of its business"}
        end = await server.end(id_)

    assert (failed.failure.reason, failed.failure.retryable) == ("SECRETS_UNAVAILABLE", True)
    assert failed.failure.message == "its secrets are not here: no server has sent them within 0.5 s"
    assert end.state == api.INVOCATION_STATE_SUCCEEDED
    assert end.result.payload.data.decode().split() == [hashlib.sha256(VALUE).hexdigest()]


async def test_a_question_that_was_lost_is_asked_again(server: FakeServer, broker_url: str, tmp_path: Path) -> None:
    await server.deploy(reader("password"))

    async with running_worker(server, broker_url, tmp_path):
        id_ = await server.send(InvocationSpec(function="read", retry_policy=RetryPolicy(max_attempts=1)))
        await server.status(lambda status: "read" in status.secrets_wanted)
        # What was answered so far had no secrets: as good as no answer.
        server.secrets = {"password": VALUE}
        end = await server.end(id_)
        quiet = await server.status(lambda status: not status.secrets_wanted)

    assert end.state == api.INVOCATION_STATE_SUCCEEDED
    assert len(quiet.seal_key) == 32


async def test_what_is_known_is_not_asked_for_again(server: FakeServer, broker_url: str, tmp_path: Path) -> None:
    server.secrets = {"password": VALUE}
    await server.deploy(reader("password"))

    async with running_worker(server, broker_url, tmp_path):
        for _ in range(3):
            end = await server.end(await server.send(InvocationSpec(function="read")))
            assert end.state == api.INVOCATION_STATE_SUCCEEDED
        await server.deploy(Function(name="none", command=Command(args=["true"])))
        await server.end(await server.send(InvocationSpec(function="none")))

    assert [list(status.secrets_wanted) for status in server.statuses if status.secrets_wanted] == [["read"]]


SPY = (
    'id -u; echo "$HOME"; cat "$HOMING_SECRETS_DIR"/*; cat /proc/$PPID/environ && echo environment;'
    "find /dev/shm -type f -exec cat {} +; true"
)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Yield a folder that every user can come to."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        folder.chmod(0o755)
        yield folder


async def test_a_command_reads_neither_the_workers_environment_nor_the_secrets_of_others(
    server: FakeServer, broker_url: str, tmp_path: Path, open_folder: Path
) -> None:
    """As root the worker has other users for them; else it says that they run as its own."""
    server.secrets = {"own": b"the spy's own", "others": VALUE}
    gate = open_folder / "gate"
    with capture_logs() as logs:
        hold = f"while [ ! -e {gate} ]; do sleep 0.05; done"
        await server.deploy(Function(name="hold", command=Command(args=["sh", "-c", hold]), secrets=["others"]))
        await server.deploy(Function(name="spy", command=Command(args=["sh", "-c", SPY]), secrets=["own"]))
        async with running_worker(server, broker_url, tmp_path, command_users="61184-61199"):
            held = await server.send(InvocationSpec(function="hold"))
            await server.event(held, "running")
            seen = (await server.end(await server.send(InvocationSpec(function="spy")))).result.payload.data
            await asyncio.to_thread(gate.touch)
            assert (await server.end(held)).state == api.INVOCATION_STATE_SUCCEEDED

    uid, home, rest = seen.split(b"\n", 2)
    if os.geteuid() == 0:
        assert 61184 <= int(uid) <= 61199
        assert (home, rest) == (b"/", b"the spy's own")
    else:
        assert int(uid) == os.getuid()
        assert [line["uid"] for line in logs if line["event"] == "commands_run_as_worker"] == [os.getuid()]
