"""homing.v1.PayloadService."""

from __future__ import annotations

from collections.abc import AsyncIterator

from homing.v1 import payload_service_pb2 as api
from homing_core import limits
from homing_server.auth.visibility import Visibility
from homing_server.errors import ApiError, Violation, invalid_request
from homing_server.front.api.caller import caller
from homing_server.front.api.context import CallContext
from homing_server.payloads.blobs import Blobs
from homing_server.payloads.uploads import Uploads
from homing_server.rules.validation import Checks


class PayloadService:
    """Serves bodies over the inline limit."""

    def __init__(self, blobs: Blobs, uploads: Uploads, visibility: Visibility) -> None:
        self._blobs = blobs
        self._uploads = uploads
        self._visibility = visibility

    async def WritePayload(
        self, requests: AsyncIterator[api.WritePayloadRequest], _context: CallContext
    ) -> api.WritePayloadResponse:
        """Store a body."""
        first = await anext(requests, api.WritePayloadRequest())
        if first.WhichOneof("part") != "size":
            raise _broken("size", "must be in the first message")
        checks = Checks()
        checks.integer("size", first.size, 0, limits.MAX_PAYLOAD)
        checks.done()
        name = caller().name
        async with self._uploads.upload(name, first.size):
            blob = await self._blobs.write(_parts(requests, first.size), stored_by=name)
        return api.WritePayloadResponse(blob=blob)

    async def ReadPayload(
        self, request: api.ReadPayloadRequest, _context: CallContext
    ) -> AsyncIterator[api.ReadPayloadResponse]:
        """Stream a body in parts."""
        if not request.blob_id:
            raise _broken("blob_id", "must not be empty")
        await self._visibility.check_read_blob(request.blob_id, caller())
        async for data in self._blobs.read(request.blob_id):
            yield api.ReadPayloadResponse(data=data)


async def _parts(requests: AsyncIterator[api.WritePayloadRequest], size: int) -> AsyncIterator[bytes]:
    """Yield a body of the size that was said."""
    received = 0
    async for request in requests:
        if request.WhichOneof("part") != "data":
            raise _broken("data", "must be in every message after the first")
        if len(request.data) > limits.MAX_PART:
            raise _broken(
                "data", f"must have at most {limits.MAX_PART} bytes (1 MiB) a message, has {len(request.data)}"
            )
        received += len(request.data)
        if received > size:
            raise _broken("data", f"must have {size} bytes in all, as size says, has more")
        yield request.data
    if received < size:
        raise _broken("data", f"must have {size} bytes in all, as size says, has {received}")


def _broken(field: str, description: str) -> ApiError:
    return invalid_request([Violation(field=field, description=description)])
