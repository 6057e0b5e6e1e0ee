"""The log lines of an invocation, for the asynchronous client."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING

import grpc.aio

from homing._aio.connection import AioConnection
from homing._core import watch
from homing._core.calls import log
from homing._core.logs import LogLine, LogProgress
from homing.errors import ClosedClientError, RequestError
from homing.v1 import invocation_service_pb2

if TYPE_CHECKING:
    from typing_extensions import Self

Request = invocation_service_pb2.TailLogsRequest
Message = invocation_service_pb2.TailLogsResponse


class AsyncLogTail:
    """The lines that a function wrote for an invocation: an async iterator and a context manager.

    It ends behind the last line there is; where it follows, when the invocation has ended. It reconnects by itself,
    and a line that was handed out is not repeated. Made by ``handle.logs``; it connects with the first line.
    """

    def __init__(
        self, connection: AioConnection, progress: LogProgress, *, find_server: Callable[[], Awaitable[object]]
    ) -> None:
        self._connection = connection
        self._progress = progress
        self._find_server = find_server
        self._messages: AsyncIterator[Message] | None = None
        self._call: grpc.aio.UnaryStreamCall[Request, Message] | None = None
        self._closed = asyncio.Event()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> LogLine:
        """Wait for the next line.

        :raises NotFoundError: There is no such invocation, or its retention is over.
        :raises RequestError: The server refuses to tell, or was away for too long.
        :raises ClientUseError: The client cannot be used here.
        """
        while not self._closed.is_set():
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
        self._closed.set()
        if self._call is not None:
            self._call.cancel()

    async def _next(self) -> LogLine | None:
        """Return the next line; None where it was seen before, or there was none to be had."""
        try:
            if self._messages is None:
                self._messages = await self._connection.stream(
                    self._connection.invocations.TailLogs, self._progress.request, opened=self._opened
                )
            return self._progress.accept(await self._messages.__anext__())
        except (StopAsyncIteration, ClosedClientError):
            await self.close()
        except RequestError as error:
            if not self._closed.is_set():
                await self._reconnect(error)
        except asyncio.CancelledError:
            if not (self._closed.is_set() or self._connection.closed):
                # The stream ends with its reader; who reads on resumes it.
                self._messages = None
                self._progress.resume()
                raise
            self._closed.set()  # this is how a stream ends that was cancelled
        return None

    def _opened(self, call: grpc.aio.UnaryStreamCall[Request, Message]) -> None:
        self._call = call
        if self._closed.is_set():
            call.cancel()

    async def _reconnect(self, error: RequestError) -> None:
        """Wait until the server is there again.

        :raises RequestError: It is away for too long, or the stream ended in a way that this does not cure.
        """
        if not watch.worth_resuming(error):
            await self.close()
            raise error
        log.info("the logs broke off and are resumed: %s", error)
        self._messages = None
        self._progress.resume()
        await self._find_server()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._closed.wait(), random.uniform(0, watch.SPREAD))  # noqa: S311 - not for secrets
