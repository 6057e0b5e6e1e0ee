"""homing.v1.KeyService."""

from __future__ import annotations

from homing.v1 import key_service_pb2 as api
from homing_server.admin.api_keys import ApiKeys
from homing_server.front.api.caller import caller
from homing_server.front.api.context import CallContext


class KeyService:
    """Serves API keys."""

    def __init__(self, keys: ApiKeys) -> None:
        self._keys = keys

    async def CreateKey(self, request: api.CreateKeyRequest, _context: CallContext) -> api.CreateKeyResponse:
        """Make a key, and show it this one time."""
        return await self._keys.create(request, caller=caller())

    async def ListKeys(self, request: api.ListKeysRequest, _context: CallContext) -> api.ListKeysResponse:
        """Return a page of what is known of the keys."""
        return await self._keys.list(request, caller=caller())

    async def RevokeKey(self, request: api.RevokeKeyRequest, _context: CallContext) -> api.RevokeKeyResponse:
        """End a key."""
        return api.RevokeKeyResponse(key=await self._keys.revoke(request.key, caller=caller()))
