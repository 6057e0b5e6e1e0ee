"""Makes, lists and revokes API keys."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import structlog
from sqlalchemy import Connection

from homing.v1 import key_service_pb2 as api
from homing_core import limits
from homing_core.clock import now_us
from homing_server.auth.identity import ROOT, Identity
from homing_server.auth.key_cache import KeyCache
from homing_server.auth.key_format import MATERIAL_BYTES, NewKey, digest_of, key_of, new_key
from homing_server.auth.scopes import ALL_SCOPES
from homing_server.control import ControlChannel
from homing_server.errors import created_key_revoked, key_exists, key_not_found, request_id_reused
from homing_server.rules.paging import BY_NAME, Paging, name_after
from homing_server.rules.validation import Checks
from homing_server.store import api_keys as stored
from homing_server.store.engine import Database
from homing_server.store.key_requests import KeyRequest, find_key_request, keep_key_request
from homing_server.vault.keyring import Keyring

_log = structlog.get_logger(__name__)

_PAGING: Final = Paging(kind="keys", place=BY_NAME)
_KEYS_ARE: Final = "API keys are"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Draft:
    """A key that is to be made."""

    key: api.Key
    """What it shall allow."""
    request_id: str = ""
    request: KeyRequest | None = None
    """What is kept of the call; None where it has no request id."""
    make: Callable[[int], NewKey] = lambda _: new_key()
    """Returns the key itself, for the time at which it is made, or was."""


class ApiKeys:
    """Keeps API keys."""

    def __init__(self, database: Database, known: KeyCache, control: ControlChannel, keyring: Keyring) -> None:
        self._database = database
        self._keyring = keyring
        self._known = known
        self._control = control

    async def create(self, request: api.CreateKeyRequest, *, caller: Identity) -> api.CreateKeyResponse:
        """Make a key and return it, this one time.

        Under a request id it is made once, and returned again for a day. Nothing is kept that it could be made from: it
        follows from the call and the server's secret key, so that whoever makes the same call has it again.

        :raises ApiError: PERMISSION_DENIED; INVALID_ARGUMENT; ALREADY_EXISTS; FAILED_PRECONDITION: the key that the
            request id stands for was revoked.
        """
        caller.check_unlimited(_KEYS_ARE)
        time_us = now_us()
        wanted = request.key
        _check(request, time_us)
        key = api.Key(
            name=wanted.name,
            scopes=sorted(set(wanted.scopes)),
            functions=sorted(set(wanted.functions)),
            max_per_second=wanted.max_per_second,
        )
        if wanted.HasField("expire_time"):
            key.expire_time.CopyFrom(wanted.expire_time)
        draft = self._draft(key, request.request_id, caller) if request.request_id else _Draft(key=key)
        response = await self._database.write(_create, draft, time_us)
        await self._changed()
        if not response.duplicate:
            _log.info("key_created", key=response.key.name, id=response.key.id)
        return response

    async def list(self, request: api.ListKeysRequest, *, caller: Identity) -> api.ListKeysResponse:
        """Return a page of the keys in force.

        :raises ApiError: PERMISSION_DENIED; INVALID_ARGUMENT.
        """
        caller.check_unlimited(_KEYS_ARE)
        checks = Checks()
        cursor = _PAGING.cursor(checks, request)
        checks.done()
        keys, more = await self._database.read(stored.list_keys, after=name_after(cursor), size=cursor.size)
        page = cursor.page(keys, more=more, place_of=lambda key: {"after": key.name})
        return api.ListKeysResponse(keys=page.items, next_page_token=page.next_page_token)

    async def revoke(self, key: str, *, caller: Identity) -> api.Key:
        """End a key and return it.

        :param key: Its id or its name.
        :raises ApiError: PERMISSION_DENIED; INVALID_ARGUMENT; NOT_FOUND.
        """
        caller.check_unlimited(_KEYS_ARE)
        checks = Checks()
        if not key:
            checks.add("key", "must not be empty")
        checks.done()
        revoked = await self._database.write(stored.revoke_key, key, now_us=now_us())
        if revoked is None:
            raise key_not_found(key)
        await self._changed()
        _log.info("key_revoked", key=revoked.name, id=revoked.id)
        return revoked

    def _draft(self, key: api.Key, request_id: str, caller: Identity) -> _Draft:
        """Return what is to be made under a request id."""
        content = key.SerializeToString(deterministic=True)
        vault = self._keyring.vault

        def make(time_us: int) -> NewKey:
            call = (caller.name.encode(), request_id.encode(), content)
            return key_of(vault.derive(MATERIAL_BYTES, b"api key", *call, time_us.to_bytes(8)))

        request = self._keyring.request("CreateKey", caller=caller.name, request_id=request_id, content=content)
        return _Draft(key=key, request_id=request_id, request=request, make=make)

    async def _changed(self) -> None:
        await self._known.load()
        await self._control.announce_keys_changed()


def _create(connection: Connection, draft: _Draft, time_us: int) -> api.CreateKeyResponse:
    """Make a key, unless the same call has made it before."""
    if draft.request is not None:
        earlier = find_key_request(connection, draft.request.digest, now_us=time_us)
        if earlier is not None:
            if earlier.fingerprint != draft.request.fingerprint:
                raise request_id_reused(draft.request_id)
            made = draft.make(earlier.create_us)
            key, in_force = stored.get_key(connection, made.id)
            if not in_force:
                raise created_key_revoked(draft.request_id, key.name)
            return api.CreateKeyResponse(key=key, secret=made.text, duplicate=True)
        keep_key_request(connection, draft.request, now_us=time_us)
    made = draft.make(time_us)
    key = api.Key(id=made.id)
    key.create_time.FromMicroseconds(time_us)
    key.MergeFrom(draft.key)
    if not stored.insert_key(connection, key, digest_of(made.text)):
        raise key_exists(key.name)
    return api.CreateKeyResponse(key=key, secret=made.text)


def _check(request: api.CreateKeyRequest, time_us: int) -> None:
    key = request.key
    checks = Checks()
    checks.request_id(request.request_id)
    if key.name == ROOT or not limits.SECRET_NAME.fullmatch(key.name):
        # Whoever mixes up the fields may have put a key here.
        checks.add("key.name", f"must match {limits.SECRET_NAME.pattern} and not be {ROOT!r}")
    if not key.scopes:
        checks.add("key.scopes", "must have at least one scope")
    for index, scope in enumerate(key.scopes):
        if scope not in ALL_SCOPES:
            checks.add(f"key.scopes[{index}]", f"{scope} is not a scope")
    _check_functions(checks, key)
    if not (math.isfinite(key.max_per_second) and 0 <= key.max_per_second <= limits.MAX_KEY_RATE):
        checks.add("key.max_per_second", f"must be from 0 to {limits.MAX_KEY_RATE:.12g}, is {key.max_per_second:.12g}")
    if 0 < key.max_per_second < limits.MIN_KEY_RATE:
        checks.add(
            "key.max_per_second", f"must be 0 or at least {limits.MIN_KEY_RATE:.12g}, is {key.max_per_second:.12g}"
        )
    is_time = key.HasField("expire_time") and checks.time("key.expire_time", key.expire_time)
    if is_time and key.expire_time.ToMicroseconds() <= time_us:
        checks.add("key.expire_time", "must be a time in the future")
    checks.done()


def _check_functions(checks: Checks, key: api.Key) -> None:
    checks.function_names("key.functions", key.functions)
    if key.functions and api.SCOPE_ADMIN in key.scopes:
        checks.add("key.functions", "must be empty with the scope admin, which can make keys without a limit")
