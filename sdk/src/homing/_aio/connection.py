"""The channel of a client and how its calls are made."""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar, cast

import grpc.aio
from google.protobuf.message import Message
from tenacity import AsyncRetrying, retry_if_exception

from homing._aio.lanes import AsyncLanes, AsyncLease
from homing._aio.seam.channel import CHANNEL_CLOSED, AsyncChannel
from homing._aio.stubs import AsyncStubs, stubs_of
from homing._core import calls, status
from homing._core.calls import Deadline
from homing._core.interceptors import Call, call_of, chain
from homing._core.settings import ConnectionSettings
from homing._core.watch import Cancellable
from homing.errors import ClosedClientError, ForkedClientError, RequestError
from homing.v1 import (
    dead_letter_service_pb2_grpc,
    function_service_pb2_grpc,
    invocation_service_pb2_grpc,
    key_service_pb2_grpc,
    payload_service_pb2_grpc,
    secret_service_pb2_grpc,
    signing_key_service_pb2_grpc,
)

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)
Outcome = TypeVar("Outcome")


class AsyncConnection:
    """A channel with the stubs of the services."""

    def __init__(self, settings: ConnectionSettings, interceptors: Sequence[Callable[..., Any]] = ()) -> None:
        self._channel = AsyncChannel(settings)
        self._lanes = AsyncLanes(settings)
        self._owner = os.getpid()
        self._stubs: AsyncStubs | None = None
        self._interceptors = interceptors
        self.settings = settings
        self.closed = False

    @property
    def invocations(self) -> invocation_service_pb2_grpc.InvocationServiceAsyncStub:
        """The stub of the invocation service.

        :raises ClientUseError: The client cannot be used here.
        """
        return self._open().invocations

    def lasting(self) -> AbstractContextManager[invocation_service_pb2_grpc.InvocationServiceAsyncStub]:
        """Return a context with the stub of the invocation service for one call that may last.

        :raises ClientUseError: The client cannot be used here.
        """
        self.check()
        return self._lanes.lane()

    def lend(self) -> AsyncLease:
        """Return the stubs for one stream that may last, to be given back when it is over.

        :raises ClientUseError: The client cannot be used here.
        """
        self.check()
        return self._lanes.lend()

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

    @property
    def dead_letters(self) -> dead_letter_service_pb2_grpc.DeadLetterServiceAsyncStub:
        """The stub of the dead letter service.

        :raises ClientUseError: The client cannot be used here.
        """
        return self._open().dead_letters

    @property
    def payloads(self) -> payload_service_pb2_grpc.PayloadServiceAsyncStub:
        """The stub of the payload service.

        :raises ClientUseError: The client cannot be used here.
        """
        return self._open().payloads

    @property
    def signing_keys(self) -> signing_key_service_pb2_grpc.SigningKeyServiceAsyncStub:
        """The stub of the signing key service.

        :raises ClientUseError: The client cannot be used here.
        """
        return self._open().signing_keys

    async def close(self) -> None:
        """Close the channel; running calls end with ClosedClientError. A forked process has nothing to close.

        :raises ClientUseError: The client cannot be used here.
        """
        self.closed = True
        if os.getpid() == self._owner:
            await self._channel.close()
            await self._lanes.close()

    def check(self) -> None:
        """Check that calls can be made here.

        :raises ClientUseError: They cannot.
        """
        self._open()

    def _open(self) -> AsyncStubs:
        if os.getpid() != self._owner:
            raise ForkedClientError(
                f"this client was made in process {self._owner} and is used in process {os.getpid()}: "
                "make a client in each process"
            )
        if self.closed:
            raise ClosedClientError("this client is closed")
        channel = self._channel.use()
        if self._stubs is None:
            self._stubs = stubs_of(channel)
        return self._stubs

    async def call(
        self, method: grpc.aio.UnaryUnaryMultiCallable[Request, Response], request: Request, *, deadline: Deadline
    ) -> Response:
        """Make a call, once.

        :raises RequestError: It failed.
        :raises ClientUseError: The client cannot be used here.
        """
        self.check()

        async def send(call: Call) -> Response:
            try:
                # An interceptor may replace the request, by one of the same kind.
                return await method(cast("Request", call.request), timeout=call.timeout, metadata=call.metadata)
            except grpc.RpcError as err:
                raise self.error(err) from err
            except CHANNEL_CLOSED:
                if self.closed:
                    raise ClosedClientError("this client was closed during the call") from None
                raise

        outgoing = call_of(request, self.settings.metadata, deadline.remaining())
        return cast("Response", await chain(self._interceptors, send)(outgoing))

    async def call_idempotent(
        self, method: grpc.aio.UnaryUnaryMultiCallable[Request, Response], request: Request, *, deadline: Deadline
    ) -> Response:
        """Make an idempotent call, and retry it while the server is unavailable and time remains.

        :raises RequestError: It failed.
        :raises ClientUseError: The client cannot be used here.
        """
        return await self.retry(lambda: self.call(method, request, deadline=deadline), deadline=deadline)

    async def retry(self, once: Callable[[], Awaitable[Outcome]], *, deadline: Deadline) -> Outcome:
        """Do what is idempotent, and retry it while the server is unavailable and time remains.

        :raises RequestError: It failed.
        :raises ClientUseError: The client cannot be used here.
        """
        retrying = AsyncRetrying(
            stop=calls.stop_for(deadline),
            wait=calls.wait_before_retry,
            retry=retry_if_exception(calls.is_retryable),
            before_sleep=calls.log_retry,
            reraise=True,
        )

        async def attempt() -> Outcome:  # tenacity looks at what kind of function it gets, which a lambda does not show
            return await once()

        return await retrying(attempt)

    async def stream(
        self,
        method: grpc.aio.UnaryStreamMultiCallable[Request, Response],
        request: Request,
        *,
        opened: Callable[[Cancellable], None],
        deadline: Deadline = calls.NEVER,
    ) -> AsyncIterator[Response]:
        """Open a stream; its iterator raises RequestError where it breaks.

        :param opened: Gets the call, whose ``cancel`` cuts the stream.
        :param deadline: When the whole stream must be over.
        :raises ClientUseError: The client cannot be used here.
        """
        self.check()

        async def send(call: Call) -> AsyncIterator[Response]:
            stream = method(cast("Request", call.request), timeout=call.timeout, metadata=call.metadata)
            opened(stream)
            return self._messages(stream)

        outgoing = call_of(request, self.settings.metadata, deadline.remaining())
        return cast("AsyncIterator[Response]", await chain(self._interceptors, send)(outgoing))

    async def _messages(self, stream: AsyncIterable[Response]) -> AsyncIterator[Response]:
        try:
            async for message in stream:
                yield message
        except grpc.RpcError as err:
            raise self.error(err) from err

    def error(self, err: grpc.RpcError) -> RequestError | ClosedClientError:
        """Return the error of a call that failed."""
        if self.closed:
            return ClosedClientError("this client was closed during the call")
        call = cast("grpc.Call", err)  # the errors that stubs raise tell of their calls
        return status.request_error(
            code=call.code(),
            message=call.details() or "",
            trailing=call.trailing_metadata(),
            target=self.settings.target,
        )
