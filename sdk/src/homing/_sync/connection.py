"""The channel of a Client and how its calls are made."""

from __future__ import annotations

import os
from typing import TypeVar, cast

import grpc
from google.protobuf.message import Message
from tenacity import Retrying, retry_if_exception

from homing._core import calls, status
from homing._core.calls import Deadline
from homing._core.settings import CHANNEL_OPTIONS, ConnectionSettings
from homing.errors import ClosedClientError, ForkedClientError, RequestError
from homing.v1 import function_service_pb2_grpc, invocation_service_pb2_grpc

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)


class Connection:
    """A channel with the stubs of the services. Safe to use from several threads."""

    def __init__(self, settings: ConnectionSettings) -> None:
        credentials = settings.credentials()
        self._channel = (
            grpc.insecure_channel(settings.target, options=CHANNEL_OPTIONS)
            if credentials is None
            else grpc.secure_channel(settings.target, credentials, options=CHANNEL_OPTIONS)
        )
        self._owner = os.getpid()
        self.settings = settings
        self.closed = False
        self.invocations = invocation_service_pb2_grpc.InvocationServiceStub(self._channel)
        self.functions = function_service_pb2_grpc.FunctionServiceStub(self._channel)

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
        try:
            return method(request, timeout=deadline.remaining(), metadata=self.settings.metadata)
        except grpc.RpcError as err:
            raise self.error(err) from err
        except ValueError as err:  # how gRPC says that the channel was closed meanwhile
            self.check()
            raise err from None

    def call_again(
        self, method: grpc.UnaryUnaryMultiCallable[Request, Response], request: Request, *, deadline: Deadline
    ) -> Response:
        """Make a call that is safe to repeat, again while the server is unavailable and time remains.

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
        return retrying(lambda: self.call(method, request, deadline=deadline))

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
