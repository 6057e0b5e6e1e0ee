"""An answer on its way to a server: what is sent, what is kept, and what is done where the server does not take it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from homing_core.limits import KIB
from homing_core.wire.v1 import StreamHead
from homing_worker.runtime import answer_stream
from homing_worker.runtime.answer_stream import AnswerStream, AnswerStreams
from support.inbox import until

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
TAKEN = b"HTTP/1.1 204 No Content\r\n\r\n"
GONE = b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n"


@dataclass
class Server:
    """Takes one request as a test says, and keeps what came."""

    url: str = ""
    head: bytes = b""
    body: bytearray = field(default_factory=bytearray)
    whole: bool = False
    """Whether the body had its last chunk."""
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def read_body(self, reader: asyncio.StreamReader) -> None:
        try:
            while size := int(await reader.readline(), 16):
                self.body += (await reader.readexactly(size + 2))[:-2]
            await reader.readline()
            self.whole = True
        except (ValueError, asyncio.IncompleteReadError, ConnectionError):
            self.closed.set()


Behaviour = Callable[[Server, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(behave: Behaviour) -> AsyncIterator[Server]:
    server = Server()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.head = await reader.readuntil(b"\r\n\r\n")
        await behave(server, reader, writer)
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listener:
        server.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1/streams/x?expires=1&signature=a%2Fb"
        yield server


async def take(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(CONTINUE)
    await server.read_body(reader)
    writer.write(TAKEN)


@dataclass
class Told:
    """What the attempt is told of its stream."""

    opened: int = 0
    gone: int = 0


@asynccontextmanager
async def streaming(url: str) -> AsyncIterator[tuple[AnswerStream, Told]]:
    streams, told = AnswerStreams(), Told()

    def opened() -> None:
        told.opened += 1

    def gone() -> None:
        told.gone += 1

    stream = streams.stream(url, final=lambda *_: True, opened=opened, gone=gone)
    try:
        yield stream, told
    finally:
        stream.close()
        await streams.close()


async def waits(work: Awaitable[None]) -> bool:
    """Tell whether something does not end."""
    task = asyncio.ensure_future(work)
    await asyncio.wait({task}, timeout=0.1)
    return task.cancel()


async def write_on(stream: AnswerStream) -> None:
    while True:
        await stream.write(b"two")


async def opened(stream: AnswerStream) -> bool:
    return await stream.open(201, [("x-a", "1")], "text/event-stream")


async def test_the_head_goes_first_and_then_what_comes() -> None:
    async with serving(take) as server, streaming(server.url) as (stream, told):
        assert await opened(stream)
        await stream.write(b"one")
        await stream.write(b"")
        await stream.write(b"two")
        await stream.finish()
        size = int.from_bytes(server.body[:4])
        head = StreamHead.FromString(bytes(server.body[4 : 4 + size]))
        assert (head.status_code, head.content_type, head.headers[0].name) == (201, "text/event-stream", "x-a")
        assert server.body[4 + size :] == b"onetwo"
        assert server.head.startswith(b"POST /v1/streams/x?expires=1&signature=a%2Fb HTTP/1.1\r\n")
        assert server.whole
        assert (told.opened, told.gone) == (1, 0)
        result = stream.result
    assert (result.status_code, result.payload.data, result.cut, result.streamed_size) == (201, b"onetwo", False, 6)


async def test_the_beginning_is_kept() -> None:
    async with serving(take) as server, streaming(server.url) as (stream, _):
        assert await opened(stream)
        for letter in b"abcd":
            await stream.write(bytes([letter]) * 100 * KIB)
        assert stream.result.cut
        await stream.finish()
        result = stream.result
    assert len(result.payload.data) == 256 * KIB
    assert result.payload.data.endswith(b"c")
    assert (result.cut, result.streamed_size) == (True, 400 * KIB)


async def test_what_is_broken_off_has_no_last_chunk() -> None:
    async with serving(take) as server, streaming(server.url) as (stream, told):
        assert await opened(stream)
        await stream.write(b"one")
        await until(lambda: bool(server.body.endswith(b"one")))
        stream.close()
        await asyncio.wait_for(server.closed.wait(), 5)
        assert not server.whole
        assert told.gone == 0
        assert stream.result.cut


@pytest.mark.parametrize("status", ["404 Not Found", "403 Forbidden", "503 Unavailable"])
async def test_where_the_server_does_not_take_it_nothing_is_lost(status: str) -> None:
    async def refuse(_: Server, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())

    async with serving(refuse) as server, streaming(server.url) as (stream, told):
        assert not await opened(stream)
        assert (stream.opened, told.opened, told.gone) == (False, 0, 0)


async def test_where_no_server_is_nothing_is_lost() -> None:
    async with serving(take) as server:
        url = server.url
    async with streaming(url) as (stream, told):
        assert not await opened(stream)
        assert told.gone == 0


async def test_a_server_that_does_not_say_whether_it_takes_it_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(answer_stream, "_ACCEPT_SECONDS", 0.1)

    async def wait(server: Server, reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await server.read_body(reader)

    async with serving(wait) as server, streaming(server.url) as (stream, told):
        assert not await opened(stream)
        await asyncio.wait_for(server.closed.wait(), 5)
        assert (bytes(server.body), told.gone) == (b"", 0)


@pytest.mark.parametrize("answer", [GONE, b""])
async def test_a_reader_that_leaves_is_told_of_also_while_nothing_comes(answer: bytes) -> None:
    leave = asyncio.Event()

    async def left(_: Server, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CONTINUE)
        await leave.wait()
        writer.write(answer)

    async with serving(left) as server, streaming(server.url) as (stream, told):
        assert await opened(stream)
        await stream.write(b"one")
        assert told.gone == 0
        leave.set()
        await until(lambda: told.gone == 1)
        # What still comes goes nowhere: the attempt is about to be cancelled.
        assert await waits(write_on(stream))
        assert await waits(stream.finish())


async def test_an_answer_that_the_server_did_not_take_is_not_whole() -> None:
    async def refuse(server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CONTINUE)
        await server.read_body(reader)
        writer.write(GONE)

    async with serving(refuse) as server, streaming(server.url) as (stream, told):
        assert await opened(stream)
        finishing = asyncio.ensure_future(stream.finish())
        await until(lambda: told.gone == 1)
        assert await waits(finishing)
        assert stream.result.cut
