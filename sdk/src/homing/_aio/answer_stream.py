"""An answer that is read as it comes, for the asynchronous client."""

from __future__ import annotations

import contextlib
from datetime import timedelta
from types import TracebackType
from typing import Final, Self

from homing._aio.bodies import send_large, whole
from homing._aio.connection import AsyncConnection
from homing._aio.seam.stream import AsyncStream
from homing._core import convert, status, watch
from homing._core.calls import Deadline
from homing._core.headers import Headers, headers
from homing._core.names import InvocationState
from homing._core.outcome import outcome_of, result_timeout
from homing._core.values import Invocation
from homing.errors import ClientUseError, ClosedClientError, DeadlineExceededError, RequestError
from homing.v1 import invocation_pb2, invocation_service_pb2

_GRACE: Final = 5.0
"""So many seconds a server is given to say that time is over."""
_LEAST: Final = timedelta(milliseconds=1)


class AsyncAnswerStream:
    """The answer of a function, passed on as it comes: a context manager, in it an async iterator over bytes.

    Made by ``invoke_stream``; the function is run when the context begins, which lasts until the head of the answer is
    there. Leaving it before the end stops the function. A reader that is slow makes the function wait.
    """

    def __init__(
        self, connection: AsyncConnection, request: invocation_service_pb2.InvokeStreamRequest, *, deadline: Deadline
    ) -> None:
        self._connection = connection
        self._request = request
        self._deadline = deadline
        self._stream: AsyncStream[invocation_service_pb2.InvokeStreamResponse] = AsyncStream(connection)
        self._head = invocation_service_pb2.InvokeStreamResponse.Head()
        self._ended: Invocation | None = None

    @property
    def invocation_id(self) -> str:
        """The id of the invocation."""
        return self._head.invocation_id

    @property
    def status_code(self) -> int:
        """The HTTP status code of the answer."""
        return self._head.status_code

    @property
    def headers(self) -> Headers:
        """The headers of the answer."""
        return headers(self._head.headers)

    @property
    def content_type(self) -> str:
        """The media type of the body."""
        return self._head.content_type

    @property
    def invocation(self) -> Invocation | None:
        """The ended invocation, without the body; None until the last chunk was read."""
        return self._ended

    async def __aenter__(self) -> Self:
        """Run the function, and wait for the head of its answer.

        :raises FunctionError: The function failed before it answered; the error keeps what it said.
        :raises InvocationError: The invocation ended without success in another way.
        :raises ResultTimeoutError: There was no answer in time.
        :raises RequestError: The call failed.
        """
        try:
            await self._begin()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """Wait for the next bytes.

        :raises FunctionError: The answer broke off: what was read is not the whole of it.
        :raises InvocationError: The invocation was stopped, or ended without success in another way.
        :raises RequestError: The call failed.
        :raises ClientUseError: The context was not entered, or the client cannot be used here.
        """
        if self._ended is not None or self._stream.closed:
            raise StopAsyncIteration
        if not self._stream.has_call:
            raise ClientUseError("an answer is read in its context: with client.invoke_stream(…) as answer")
        message = await self._read(None)
        if message.WhichOneof("part") == "data":
            return message.data
        await self._end(message.invocation)
        raise StopAsyncIteration

    async def close(self) -> None:
        """Read no more. A function that still answers is stopped."""
        self._stream.close()

    async def _begin(self) -> None:
        await send_large(self._connection, self._request.spec.payload, deadline=self._deadline)
        remaining = self._deadline.remaining()
        if remaining is not None:
            self._request.timeout.FromTimedelta(max(timedelta(seconds=remaining), _LEAST))
        await self._stream.open(lambda stubs: stubs.invocations.InvokeStream, self._request)
        message = await self._read(None if remaining is None else remaining + _GRACE)
        if message.WhichOneof("part") == "head":
            self._head = message.head
        else:
            await self._end(message.invocation)

    async def _read(self, limit: float | None) -> invocation_service_pb2.InvokeStreamResponse:
        try:
            message = await self._stream.read(limit)
        except RequestError as error:
            error.invocation_id = status.invocation_id(error) or self.invocation_id or None
            if isinstance(error, DeadlineExceededError):
                raise result_timeout(error.invocation_id, self._request.spec.function) from error
            raise
        except TimeoutError as error:
            raise result_timeout(None, self._request.spec.function) from error
        if message is None:
            raise watch.lost(self._connection.settings.target, "the stream ended before the answer was whole")
        return message

    async def _end(self, message: invocation_pb2.Invocation) -> None:
        """Take note of the end.

        :raises InvocationError: It is no success.
        """
        ended = convert.invocation(message)
        if not self._head.invocation_id:
            self._head.invocation_id = ended.id
            ended = await whole(self._connection, ended, deadline=self._deadline)
        self._ended = ended
        # Not cut off, which to the server looks as if its caller had given up.
        with contextlib.suppress(RequestError, ClosedClientError):
            await self._stream.read()
        if ended.state is not InvocationState.SUCCEEDED:
            outcome_of(ended)
