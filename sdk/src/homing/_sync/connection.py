# Generated from _aio/connection.py by scripts/unasync.py; do not edit.
"""The channel of a client and how its calls are made."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar, cast

import grpc
from google.protobuf.message import Message
from tenacity import Retrying, retry_if_exception

from homing._core import calls, status
from homing._core.calls import Deadline
from homing._core.interceptors import Call, call_of, chain
from homing._core.settings import ConnectionSettings
from homing._core.watch import Cancellable
from homing._sync.lanes import Lanes, Lease
from homing._sync.seam.channel import CHANNEL_CLOSED, Channel
from homing._sync.stubs import Stubs, stubs_of
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


class Connection:
    """A channel with the stubs of the services."""

    def __init__(self, settings: ConnectionSettings, interceptors: Sequence[Callable[..., Any]] = ()) -> None:
        self._channel = Channel(settings)
        self._lanes = Lanes(settings)
        self._owner = os.getpid()
        self._stubs: Stubs | None = None
        self._interceptors = interceptors
        self.settings = settings
        self.closed = False

    @property
    def invocations(self) -> invocation_service_pb2_grpc.InvocationServiceStub:
        """The stub of the invocation service.

        :raises ClientUseError: The client cannot be used here.
        """
        return self._open().invocations

    def lasting(self) -> AbstractContextManager[invocation_service_pb2_grpc.InvocationServiceStub]:
        """Return a context with the stub of the invocation service for one call that may last.

        :raises ClientUseError: The client cannot be used here.
        """
        self.check()
        return self._lanes.lane()

    def lend(self) -> Lease:
        """Return the stubs for one stream that may last, to be given back when it is over.

        :raises ClientUseError: The client cannot be used here.
        """
        self.check()
        return self._lanes.lend()

    @property
    def functions(self) -> function_service_pb2_grpc.FunctionServiceStub:
        """The stub of the function service.

        :raises ClientUseError: The client cannot be used here.
        """
        return self._open().functions

    @property
    def secrets(self) -> secret_service_pb2_grpc.SecretServiceStub:
        """The stub of the secret service.

        :raises ClientUseError: The client cannot be used here.
        """
        return self._open().secrets

    @property
    def keys(self) -> key_service_pb2_grpc.KeyServiceStub:
        """The stub of the key service.

        :raises ClientUseError: The client cannot be used here.
        """
        return self._open().keys

    @property
    def dead_letters(self) -> dead_letter_service_pb2_grpc.DeadLetterServiceStub:
        """The stub of the dead letter service.

        :raises ClientUseError: The client cannot be used here.
        """
        return self._open().dead_letters

    @property
    def payloads(self) -> payload_service_pb2_grpc.PayloadServiceStub:
        """The stub of the payload service.

        :raises ClientUseError: The client cannot be used here.
        """
        return self._open().payloads

    @property
    def signing_keys(self) -> signing_key_service_pb2_grpc.SigningKeyServiceStub:
        """The stub of the signing key service.

        :raises ClientUseError: The client cannot be used here.
        """
        return self._open().signing_keys

    def close(self) -> None:
        """Close the channel; running calls end with ClosedClientError. A forked process has nothing to close.

        :raises ClientUseError: The client cannot be used here.
        """
        self.closed = True
        if os.getpid() == self._owner:
            self._channel.close()
            self._lanes.close()

    def check(self) -> None:
        """Check that calls can be made here.

        :raises ClientUseError: They cannot.
        """
        self._open()

    def _open(self) -> Stubs:
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

    def call(
        self, method: grpc.UnaryUnaryMultiCallable[Request, Response], request: Request, *, deadline: Deadline
    ) -> Response:
        """Make a call, once.

        :raises RequestError: It failed.
        :raises ClientUseError: The client cannot be used here.
        """
        self.check()

        def send(call: Call) -> Response:
            try:
                # An interceptor may replace the request, by one of the same kind.
                return method(cast("Request", call.request), timeout=call.timeout, metadata=call.metadata)
            except grpc.RpcError as err:
                raise self.error(err) from err
            except CHANNEL_CLOSED:
                if self.closed:
                    raise ClosedClientError("this client was closed during the call") from None
                raise

        outgoing = call_of(request, self.settings.metadata, deadline.remaining())
        return cast("Response", chain(self._interceptors, send)(outgoing))

    def call_idempotent(
        self, method: grpc.UnaryUnaryMultiCallable[Request, Response], request: Request, *, deadline: Deadline
    ) -> Response:
        """Make an idempotent call, and retry it while the server is unavailable and time remains.

        :raises RequestError: It failed.
        :raises ClientUseError: The client cannot be used here.
        """
        return self.retry(lambda: self.call(method, request, deadline=deadline), deadline=deadline)

    def retry(self, once: Callable[[], Outcome], *, deadline: Deadline) -> Outcome:
        """Do what is idempotent, and retry it while the server is unavailable and time remains.

        :raises RequestError: It failed.
        :raises ClientUseError: The client cannot be used here.
        """
        retrying = Retrying(
            stop=calls.stop_for(deadline),
            wait=calls.wait_before_retry,
            retry=retry_if_exception(calls.is_retryable),
            before_sleep=calls.log_retry,
            reraise=True,
        )

        def attempt() -> Outcome:  # tenacity looks at what kind of function it gets, which a lambda does not show
            return once()

        return retrying(attempt)

    def stream(
        self,
        method: grpc.UnaryStreamMultiCallable[Request, Response],
        request: Request,
        *,
        opened: Callable[[Cancellable], None],
        deadline: Deadline = calls.NEVER,
    ) -> Iterator[Response]:
        """Open a stream; its iterator raises RequestError where it breaks.

        :param opened: Gets the call, whose ``cancel`` cuts the stream.
        :param deadline: When the whole stream must be over.
        :raises ClientUseError: The client cannot be used here.
        """
        self.check()

        def send(call: Call) -> Iterator[Response]:
            stream = method(cast("Request", call.request), timeout=call.timeout, metadata=call.metadata)
            opened(stream)
            return self._messages(stream)

        outgoing = call_of(request, self.settings.metadata, deadline.remaining())
        return cast("Iterator[Response]", chain(self._interceptors, send)(outgoing))

    def _messages(self, stream: Iterable[Response]) -> Iterator[Response]:
        try:
            yield from stream
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
