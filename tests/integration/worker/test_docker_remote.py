"""Containers of an engine that is reached over TCP: what it sees of this host's files cannot be known."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from homing.v1.function_pb2 import Function
from homing_worker.runtime.container_config import ContainerDefaults
from homing_worker.runtime.docker import DockerRuntime
from homing_worker.runtime.secret_files import SecretFiles
from support.docker import docker

VALUE = b"correct horse battery staple"
LOOK = (
    "import hashlib, os; p = '/var/openfaas/secrets/password';"
    "print(hashlib.sha256(open(p, 'rb').read()).hexdigest(), oct(os.stat(p).st_mode & 0o777), os.access(p, os.W_OK))"
)


async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
    target.close()


async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    engine_reader, engine_writer = await asyncio.open_unix_connection("/var/run/docker.sock")
    await asyncio.gather(copy(reader, engine_writer), copy(engine_reader, writer))


@pytest.fixture
def network() -> Iterator[str]:
    """Yield the name of a network that no other test uses."""
    name = f"homing-test-{secrets.token_hex(4)}"
    yield name
    docker("network", "rm", name)


@pytest.fixture
async def runtime(tmp_path: Path, network: str) -> AsyncIterator[DockerRuntime]:
    """Yield the runtime of an engine behind a TCP port."""
    async with await asyncio.start_server(pass_on, "127.0.0.1", 0) as engine:
        made = DockerRuntime(
            url=f"http://127.0.0.1:{engine.sockets[0].getsockname()[1]}",
            data_dir=tmp_path,
            files=SecretFiles(tmp_path),
            defaults=ContainerDefaults(network=network, memory_bytes=0, pids=0, user=""),
            owner="w-remote",
            start_timeout=30.0,
            pull_timeout=30.0,
            stop_grace=1,
        )
        await made.open()
        yield made
        await made.close()


async def test_secrets_are_in_a_volume_that_goes_with_the_container(runtime: DockerRuntime, odd_image: str) -> None:
    instance = await runtime.start(Function(name="odd", image=odd_image), {"password": VALUE, "tls.key": b"key"})

    inspected = await asyncio.to_thread(docker, "inspect", instance.name)
    seen = await asyncio.to_thread(docker, "exec", instance.name, "python3", "-c", LOOK)
    (mount,) = json.loads(inspected)[0]["Mounts"]
    volumes = await asyncio.to_thread(docker, "volume", "ls", "--quiet")
    await instance.stop()

    assert seen.split() == [hashlib.sha256(VALUE).hexdigest(), "0o444", "False"]
    assert (mount["Type"], mount["Destination"], mount["Name"] in volumes) == ("volume", "/var/openfaas/secrets", True)
    assert VALUE.decode() not in inspected
    assert mount["Name"] not in await asyncio.to_thread(docker, "volume", "ls", "--quiet")


async def test_a_function_without_secrets_has_no_volume(runtime: DockerRuntime, odd_image: str) -> None:
    instance = await runtime.start(Function(name="odd", image=odd_image), {})
    inspected = await asyncio.to_thread(docker, "inspect", instance.name)
    await instance.stop()

    assert json.loads(inspected)[0]["Mounts"] == []


async def test_a_network_that_was_cleaned_up_is_made_again(
    runtime: DockerRuntime, network: str, odd_image: str
) -> None:
    """As `docker system prune` does while no function runs."""
    function = Function(name="odd", image=odd_image)
    await (await runtime.start(function, {})).stop()
    await asyncio.to_thread(docker, "network", "rm", network)

    instance = await runtime.start(function, {})

    assert instance.alive
    await instance.stop()
