# Generated from _aio/bodies.py by scripts/unasync.py; do not edit.
"""Sends and fetches bodies that are too large for a message."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any

from homing._core import convert
from homing._core.bodies import beginning_of, blob_of, is_large, parts_of, stored_apart
from homing._core.calls import UNSET, Deadline, Unset
from homing._core.spec import Seconds
from homing._core.values import Answer, Blob, Invocation, Payload
from homing._sync.connection import Connection
from homing._sync.seam.channel import upload
from homing.v1 import invocation_pb2, payload_pb2, payload_service_pb2


class Bodies:
    """The part of the synchronous client that fetches bodies which a list or a watch left where they are."""

    _connection: Connection

    def read_payload(self, body: Answer | Payload | Blob, *, timeout: Seconds | Unset | None = UNSET) -> bytes:
        """Return the body of an answer or a payload, fetched where its ``blob`` is set.

        :param body: The answer or payload of a record, or what refers to its body.
        :param timeout: How long it may take, in seconds or as a timedelta; by default the client's.
        :raises TypeError: It is none of these.
        :raises NotFoundError: The body has been removed, with the records that referred to it.
        :raises RequestError: The call failed.
        """
        deadline = Deadline.of(timeout, self._connection.settings.timeout)
        blob = blob_of(body)
        if blob is not None:
            return fetch(self._connection, blob.id, deadline=deadline)
        assert not isinstance(body, Blob)
        return body.data


def send_large(connection: Connection, payload: payload_pb2.Payload, *, deadline: Deadline) -> None:
    """Store a payload that does not fit into a request, and let it refer to that.

    :raises RequestError: It could not be stored.
    """
    if not is_large(payload):
        return
    data = payload.data

    def write(first: payload_service_pb2.WritePayloadRequest, **options: Any) -> Any:
        return upload(connection.payloads.WritePayload, chain([first], parts_of(data)), **options)

    response: payload_service_pb2.WritePayloadResponse = connection.call_idempotent(
        write,  # type: ignore[arg-type]  # called as the method of a single request is
        beginning_of(data),
        deadline=deadline,
    )
    payload.blob.CopyFrom(response.blob)


def whole(connection: Connection, invocation: Invocation, *, deadline: Deadline) -> Invocation:
    """Return a record with the bodies that were not in it.

    :raises RequestError: They could not be fetched.
    """
    if not stored_apart(invocation.message):
        return invocation
    message = invocation_pb2.Invocation()
    message.CopyFrom(invocation.message)
    for payload in stored_apart(message):
        payload.data = fetch(connection, payload.blob.id, deadline=deadline)
    return convert.invocation(message)


def fetch(connection: Connection, blob_id: str, *, deadline: Deadline) -> bytes:
    """Return a stored body.

    :raises RequestError: It could not be fetched.
    """

    def read(request: payload_service_pb2.ReadPayloadRequest, **options: Any) -> Any:
        return connection.payloads.ReadPayload(request, **options | {"timeout": deadline.remaining()})

    def once() -> bytes:
        request = payload_service_pb2.ReadPayloadRequest(blob_id=blob_id)
        parts: Iterator[payload_service_pb2.ReadPayloadResponse] = connection.stream(
            read,  # type: ignore[arg-type]  # the method, with a deadline
            request,
            opened=lambda _: None,
        )
        return b"".join([part.data for part in parts])

    return connection.retry(once, deadline=deadline)
