"""The answer of a synchronous call as its caller is passed it: as it comes from the worker, or whole.

Whoever sends waits for whoever reads: one part is under way at a time, and the next one is taken from the worker once
the caller has taken this one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from typing import Final

from google.protobuf.message import DecodeError

from homing.v1 import invocation_pb2 as api
from homing.v1.payload_pb2 import Payload
from homing_core.limits import KIB, MAX_ANSWER_HEADER_SIZE, MAX_PART
from homing_core.wire.v1 import StreamHead
from homing_server.errors import ErrorReason, unavailable
from homing_server.payloads.blobs import Blobs

PART_BYTES: Final = 64 * KIB
"""About so many bytes a part has at the most, where the answer came whole."""

_LENGTH_BYTES: Final = 4
_MAX_HEAD_BYTES: Final = 2 * MAX_ANSWER_HEADER_SIZE
_END_SECONDS: Final = 5.0
"""So long after a stream was over the worker may take to say how the call ended; else it is taken for lost."""


class NobodyWaitsError(Exception):
    """Nobody waits here for the answer, or it is streamed already."""


class ReaderGoneError(Exception):
    """The caller takes no more of the answer."""


class BadStreamError(Exception):
    """What comes is no answer."""


class AnswerStream:
    """The answer of one call. It has a head, parts and an end, to be asked for in this order."""

    def __init__(self, blobs: Blobs, *, on_head: Callable[[], None]) -> None:
        """Prepare to pass an answer on.

        :param blobs: Where an answer is that came whole and is large.
        :param on_head: Called once a worker has begun to stream: :meth:`follow` is to be called then.
        """
        self.ended: api.Invocation | None = None
        """The ended invocation, as its record has it: once all parts were taken; at once where the answer came whole.

        A body that was streamed is cut there, which its result says."""
        self._blobs = blobs
        self._on_head = on_head
        self._head: StreamHead | None = None
        self._ending: asyncio.Task[api.Invocation] | None = None
        self._part = b""
        self._over = False
        """Whether the worker streams nothing more."""
        self._broke_off = False
        self._sender: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._room = asyncio.Event()

    @property
    def head(self) -> StreamHead | None:
        """What comes before the body; None where the call ended without an answer."""
        if self._head is None and self.ended is not None and self.ended.HasField("result"):
            self._head = _head_of(self.ended.result)
        return self._head

    @property
    def invocation(self) -> api.Invocation:
        """The ended invocation."""
        assert self.ended is not None, "all parts were taken"
        return self.ended

    @property
    def streams(self) -> bool:
        """Whether a worker streams it, or has: the call is not made again, and its caller's deadline counts no more."""
        return self._sender is not None

    def come_whole(self, ended: api.Invocation) -> None:
        """Take the answer of a call that has ended before any of it was streamed."""
        self.ended = ended

    def follow(self, ending: asyncio.Task[api.Invocation]) -> None:
        """Pass the answer on until its call has ended.

        :param ending: Waits for that.
        """
        self._ending = ending
        ending.add_done_callback(lambda _: self._news.set())

    async def parts(self) -> AsyncGenerator[bytes, None]:
        """Yield the body as it comes, and then set :attr:`ended`.

        Where that is no success what was yielded may not be the whole answer: it broke off, or was stopped.

        :raises ApiError: UNAVAILABLE: the worker was lost, or the way to it; or what it stored cannot be read.
        """
        if self.ended is not None:
            async for part in self._stored(self.ended.result.payload):
                yield part
            return
        assert self._ending is not None, "it is followed"
        while part := await self._take(self._ending):
            yield part
        try:
            async with asyncio.timeout(_END_SECONDS):
                self.ended = await asyncio.shield(self._ending)
        except TimeoutError:
            what = "broke off" if self._broke_off else "is over"
            message = f"the answer {what}, and its worker does not say how the invocation ended"
            raise unavailable(ErrorReason.WORKER_LOST, message) from None

    async def receive(self, chunks: AsyncIterable[bytes]) -> None:
        """Take what a worker streams, and return once the caller was handed all of it.

        :param chunks: A StreamHead after its length, then the body. Where they end with an exception it broke off.
        :raises NobodyWaitsError: Another stream has come before, or the call has ended.
        :raises ReaderGoneError: The caller goes away meanwhile.
        :raises BadStreamError: It is no answer.
        """
        if self._sender is not None or self.ended is not None:
            raise NobodyWaitsError
        self._sender = asyncio.ensure_future(self._receive(chunks))
        try:
            await self._sender
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is not None and current.cancelling():
                raise
            raise ReaderGoneError from None
        finally:
            # Where this is cancelled itself so is the other, which notes that.
            self._sender.cancel()

    def close(self) -> None:
        """Take nothing more: whoever streams is told that nobody reads."""
        if self._sender is not None:
            self._sender.cancel()

    async def _receive(self, chunks: AsyncIterable[bytes]) -> None:
        try:
            await self._hand_over(chunks)
        except BaseException:
            self._broke_off = True
            raise
        finally:
            self._over = True
            self._news.set()

    async def _hand_over(self, chunks: AsyncIterable[bytes]) -> None:
        beginning = b""
        async for chunk in chunks:
            if self._head is not None:
                for start in range(0, len(chunk), MAX_PART):
                    await self._give(chunk[start : start + MAX_PART])
                continue
            beginning += chunk
            size = int.from_bytes(beginning[:_LENGTH_BYTES])
            if len(beginning) < _LENGTH_BYTES or (size <= _MAX_HEAD_BYTES and len(beginning) < _LENGTH_BYTES + size):
                continue
            self._head = _parsed(beginning[_LENGTH_BYTES : _LENGTH_BYTES + size], size)
            self._on_head()
            await self._give(beginning[_LENGTH_BYTES + size :])
        if self._head is None:
            raise BadStreamError

    async def _give(self, part: bytes) -> None:
        """Hand a part over, and wait until it was taken."""
        if not part:
            return
        self._room.clear()
        self._part = part
        self._news.set()
        await self._room.wait()

    async def _take(self, ending: asyncio.Task[api.Invocation]) -> bytes:
        """Return the next part; nothing at the end, or where the call ended in another way.

        :raises ApiError: It failed.
        """
        while not self._part and not self._over and not ending.done():
            self._news.clear()
            await self._news.wait()
        part, self._part = self._part, b""
        self._room.set()
        return part

    async def _stored(self, payload: Payload) -> AsyncGenerator[bytes, None]:
        if payload.HasField("blob"):
            async for part in self._blobs.parts(payload.blob.id, PART_BYTES):
                yield part
        else:
            for start in range(0, len(payload.data), PART_BYTES):
                yield payload.data[start : start + PART_BYTES]


def _parsed(raw: bytes, size: int) -> StreamHead:
    if size > _MAX_HEAD_BYTES:
        raise BadStreamError
    try:
        return StreamHead.FromString(raw)
    except DecodeError:
        raise BadStreamError from None


def _head_of(result: api.Result) -> StreamHead:
    return StreamHead(status_code=result.status_code, headers=result.headers, content_type=result.payload.content_type)
