# Generated from _aio/accepting.py by scripts/unasync.py; do not edit.
"""Handing over invocations that run later: one, or many at once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from homing._core import convert
from homing._core.batch import Batch, Chunk
from homing._core.calls import Deadline
from homing._core.options import InvocationRequest, accept_request
from homing._core.values import Result
from homing._sync.bodies import send_large
from homing._sync.connection import Connection
from homing._sync.handle import InvocationHandle
from homing.errors import RequestError
from homing.v1 import invocation_service_pb2

Out = TypeVar("Out")


def accept(
    connection: Connection, request: InvocationRequest, decode: Callable[[Result], Out], *, deadline: Deadline
) -> InvocationHandle[Out]:
    """Submit one invocation. See ``Client.invoke_async``."""
    message = accept_request(request)
    try:
        send_large(connection, message.spec.payload, deadline=deadline)
        response = connection.call_idempotent(connection.invocations.InvokeAsync, message, deadline=deadline)
    except RequestError as err:
        err.request_id = message.request_id
        raise
    return _handle(connection, response, message.request_id, decode)


def accept_batch(
    connection: Connection, batch: Batch, decode: Callable[[Result], Out], *, deadline: Deadline
) -> list[InvocationHandle[Out] | RequestError]:
    """Submit many invocations. See ``Client.invoke_batch``."""
    for place, payload in batch.large():
        try:
            send_large(connection, payload, deadline=deadline)
        except RequestError as error:  # one may be refused without the others
            batch.refuse(place, error)
    while (chunk := batch.next_chunk()) is not None:
        try:
            connection.retry(partial(_send, connection, batch, chunk, deadline), deadline=deadline)
        except RequestError as error:  # one call may fail without the others
            batch.fail(chunk, error)
    return [
        outcome if isinstance(outcome, RequestError) else _handle(connection, outcome, request_id, decode)
        for outcome, request_id in batch.decided()
    ]


def _send(connection: Connection, batch: Batch, chunk: Chunk, deadline: Deadline) -> None:
    batch.take(chunk, connection.call(connection.invocations.BatchInvokeAsync, batch.message(chunk), deadline=deadline))


def _handle(
    connection: Connection,
    response: invocation_service_pb2.InvokeAsyncResponse,
    request_id: str,
    decode: Callable[[Result], Out],
) -> InvocationHandle[Out]:
    return InvocationHandle(
        connection,
        response.invocation.id,
        decode,
        seen=convert.invocation(response.invocation),
        request_id=request_id,
        duplicate=response.duplicate,
    )
