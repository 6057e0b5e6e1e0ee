"""A watch of results, for the asynchronous client."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Generator
from types import TracebackType
from typing import TYPE_CHECKING

import grpc.aio
from tenacity import AsyncRetrying, retry_if_exception

from homing._aio.connection import AioConnection
from homing._core import watch
from homing._core.calls import Deadline, log, log_repeat, stop_for
from homing._core.values import WatchEvent
from homing._core.watch import WatchProgress
from homing.errors import ClosedClientError, RequestError
from homing.v1 import invocation_service_pb2

if TYPE_CHECKING:
    from typing_extensions import Self

Request = invocation_service_pb2.WatchResultsRequest
Message = invocation_service_pb2.WatchResultsResponse


class AsyncResultWatch:
    """The invocations that end, as they end: an async iterator that never ends by itself, and a context manager.

    It reconnects and resumes by itself; no event is left out or repeated. Made by ``client.watch_results``; it is
    subscribed from the moment that it is awaited, entered or first iterated, whichever comes first.
    """

    def __init__(self, connection: AioConnection, progress: WatchProgress, *, patience: float | None) -> None:
        self._connection = connection
        self._progress = progress
        self._patience = patience
        self._call: grpc.aio.UnaryStreamCall[Request, Message] | None = None
        self._messages: AsyncIterator[Message] | None = None
        self._pending: WatchEvent | None = None
        self._started = False
        self._closed = asyncio.Event()

    def __await__(self) -> Generator[None, None, Self]:
        return self._start().__await__()

    async def __aenter__(self) -> Self:
        return await self._start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> WatchEvent:
        """Wait for the next event.

        :raises ResumeTokenExpiredError: The connection was away for so long that results were removed meanwhile.
        :raises RequestError: The server refuses to go on.
        :raises ClientUseError: The client cannot be used here.
        """
        await self._start()
        while not self._closed.is_set():
            event = None
            try:
                if self._messages is None:
                    await self._pause(random.uniform(0, watch.SPREAD))  # noqa: S311 - not for secrets
                    await self._open(Deadline(None))
                if self._pending is not None:
                    event, self._pending = self._pending, None
                else:
                    event = self._progress.accept(await self._read(watch.SILENCE))
            except ClosedClientError:
                await self.close()
            except RequestError as error:
                self._messages = None
                if self._closed.is_set():
                    break
                if not watch.worth_resuming(error):
                    await self.close()
                    raise
                log.info("the watch broke and is resumed: %s", error)
            if event is not None:
                return event
        raise StopAsyncIteration

    @property
    def resume_token(self) -> str:
        """Resumes a watch after the last event that this one handed out. Save it to go on in another process."""
        return self._progress.resume_token

    async def close(self) -> None:
        """End the watch; an iteration that waits in another task ends too."""
        self._closed.set()
        if self._call is not None:
            self._call.cancel()

    async def _start(self) -> Self:
        if not self._started:
            self._started = True
            try:
                await self._open(Deadline.after(self._patience))
            except BaseException:
                await self.close()
                raise
        return self

    async def _open(self, deadline: Deadline) -> None:
        """Open the stream where the watch is and wait until the server says that it is in place."""

        async def once() -> None:
            remaining = deadline.remaining()
            self._messages = await self._connection.stream(
                self._connection.invocations.WatchResults, self._progress.request(), opened=self._opened
            )
            limit = watch.SILENCE if remaining is None else min(watch.SILENCE, remaining)
            self._pending = self._progress.accept(await self._read(limit))

        too_late = stop_for(deadline)
        await AsyncRetrying(
            stop=lambda state: self._closed.is_set() or too_late(state),
            wait=watch.wait_before_resuming,
            retry=retry_if_exception(watch.worth_resuming),
            sleep=self._pause,
            before_sleep=log_repeat,
            reraise=True,
        )(once)

    def _opened(self, call: grpc.aio.UnaryStreamCall[Request, Message]) -> None:
        self._call = call

    async def _read(self, limit: float) -> Message:
        assert self._messages is not None
        target = self._connection.settings.target
        # A task of its own tells a stream that was cancelled from a reader that was.
        reader = asyncio.ensure_future(_next(self._messages))
        try:
            done, _ = await asyncio.wait({reader}, timeout=limit)
        finally:
            if not reader.done():  # the stream ends with its reader; where the reader was cancelled it is resumed
                reader.cancel()
                self._messages = None
        if not done:
            raise watch.lost(target, f"nothing came for {limit:.0f} s")
        if reader.cancelled():
            raise ClosedClientError("this watch was closed")
        message = reader.result()
        if message is None:
            raise watch.lost(target, "the server ended the stream")
        return message

    async def _pause(self, seconds: float) -> None:
        """Sleep, but not past the end of the watch."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._closed.wait(), seconds)


async def _next(messages: AsyncIterator[Message]) -> Message | None:
    try:
        return await messages.__anext__()
    except StopAsyncIteration:
        return None
