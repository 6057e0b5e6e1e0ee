"""Bodies that are too large for a message: stored apart, and fetched from there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from homing._core.payload import MAX_INLINE
from homing._core.values import Answer, Blob, Payload
from homing.v1 import invocation_pb2, payload_pb2, payload_service_pb2

_PART: Final = 1024 * 1024
"""A body travels in parts of so many bytes."""


def is_large(payload: payload_pb2.Payload) -> bool:
    """Tell whether a payload does not fit into a request."""
    return len(payload.data) > MAX_INLINE


def beginning_of(data: bytes) -> payload_service_pb2.WritePayloadRequest:
    """Return the first message of an upload."""
    return payload_service_pb2.WritePayloadRequest(size=len(data))


def parts_of(data: bytes) -> Iterator[payload_service_pb2.WritePayloadRequest]:
    """Yield the messages of an upload after the first one."""
    for start in range(0, len(data), _PART):
        yield payload_service_pb2.WritePayloadRequest(data=data[start : start + _PART])


def stored_apart(invocation: invocation_pb2.Invocation) -> list[payload_pb2.Payload]:
    """Return the payload and the result of a record, as far as their bodies are not in it."""
    return [one for one in (invocation.spec.payload, invocation.result.payload) if one.HasField("blob")]


def blob_of(body: object) -> Blob | None:
    """Return what refers to a body; None where the body is there.

    :raises TypeError: It is nothing that has a body.
    """
    if isinstance(body, Blob):
        return body
    if isinstance(body, (Answer, Payload)):
        return body.blob
    raise TypeError(f"body must be an Answer, a Payload or a Blob, not {type(body).__name__}")
