"""A real gRPC server of the public API that answers as a test tells it."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2

from homing.v1 import (
    dead_letter_service_pb2,
    function_service_pb2,
    invocation_service_pb2,
    key_service_pb2,
    log_service_pb2,
    payload_service_pb2,
    secret_service_pb2,
    signing_key_service_pb2,
)

SERVICES: tuple[ServiceDescriptor, ...] = (
    invocation_service_pb2.DESCRIPTOR.services_by_name["InvocationService"],
    payload_service_pb2.DESCRIPTOR.services_by_name["PayloadService"],
    log_service_pb2.DESCRIPTOR.services_by_name["LogService"],
    dead_letter_service_pb2.DESCRIPTOR.services_by_name["DeadLetterService"],
    function_service_pb2.DESCRIPTOR.services_by_name["FunctionService"],
    secret_service_pb2.DESCRIPTOR.services_by_name["SecretService"],
    signing_key_service_pb2.DESCRIPTOR.services_by_name["SigningKeyService"],
    key_service_pb2.DESCRIPTOR.services_by_name["KeyService"],
)
OPTIONS = (("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 16 * 1024 * 1024))


@dataclass(kw_only=True)
class Refusal(Exception):  # noqa: N818 - it is told to the caller, not raised to one
    """An error as homing's server gives it; without a reason, one as gRPC itself gives it."""

    code: grpc.StatusCode
    message: str = "refused"
    reason: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    violations: dict[str, str] = field(default_factory=dict)
    retry_after: float | None = None

    def abort(self, context: grpc.ServicerContext) -> None:
        """End the call with this error."""
        if not self.reason:
            context.abort(self.code, self.message)
        parts: list[Message] = [
            error_details_pb2.ErrorInfo(reason=self.reason, domain="homing.dev", metadata=self.metadata)
        ]
        if self.violations:
            parts.append(
                error_details_pb2.BadRequest(
                    field_violations=[
                        error_details_pb2.BadRequest.FieldViolation(field=name, description=description)
                        for name, description in self.violations.items()
                    ]
                )
            )
        if self.retry_after is not None:
            delay = Duration()
            delay.FromNanoseconds(int(self.retry_after * 1e9))
            parts.append(error_details_pb2.RetryInfo(retry_delay=delay))
        details = []
        for part in parts:
            packed = AnyMessage()
            packed.Pack(part)
            details.append(packed)
        status = status_pb2.Status(code=self.code.value[0], message=self.message, details=details)
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(self.code, self.message)


Answerer = Callable[[Any, grpc.ServicerContext], Any]
"""Gets request and context; returns the response, or iterates over the responses of a stream."""
Step = Message | Refusal | Answerer


def streamed(*messages: Message | Refusal) -> Answerer:
    """Return a step that streams messages; a refusal among them ends it."""

    def answer(_request: Any, _context: grpc.ServicerContext) -> Iterator[Message]:
        for message in messages:
            if isinstance(message, Refusal):
                raise message
            yield message

    return answer


class ScriptedServer:
    """Answers each call of a method with the next step of its script; the last step stays."""

    def __init__(self, credentials: grpc.ServerCredentials | None = None) -> None:
        self._credentials = credentials
        self._steps: dict[str, list[Step]] = {}
        self._lock = threading.Lock()
        self._server: grpc.Server | None = None
        self._port = 0
        self.requests: dict[str, list[Any]] = defaultdict(list)
        """The requests of each method so far."""
        self.metadata: dict[str, list[dict[str, str | bytes]]] = defaultdict(list)
        """The metadata of each call so far."""
        self.deadlines: dict[str, list[float | None]] = defaultdict(list)
        """How many seconds each call so far gave the server; None for any number."""

    @property
    def target(self) -> str:
        """Where the server listens."""
        return f"127.0.0.1:{self._port}"

    def script(self, method: str, *steps: Step) -> None:
        """Say how the next calls of a method are answered."""
        assert any(method in service.methods_by_name for service in SERVICES), method
        with self._lock:
            self._steps[method] = list(steps)

    def start(self) -> None:
        """Listen: on a free port the first time, later on the same one."""
        self._server = grpc.server(ThreadPoolExecutor(16), options=OPTIONS)
        self._server.add_generic_rpc_handlers(
            tuple(
                grpc.method_handlers_generic_handler(
                    service.full_name, {method.name: self._handler(method) for method in service.methods}
                )
                for service in SERVICES
            )
        )
        self._port = (
            self._server.add_insecure_port(self.target)
            if self._credentials is None
            else self._server.add_secure_port(self.target, self._credentials)
        )
        self._server.start()

    def stop(self) -> None:
        """Cut all connections and listen no more."""
        if self._server is not None:
            self._server.stop(None).wait(10)

    def _handler(self, method: MethodDescriptor) -> grpc.RpcMethodHandler[Any, Any]:
        request_class = GetMessageClass(method.input_type)

        def answer(request: Message, context: grpc.ServicerContext) -> Any:
            step = self._next(method.name, request, context)
            if isinstance(step, Refusal):
                step.abort(context)
            if isinstance(step, Message):
                return step
            assert callable(step)
            try:
                return step(request, context)
            except Refusal as refusal:
                refusal.abort(context)

        def stream(request: Message, context: grpc.ServicerContext) -> Iterator[Message]:
            try:
                answers: Iterable[Message] = answer(request, context)
                yield from answers
            except Refusal as refusal:
                refusal.abort(context)

        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(
                stream,
                request_deserializer=request_class.FromString,
                response_serializer=GetMessageClass(method.output_type).SerializeToString,
            )
        return grpc.unary_unary_rpc_method_handler(
            answer,
            request_deserializer=request_class.FromString,
            response_serializer=GetMessageClass(method.output_type).SerializeToString,
        )

    def _next(self, method: str, request: Message, context: grpc.ServicerContext) -> Step:
        with self._lock:
            self.requests[method].append(request)
            self.metadata[method].append(dict(context.invocation_metadata()))
            remaining = context.time_remaining()
            self.deadlines[method].append(remaining if remaining is not None and remaining < 1e6 else None)
            steps = self._steps.get(method)
            if not steps:
                return Refusal(
                    code=grpc.StatusCode.UNIMPLEMENTED, reason="NOT_SERVED", message=f"{method} is not in the script"
                )
            return steps.pop(0) if len(steps) > 1 else steps[0]


@pytest.fixture
def scripted_server() -> Iterator[ScriptedServer]:
    """A running server without a script."""
    server = ScriptedServer()
    server.start()
    yield server
    server.stop()
