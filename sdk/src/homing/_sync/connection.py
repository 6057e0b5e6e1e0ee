"""The channel of a Client and how its calls are made."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

import grpc
from google.protobuf.message import Message
from tenacity import Retrying, retry_if_exception

from homing._core import calls, status
from homing._core.calls import Deadline
from homing._core.interceptors import Call, call_of, chain
from homing._core.settings import CHANNEL_OPTIONS, ConnectionSettings
from homing.errors import ClosedClientError, ForkedClientError, RequestError
from homing.v1 import (
    function_service_pb2_grpc,
    invocation_service_pb2_grpc,
    key_service_pb2_grpc,
    secret_service_pb2_grpc,
)

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)
Outcome = TypeVar("Outcome")


class Connection:
    """A channel with the stubs of the services. Safe to use from several threads."""

    def __init__(self, settings: ConnectionSettings, interceptors: Sequence[Callable[..., Any]] = ()) -> None:
        credentials = settings.credentials()
        self._channel = (
            grpc.insecure_channel(settings.target, options=CHANNEL_OPTIONS)
            if credentials is None
            else grpc.secure_channel(settings.target, credentials, options=CHANNEL_OPTIONS)
        )
        self._owner = os.getpid()
        self._interceptors = interceptors
        self.settings = settings
        self.closed = False
        self.invocations = invocation_service_pb2_grpc.InvocationServiceStub(self._channel)
        self.functions = function_service_pb2_grpc.FunctionServiceStub(self._channel)
        self.secrets = secret_service_pb2_grpc.SecretServiceStub(self._channel)
        self.keys = key_service_pb2_grpc.KeyServiceStub(self._channel)

    def close(self) -> None:
        """Close the channel; running calls end with ClosedClientError. A forked process has nothing to close."""
        self.closed = True
        if os.getpid() == self._owner:
            self._channel.close()

    def check(self) -> None:
        """Check that calls can be made here.

        :raises ClosedClientError: The client is closed.
        :raises ForkedClientError: The client was made in another process.
        """
        if os.getpid() != self._owner:
            raise ForkedClientError(
                f"this client was made in process {self._owner} and is used in process {os.getpid()}: "
                "make a client in each process"
            )
        if self.closed:
            raise ClosedClientError("this client is closed")

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
            except ValueError as err:  # how gRPC says that the channel was closed meanwhile
                self.check()
                raise err from None

        outgoing = call_of(request, self.settings.metadata, deadline.remaining())
        return cast("Response", chain(self._interceptors, send)(outgoing))

    def call_again(
        self, method: grpc.UnaryUnaryMultiCallable[Request, Response], request: Request, *, deadline: Deadline
    ) -> Response:
        """Make a call that is safe to repeat, again while the server is unavailable and time remains.

        :raises RequestError: It failed.
        :raises ClientUseError: The client cannot be used here.
        """
        return self.again(lambda: self.call(method, request, deadline=deadline), deadline=deadline)

    def again(self, once: Callable[[], Outcome], *, deadline: Deadline) -> Outcome:
        """Do what is safe to repeat, again while the server is unavailable and time remains.

        :raises RequestError: It failed.
        :raises ClientUseError: The client cannot be used here.
        """
        retrying = Retrying(
            stop=calls.stop_for(deadline),
            wait=calls.wait_before_repeating,
            retry=retry_if_exception(calls.worth_repeating),
            before_sleep=calls.log_repeat,
            reraise=True,
        )
        return retrying(once)

    def stream(
        self,
        method: grpc.UnaryStreamMultiCallable[Request, Response],
        request: Request,
        *,
        opened: Callable[[Any], None],
    ) -> Iterator[Response]:
        """Open a stream; its iterator raises RequestError where it breaks.

        :param opened: Gets the call, whose ``cancel`` cuts the stream.
        :raises ClientUseError: The client cannot be used here.
        """
        self.check()

        def send(call: Call) -> Iterator[Response]:
            stream = method(cast("Request", call.request), timeout=call.timeout, metadata=call.metadata)
            opened(stream)
            return self._messages(stream)

        return cast(
            "Iterator[Response]", chain(self._interceptors, send)(call_of(request, self.settings.metadata, None))
        )

    def _messages(self, stream: Iterator[Response]) -> Iterator[Response]:
        try:
            yield from stream
        except grpc.RpcError as err:
            raise self.error(err) from err

    def error(self, err: grpc.RpcError) -> RequestError | ClosedClientError:
        """Return the error of a call that failed."""
        if self.closed:
            return ClosedClientError("this client was closed during the call")
        call = cast("grpc.Call", err)  # the errors that stubs raise are calls too, with their metadata
        return status.request_error(
            code=call.code(),
            message=call.details() or "",
            trailing=call.trailing_metadata(),
            target=self.settings.target,
        )
