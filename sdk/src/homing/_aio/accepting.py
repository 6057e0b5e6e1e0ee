"""Handing over invocations that run later: one, or many at once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from homing._aio.bodies import send_large
from homing._aio.connection import AsyncConnection
from homing._aio.handle import AsyncInvocationHandle
from homing._core import convert
from homing._core.batch import Batch, Chunk
from homing._core.calls import Deadline
from homing._core.options import InvocationRequest, accept_request
from homing._core.values import Result
from homing.errors import RequestError
from homing.v1 import invocation_service_pb2

Out = TypeVar("Out")


async def accept(
    connection: AsyncConnection, request: InvocationRequest, decode: Callable[[Result], Out], *, deadline: Deadline
) -> AsyncInvocationHandle[Out]:
    """Submit one invocation. See ``AsyncClient.invoke_async``."""
    message = accept_request(request)
    try:
        await send_large(connection, message.spec.payload, deadline=deadline)
        response = await connection.call_idempotent(connection.invocations.InvokeAsync, message, deadline=deadline)
    except RequestError as err:
        err.request_id = message.request_id
        raise
    return _handle(connection, response, message.request_id, decode)


async def accept_batch(
    connection: AsyncConnection, batch: Batch, decode: Callable[[Result], Out], *, deadline: Deadline
) -> list[AsyncInvocationHandle[Out] | RequestError]:
    """Submit many invocations. See ``AsyncClient.invoke_batch``."""
    for place, payload in batch.large():
        try:
            await send_large(connection, payload, deadline=deadline)
        except RequestError as error:  # one may be refused without the others
            batch.refuse(place, error)
    while (chunk := batch.next_chunk()) is not None:
        try:
            await connection.retry(partial(_send, connection, batch, chunk, deadline), deadline=deadline)
        except RequestError as error:  # one call may fail without the others
            batch.fail(chunk, error)
    return [
        outcome if isinstance(outcome, RequestError) else _handle(connection, outcome, request_id, decode)
        for outcome, request_id in batch.decided()
    ]


async def _send(connection: AsyncConnection, batch: Batch, chunk: Chunk, deadline: Deadline) -> None:
    batch.take(
        chunk, await connection.call(connection.invocations.BatchInvokeAsync, batch.message(chunk), deadline=deadline)
    )


def _handle(
    connection: AsyncConnection,
    response: invocation_service_pb2.InvokeAsyncResponse,
    request_id: str,
    decode: Callable[[Result], Out],
) -> AsyncInvocationHandle[Out]:
    return AsyncInvocationHandle(
        connection,
        response.invocation.id,
        decode,
        seen=convert.invocation(response.invocation),
        request_id=request_id,
        duplicate=response.duplicate,
    )
