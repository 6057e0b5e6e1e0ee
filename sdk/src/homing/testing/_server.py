"""A server of the public API that answers as a test tells it."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Final, Self

import grpc

from homing._core import check, convert
from homing._core.values import Invocation
from homing.testing._dead_letter_service import DeadLetters
from homing.testing._deliveries import FakeDelivery
from homing.testing._function import FakeCall, FakeFunction, stream_of
from homing.testing._function_service import Functions
from homing.testing._invocation_service import Invocations
from homing.testing._key_service import Keys
from homing.testing._log_service import Logs
from homing.testing._payload_service import Payloads
from homing.testing._refusal import Refusal
from homing.testing._secret_service import Secrets
from homing.testing._signing_key_service import SigningKeys
from homing.testing._state import State
from homing.v1 import (
    InvocationFilter,
    dead_letter_service_pb2,
    dead_letter_service_pb2_grpc,
    function_service_pb2,
    function_service_pb2_grpc,
    invocation_service_pb2,
    invocation_service_pb2_grpc,
    key_service_pb2,
    key_service_pb2_grpc,
    log_service_pb2,
    log_service_pb2_grpc,
    payload_service_pb2,
    payload_service_pb2_grpc,
    secret_service_pb2,
    secret_service_pb2_grpc,
    signing_key_service_pb2,
    signing_key_service_pb2_grpc,
)

METHODS: Final = frozenset(
    method.name
    for module in (
        dead_letter_service_pb2,
        function_service_pb2,
        invocation_service_pb2,
        key_service_pb2,
        log_service_pb2,
        payload_service_pb2,
        secret_service_pb2,
        signing_key_service_pb2,
    )
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
)
"""The methods of the API."""

_THREADS: Final = 256
"""So many calls are answered at a time; those that wait for an end or watch hold a thread each."""
_MESSAGE: Final = 16 * 1024 * 1024


class FakeServer:
    """A gRPC server in this process, on a free port of 127.0.0.1, for tests of applications.

    Functions answer as they are told, at once, and every call is recorded. Both clients talk to it, from threads and
    event loops alike. It refuses what a real server refuses. Schedules, delays and back-off take no time, what would go
    to callbacks and destinations is kept to be read, nothing is durable.
    """

    def __init__(self) -> None:
        self._state = State()
        self._server = grpc.server(
            ThreadPoolExecutor(_THREADS, thread_name_prefix="homing-fake"),
            options=(("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", _MESSAGE)),
        )
        state, server = self._state, self._server
        dead_letter_service_pb2_grpc.add_DeadLetterServiceServicer_to_server(DeadLetters(state), server)
        function_service_pb2_grpc.add_FunctionServiceServicer_to_server(Functions(state), server)
        invocation_service_pb2_grpc.add_InvocationServiceServicer_to_server(Invocations(state), server)
        key_service_pb2_grpc.add_KeyServiceServicer_to_server(Keys(state), server)
        log_service_pb2_grpc.add_LogServiceServicer_to_server(Logs(state), server)
        payload_service_pb2_grpc.add_PayloadServiceServicer_to_server(Payloads(state), server)
        secret_service_pb2_grpc.add_SecretServiceServicer_to_server(Secrets(state), server)
        signing_key_service_pb2_grpc.add_SigningKeyServiceServicer_to_server(SigningKeys(state), server)
        self._port = self._server.add_insecure_port("127.0.0.1:0")

    def __repr__(self) -> str:
        return f"<FakeServer {self.target}>"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def target(self) -> str:
        """Where it listens, ``HOST:PORT``."""
        return f"127.0.0.1:{self._port}"

    def start(self) -> None:
        """Listen."""
        self._server.start()

    def stop(self) -> None:
        """End all calls and listen no more, for good."""
        self._server.stop(None).wait()

    def function(self, name: str) -> FakeFunction:
        """Return the function of a name, to tell it what to answer; it exists from then on.

        A function that is neither told anything nor deployed by a client is not found.
        """
        return self._state.function(name)

    def refuse(
        self,
        method: str,
        code: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE,
        *,
        reason: str = "FAKE",
        message: str = "refused by the test",
        times: int = 1,
    ) -> None:
        """Let the next calls of a method end with an error before they have an effect.

        :param method: The name of the gRPC method, for example ``InvokeAsync``.
        :param code: The status of the error.
        :param reason: Its reason.
        :param message: Its message.
        :param times: How many calls.
        :raises InvalidRequestError: There is no such method.
        """
        if method not in METHODS:
            near = difflib.get_close_matches(method, METHODS, n=1)
            rule = f"must be the name of a method of the API, is {method!r}" + "".join(
                f": is {one} meant?" for one in near
            )
            raise check.invalid("method", rule)
        if check.integer("times", times) < 1:
            raise check.invalid("times", f"must be at least 1, is {times}")
        self._state.refuse(method, Refusal(code=code, reason=reason, message=message), times)

    def calls(self, function: str | None = None) -> Sequence[FakeCall]:
        """Return the invocations that were asked for so far, of one function or of all, in order."""
        return tuple(call for call in tuple(self._state.store.calls) if function in (None, call.function))

    def deliveries(self, uri: str | None = None) -> Sequence[FakeDelivery]:
        """Return what callbacks and destinations would have got so far, one of them or all, in order."""
        return tuple(each for each in tuple(self._state.store.deliveries) if uri in (None, each.uri))

    def invocations(self) -> Sequence[Invocation]:
        """Return the records of all invocations, in the order of their acceptance."""
        found = self._state.store.find(InvocationFilter())
        return tuple(convert.invocation(self._state.store.bodies.whole(record)) for record in found)

    def log(self, invocation_id: str, text: str, *, stderr: bool = False) -> None:
        """Let an invocation write a line, for example one that is held.

        :param invocation_id: Its id.
        :param text: The line without its end.
        :param stderr: Whether it goes to standard error.
        :raises LookupError: There is no such invocation.
        """
        self._known(invocation_id)
        self._state.store.log(invocation_id, text, stream_of(stderr=stderr))

    def progress(self, invocation_id: str, percent: float, text: str = "") -> None:
        """Let an invocation say how far it is, for example one that is held.

        :param invocation_id: Its id.
        :param percent: From 0 to 100.
        :param text: The same in words.
        :raises LookupError: There is no such invocation.
        """
        self._known(invocation_id)
        self._state.store.progress(invocation_id, check.number("percent", percent), text)

    def _known(self, invocation_id: str) -> None:
        if invocation_id not in self._state.store.records:
            raise LookupError(f"there is no invocation {invocation_id!r}")
