"""A stream of grpc.aio that any task may close."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Generic, TypeVar, cast

import grpc.aio
from google.protobuf.message import Message

from homing._aio.connection import AsyncConnection
from homing._aio.stubs import AsyncStubs
from homing._core.calls import NEVER, Deadline
from homing._core.watch import Cancellable
from homing.errors import ClosedClientError

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)
Watch = TypeVar("Watch")


class AsyncStream(Generic[Response]):
    """The messages of a call, which any task may close; when the call ends, another one may take its place.

    The call holds up no others: it goes over a connection for those that last.
    """

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._call: Cancellable | None = None
        self._messages: AsyncIterator[Response] | None = None
        self._closed = asyncio.Event()

    @property
    def closed(self) -> bool:
        """Whether it was closed, for good."""
        return self._closed.is_set()

    @property
    def has_call(self) -> bool:
        """Whether there is a call to read from."""
        return self._messages is not None

    async def open(
        self,
        method: Callable[[AsyncStubs], grpc.aio.UnaryStreamMultiCallable[Request, Response]],
        request: Request,
        *,
        deadline: Deadline = NEVER,
    ) -> None:
        """Make the call.

        :param method: Picks the method that is called.
        :param deadline: When it must be over.
        :raises ClientUseError: The client cannot be used here.
        """
        lease = self._connection.lend()

        def opened(call: Cancellable) -> None:
            cast("grpc.aio.Call", call).add_done_callback(lease.give_back)
            self._hold(call)

        try:
            self._messages = await self._connection.stream(
                method(lease.stubs), request, opened=opened, deadline=deadline
            )
        except BaseException:
            lease.give_back()
            raise

    async def read(self, limit: float | None = None) -> Response | None:
        """Wait for the next message and return it; None at the end.

        :param limit: How long to wait, in seconds; by default for ever.
        :raises TimeoutError: Nothing came in time. The call was cancelled.
        :raises RequestError: The call failed.
        :raises ClosedClientError: This or the client was closed meanwhile.
        :raises ClientUseError: The client cannot be used here.
        """
        assert self._messages is not None
        self._connection.check()
        reader = asyncio.current_task()
        assert reader is not None
        cancelled = reader.cancelling()
        try:
            async with asyncio.timeout(limit):
                return await anext(self._messages, None)
        except asyncio.CancelledError:
            self._messages = None  # a call ends with its reader
            if (self.closed or self._connection.closed) and reader.cancelling() == cancelled:
                raise ClosedClientError("this stream was closed") from None
            raise

    async def pause(self, seconds: float) -> None:
        """Sleep, but not past the end."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closed.wait()

    def drop(self) -> None:
        """Read no more from the call that there is."""
        self._messages = None

    def close(self) -> None:
        """Cancel the call; who reads or sleeps stops."""
        self._closed.set()
        if self._call is not None:
            self._call.cancel()

    def _hold(self, call: Cancellable) -> None:
        self._call = call
        if self.closed:
            call.cancel()


def subscribed(watch: Watch) -> Watch:
    """Return a watch as it is: to be subscribed it must be awaited, entered or iterated."""
    return watch
