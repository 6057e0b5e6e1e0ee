"""The channel of an AsyncClient and how its calls are made."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, NamedTuple, TypeVar, cast

import grpc
import grpc.aio
from google.protobuf.message import Message
from tenacity import AsyncRetrying, retry_if_exception

from homing._core import calls, status
from homing._core.calls import Deadline
from homing._core.interceptors import Call, call_of, chain
from homing._core.settings import CHANNEL_OPTIONS, ConnectionSettings
from homing.errors import ClosedClientError, ForkedClientError, RequestError, WrongLoopError
from homing.v1 import (
    function_service_pb2_grpc,
    invocation_service_pb2_grpc,
    key_service_pb2_grpc,
    secret_service_pb2_grpc,
)

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)
Outcome = TypeVar("Outcome")


class _Stubs(NamedTuple):
    invocations: invocation_service_pb2_grpc.InvocationServiceAsyncStub
    functions: function_service_pb2_grpc.FunctionServiceAsyncStub
    secrets: secret_service_pb2_grpc.SecretServiceAsyncStub
    keys: key_service_pb2_grpc.KeyServiceAsyncStub


class AioConnection:
    """A channel with the stubs of the services, bound to the event loop of its first use."""

    def __init__(self, settings: ConnectionSettings, interceptors: Sequence[Callable[..., Any]] = ()) -> None:
        self._credentials = settings.credentials()
        self._owner = os.getpid()
        self._channel: grpc.aio.Channel | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stubs: _Stubs | None = None
        self._interceptors = interceptors
        self.settings = settings
        self.closed = False

    @property
    def invocations(self) -> invocation_service_pb2_grpc.InvocationServiceAsyncStub:
        """The stub of the invocation service.

        :raises ClientUseError: The client cannot be used here.
        """
        return self._open().invocations

    @property
    def functions(self) -> function_service_pb2_grpc.FunctionServiceAsyncStub:
        """The stub of the function service.

        :raises ClientUseError: The client cannot be used here.
        """
        return self._open().functions

    @property
    def secrets(self) -> secret_service_pb2_grpc.SecretServiceAsyncStub:
        """The stub of the secret service.

        :raises ClientUseError: The client cannot be used here.
        """
        return self._open().secrets

    @property
    def keys(self) -> key_service_pb2_grpc.KeyServiceAsyncStub:
        """The stub of the key service.

        :raises ClientUseError: The client cannot be used here.
        """
        return self._open().keys

    async def close(self) -> None:
        """Close the channel; running calls end with ClosedClientError. A forked process has nothing to close.

        :raises WrongLoopError: The client is used in another event loop.
        """
        self.closed = True
        if self._channel is None or os.getpid() != self._owner:
            return
        self._check_loop()
        await self._channel.close()

    def _open(self) -> _Stubs:
        if os.getpid() != self._owner:
            raise ForkedClientError(
                f"this client was made in process {self._owner} and is used in process {os.getpid()}: "
                "make a client in each process"
            )
        if self.closed:
            raise ClosedClientError("this client is closed")
        if self._stubs is not None:
            self._check_loop()
            return self._stubs
        self._loop = asyncio.get_running_loop()
        self._channel = (
            grpc.aio.insecure_channel(self.settings.target, options=CHANNEL_OPTIONS)
            if self._credentials is None
            else grpc.aio.secure_channel(self.settings.target, self._credentials, options=CHANNEL_OPTIONS)
        )
        self._stubs = _Stubs(
            invocation_service_pb2_grpc.InvocationServiceStub(self._channel),
            function_service_pb2_grpc.FunctionServiceStub(self._channel),
            secret_service_pb2_grpc.SecretServiceStub(self._channel),
            key_service_pb2_grpc.KeyServiceStub(self._channel),
        )
        return self._stubs

    def _check_loop(self) -> None:
        if asyncio.get_running_loop() is not self._loop:
            raise WrongLoopError(
                "this AsyncClient belongs to the event loop of its first use and is used in another one: "
                "make a client in each loop"
            )

    async def call(
        self, method: grpc.aio.UnaryUnaryMultiCallable[Request, Response], request: Request, *, deadline: Deadline
    ) -> Response:
        """Make a call, once.

        :raises RequestError: It failed.
        :raises ClientUseError: The client cannot be used here.
        """
        self._open()

        async def send(call: Call) -> Response:
            try:
                # An interceptor may replace the request, by one of the same kind.
                return await method(cast("Request", call.request), timeout=call.timeout, metadata=call.metadata)
            except grpc.aio.AioRpcError as err:
                raise self.error(err) from err
            except (grpc.aio.UsageError, asyncio.CancelledError):
                if self.closed:  # closing the channel cancels its calls
                    raise ClosedClientError("this client was closed during the call") from None
                raise

        outgoing = call_of(request, self.settings.metadata, deadline.remaining())
        return cast("Response", await chain(self._interceptors, send)(outgoing))

    async def call_again(
        self, method: grpc.aio.UnaryUnaryMultiCallable[Request, Response], request: Request, *, deadline: Deadline
    ) -> Response:
        """Make a call that is safe to repeat, again while the server is unavailable and time remains.

        :raises RequestError: It failed.
        :raises ClientUseError: The client cannot be used here.
        """
        return await self.again(lambda: self.call(method, request, deadline=deadline), deadline=deadline)

    async def again(self, once: Callable[[], Awaitable[Outcome]], *, deadline: Deadline) -> Outcome:
        """Do what is safe to repeat, again while the server is unavailable and time remains.

        :raises RequestError: It failed.
        :raises ClientUseError: The client cannot be used here.
        """
        retrying = AsyncRetrying(
            stop=calls.stop_for(deadline),
            wait=calls.wait_before_repeating,
            retry=retry_if_exception(calls.worth_repeating),
            before_sleep=calls.log_repeat,
            reraise=True,
        )

        async def awaited() -> Outcome:
            return await once()

        return await retrying(awaited)

    async def stream(
        self,
        method: grpc.aio.UnaryStreamMultiCallable[Request, Response],
        request: Request,
        *,
        opened: Callable[[grpc.aio.UnaryStreamCall[Request, Response]], None],
    ) -> AsyncIterator[Response]:
        """Open a stream; its iterator raises RequestError where it breaks.

        :param opened: Gets the call, whose ``cancel`` cuts the stream.
        :raises ClientUseError: The client cannot be used here.
        """
        self._open()

        async def send(call: Call) -> AsyncIterator[Response]:
            stream = method(cast("Request", call.request), timeout=call.timeout, metadata=call.metadata)
            opened(stream)
            return self._messages(stream)

        outgoing = call_of(request, self.settings.metadata, None)
        return cast("AsyncIterator[Response]", await chain(self._interceptors, send)(outgoing))

    async def _messages(self, stream: grpc.aio.UnaryStreamCall[Request, Response]) -> AsyncIterator[Response]:
        try:
            async for message in stream:
                yield message
        except grpc.aio.AioRpcError as err:
            raise self.error(err) from err

    def error(self, err: grpc.aio.AioRpcError) -> RequestError | ClosedClientError:
        """Return the error of a call that failed."""
        if self.closed:
            return ClosedClientError("this client was closed during the call")
        return status.request_error(
            code=err.code(),
            message=err.details() or "",
            trailing=err.trailing_metadata(),
            target=self.settings.target,
        )
