"""What a fake server answers about secrets and signing keys."""

from __future__ import annotations

import base64
import os
import uuid
from typing import TYPE_CHECKING, Final

import grpc

from homing.testing._refusal import Refusal, served
from homing.v1 import secret_service_pb2 as api
from homing.v1 import secret_service_pb2_grpc

if TYPE_CHECKING:
    from homing.testing._state import State

_ACTIVE: Final = 2


class Secrets(secret_service_pb2_grpc.SecretServiceServicer):
    """homing.v1.SecretService."""

    def __init__(self, state: State) -> None:
        self.state = state
        self._keys: list[api.SigningKey] = []
        """The newest first."""

    @served
    def CreateSecret(  # noqa: N802
        self, request: api.CreateSecretRequest, _context: grpc.ServicerContext
    ) -> api.CreateSecretResponse:
        if request.name in self.state.secrets:
            raise Refusal(
                code=grpc.StatusCode.ALREADY_EXISTS,
                reason="SECRET_EXISTS",
                message=f"there is a secret {request.name!r}",
                metadata={"secret": request.name},
            )
        secret = api.Secret(name=request.name, version=1)
        secret.create_time.GetCurrentTime()
        secret.update_time.CopyFrom(secret.create_time)
        self.state.secrets[request.name] = secret
        return api.CreateSecretResponse(secret=secret)

    @served
    def UpdateSecret(  # noqa: N802
        self, request: api.UpdateSecretRequest, _context: grpc.ServicerContext
    ) -> api.UpdateSecretResponse:
        secret = self._find(request.name)
        secret.version += 1
        secret.update_time.GetCurrentTime()
        return api.UpdateSecretResponse(secret=secret)

    @served
    def ListSecrets(  # noqa: N802
        self, _request: api.ListSecretsRequest, _context: grpc.ServicerContext
    ) -> api.ListSecretsResponse:
        return api.ListSecretsResponse(secrets=[secret for _, secret in sorted(self.state.secrets.items())])

    @served
    def DeleteSecret(  # noqa: N802
        self, request: api.DeleteSecretRequest, _context: grpc.ServicerContext
    ) -> api.DeleteSecretResponse:
        self._find(request.name)
        users = sorted(name for name, item in self.state.deployed.items() if request.name in item.secrets)
        if users:
            raise Refusal(
                code=grpc.StatusCode.FAILED_PRECONDITION,
                reason="SECRET_IN_USE",
                message=f"secret {request.name!r} is seen by {', '.join(users)}",
                metadata={"secret": request.name, "functions": ",".join(users)},
            )
        del self.state.secrets[request.name]
        return api.DeleteSecretResponse()

    @served
    def RotateSigningKey(  # noqa: N802
        self, request: api.RotateSigningKeyRequest, _context: grpc.ServicerContext
    ) -> api.RotateSigningKeyResponse:
        if request.function:
            self.state.find(request.function)
        key = api.SigningKey(id=str(uuid.uuid4()), function=request.function)
        key.create_time.GetCurrentTime()
        own = [other for other in self._keys if other.function == request.function]
        for outdated in own[_ACTIVE - 1 :]:
            self._keys.remove(outdated)
        self._keys.insert(0, key)
        text = request.key or "whsec_" + base64.b64encode(os.urandom(32)).decode()
        return api.RotateSigningKeyResponse(signing_key=key, key=text)

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

    def _find(self, name: str) -> api.Secret:
        if name not in self.state.secrets:
            raise Refusal(
                code=grpc.StatusCode.NOT_FOUND,
                reason="SECRET_NOT_FOUND",
                message=f"there is no secret {name!r}",
                metadata={"secret": name},
            )
        return self.state.secrets[name]
