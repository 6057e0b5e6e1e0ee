"""What a fake server answers about API keys. It asks nobody for one."""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING

import grpc

from homing.testing._refusal import Refusal, request_id_reused, served
from homing.v1 import key_service_pb2 as api
from homing.v1 import key_service_pb2_grpc

if TYPE_CHECKING:
    from homing.testing._state import State


class Keys(key_service_pb2_grpc.KeyServiceServicer):
    """homing.v1.KeyService."""

    def __init__(self, state: State) -> None:
        self.state = state
        self._keys: dict[str, api.Key] = {}
        self._requests: dict[str, tuple[api.CreateKeyRequest, api.CreateKeyResponse]] = {}

    @served
    def CreateKey(  # noqa: N802
        self, request: api.CreateKeyRequest, _context: grpc.ServicerContext
    ) -> api.CreateKeyResponse:
        if request.request_id in self._requests:
            return self._again(request)
        name = request.key.name
        if name in self._keys:
            raise Refusal(
                code=grpc.StatusCode.ALREADY_EXISTS,
                reason="KEY_EXISTS",
                message=f"there is a key {name!r} in force",
                metadata={"key": name},
            )
        key = self._keys[name] = api.Key()
        key.CopyFrom(request.key)
        key.id = uuid.uuid4().hex[:12]
        key.create_time.GetCurrentTime()
        response = api.CreateKeyResponse(key=key, secret=f"hk_{key.id}_{os.urandom(16).hex()}{'0' * 11}")
        if request.request_id:
            self._requests[request.request_id] = request, response
        return response

    @served
    def ListKeys(  # noqa: N802
        self, _request: api.ListKeysRequest, _context: grpc.ServicerContext
    ) -> api.ListKeysResponse:
        return api.ListKeysResponse(keys=[self._keys[name] for name in sorted(self._keys)])

    @served
    def RevokeKey(  # noqa: N802
        self, request: api.RevokeKeyRequest, _context: grpc.ServicerContext
    ) -> api.RevokeKeyResponse:
        for name, key in self._keys.items():
            if request.key in {name, key.id}:
                del self._keys[name]
                return api.RevokeKeyResponse(key=key)
        raise Refusal(
            code=grpc.StatusCode.NOT_FOUND,
            reason="KEY_NOT_FOUND",
            message=f"there is no key {request.key!r} in force",
            metadata={"key": request.key},
        )

    def _again(self, request: api.CreateKeyRequest) -> api.CreateKeyResponse:
        """Return what the same call was answered before."""
        before, response = self._requests[request.request_id]
        if request != before:
            raise request_id_reused(request.request_id)
        if response.key.name not in self._keys or self._keys[response.key.name].id != response.key.id:
            raise Refusal(
                code=grpc.StatusCode.FAILED_PRECONDITION,
                reason="KEY_REVOKED",
                message=f"the key that request_id {request.request_id!r} stands for was revoked",
                metadata={"request_id": request.request_id, "key": response.key.name},
            )
        return api.CreateKeyResponse(key=response.key, secret=response.secret, duplicate=True)
