"""How a worker reads and writes bodies at a server that answers in all ways."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from homing.v1.payload_pb2 import Blob
from homing_worker.runtime import CallFailedError
from homing_worker.runtime.bodies import Bodies
from homing_worker.runtime.spool import Spool

BODY = bytes(range(256)) * 10_000
BLOB = Blob(id="b", size=len(BODY), sha256=hashlib.sha256(BODY).digest())

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[str]:
    app = web.Application(client_max_size=2 * len(BODY))
    app.router.add_route("*", "/{path}", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/body?signature=secret"
    finally:
        await runner.cleanup()


@pytest.fixture
async def bodies(tmp_path: Path) -> AsyncIterator[Bodies]:
    made = Bodies(tmp_path / "spool", retry_timeout=2.0)
    yield made
    await made.close()


def answering(*statuses: int, seen: list[bytes] | None = None) -> Handler:
    """Answer with these statuses in turn, then as a server does; keep what was sent."""
    left = list(statuses)

    async def handler(request: web.Request) -> web.Response:
        sent = await request.read()
        if left:
            return web.Response(status=left.pop(0))
        if request.method == "GET":
            return web.Response(body=BODY)
        if seen is not None:
            seen.append(sent)
        return web.Response(body=BLOB.SerializeToString())

    return handler


async def content(spool: Spool) -> bytes:
    return b"".join([part async for part in spool.parts()])


async def test_a_body_comes_and_goes_although_the_server_is_away_at_first(bodies: Bodies) -> None:
    seen: list[bytes] = []
    async with bodies.spools() as spools:
        async with serving(answering(503, 507)) as url:
            spool = await bodies.fetch(url, BLOB, spools)
        assert await content(spool) == BODY
        async with serving(answering(503, 507, seen=seen)) as url:
            assert await bodies.store(url, spool) == BLOB
    assert seen == [BODY]


@pytest.mark.parametrize(
    ("status", "why"),
    [
        (403, "the server does not allow it: the signed URL has expired, or is another server's"),
        (404, "the server does not have it"),
        (413, "the server answered with status 413"),
        (302, "the server answered with status 302"),
        (503, "the server answered with status 503"),
        (507, "the server's disk is full"),
    ],
)
async def test_what_does_not_help_fails_with_the_reason(bodies: Bodies, status: int, why: str) -> None:
    async with bodies.spools() as spools:
        spool = await spools.open()
        async with serving(answering(*[status] * 1000)) as url:
            with pytest.raises(CallFailedError) as unread:
                await bodies.fetch(url, BLOB, spools)
            with pytest.raises(CallFailedError) as unwritten:
                await bodies.store(url, spool)

    assert (unread.value.reason, unread.value.message) == (
        "PAYLOAD_UNAVAILABLE",
        f"the stored body could not be read: {why}",
    )
    assert (unwritten.value.reason, unwritten.value.message) == (
        "RESULT_NOT_STORED",
        f"the answer of 0 bytes could not be stored: {why}",
    )
    assert not unread.value.permanent


async def test_another_body_than_the_one_that_was_stored_is_not_taken(bodies: Bodies) -> None:
    async def cut(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=BODY[:-1] if request.method == "GET" else Blob(id="b").SerializeToString())

    async with bodies.spools() as spools, serving(cut) as url:
        with pytest.raises(CallFailedError, match="what came is not the body that was stored"):
            await bodies.fetch(url, BLOB, spools)
        spool = await spools.open()
        await spool.write(BODY)
        with pytest.raises(CallFailedError, match="what the server stored is not the body"):
            await bodies.store(url, spool)


async def test_a_server_that_is_gone_is_told_without_the_secret(bodies: Bodies) -> None:
    async with serving(answering()) as url:
        pass
    async with bodies.spools() as spools:
        with pytest.raises(CallFailedError, match=r"no connection to the server.s data port at 127\.0\.0\.1") as failed:
            await bodies.fetch(url, BLOB, spools)

    assert "secret" not in failed.value.message


async def test_a_worker_without_room_says_so(tmp_path: Path) -> None:
    (tmp_path / "spool").write_bytes(b"a file where the folder should be")
    bodies = Bodies(tmp_path / "spool", retry_timeout=1.0)
    try:
        async with bodies.spools() as spools, serving(answering()) as url:
            with pytest.raises(CallFailedError, match="the worker cannot keep the body: File exists") as failed:
                await bodies.fetch(url, BLOB, spools)
    finally:
        await bodies.close()

    assert failed.value.reason == "PAYLOAD_UNAVAILABLE"
