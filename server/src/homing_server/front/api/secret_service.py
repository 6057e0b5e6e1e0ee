"""homing.v1.SecretService."""

from __future__ import annotations

from homing.v1 import secret_service_pb2 as api
from homing_server.admin.secrets import Secrets
from homing_server.front.api.caller import caller
from homing_server.front.api.context import CallContext


class SecretService:
    """Serves secrets."""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets

    async def CreateSecret(self, request: api.CreateSecretRequest, _context: CallContext) -> api.CreateSecretResponse:
        """Make a secret."""
        return api.CreateSecretResponse(secret=await self._secrets.create(request.name, request.value, caller=caller()))

    async def UpdateSecret(self, request: api.UpdateSecretRequest, _context: CallContext) -> api.UpdateSecretResponse:
        """Give a secret another value."""
        return api.UpdateSecretResponse(secret=await self._secrets.update(request.name, request.value, caller=caller()))

    async def ListSecrets(self, request: api.ListSecretsRequest, _context: CallContext) -> api.ListSecretsResponse:
        """Return a page of secrets, without their values."""
        return await self._secrets.list(request, caller=caller())

    async def DeleteSecret(self, request: api.DeleteSecretRequest, _context: CallContext) -> api.DeleteSecretResponse:
        """Remove a secret."""
        await self._secrets.delete(request.name, caller=caller())
        return api.DeleteSecretResponse()
