"""homing.v1.SigningKeyService."""

from __future__ import annotations

from homing.v1 import signing_key_service_pb2 as api
from homing_server.admin.signing_keys import SigningKeys
from homing_server.front.api.caller import caller
from homing_server.front.api.context import CallContext


class SigningKeyService:
    """Serves signing keys."""

    def __init__(self, signing_keys: SigningKeys) -> None:
        self._signing_keys = signing_keys

    async def RotateSigningKey(
        self, request: api.RotateSigningKeyRequest, _context: CallContext
    ) -> api.RotateSigningKeyResponse:
        """Make the signing key that counts from now on, and show it this one time."""
        return await self._signing_keys.rotate(request, caller=caller())

    async def ListSigningKeys(
        self, request: api.ListSigningKeysRequest, _context: CallContext
    ) -> api.ListSigningKeysResponse:
        """Return a page of signing keys, without the keys themselves."""
        return await self._signing_keys.list(request, caller=caller())

    async def RevokeSigningKey(
        self, request: api.RevokeSigningKeyRequest, _context: CallContext
    ) -> api.RevokeSigningKeyResponse:
        """Remove a signing key."""
        await self._signing_keys.revoke(request.id, caller=caller())
        return api.RevokeSigningKeyResponse()
