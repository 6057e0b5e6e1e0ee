"""A channel of grpc.aio."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final, TypeVar

import grpc.aio

from homing._core.settings import ALONE, ConnectionSettings
from homing.errors import WrongLoopError

Request = TypeVar("Request")
Response = TypeVar("Response")

CHANNEL_CLOSED: Final = (grpc.aio.UsageError, asyncio.CancelledError)
"""What a call raises, among other causes, when its channel was closed."""


class AsyncChannel:
    """A channel that opens with its first use and belongs to the event loop of that."""

    def __init__(self, settings: ConnectionSettings, *, alone: bool = False) -> None:
        """Prepare to connect.

        :param alone: Whether it shares its connection with no other channel.
        """
        self._target = settings.target
        self._credentials = settings.credentials()
        self._options = (*settings.channel_options, *(ALONE if alone else ()))
        self._channel: grpc.aio.Channel | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def use(self) -> grpc.aio.Channel:
        """Return the channel of gRPC.

        :raises WrongLoopError: It is used in another event loop.
        """
        if self._channel is not None:
            self._check_loop()
            return self._channel
        self._loop = asyncio.get_running_loop()
        self._channel = (
            grpc.aio.insecure_channel(self._target, options=self._options)
            if self._credentials is None
            else grpc.aio.secure_channel(self._target, self._credentials, options=self._options)
        )
        return self._channel

    async def close(self) -> None:
        """Cancel its calls.

        :raises WrongLoopError: It is used in another event loop.
        """
        if self._channel is not None:
            self._check_loop()
            await self._channel.close()

    def _check_loop(self) -> None:
        if asyncio.get_running_loop() is not self._loop:
            raise WrongLoopError(
                "this AsyncClient belongs to the event loop of its first use and is used in another one: "
                "make a client in each loop"
            )


async def upload(
    method: grpc.aio.StreamUnaryMultiCallable[Request, Response], requests: Iterable[Request], **options: Any
) -> Response:
    """Write the requests of a call and return its response.

    :raises AioRpcError: It failed, as the server says.
    """
    call = method(**options)

    async def write() -> None:
        for request in requests:
            await call.write(request)
        await call.done_writing()

    # A server may refuse an upload in the middle. Left alone, the write that breaks off with it replaces the status
    # that the server gave by one that says INTERNAL, https://github.com/grpc/grpc/issues/36066: so it ends before.
    writing = asyncio.create_task(write())

    def done(_call: Any) -> None:
        writing.cancel()

    call.add_done_callback(done)
    try:
        return await call
    finally:
        writing.cancel()
        # Whatever became of it, the status of the call tells it all.
        await asyncio.gather(writing, return_exceptions=True)
