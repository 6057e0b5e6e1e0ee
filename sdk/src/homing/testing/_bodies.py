"""The bodies that a fake server keeps apart, since they are too large for a message."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from typing import Final

import grpc

from homing._core.bodies import stored_apart
from homing._core.payload import MAX_INLINE
from homing.testing._records import copy
from homing.testing._refusal import Refusal, invalid_request
from homing.v1 import payload_service_pb2 as api
from homing.v1.invocation_pb2 import Invocation
from homing.v1.payload_pb2 import Blob, Payload

_PART: Final = 1024 * 1024


class Bodies:
    """Bodies by id. The id comes of the content, so that what is stored twice is one."""

    def __init__(self) -> None:
        self._bodies: dict[str, bytes] = {}

    def put(self, data: bytes) -> Blob:
        """Keep a body."""
        digest = hashlib.sha256(data).digest()
        blob = Blob(id=str(uuid.UUID(bytes=digest[:16])), size=len(data), sha256=digest)
        self._bodies[blob.id] = data
        return blob

    def data_of(self, payload: Payload) -> bytes:
        """Return the body of a payload.

        :raises Refusal: It is not here.
        """
        return self.get(payload.blob.id) if payload.HasField("blob") else payload.data

    def set_aside(self, payload: Payload) -> None:
        """Let a payload refer to its body where that is large."""
        if len(payload.data) > MAX_INLINE:
            payload.blob.CopyFrom(self.put(payload.data))

    def whole(self, record: Invocation) -> Invocation:
        """Return a record with all its bodies in it."""
        shown = copy(record)
        for payload in stored_apart(shown):
            payload.data = self.get(payload.blob.id)
        return shown

    def write(self, requests: Iterator[api.WritePayloadRequest]) -> Blob:
        """Keep a body that comes in parts.

        :raises Refusal: It has another size than was said.
        """
        size = next(requests).size
        data = b"".join(request.data for request in requests)
        if len(data) != size:
            raise invalid_request([("data", f"must have {size} bytes in all, as size says, has {len(data)}")])
        return self.put(data)

    def read(self, blob_id: str) -> Iterator[api.ReadPayloadResponse]:
        """Return a body in parts.

        :raises Refusal: It is not here.
        """
        data = self.get(blob_id)
        return iter([api.ReadPayloadResponse(data=data[start : start + _PART]) for start in range(0, len(data), _PART)])

    def get(self, blob_id: str) -> bytes:
        """Return a body.

        :raises Refusal: It is not here.
        """
        if blob_id not in self._bodies:
            raise Refusal(
                code=grpc.StatusCode.NOT_FOUND,
                reason="BLOB_NOT_FOUND",
                message=f"there is no stored body {blob_id!r}",
                metadata={"blob": blob_id},
            )
        return self._bodies[blob_id]
