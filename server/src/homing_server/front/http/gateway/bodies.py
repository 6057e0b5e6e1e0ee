"""The bodies of requests: small ones in memory, large ones straight into files."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from homing.v1.payload_pb2 import Payload
from homing_core import limits
from homing_server.payloads.blobs import Blobs
from homing_server.payloads.uploads import Uploads

LARGEST: Final = limits.MAX_PAYLOAD


class BodyTooLargeError(Exception):
    """The body of a request is over the limit."""


class Bodies:
    """Reads bodies."""

    def __init__(self, blobs: Blobs, uploads: Uploads) -> None:
        self._blobs = blobs
        self._uploads = uploads

    async def read(self, payload: Payload, receive: Receive, *, length: int | None, caller: str) -> None:
        """Read a body into a payload, a large one by way of a file.

        :param length: How many bytes the client says that it has; None where it does not say.
        :param caller: Who stores it.
        :raises BodyTooLargeError: It is over the limit.
        :raises ClientDisconnect: It ended too soon.
        :raises ApiError: It cannot be stored.
        """
        if length is not None and length > LARGEST:
            raise BodyTooLargeError
        message = await receive()
        if message["type"] == "http.request" and not message["more_body"]:
            begun = message["body"]
            if len(begun) <= limits.MAX_INLINE_PAYLOAD:
                payload.data = begun
                return
        parts: list[bytes] = []
        size = 0
        while True:
            if message["type"] != "http.request":
                raise ClientDisconnect
            parts.append(message["body"])
            size += len(message["body"])
            if size > limits.MAX_INLINE_PAYLOAD:
                rest = receive if message["more_body"] else None
                async with self._uploads.upload(caller, size if rest is None else length or LARGEST):
                    blob = await self._blobs.write(_gathered(b"".join(parts), rest), stored_by=caller)
                payload.blob.CopyFrom(blob)
                return
            if not message["more_body"]:
                payload.data = b"".join(parts)
                return
            message = await receive()


async def _gathered(begun: bytes, receive: Receive | None) -> AsyncIterator[bytes]:
    """Yield a body in large parts: what came of it, then the rest.

    :raises BodyTooLargeError: It is over the limit.
    :raises ClientDisconnect: It ended too soon.
    """
    parts, gathered, size = [begun], len(begun), len(begun)
    while receive is not None:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientDisconnect
        part: bytes = message["body"]
        size += len(part)
        if size > LARGEST:
            raise BodyTooLargeError
        parts.append(part)
        gathered += len(part)
        if gathered >= limits.MAX_PART:
            yield b"".join(parts)
            parts, gathered = [], 0
        if not message["more_body"]:
            break
    if parts:
        yield b"".join(parts)
