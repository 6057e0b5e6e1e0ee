"""homing.v1.SecretService."""

from __future__ import annotations

from homing.v1 import secret_service_pb2 as api
from homing.v1 import secret_service_pb2_grpc
from homing_server.admin.secrets import Secrets
from homing_server.admin.signing_keys import SigningKeys
from homing_server.front.grpc.caller import caller
from homing_server.front.grpc.status import Context


class SecretService(secret_service_pb2_grpc.SecretServiceServicer):
    """Serves secrets and signing keys."""

    def __init__(self, secrets: Secrets, signing_keys: SigningKeys) -> None:
        self._secrets = secrets
        self._signing_keys = signing_keys

    async def CreateSecret(self, request: api.CreateSecretRequest, _context: Context) -> api.CreateSecretResponse:
        """Make a secret."""
        return api.CreateSecretResponse(secret=await self._secrets.create(request.name, request.value, caller=caller()))

    async def UpdateSecret(self, request: api.UpdateSecretRequest, _context: Context) -> api.UpdateSecretResponse:
        """Give a secret another value."""
        return api.UpdateSecretResponse(secret=await self._secrets.update(request.name, request.value, caller=caller()))

    async def ListSecrets(self, request: api.ListSecretsRequest, _context: Context) -> api.ListSecretsResponse:
        """Return a page of secrets, without their values."""
        return await self._secrets.list(request, caller=caller())

    async def DeleteSecret(self, request: api.DeleteSecretRequest, _context: Context) -> api.DeleteSecretResponse:
        """Remove a secret."""
        await self._secrets.delete(request.name, caller=caller())
        return api.DeleteSecretResponse()

    async def RotateSigningKey(
        self, request: api.RotateSigningKeyRequest, _context: Context
    ) -> api.RotateSigningKeyResponse:
        """Make the signing key that counts from now on, and show it this one time."""
        return await self._signing_keys.rotate(request.function, request.key, caller=caller())

    async def ListSigningKeys(
        self, request: api.ListSigningKeysRequest, _context: Context
    ) -> api.ListSigningKeysResponse:
        """Return the signing keys, without the keys themselves."""
        return await self._signing_keys.list(request.function, caller=caller())

    async def RevokeSigningKey(
        self, request: api.RevokeSigningKeyRequest, _context: Context
    ) -> api.RevokeSigningKeyResponse:
        """Remove a signing key."""
        await self._signing_keys.revoke(request.id, caller=caller())
        return api.RevokeSigningKeyResponse()
