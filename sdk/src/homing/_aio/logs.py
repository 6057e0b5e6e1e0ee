"""The log lines of an invocation, or of a function, for the asynchronous client."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from homing._aio.connection import AsyncConnection
from homing._aio.seam.stream import AsyncStream
from homing._aio.stubs import AsyncStubs
from homing._core import watch
from homing._core.calls import log
from homing._core.logs import LogLine
from homing.errors import ClosedClientError, RequestError

Line_co = TypeVar("Line_co", bound=LogLine, covariant=True)


class Progress(Protocol[Line_co]):
    """What a reader asks for, and how far it has come."""

    request: Any

    def resume(self) -> None:
        """Expect what a new call brings."""

    def accept(self, message: Any) -> Line_co | None:
        """Take a message; return its line, or None for one that was seen before."""


class AsyncLogTail(Generic[Line_co]):
    """The lines that a function wrote: an async iterator and a context manager.

    It ends behind the last line there is; where it follows, when the invocation has ended, and that of a function when
    it is closed. It reconnects by itself, and a line that was handed out is not repeated. Made by ``handle.logs`` and
    ``functions.logs``; it connects with the first line.
    """

    def __init__(
        self,
        connection: AsyncConnection,
        progress: Progress[Line_co],
        *,
        method: Callable[[AsyncStubs], Any],
        find_server: Callable[[], Awaitable[object]],
    ) -> None:
        self._connection = connection
        self._progress = progress
        self._method = method
        self._find_server = find_server
        self._stream: AsyncStream[Any] = AsyncStream(connection)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Line_co:
        """Wait for the next line.

        :raises NotFoundError: There is no such invocation, or its retention is over; or no such function.
        :raises RequestError: The server refuses, or was away for too long.
        :raises ClientUseError: The client cannot be used here.
        """
        while not self._stream.closed:
            line = await self._next()
            if line is not None:
                return line
        raise StopAsyncIteration

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End it; an iteration that waits in another task ends too."""
        self._stream.close()

    async def _next(self) -> Line_co | None:
        """Return the next line; None where it was seen before, or there was none to be had."""
        try:
            if not self._stream.has_call:
                self._progress.resume()
                await self._stream.open(self._method, self._progress.request)
            message = await self._stream.read()
        except ClosedClientError:
            await self.close()
        except RequestError as error:
            self._stream.drop()
            if not self._stream.closed:
                await self._reconnect(error)
        else:
            if message is not None:
                return self._progress.accept(message)
            await self.close()
        return None

    async def _reconnect(self, error: RequestError) -> None:
        """Wait until the server is there again.

        :raises RequestError: It is away for too long, or the stream ended in a way that this does not cure.
        """
        if not watch.is_resumable(error):
            await self.close()
            raise error
        log.info("the logs broke off and are resumed: %s", error)
        await self._find_server()
        await self._stream.pause(random.uniform(0, watch.RECONNECT_JITTER))  # noqa: S311 - not for secrets
