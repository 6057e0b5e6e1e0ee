"""WritePayload and ReadPayload of homing.v1.InvocationService: bodies over the inline limit."""

from __future__ import annotations

from collections.abc import AsyncIterator

from homing.v1 import invocation_service_pb2 as api
from homing_core import limits
from homing_server.errors import ApiError, Violation, invalid_request
from homing_server.payloads.blobs import Blobs
from homing_server.rules.validation import Checks


async def write_payload(blobs: Blobs, requests: AsyncIterator[api.WritePayloadRequest]) -> api.WritePayloadResponse:
    """Store a body.

    :raises ApiError: INVALID_ARGUMENT: it does not come as it should; UNAVAILABLE: it cannot be stored now.
    """
    first = await anext(requests, api.WritePayloadRequest())
    if first.WhichOneof("part") != "size":
        raise _broken("size", "must be in the first message")
    checks = Checks()
    checks.integer("size", first.size, 0, limits.MAX_PAYLOAD)
    checks.done()
    return api.WritePayloadResponse(blob=await blobs.write(_parts(requests, first.size)))


async def read_payload(blobs: Blobs, request: api.ReadPayloadRequest) -> AsyncIterator[api.ReadPayloadResponse]:
    """Yield a body in parts.

    :raises ApiError: INVALID_ARGUMENT; NOT_FOUND; UNAVAILABLE: it cannot be read now.
    """
    if not request.blob_id:
        raise _broken("blob_id", "must not be empty")
    async for data in blobs.read(request.blob_id):
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
