"""A watch of results, for the asynchronous client."""

from __future__ import annotations

import random
from collections.abc import Generator
from types import TracebackType
from typing import Self

from tenacity import AsyncRetrying, retry_if_exception

from homing._aio.connection import AsyncConnection
from homing._aio.seam.stream import AsyncStream
from homing._core import watch
from homing._core.calls import Deadline, log, log_retry, stop_for
from homing._core.values import WatchEvent
from homing._core.watch import WatchProgress
from homing.errors import ClosedClientError, RequestError
from homing.v1 import invocation_service_pb2

Message = invocation_service_pb2.WatchResultsResponse


class AsyncResultWatch:
    """The invocations that end, as they end: an async iterator that never ends by itself, and a context manager.

    It reconnects and resumes by itself; no event is left out or repeated. Made by ``client.watch_results``.
    It is subscribed from the moment that it is awaited, entered or first iterated, whichever comes first.
    """

    def __init__(self, connection: AsyncConnection, progress: WatchProgress, *, timeout: float | None) -> None:
        self._connection = connection
        self._progress = progress
        self._timeout = timeout
        self._stream: AsyncStream[Message] = AsyncStream(connection)
        self._pending: WatchEvent | None = None
        self._started = False

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
        while not self._stream.closed:
            event = None
            try:
                if not self._stream.has_call:
                    await self._stream.pause(random.uniform(0, watch.RECONNECT_JITTER))  # noqa: S311 - not for secrets
                    await self._open(Deadline(None))
                if self._pending is not None:
                    event, self._pending = self._pending, None
                else:
                    event = self._progress.accept(await self._read(watch.SILENCE_LIMIT))
            except ClosedClientError:
                await self.close()
            except RequestError as error:
                self._stream.drop()
                if self._stream.closed:
                    break
                if not watch.is_resumable(error):
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
        self._stream.close()

    async def _start(self) -> Self:
        if not self._started:
            self._started = True
            try:
                await self._open(Deadline.after(self._timeout))
            except BaseException:
                await self.close()
                raise
        return self

    async def _open(self, deadline: Deadline) -> None:
        """Open the stream where the watch is and wait until the server says that it is in place."""

        async def once() -> None:
            remaining = deadline.remaining()
            await self._stream.open(lambda stubs: stubs.invocations.WatchResults, self._progress.request())
            limit = watch.SILENCE_LIMIT if remaining is None else min(watch.SILENCE_LIMIT, remaining)
            self._pending = self._progress.accept(await self._read(limit))

        too_late = stop_for(deadline)
        await AsyncRetrying(
            stop=lambda state: self._stream.closed or too_late(state),
            wait=watch.wait_before_reconnect,
            retry=retry_if_exception(watch.is_resumable),
            sleep=self._stream.pause,
            before_sleep=log_retry,
            reraise=True,
        )(once)

    async def _read(self, limit: float) -> Message:
        target = self._connection.settings.target
        try:
            message = await self._stream.read(limit)
        except TimeoutError as error:
            raise watch.lost(target, f"nothing came for {limit:.0f} s") from error
        if message is None:
            raise watch.lost(target, "the server ended the stream")
        return message
