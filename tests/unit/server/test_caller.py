"""Who calls is found out by one interceptor; a call that comes past it is nobody's, and does nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest

from homing_server.auth.identity import EVERYBODY, Identity
from homing_server.auth.refusals import Refusals
from homing_server.auth.scopes import SCOPES
from homing_server.front.api.caller import CallerUnknownError, caller
from homing_server.front.api.calls import Calls
from homing_server.front.api.requests import Readers
from homing_server.front.api.serving import Serving
from homing_server.front.grpc.authentication import AuthenticationInterceptor
from homing_server.front.grpc.status import ErrorInterceptor

STREAM = "/homing.v1.InvocationService/WatchResults"

Serve = Callable[..., Awaitable[grpc.aio.Channel]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Return what serves all methods of the API behind interceptors, and notes for whom."""
    servers: list[grpc.aio.Server] = []
    channels: list[grpc.aio.Channel] = []

    async def start(served: dict[str, Identity], *interceptors: grpc.aio.ServerInterceptor) -> grpc.aio.Channel:
        server = grpc.aio.server(interceptors=interceptors)
        for method in SCOPES:
            _, service, name = method.split("/")
            server.add_generic_rpc_handlers(
                [grpc.method_handlers_generic_handler(service, {name: handler_of(method, served)})]
            )
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        servers.append(server)
        channels.append(grpc.aio.insecure_channel(f"127.0.0.1:{port}"))
        return channels[-1]

    yield start
    for channel in channels:
        await channel.close()
    for server in servers:
        await server.stop(None)


def handler_of(method: str, served: dict[str, Identity]) -> grpc.RpcMethodHandler[Any, Any]:
    async def answer(request: bytes, context: Any) -> bytes:
        served[method] = caller()
        return b"done"

    async def stream(request: bytes, context: Any) -> AsyncIterator[bytes]:
        served[method] = caller()
        yield b"done"

    if method == STREAM:
        return grpc.unary_stream_rpc_method_handler(stream)
    return grpc.unary_unary_rpc_method_handler(answer)


async def call(channel: Any, method: str) -> None:
    if method == STREAM:
        await channel.unary_stream(method)(b"").read()
    else:
        await channel.unary_unary(method)(b"")


def test_nobody_calls_by_default() -> None:
    with pytest.raises(CallerUnknownError):
        caller()


async def test_a_call_past_the_interceptor_does_nothing(serve: Serve) -> None:
    served: dict[str, Identity] = {}
    channel = await serve(served, ErrorInterceptor(Serving(Calls(), Refusals()), Readers()))
    for method in SCOPES:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(channel, method)
        assert caught.value.code() is grpc.StatusCode.INTERNAL, method
    assert served == {}


async def test_without_authentication_the_interceptor_lets_everybody_in(serve: Serve) -> None:
    served: dict[str, Identity] = {}
    channel = await serve(
        served, AuthenticationInterceptor(None, Refusals()), ErrorInterceptor(Serving(Calls(), Refusals()), Readers())
    )
    unaudited = [method for method in SCOPES if method.rpartition("/")[2].startswith(("Get", "List", "Watch"))]
    for method in unaudited:
        await call(channel, method)
    assert served == dict.fromkeys(unaudited, EVERYBODY)
