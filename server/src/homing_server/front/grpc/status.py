"""Carries errors over gRPC: every one with a google.rpc.ErrorInfo, and what else helps its caller."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

import grpc
import structlog
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from homing_server.auth import audit
from homing_server.errors import ApiError, Code, ErrorReason
from homing_server.front.grpc.caller import caller

_log = structlog.get_logger(__name__)

DOMAIN = "homing.dev"

if TYPE_CHECKING:
    # Only the type stubs know this class as a generic one.
    Context = grpc.aio.ServicerContext[Any, Any]
else:
    Context = grpc.aio.ServicerContext

_Unary = Callable[[Any, Context], Awaitable[Any]]
_Stream = Callable[[Any, Context], AsyncGenerator[Any, None]]


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Turns the errors of all calls into rich statuses, and logs the unexpected ones, whose text no caller sees."""

    def __init__(self) -> None:
        self._guarded: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wrap the handler of a call."""
        method = handler_call_details.method
        known = self._guarded.get(method)
        if known is not None:
            return known
        handler = await continuation(handler_call_details)
        if handler is None or not method.startswith("/homing."):
            return handler
        guarded = self._guarded[method] = _guard(handler, method)
        return guarded


def _guard(handler: grpc.RpcMethodHandler[Any, Any], method: str) -> grpc.RpcMethodHandler[Any, Any]:
    if handler.unary_unary is not None:
        return grpc.unary_unary_rpc_method_handler(
            _guard_unary(cast("_Unary", handler.unary_unary), method),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )
    if handler.stream_unary is not None:
        return grpc.stream_unary_rpc_method_handler(
            _guard_unary(cast("_Unary", handler.stream_unary), method),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )
    assert handler.unary_stream is not None, "the API has no calls with streams both ways"
    return grpc.unary_stream_rpc_method_handler(
        _guard_stream(cast("_Stream", handler.unary_stream), method),
        request_deserializer=handler.request_deserializer,
        response_serializer=_serialize,
    )


def _serialize(response: Message | bytes) -> bytes:
    """Return a message as it travels. What goes to many is serialised once, before it comes here."""
    return response if isinstance(response, bytes) else response.SerializeToString()


def _guard_unary(behaviour: _Unary, method: str) -> Callable[..., Awaitable[Any]]:
    if audit.is_control(method):
        behaviour = _audited(behaviour, method)

    async def guarded(request: Any, context: Context) -> Any:
        try:
            caller()  # else nothing is done
            return await behaviour(request, context)
        except Exception as error:  # noqa: BLE001 every error becomes a status
            await abort(context, error, method)

    return guarded


def _audited(behaviour: _Unary, method: str) -> _Unary:
    async def audited(request: Any, context: Context) -> Any:
        with _audit(method, request):
            return await behaviour(request, context)

    return audited


def _guard_stream(behaviour: _Stream, method: str) -> _Stream:
    behaviour = _while_in_force(behaviour)
    if audit.is_control(method):
        behaviour = _audited_stream(behaviour, method)

    async def guarded(request: Any, context: Context) -> AsyncGenerator[Any, None]:
        try:
            # Whoever goes away leaves nothing behind that still works, or waits.
            async with contextlib.aclosing(behaviour(request, context)) as responses:
                async for response in responses:
                    yield response
        except Exception as error:  # noqa: BLE001 every error becomes a status
            await abort(context, error, method)

    return guarded


def _while_in_force(behaviour: _Stream) -> _Stream:
    """Return a stream that ends when its caller's key does: it may last for long."""

    async def checked(request: Any, context: Context) -> AsyncGenerator[Any, None]:
        identity = caller()
        async with contextlib.aclosing(behaviour(request, context)) as responses:
            async for response in responses:
                identity.check_in_force()
                yield response

    return checked


def _audited_stream(behaviour: _Stream, method: str) -> _Stream:
    async def audited(request: Any, context: Context) -> AsyncGenerator[Any, None]:
        with _audit(method, request):
            async with contextlib.aclosing(behaviour(request, context)) as responses:
                async for response in responses:
                    yield response

    return audited


@contextlib.contextmanager
def _audit(method: str, request: Any) -> Iterator[None]:
    """Write the audit line of a control action at its end."""
    identity = caller()
    outcome = "CANCELLED"
    try:
        yield
        outcome = "OK"
    except ApiError as error:
        outcome = error.code.name
        raise
    except Exception:
        outcome = "INTERNAL"
        raise
    finally:
        audit.log_action(method, caller=identity.name, request=request, outcome=outcome)


async def abort(context: Context, error: Exception, method: str) -> None:
    """End a call with the status of an error."""
    await context.abort_with_status(_status(error, method))


def traceparent(context: Context) -> str:
    """Return the trace context that a caller sent along; empty where there is none."""
    metadata: Mapping[str, str | bytes] = dict(context.invocation_metadata() or ())
    value = metadata.get("traceparent", "")
    return value[:64] if isinstance(value, str) else ""


def _status(error: Exception, method: str) -> Any:
    if not isinstance(error, ApiError):
        _log.error("call_failed", method=method, exc_info=error)
        error = ApiError(code=Code.INTERNAL, reason=ErrorReason.INTERNAL, message="the server failed; its log says why")
    return rpc_status.to_status(status_of(error))


def status_of(error: ApiError) -> status_pb2.Status:
    """Return an error as messages have it, with its details."""
    status = status_pb2.Status(code=_number(error.code), message=error.message)
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata)
    _add(status, info)
    if error.violations:
        bad = error_details_pb2.BadRequest()
        for violation in error.violations:
            bad.field_violations.add(field=violation.field, description=violation.description)
        _add(status, bad)
    if error.retry_after is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(int(error.retry_after * 1000))
        _add(status, retry)
    return status


def _number(code: Code) -> int:
    return code_pb2.Code.Value(code.name)


def _add(status: status_pb2.Status, detail: Any) -> None:
    packed = AnyMessage()
    packed.Pack(detail)
    status.details.append(packed)
