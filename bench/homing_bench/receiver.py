"""Receives callbacks and counts them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

_ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"
_END_OF_HEAD = b"\r\n\r\n"
_LENGTH = b"content-length:"


class Receiver:
    """A web server for callbacks, just good enough for the client at hand."""

    def __init__(self) -> None:
        self.url = ""
        self.received = 0
        self.last_at = 0.0
        """When the last one came, by the monotonic clock."""
        self._wanted = 0
        self._complete = asyncio.Event()

    def take(self, count: int) -> None:
        """Count callbacks."""
        self.received += count
        self.last_at = time.monotonic()
        if self.received >= self._wanted:
            self._complete.set()

    async def wait_for(self, count: int, patience: float) -> None:
        """Wait until so many have come, or so many seconds have passed."""
        self._wanted = count
        if self.received < count:
            self._complete.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._complete.wait(), patience)


class _Connection(asyncio.Protocol):
    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no asyncio.Transport by their class, only by their methods.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        count = 0
        while (end := self._buffer.find(_END_OF_HEAD)) >= 0:
            head = self._buffer[:end].lower()
            at = head.find(_LENGTH)
            length = int(head[at + len(_LENGTH) :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            size = end + len(_END_OF_HEAD) + length
            if len(self._buffer) < size:
                break
            self._buffer = self._buffer[size:]
            count += 1
        if count and self._transport is not None:
            self._transport.write(_ANSWER * count)
            self._receiver.take(count)


@asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    """Receive callbacks on the loopback."""
    counting = Receiver()
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(counting), "127.0.0.1", 0)
    async with server:
        counting.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        yield counting
