"""homing.v1.SecretService."""

from __future__ import annotations

from homing.v1 import secret_service_pb2 as api
from homing.v1 import secret_service_pb2_grpc
from homing_server.admin.secrets import Secrets
from homing_server.admin.signing_keys import SigningKeys
from homing_server.auth.access import caller
from homing_server.front.grpc.status import Context


class SecretService(secret_service_pb2_grpc.SecretServiceServicer):
    """Serves secrets and signing keys."""

    def __init__(self, secrets: Secrets, signing_keys: SigningKeys) -> None:
        self._secrets = secrets
        self._signing_keys = signing_keys

    async def CreateSecret(self, request: api.CreateSecretRequest, _context: Context) -> api.CreateSecretResponse:
        """Make a secret."""
        caller().check_unlimited("secrets are")
        return api.CreateSecretResponse(secret=await self._secrets.create(request.name, request.value))

    async def UpdateSecret(self, request: api.UpdateSecretRequest, _context: Context) -> api.UpdateSecretResponse:
        """Give a secret another value."""
        caller().check_unlimited("secrets are")
        return api.UpdateSecretResponse(secret=await self._secrets.update(request.name, request.value))

    async def ListSecrets(self, request: api.ListSecretsRequest, _context: Context) -> api.ListSecretsResponse:
        """Return a page of secrets, without their values."""
        caller().check_unlimited("secrets are")
        return await self._secrets.list(request)

    async def DeleteSecret(self, request: api.DeleteSecretRequest, _context: Context) -> api.DeleteSecretResponse:
        """Remove a secret."""
        caller().check_unlimited("secrets are")
        await self._secrets.delete(request.name)
        return api.DeleteSecretResponse()

    async def RotateSigningKey(
        self, request: api.RotateSigningKeyRequest, _context: Context
    ) -> api.RotateSigningKeyResponse:
        """Make the signing key that counts from now on, and show it this one time."""
        _check_signing(request.function)
        return await self._signing_keys.rotate(request.function, request.key)

    async def ListSigningKeys(
        self, request: api.ListSigningKeysRequest, _context: Context
    ) -> api.ListSigningKeysResponse:
        """Return the signing keys, without the keys themselves."""
        _check_signing(request.function)
        return await self._signing_keys.list(request.function)

    async def RevokeSigningKey(
        self, request: api.RevokeSigningKeyRequest, _context: Context
    ) -> api.RevokeSigningKeyResponse:
        """Remove a signing key."""
        await self._signing_keys.revoke(request.id)
        return api.RevokeSigningKeyResponse()


def _check_signing(function: str) -> None:
    """Check that the caller may have to do with the signing keys of a function, or of all.

    :raises ApiError: PERMISSION_DENIED.
    """
    if function:
        caller().check_function(function)
    else:
        caller().check_unlimited("the server's signing keys are")
