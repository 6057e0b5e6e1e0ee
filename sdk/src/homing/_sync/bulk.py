# Generated from _aio/bulk.py by scripts/unasync.py; do not edit.
"""Calls about many, for the synchronous client: made again where they break off, until they are done."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, TypeVar

import grpc

from homing._core import watch
from homing._core.bulk import broke_off, reporter
from homing._core.calls import Deadline
from homing._sync.connection import Connection
from homing._sync.seam.stream import Stream
from homing._sync.stubs import Stubs
from homing.errors import ClosedClientError, RequestError

Counts = TypeVar("Counts")


def bulk_call(
    connection: Connection,
    method: Callable[[Stubs], grpc.UnaryStreamMultiCallable[Any, Any]],
    request: Any,
    *,
    deadline: Deadline,
    counts: Callable[[Any], Counts],
    on_progress: Callable[[Counts], object] | None,
) -> Counts:
    """Make a call about many and return its counts once it is done. It has a request id, by which it goes on.

    :param method: Picks the method that is called.
    :param counts: Makes a value of a message.
    :param on_progress: Told the counts as they come; None where nobody asks.
    :raises TypeError: That cannot be called.
    :raises RequestError: The call failed; the error has its request id.
    :raises ClientUseError: The client cannot be used here.
    """
    report = reporter(on_progress)
    stream: Stream[Any] = Stream(connection)

    def next_message() -> Any:
        if not stream.has_call:
            stream.open(method, request, deadline=deadline)
        try:
            message = stream.read()
        except RequestError as error:
            stream.drop()
            if broke_off(error):
                raise watch.lost(connection.settings.target, str(error)) from error
            raise
        if message is None:
            stream.drop()
            raise watch.lost(connection.settings.target, "the server ended the stream before it was done")
        return message

    try:
        while True:
            try:
                message = connection.retry(next_message, deadline=deadline)
            except RequestError as error:
                error.request_id = request.request_id
                raise
            report(counts(message))
            if message.done:
                # Not cut off, which to the server looks as if its caller had given up.
                with contextlib.suppress(RequestError, ClosedClientError):
                    stream.read()
                return counts(message)
    finally:
        stream.close()
