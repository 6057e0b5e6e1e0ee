"""Receivers of deliveries that misbehave, each at an address of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

_END_OF_HEAD: Final = b"\r\n\r\n"
_MIB: Final = bytes(1024 * 1024)


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What was posted."""

    path: str
    headers: dict[str, str]
    """By their names in lower case."""
    body: bytes

    @property
    def id(self) -> str:
        """The id of the delivery, the same in all its attempts."""
        return self.headers.get("webhook-id", "")

    def json(self) -> Any:
        """Return the body, read as JSON."""
        return json.loads(self.body)


class Peer:
    """A connection, as what answers on it sees it."""

    def __init__(self, receiver: Receiver, writer: asyncio.StreamWriter) -> None:
        self.receiver = receiver
        self._writer = writer

    async def answer(self, status: int, **headers: str) -> None:
        """Answer without a body and keep the connection."""
        told = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        self._writer.write(f"HTTP/1.1 {status} X\r\n{told}content-length: 0\r\n\r\n".encode())
        await self._writer.drain()

    async def flood(self, size: int) -> None:
        """Answer 200 with a body of so many bytes, for as long as somebody reads it."""
        self._writer.write(f"HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n".encode())
        for _ in range(size // len(_MIB)):
            self._writer.write(_MIB)
            await self._writer.drain()
            self.receiver.flooded += len(_MIB)

    def drop(self) -> None:
        """Cut the connection in the middle of the answer."""
        self._writer.write(b"HTTP/1.1 200 O")
        self._writer.transport.abort()


Behaviour = Callable[[Request, Peer], Awaitable[None]]


class Receiver:
    """A web server that receives deliveries and does with them as it is told."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        """What is done with a request; may be changed at any time."""
        self.url = ""
        self.requests: list[Request] = []
        self.seen: Counter[str] = Counter()
        """How often each delivery came."""
        self.flooded = 0
        self._came = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    async def until(self, condition: Callable[[Receiver], bool], *, within: float = 120.0) -> None:
        """Wait until what has come is as wanted."""
        async with self._came, asyncio.timeout(within):
            await self._came.wait_for(lambda: condition(self))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take requests from a connection until it ends."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while True:
                    request = await _read(reader)
                    self.requests.append(request)
                    self.seen[request.id] += 1
                    async with self._came:
                        self._came.notify_all()
                    await self.behaviour(request, Peer(self, writer))
        except asyncio.CancelledError:
            # The end of the test; asyncio's server would tell of it as of an error.
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def close(self) -> None:
        """End all connections."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def receiving(behaviour: Behaviour) -> AsyncIterator[Receiver]:
    """Serve a receiver on loopback."""
    receiver = Receiver(behaviour)
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0, limit=2**20)
    receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
    try:
        yield receiver
    finally:
        server.close()
        await receiver.close()
        await server.wait_closed()


async def take(_request: Request, peer: Peer) -> None:
    """Take everything."""
    await peer.answer(204)


async def never(_request: Request, _peer: Peer) -> None:
    """Accept, and never answer."""
    await asyncio.Event().wait()


def always(status: int, **headers: str) -> Behaviour:
    """Return what answers with one status for ever."""

    async def behaviour(_request: Request, peer: Peer) -> None:
        await peer.answer(status, **headers)

    return behaviour


async def _read(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(_END_OF_HEAD)).decode("latin-1")
    first, *lines = head.strip().split("\r\n")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.strip().lower()] = value.strip()
    if "chunked" in headers.get("transfer-encoding", ""):
        body = b""
        while size := int((await reader.readline()).split(b";")[0], 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
    else:
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Request(path=first.split(" ")[1], headers=headers, body=body)
