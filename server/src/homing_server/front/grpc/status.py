"""Serves calls over gRPC: reads their requests, and carries errors, every one with a google.rpc.ErrorInfo."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

import grpc
import structlog
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from homing_server.auth import audit
from homing_server.auth.refusals import Refusals
from homing_server.errors import ApiError, Code, ErrorReason, not_served, slow_consumer
from homing_server.front.grpc.caller import caller
from homing_server.front.grpc.calls import Calls
from homing_server.front.grpc.requests import Readers
from homing_server.rules.bounds import check_bounds

_log = structlog.get_logger(__name__)

DOMAIN = "homing.dev"
UNREAD_SECONDS = 30.0
"""A stream whose reader takes no message for so long is cut off."""

if TYPE_CHECKING:
    # Only the type stubs know this class as a generic one.
    Context = grpc.aio.ServicerContext[Any, Any]
else:
    Context = grpc.aio.ServicerContext

T = TypeVar("T")
_Unary = Callable[[Any, Context], Awaitable[Any]]
_Stream = Callable[[Any, Context], AsyncGenerator[Any, None]]


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Reads the requests of all calls, within bounds, and turns errors into rich statuses.

    Unexpected errors are logged, and no caller sees their text.
    """

    def __init__(self, calls: Calls, readers: Readers, refusals: Refusals) -> None:
        """Prepare to serve.

        :param calls: Bound the calls that are under way.
        :param readers: Read requests.
        :param refusals: Tells of calls for which a key is missing, or which are too many.
        """
        self._calls = calls
        self._readers = readers
        self._refusals = refusals
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
        if handler is None:
            return refusing(not_served(method), method, self._refusals)
        guard = self._guard if method.startswith("/homing.") else self._guard_open
        guarded = self._guarded[method] = guard(handler, method)
        return guarded

    def _guard(self, handler: grpc.RpcMethodHandler[Any, Any], method: str) -> grpc.RpcMethodHandler[Any, Any]:
        reader = self._readers.reader(method)
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(
                self._guard_unary(_bounded(cast("_Unary", handler.unary_unary)), method, reader.read),
                response_serializer=handler.response_serializer,
            )
        if handler.stream_unary is not None:
            return grpc.stream_unary_rpc_method_handler(
                self._guard_unary(cast("_Unary", handler.stream_unary), method, reader.stream),
                response_serializer=handler.response_serializer,
            )
        assert handler.unary_stream is not None, "the API has no calls with streams both ways"
        return grpc.unary_stream_rpc_method_handler(
            self._guard_stream(_bounded(cast("_Stream", handler.unary_stream)), method, reader.read),
            response_serializer=_serialize,
        )

    def _guard_unary(
        self, behaviour: _Unary, method: str, read: Callable[[Any], Awaitable[Any]]
    ) -> Callable[..., Awaitable[Any]]:
        operates, audited = _auditing(method)

        async def guarded(raw: Any, context: Context) -> Any:
            try:
                with self._calls.serving(caller(), operates=operates) as call:
                    with call:
                        request = await read(raw)
                    with audited(request), call:
                        return await behaviour(request, context)
            except Exception as error:  # noqa: BLE001 every error becomes a status
                self._refusals.note(error, peer=_host_of(context), what=method)
                await abort(context, error, method)

        return guarded

    def _guard_stream(
        self, behaviour: _Stream, method: str, read: Callable[[Any], Awaitable[Any]]
    ) -> Callable[..., Awaitable[None]]:
        operates, audited = _auditing(method)

        async def guarded(raw: Any, context: Context) -> None:
            try:
                with self._calls.serving(caller(), operates=operates) as call:
                    with call:
                        request = await read(raw)
                    with audited(request), call:
                        await _write_all(behaviour(request, context), context)
            except Exception as error:  # noqa: BLE001 every error becomes a status
                self._refusals.note(error, peer=_host_of(context), what=method)
                await abort(context, error, method)

        return guarded

    def _guard_open(self, handler: grpc.RpcMethodHandler[Any, Any], method: str) -> grpc.RpcMethodHandler[Any, Any]:
        """Wrap what says whether, and what, this server serves."""
        reader = self._readers.reader(method)
        if handler.unary_unary is not None:
            check = cast("_Unary", handler.unary_unary)

            async def checked(raw: bytes, context: Context) -> Any:
                try:
                    request = await reader.read(raw)
                except ApiError as error:
                    await abort(context, error, method)
                return await check(request, context)

            return grpc.unary_unary_rpc_method_handler(checked, response_serializer=handler.response_serializer)
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(
                self._guard_open_stream(handler.unary_stream, method, reader.read),
                response_serializer=handler.response_serializer,
            )
        assert handler.stream_stream is not None, "nothing else is served"
        return grpc.stream_stream_rpc_method_handler(
            self._guard_open_stream(handler.stream_stream, method, reader.stream),
            response_serializer=handler.response_serializer,
        )

    def _guard_open_stream(
        self, behaviour: Any, method: str, read: Callable[[Any], Awaitable[Any]]
    ) -> Callable[..., Awaitable[None]]:
        async def guarded(raw: Any, context: Context) -> None:
            try:
                with self._calls.until_stop(_host_of(context)) as call, call:
                    request = await read(raw)
                    served = behaviour(request, context)
                    if inspect.isawaitable(served):
                        await _write_headers(context)
                        await served
                    else:
                        await _write_all(served, context)
            except ApiError as error:
                self._refusals.note(error, peer=_host_of(context), what=method)
                await abort(context, error, method)

        return guarded


async def _write_all(responses: AsyncGenerator[Any, None], context: Context) -> None:
    """Send what comes, here and not in gRPC, so that a call which is ended meanwhile is told why."""
    # Whoever goes away leaves nothing behind that still works, or waits.
    begun = False
    async with contextlib.aclosing(responses):
        async for response in responses:
            if not begun:
                await _write_headers(context)
                begun = True
            try:
                async with asyncio.timeout(UNREAD_SECONDS):
                    await context.write(response)
            except TimeoutError:
                raise slow_consumer(UNREAD_SECONDS) from None


async def _write_headers(context: Context) -> None:
    """Send the headers of a stream before its messages, and to the end.

    gRPC sends them with the first message otherwise, and notes that once the message has been sent. Where that is
    broken off it would send them again, with the status, which fails: whoever calls would wait for ever.
    """
    sending = asyncio.ensure_future(context.send_initial_metadata(()))
    try:
        await asyncio.shield(sending)
    except asyncio.CancelledError:
        await asyncio.gather(sending, return_exceptions=True)
        raise


def refusing(error: ApiError, method: str, refusals: Refusals) -> grpc.RpcMethodHandler[Any, Any]:
    """Return a handler that refuses a call, of whatever kind it is: its request is not even read."""

    async def refused(_requests: object, context: Context) -> None:
        refusals.note(error, peer=_host_of(context), what=method)
        await abort(context, error, method)

    return grpc.stream_stream_rpc_method_handler(refused)


def _serialize(response: Message | bytes) -> bytes:
    """Return a message as it travels. What goes to many is serialised once, before it comes here."""
    return response if isinstance(response, bytes) else response.SerializeToString()


def _bounded(behaviour: Callable[[Any, Context], T]) -> Callable[[Any, Context], T]:
    """Return what a call does, which sees no request with more entries in its lists than they may have."""

    def bounded(request: Any, context: Context) -> T:
        check_bounds(request)
        return behaviour(request, context)

    return bounded


def _auditing(method: str) -> tuple[bool, Callable[[Any], AbstractContextManager[object]]]:
    """Return whether a method is a control action, and what its requests are served in."""
    operates = audit.is_control(method)
    return operates, partial(_audit, method) if operates else contextlib.nullcontext


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


def _host_of(context: Context) -> str:
    """Return where a call comes from, as gRPC has it, without the port."""
    return context.peer().rpartition(":")[0]


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
