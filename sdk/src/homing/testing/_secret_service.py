"""What a fake server answers about secrets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc

from homing.testing._refusal import Refusal, served
from homing.v1 import secret_service_pb2 as api
from homing.v1 import secret_service_pb2_grpc

if TYPE_CHECKING:
    from homing.testing._state import State


class Secrets(secret_service_pb2_grpc.SecretServiceServicer):
    """homing.v1.SecretService."""

    def __init__(self, state: State) -> None:
        self.state = state

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

    def _find(self, name: str) -> api.Secret:
        if name not in self.state.secrets:
            raise Refusal(
                code=grpc.StatusCode.NOT_FOUND,
                reason="SECRET_NOT_FOUND",
                message=f"there is no secret {name!r}",
                metadata={"secret": name},
            )
        return self.state.secrets[name]
