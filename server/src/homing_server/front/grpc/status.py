"""Serves calls over gRPC: reads their requests, and carries errors, every one with a google.rpc.ErrorInfo."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from google.protobuf.message import Message
from grpc_status import rpc_status

from homing_server.auth.refusals import Refusals
from homing_server.errors import ApiError, not_served
from homing_server.front.api.requests import Readers
from homing_server.front.api.serving import Method, Serving, write_all
from homing_server.front.api.status import status_of
from homing_server.front.grpc.context import Context, GrpcCall, host_of


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Reads the requests of all calls, within bounds, and turns errors into rich statuses."""

    def __init__(self, serving: Serving, readers: Readers) -> None:
        """Prepare to serve.

        :param serving: Serves calls.
        :param readers: Read requests.
        """
        self._serving = serving
        self._readers = readers
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
            return refusing(not_served(method), method, self._serving.refusals)
        guard = self._guard if method.startswith("/homing.") else self._guard_open
        guarded = self._guarded[method] = guard(handler, method)
        return guarded

    def _guard(self, handler: grpc.RpcMethodHandler[Any, Any], name: str) -> grpc.RpcMethodHandler[Any, Any]:
        reader = self._readers.reader(name)
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(
                self._guard_unary(Method.of(name, handler.unary_unary), reader.read),
                response_serializer=handler.response_serializer,
            )
        if handler.stream_unary is not None:
            return grpc.stream_unary_rpc_method_handler(
                self._guard_unary(Method.of(name, handler.stream_unary, streams_in=True), reader.stream),
                response_serializer=handler.response_serializer,
            )
        assert handler.unary_stream is not None, "the API has no calls with streams both ways"
        return grpc.unary_stream_rpc_method_handler(
            self._guard_stream(Method.of(name, handler.unary_stream), reader.read), response_serializer=_serialize
        )

    def _guard_unary(self, method: Method, read: Callable[[Any], Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        serving = self._serving

        async def guarded(raw: Any, context: Context) -> Any:
            try:
                return await serving.answer(method, read, raw, GrpcCall(context))
            except Exception as error:  # noqa: BLE001 every error becomes a status
                await abort(context, serving.failed(error, method=method.name, host=host_of(context)))

        return guarded

    def _guard_stream(self, method: Method, read: Callable[[Any], Awaitable[Any]]) -> Callable[..., Awaitable[None]]:
        serving = self._serving

        async def guarded(raw: Any, context: Context) -> None:
            call = GrpcCall(context)
            try:
                await serving.stream(method, read, raw, call, call)
            except Exception as error:  # noqa: BLE001 every error becomes a status
                await abort(context, serving.failed(error, method=method.name, host=host_of(context)))

        return guarded

    def _guard_open(self, handler: grpc.RpcMethodHandler[Any, Any], method: str) -> grpc.RpcMethodHandler[Any, Any]:
        """Wrap what says whether, and what, this server serves."""
        reader = self._readers.reader(method)
        if handler.unary_unary is not None:
            check: Any = handler.unary_unary

            async def checked(raw: bytes, context: Context) -> Any:
                try:
                    request = await reader.read(raw)
                except ApiError as error:
                    await abort(context, error)
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
            out = GrpcCall(context)
            try:
                with self._serving.calls.until_stop(host_of(context)) as call, call:
                    request = await read(raw)
                    served = behaviour(request, context)
                    if inspect.isawaitable(served):
                        await out.begin()
                        await served
                    else:
                        await write_all(served, out)
            except ApiError as error:
                await abort(context, self._serving.failed(error, method=method, host=host_of(context)))

        return guarded


def refusing(error: ApiError, method: str, refusals: Refusals) -> grpc.RpcMethodHandler[Any, Any]:
    """Return a handler that refuses a call, of whatever kind it is: its request is not even read."""

    async def refused(_requests: object, context: Context) -> None:
        refusals.note(error, peer=host_of(context), what=method)
        await abort(context, error)

    return grpc.stream_stream_rpc_method_handler(refused)


def _serialize(response: Message | bytes) -> bytes:
    """Return a message as it travels. What goes to many is serialised once, before it comes here."""
    return response if isinstance(response, bytes) else response.SerializeToString()


async def abort(context: Context, error: ApiError) -> None:
    """End a call with the status of an error."""
    await context.abort_with_status(rpc_status.to_status(status_of(error)))
