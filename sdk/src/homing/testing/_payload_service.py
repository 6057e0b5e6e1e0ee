"""What a fake server answers about stored bodies."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import grpc

from homing.testing._refusal import served
from homing.v1 import payload_service_pb2 as api
from homing.v1 import payload_service_pb2_grpc

if TYPE_CHECKING:
    from homing.testing._state import State


class Payloads(payload_service_pb2_grpc.PayloadServiceServicer):
    """homing.v1.PayloadService."""

    def __init__(self, state: State) -> None:
        self.state = state
        self._store = state.store

    @served
    def WritePayload(  # noqa: N802
        self, requests: Iterator[api.WritePayloadRequest], _context: grpc.ServicerContext
    ) -> api.WritePayloadResponse:
        return api.WritePayloadResponse(blob=self._store.bodies.write(requests))

    @served
    def ReadPayload(  # noqa: N802
        self, request: api.ReadPayloadRequest, _context: grpc.ServicerContext
    ) -> Iterator[api.ReadPayloadResponse]:
        return self._store.bodies.read(request.blob_id)
