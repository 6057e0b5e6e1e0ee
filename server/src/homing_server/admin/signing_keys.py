"""Key rotation: makes, lists and revokes the keys that deliveries are signed with."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import structlog
from sqlalchemy import Connection

from homing.v1.signing_key_service_pb2 import (
    ListSigningKeysRequest,
    ListSigningKeysResponse,
    RotateSigningKeyRequest,
    RotateSigningKeyResponse,
    SigningKey,
)
from homing_core.clock import now_us
from homing_core.ids import new_id
from homing_core.signing import new_key, read_key, show_key
from homing_server.auth.identity import Identity
from homing_server.errors import function_not_found, last_signing_key, request_id_reused, signing_key_not_found
from homing_server.rules.paging import Cursor, Paging, Place
from homing_server.rules.validation import Checks
from homing_server.store import signing_keys as stored
from homing_server.store.engine import Database
from homing_server.store.functions import get_function
from homing_server.store.invocation_rows import timestamp
from homing_server.store.signing_keys import OF_SERVER, KeyPlace, StoredKey
from homing_server.vault.keyring import Keyring

_log = structlog.get_logger(__name__)

_PAGING: Final = Paging(kind="signing_keys", place={"function": str, "create_us": int, "id": str})


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

    async def rotate(self, request: RotateSigningKeyRequest, *, caller: Identity) -> RotateSigningKeyResponse:
        """Make the key that deliveries are signed with from now on, beside the one before.

        Under a request id it is made once, and returned again as long as it is kept.

        :raises ApiError: PERMISSION_DENIED; INVALID_ARGUMENT; NOT_FOUND; ALREADY_EXISTS: the request id stands for a
            call with other content.
        """
        function = request.function
        _check_may_manage(caller, function)
        checks = Checks()
        checks.request_id(request.request_id)
        if function:
            checks.function_name("function", function)
        given = b""
        if request.key:
            try:
                given = read_key(request.key)
            except ValueError as error:
                checks.add("key", str(error))
        checks.done()
        new = self._new(function, given or new_key())
        if request.request_id:
            content = function.encode() + b"\0" + given
            new = replace(
                new,
                request=self._keyring.request(
                    "RotateSigningKey", caller=caller.name, request_id=request.request_id, content=content
                ),
            )
        kept = await self._database.write(_add, new, request_id=request.request_id)
        duplicate = kept.id != new.id
        if not duplicate:
            _log.info("signing_key_rotated", function=function, key=kept.id)
        return RotateSigningKeyResponse(
            signing_key=_message(kept), key=show_key(self._keyring.open_signing_key(kept)), duplicate=duplicate
        )

    async def list(self, request: ListSigningKeysRequest, *, caller: Identity) -> ListSigningKeysResponse:
        """Return a page of the keys of a function, or of all, without the keys themselves.

        :raises ApiError: PERMISSION_DENIED; INVALID_ARGUMENT.
        """
        _check_may_manage(caller, request.function)
        checks = Checks()
        if request.function:
            checks.function_name("function", request.function)
        cursor = _PAGING.cursor(checks, request)
        checks.done()
        keys, more = await self._database.read(
            stored.list_keys, function=request.function, after=_place(cursor), size=cursor.size
        )
        page = cursor.page(map(_message, keys), more=more, place_of=_place_of)
        return ListSigningKeysResponse(signing_keys=page.items, next_page_token=page.next_page_token)

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


def _add(connection: Connection, key: StoredKey, *, request_id: str) -> StoredKey:
    """Add a key, unless the same call has made one that is still kept; return what is kept."""
    if key.request is not None:
        made = stored.key_made_by(connection, key.request)
        if made is not None:
            if made.request != key.request:
                raise request_id_reused(request_id)
            return made
    if key.function:
        row = get_function(connection, key.function)
        if row is None or row.deleted:
            raise function_not_found(key.function)
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


def _place(cursor: Cursor) -> KeyPlace | None:
    """Return where the last key of the page before is; None for the first page."""
    if cursor.after is None:
        return None
    return str(cursor.after["function"]), int(cursor.after["create_us"]), str(cursor.after["id"])


def _place_of(key: SigningKey) -> Place:
    return {"function": key.function, "create_us": key.create_time.ToMicroseconds(), "id": key.id}
