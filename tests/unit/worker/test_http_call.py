from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from homing_core import limits
from homing_core.retry import RetryAdvice
from homing_worker.runtime import CallFailedError, Request
from homing_worker.runtime.http_call import exchange, open_session
from homing_worker.runtime.spool import Spool, SpoolError, Spools

REQUEST = Request(
    method="POST", target="/", headers=[("X-Mine", "yes")], body=b"hello", spools=Spools(Path("/nowhere"))
)
Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(script: Script) -> AsyncIterator[str]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            await script(reader, writer)
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with open_session() as made:
        yield made


def sending(*chunks: bytes) -> Script:
    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for chunk in chunks:
            writer.write(chunk)
            await writer.drain()

    return script


async def test_an_answer_is_kept_as_it_came(session: aiohttp.ClientSession) -> None:
    answer = b"HTTP/1.1 418 x\r\nContent-Type: a/b\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x00"

    async with serving(sending(answer)) as origin:
        kept = await exchange(session, origin, REQUEST)

    # What is compressed stays so: unpacking a small answer could fill the memory.
    assert (kept.status_code, kept.content_type, kept.body) == (418, "a/b", b"\x1f\x8b\x00")
    assert kept.headers == [("content-type", "a/b"), ("content-encoding", "gzip")]


async def test_headers_of_one_name_go_and_come_each_by_itself(session: aiohttp.ClientSession) -> None:
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(
            b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nX-Other: x\r\nset-cookie: b=2, 3\r\nContent-Length: 0\r\n\r\n"
        )
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        origin = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        answer = await exchange(session, origin, replace(REQUEST, headers=[("X-A", "1"), ("X-B", "2"), ("X-A", "3")]))

    lines = seen[0].decode().split("\r\n")
    assert [line for line in lines if line.startswith("X-")] == ["X-A: 1", "X-B: 2", "X-A: 3"]
    assert answer.headers == [("set-cookie", "a=1"), ("x-other", "x"), ("set-cookie", "b=2, 3")]


@pytest.mark.parametrize(
    "before",
    [
        [b"X-Long: " + b"x" * 8180] * 2,
        [b"X-Long: " + b"x" * 60_000, b"X-Long: " + b"x" * 16_370],
        [b"X-%d: v" % number for number in range(70)],
        [b"X-%d: v" % number for number in range(480)],
        [b"X-Same: v"] * 70,
    ],
    ids=["long", "very-long", "many", "very-many", "repeated"],
)
async def test_what_homing_looks_for_is_found_wherever_it_stands(
    session: aiohttp.ClientSession, before: list[bytes]
) -> None:
    after = [
        b"X-Homing-Retry: no",
        b"Retry-After: 7",
        b"X-OpenFaaS-Internal: faas-middleware",
        b"Content-Type: a/b",
        b"Content-Length: 0",
        b"",
        b"",
    ]

    async with serving(sending(b"\r\n".join([b"HTTP/1.1 503 x", *before, *after]))) as origin:
        answer = await exchange(session, origin, REQUEST)

    assert (answer.content_type, answer.advice) == ("a/b", RetryAdvice(after="7", refused=True, by_carrier=True))
    assert "x-homing-retry" not in dict(answer.headers)


async def test_a_header_that_is_too_large_to_be_kept_takes_no_other_with_it(session: aiohttp.ClientSession) -> None:
    head = [b"HTTP/1.1 200 x", b"X-Long: " + b"x" * 20_000, b"X-Short: y", b"Content-Length: 0", b"", b""]

    async with serving(sending(b"\r\n".join(head))) as origin:
        answer = await exchange(session, origin, REQUEST)

    assert answer.headers == [("x-short", "y")]


async def test_only_headers_that_were_given_are_sent(session: aiohttp.ClientSession) -> None:
    seen: list[bytes] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readexactly(5))
        writer.write(b"HTTP/1.1 204 x\r\n\r\n")

    async with serving(script) as origin:
        kept = await exchange(session, origin, REQUEST)

    assert (kept.status_code, kept.body, seen) == (204, b"", [b"hello"])


@pytest.mark.parametrize("length", [b"", b"Content-Length: %d\r\n" % limits.MAX_INLINE_RESULT])
async def test_the_limit_itself_is_kept(session: aiohttp.ClientSession, length: bytes) -> None:
    script = sending(b"HTTP/1.1 200 OK\r\n" + length + b"\r\n", b"x" * limits.MAX_INLINE_RESULT)

    async with serving(script) as origin:
        assert len((await exchange(session, origin, REQUEST)).body) == limits.MAX_INLINE_RESULT


async def test_a_larger_answer_goes_to_a_file_and_leaves_none_behind(
    session: aiohttp.ClientSession, tmp_path: Path
) -> None:
    body = b"0123456789abcdef" * (limits.MAX_INLINE_RESULT // 8)

    async with serving(sending(b"HTTP/1.1 200 OK\r\n\r\n", body)) as origin, Spools(tmp_path) as spools:
        kept = (await exchange(session, origin, replace(REQUEST, spools=spools))).body
        assert isinstance(kept, Spool)
        assert (len(kept), kept.sha256) == (len(body), hashlib.sha256(body).digest())
        assert b"".join([part async for part in kept.parts()]) == body

    with pytest.raises(SpoolError):
        await kept.write(b"more")
    assert os.listdir(tmp_path) == []  # noqa: PTH208 in a test that is async


async def test_an_answer_over_the_limit_is_cut_off(session: aiohttp.ClientSession, tmp_path: Path) -> None:
    part = bytes(limits.MIB)
    script = sending(b"HTTP/1.1 200 OK\r\n\r\n", *[part] * (limits.MAX_PAYLOAD // limits.MIB), b"x")

    async with serving(script) as origin, Spools(tmp_path) as spools:
        with pytest.raises(CallFailedError) as failed:
            await exchange(session, origin, replace(REQUEST, spools=spools))

    assert (failed.value.reason, failed.value.permanent) == ("RESULT_TOO_LARGE", True)


@pytest.mark.parametrize(
    ("chunks", "reason"),
    [
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",), "RESULT_TOO_LARGE"),
        ((b"SSH-2.0-OpenSSH\r\n",), "BAD_RESPONSE"),
        ((b"HTTP/1.1 abc\r\n\r\n",), "BAD_RESPONSE"),
        ((b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",), "BAD_RESPONSE"),
        ((b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"zz\r\n"), "BAD_RESPONSE"),
        ((b"HTTP/1.1 200 OK\r\n", *[b"X-A: b\r\n" * 100] * 100), "BAD_RESPONSE"),
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc",), "CONNECTION_LOST"),
        ((b"HTTP/1.1 200 OK\r\nX-A",), "CONNECTION_LOST"),
        ((), "CONNECTION_LOST"),
    ],
)
async def test_what_cannot_be_kept_is_told_apart(
    session: aiohttp.ClientSession, chunks: tuple[bytes, ...], reason: str
) -> None:
    async with serving(sending(*chunks)) as origin:
        with pytest.raises(CallFailedError) as failed:
            async with asyncio.timeout(5):
                await exchange(session, origin, REQUEST)

    assert failed.value.reason == reason
    assert failed.value.permanent == (reason == "RESULT_TOO_LARGE")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "POST"])
async def test_a_function_that_breaks_off_is_called_once(session: aiohttp.ClientSession, method: str) -> None:
    calls = 0

    async def script(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal calls
        calls += 1
        writer.close()

    async with serving(script) as origin:
        with pytest.raises(CallFailedError) as failed:
            await exchange(session, origin, replace(REQUEST, method=method))

    assert (failed.value.reason, failed.value.suspect) == ("CONNECTION_LOST", True)
    assert calls == 1


async def test_nobody_listens(session: aiohttp.ClientSession) -> None:
    async with serving(sending()) as origin:
        pass

    with pytest.raises(CallFailedError) as failed:
        await exchange(session, origin, REQUEST)
    assert (failed.value.reason, failed.value.suspect) == ("CONNECTION_FAILED", True)
