"""Key rotation: makes, lists and revokes the keys that deliveries are signed with."""

from __future__ import annotations

import structlog
from sqlalchemy import Connection

from homing.v1.signing_key_service_pb2 import ListSigningKeysResponse, RotateSigningKeyResponse, SigningKey
from homing_core.clock import now_us
from homing_core.ids import new_id
from homing_core.signing import new_key, read_key, show_key
from homing_server.auth.identity import Identity
from homing_server.errors import function_not_found, last_signing_key, signing_key_not_found
from homing_server.rules.validation import Checks
from homing_server.store import signing_keys as stored
from homing_server.store.engine import Database
from homing_server.store.functions import get_function
from homing_server.store.invocation_rows import timestamp
from homing_server.store.signing_keys import OF_SERVER, StoredKey
from homing_server.vault.keyring import Keyring

_log = structlog.get_logger(__name__)


class SigningKeys:
    """Keeps signing keys: the newest two of the server, and of each function that has its own, are active."""

    def __init__(self, database: Database, keyring: Keyring) -> None:
        self._database = database
        self._keyring = keyring

    async def open(self) -> None:
        """Make the server's first key, where it has none: so every delivery is signed.

        :raises ApiError: UNAVAILABLE.
        """
        if await self._database.write(stored.add_first_key, self._new(OF_SERVER, new_key())):
            _log.info("signing_key_created")

    async def rotate(self, function: str, text: str, *, caller: Identity) -> RotateSigningKeyResponse:
        """Make the key that deliveries are signed with from now on, beside the one before.

        :param function: Whose deliveries; empty for those of all functions that have no key of their own.
        :param text: The key, as receivers know it; empty for a new one.
        :raises ApiError: PERMISSION_DENIED; INVALID_ARGUMENT; NOT_FOUND.
        """
        _check_may_manage(caller, function)
        checks = Checks()
        if function:
            checks.function_name("function", function)
        key = new_key()
        if text:
            try:
                key = read_key(text)
            except ValueError as error:
                checks.add("key", str(error))
        checks.done()
        added = await self._database.write(_add, self._new(function, key))
        if added is None:
            raise function_not_found(function)
        _log.info("signing_key_rotated", function=function, key=added.id)
        return RotateSigningKeyResponse(signing_key=_message(added), key=show_key(key))

    async def list(self, function: str, *, caller: Identity) -> ListSigningKeysResponse:
        """Return the keys of a function, or all, without the keys themselves.

        :raises ApiError: PERMISSION_DENIED; INVALID_ARGUMENT.
        """
        _check_may_manage(caller, function)
        if not function:
            keys = await self._database.read(stored.all_keys)
        else:
            checks = Checks()
            checks.function_name("function", function)
            checks.done()
            keys = await self._database.read(stored.keys_of, function)
        return ListSigningKeysResponse(signing_keys=map(_message, keys))

    async def revoke(self, key_id: str, *, caller: Identity) -> None:
        """Remove a key.

        :raises ApiError: NOT_FOUND; PERMISSION_DENIED; FAILED_PRECONDITION where it is the last one of the server.
        """
        revoked = await self._database.write(_revoke, key_id, caller)
        _log.info("signing_key_revoked", function=revoked.function, key=key_id)

    def _new(self, function: str, key: bytes) -> StoredKey:
        key_id = new_id()
        value = self._keyring.encrypt_signing_key(key_id, function, key)
        return StoredKey(id=key_id, function=function, value=value, create_us=now_us())


def _check_may_manage(caller: Identity, function: str) -> None:
    """Check that it may have to do with the signing keys of a function, or of the server where none is named.

    :raises ApiError: PERMISSION_DENIED.
    """
    if function == OF_SERVER:
        caller.check_unlimited("the server's signing keys are")
    else:
        caller.check_function(function)


def _add(connection: Connection, key: StoredKey) -> StoredKey | None:
    """Add a key; None where its function does not exist."""
    if key.function:
        row = get_function(connection, key.function)
        if row is None or row.deleted:
            return None
    return stored.add_key(connection, key)


def _revoke(connection: Connection, key_id: str, caller: Identity) -> StoredKey:
    key = stored.get_key(connection, key_id)
    if key is None:
        raise signing_key_not_found(key_id)
    _check_may_manage(caller, key.function)
    if key.function == OF_SERVER and len(stored.keys_of(connection, OF_SERVER)) == 1:
        raise last_signing_key(key_id)
    stored.remove_key(connection, key_id)
    return key


def _message(key: StoredKey) -> SigningKey:
    return SigningKey(id=key.id, function=key.function, create_time=timestamp(key.create_us))
