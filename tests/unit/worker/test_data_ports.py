"""Signed URLs are used where servers are now."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog
from aiohttp import web

from homing.v1.payload_pb2 import Blob
from homing_core.limits import CONTROL_SILENCE
from homing_worker.runtime import CallFailedError
from homing_worker.runtime.bodies import Bodies
from homing_worker.runtime.data_ports import DataPorts

OLD, NEW, OTHER = "http://127.0.0.1:1", "https://new.example:8443/homing", "http://other.example"
PATH = "/v1/blobs/b?expires=1&signature=a-b_c"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_where_no_server_says_anything_a_url_is_used_as_it_is() -> None:
    ports = DataPorts()
    ports.announced("one", "")
    assert ports.places(OLD + PATH) == [OLD + PATH]


def test_a_place_that_a_server_announces_comes_first() -> None:
    ports = DataPorts()
    ports.announced("two", NEW)
    ports.announced("one", OLD)
    assert ports.places(OLD + PATH) == [OLD + PATH, NEW + PATH]
    assert ports.places(NEW + PATH) == [NEW + PATH, OLD + PATH]


def test_a_place_that_no_server_announces_any_more_comes_last() -> None:
    ports = DataPorts()
    ports.announced("one", OLD)
    ports.announced("one", NEW)
    assert ports.places(OLD + PATH) == [NEW + PATH, OLD + PATH]


def test_a_server_that_fell_silent_is_forgotten() -> None:
    clock = Clock()
    ports = DataPorts(clock=clock)
    ports.announced("one", OLD)
    clock.now += CONTROL_SILENCE
    ports.announced("two", OTHER)
    assert ports.places(OLD + PATH) == [OTHER + PATH, OLD + PATH]


@asynccontextmanager
async def data_port(body: bytes) -> AsyncIterator[str]:
    async def read(_: web.Request) -> web.Response:
        return web.Response(body=body)

    async def write(request: web.Request) -> web.Response:
        return web.Response(body=blob_of(await request.read()).SerializeToString())

    app = web.Application()
    app.router.add_get("/v1/blobs/{id}", read)
    app.router.add_put("/v1/results/{id}", write)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def blob_of(body: bytes) -> Blob:
    return Blob(id="b", size=len(body), sha256=hashlib.sha256(body).digest())


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Callable[[DataPorts], Bodies]]:
    made: list[Bodies] = []

    def make(ports: DataPorts) -> Bodies:
        made.append(Bodies(tmp_path / "spool", ports=ports, retry_timeout=1.0))
        return made[-1]

    yield make
    for bodies in made:
        await bodies.close()


async def test_bodies_are_read_and_written_where_the_server_has_moved_to(
    make: Callable[[DataPorts], Bodies], tmp_path: Path
) -> None:
    body = b"x" * 1000
    async with data_port(body) as base:
        ports = DataPorts()
        ports.announced("one", OLD)  # the former one is not known to be gone
        ports.announced("two", base)
        bodies = make(ports)
        async with bodies.spools() as spools:
            spool = await bodies.fetch(OLD + PATH, blob_of(body), spools)
            assert spool.sha256 == blob_of(body).sha256
            assert await bodies.store(f"{OLD}/v1/results/i?expires=1&signature=x", spool) == blob_of(body)
    assert (tmp_path / "spool").stat().st_mode & 0o777 == 0o700


async def test_that_no_server_is_reached_is_logged_once(make: Callable[[DataPorts], Bodies]) -> None:
    bodies = make(DataPorts())
    with structlog.testing.capture_logs() as lines:
        async with bodies.spools() as spools:
            for _ in range(2):
                with pytest.raises(CallFailedError, match=r"no connection to the server's data port at 127\.0\.0\.1:1"):
                    await bodies.fetch(OLD + PATH, blob_of(b""), spools)
    told = [line for line in lines if line["event"] == "data_port_unavailable"]
    assert len(told) == 1
    assert "127.0.0.1:1" in told[0]["error"]
