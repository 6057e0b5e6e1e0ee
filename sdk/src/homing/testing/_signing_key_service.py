"""What a fake server answers about signing keys."""

from __future__ import annotations

import base64
import os
import uuid
from typing import TYPE_CHECKING, Final

import grpc

from homing.testing._refusal import Refusal, request_id_reused, served
from homing.v1 import signing_key_service_pb2 as api
from homing.v1 import signing_key_service_pb2_grpc

if TYPE_CHECKING:
    from homing.testing._state import State

_ACTIVE: Final = 2


class SigningKeys(signing_key_service_pb2_grpc.SigningKeyServiceServicer):
    """homing.v1.SigningKeyService."""

    def __init__(self, state: State) -> None:
        self.state = state
        self._keys: list[api.SigningKey] = []
        """The newest first."""
        self._requests: list[tuple[api.RotateSigningKeyRequest, api.RotateSigningKeyResponse]] = []

    @served
    def RotateSigningKey(  # noqa: N802
        self, request: api.RotateSigningKeyRequest, _context: grpc.ServicerContext
    ) -> api.RotateSigningKeyResponse:
        for before, response in self._requests:
            if request.request_id == before.request_id and response.signing_key in self._keys:
                if request != before:
                    raise request_id_reused(request.request_id)
                return api.RotateSigningKeyResponse(signing_key=response.signing_key, key=response.key, duplicate=True)
        if request.function:
            self.state.find(request.function)
        key = api.SigningKey(id=str(uuid.uuid4()), function=request.function)
        key.create_time.GetCurrentTime()
        own = [other for other in self._keys if other.function == request.function]
        for outdated in own[_ACTIVE - 1 :]:
            self._keys.remove(outdated)
        self._keys.insert(0, key)
        text = request.key or "whsec_" + base64.b64encode(os.urandom(32)).decode()
        response = api.RotateSigningKeyResponse(signing_key=key, key=text)
        if request.request_id:
            self._requests.append((request, response))
        return response

    @served
    def ListSigningKeys(  # noqa: N802
        self, request: api.ListSigningKeysRequest, _context: grpc.ServicerContext
    ) -> api.ListSigningKeysResponse:
        keys = [key for key in self._keys if request.function in ("", key.function)]
        return api.ListSigningKeysResponse(signing_keys=sorted(keys, key=lambda key: key.function))

    @served
    def RevokeSigningKey(  # noqa: N802
        self, request: api.RevokeSigningKeyRequest, _context: grpc.ServicerContext
    ) -> api.RevokeSigningKeyResponse:
        for key in self._keys:
            if key.id == request.id:
                if not key.function and sum(not each.function for each in self._keys) == 1:
                    raise Refusal(
                        code=grpc.StatusCode.FAILED_PRECONDITION,
                        reason="LAST_SIGNING_KEY",
                        message="it is the only signing key of the server: rotate first",
                        metadata={"signing_key": request.id},
                    )
                self._keys.remove(key)
                return api.RevokeSigningKeyResponse()
        raise Refusal(
            code=grpc.StatusCode.NOT_FOUND,
            reason="SIGNING_KEY_NOT_FOUND",
            message=f"there is no signing key {request.id!r}",
            metadata={"signing_key": request.id},
        )
