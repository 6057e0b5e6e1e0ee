"""The API keys as this server knows them: a copy of the store's in memory, by which callers are authenticated."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import structlog
from sqlalchemy import Connection

from homing.v1.key_service_pb2 import SCOPE_ADMIN
from homing_core.clock import now_us
from homing_server.auth.identity import ANONYMOUS, ROOT, Identity, KeyState, identity_of
from homing_server.auth.key_format import digest_of, id_of, key_in, same
from homing_server.auth.scopes import ALL_SCOPES
from homing_server.errors import key_invalid
from homing_server.store import api_keys as stored
from homing_server.store.api_keys import StoredKey
from homing_server.store.engine import Database

_log = structlog.get_logger(__name__)

_POLL_SECONDS: Final = 1.0
"""How often, in seconds, is looked for keys that were made or revoked at other servers."""


class NoAdminKeyError(ValueError):
    """Keys are needed, and there is none that could make the others."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Known:
    identity: Identity
    digest: bytes = field(repr=False)


class KeyCache:
    """Tells who calls by the key that is shown."""

    def __init__(self, database: Database, *, root_key: str) -> None:
        """Prepare to know keys.

        :param root_key: The key that may do everything; empty for none.
        """
        self._database = database
        self._root_digest = digest_of(root_key) if root_key else b""
        self._root = Identity(name=ROOT, scopes=ALL_SCOPES)
        self._known: Mapping[str, _Known] = {}
        self._version: tuple[int, int] | None = None

    async def open(self) -> None:
        """Read the keys for the first time.

        :raises NoAdminKeyError: There is neither a root key nor one with the scope admin.
        :raises ApiError: UNAVAILABLE.
        """
        await self.load()
        identities = [known.identity for known in self._known.values()]
        if not self._root_digest and not any(
            each.may(SCOPE_ADMIN) and not 0 < each.expire_us <= now_us() for each in identities
        ):
            raise NoAdminKeyError(
                "HOMING_AUTHENTICATE is set, and there is no key that could make others: set HOMING_ROOT_KEY to a"
                " secret of at least 32 characters, and make keys with it: homing keys create NAME --scope admin"
            )

    async def load(self) -> None:
        """Read the keys anew where they have changed.

        :raises ApiError: UNAVAILABLE.
        """
        changed = await self._database.read(_read, self._version)
        if changed is None:
            return
        version, keys = changed
        before = self._known
        known = {}
        for each in keys:
            # What a key has used up, and what is under way for it, outlasts the reading.
            state = before[each.key.id].identity.state if each.key.id in before else KeyState()
            known[each.key.id] = _Known(identity=identity_of(each.key, state), digest=each.digest)
        for key_id in before.keys() - known.keys():
            before[key_id].identity.state.revoke()
        self._known, self._version = known, version
        _log.debug("keys_read", keys=len(known))

    async def follow(self) -> None:
        """Look for keys that were made or revoked elsewhere. One step of a loop."""
        await asyncio.sleep(_POLL_SECONDS)
        await self.load()

    def identify(self, authorization: str | bytes | None) -> Identity:
        """Return who calls; ANONYMOUS for who shows no key.

        :param authorization: `Bearer KEY`.
        :raises ApiError: UNAUTHENTICATED: what is shown is no key in force.
        """
        if not authorization:
            return ANONYMOUS
        text = key_in(authorization) if isinstance(authorization, str) else ""
        digest = digest_of(text)
        if self._root_digest and same(self._root_digest, digest):
            return self._root
        known = self._known.get(id_of(text) or "")
        if known is None or not same(known.digest, digest):
            raise key_invalid()
        known.identity.check_in_force()
        return known.identity


def _read(connection: Connection, version: tuple[int, int] | None) -> tuple[tuple[int, int], list[StoredKey]] | None:
    """Return the keys, with their version; None where it is this one."""
    now = stored.version_of_keys(connection)
    return None if now == version else (now, list(stored.keys_in_force(connection)))
