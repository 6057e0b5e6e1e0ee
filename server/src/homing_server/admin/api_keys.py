"""Makes, lists and revokes API keys."""

from __future__ import annotations

import math
from typing import Final

import structlog
from google.protobuf.timestamp_pb2 import Timestamp

from homing.v1 import key_service_pb2 as api
from homing_core import limits
from homing_core.clock import now_us
from homing_server.auth.identity import ROOT, Identity
from homing_server.auth.key_cache import KeyCache
from homing_server.auth.key_format import digest_of, new_key
from homing_server.auth.scopes import ALL_SCOPES
from homing_server.control import ControlChannel
from homing_server.errors import key_exists, key_not_found
from homing_server.rules.paging import BY_NAME, Paging, name_after
from homing_server.rules.validation import Checks
from homing_server.store import api_keys as stored
from homing_server.store.engine import Database

_log = structlog.get_logger(__name__)

_PAGING: Final = Paging(kind="keys", place=BY_NAME)
_KEYS_ARE: Final = "API keys are"


class ApiKeys:
    """Keeps API keys."""

    def __init__(self, database: Database, known: KeyCache, control: ControlChannel) -> None:
        self._database = database
        self._known = known
        self._control = control

    async def create(self, wanted: api.Key, *, caller: Identity) -> api.CreateKeyResponse:
        """Make a key and return it, this one time.

        :raises ApiError: PERMISSION_DENIED; INVALID_ARGUMENT; ALREADY_EXISTS.
        """
        caller.check_unlimited(_KEYS_ARE)
        time_us = now_us()
        _check(wanted, time_us)
        made = new_key()
        key = api.Key(
            id=made.id,
            name=wanted.name,
            scopes=sorted(set(wanted.scopes)),
            functions=sorted(set(wanted.functions)),
            max_per_second=wanted.max_per_second,
        )
        key.create_time.FromMicroseconds(time_us)
        if wanted.HasField("expire_time"):
            key.expire_time.CopyFrom(wanted.expire_time)
        if not await self._database.write(stored.insert_key, key, digest_of(made.text)):
            raise key_exists(key.name)
        await self._changed()
        _log.info("key_created", key=key.name, id=key.id)
        return api.CreateKeyResponse(key=key, secret=made.text)

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

    async def _changed(self) -> None:
        await self._known.load()
        await self._control.announce_keys_changed()


def _check(key: api.Key, time_us: int) -> None:
    checks = Checks()
    if key.name == ROOT or not limits.SECRET_NAME.fullmatch(key.name):
        # Whoever mixes up the fields may have put a key here.
        checks.add("key.name", f"must match {limits.SECRET_NAME.pattern} and not be {ROOT!r}")
    if not key.scopes:
        checks.add("key.scopes", "must have at least one scope")
    for scope in key.scopes:
        if scope not in ALL_SCOPES:
            checks.add("key.scopes", f"{scope} is not a scope")
    _check_functions(checks, key)
    if not (math.isfinite(key.max_per_second) and 0 <= key.max_per_second <= limits.MAX_KEY_RATE):
        checks.add("key.max_per_second", f"must be from 0 to {limits.MAX_KEY_RATE:g}, is {key.max_per_second:g}")
    if 0 < key.max_per_second < limits.MIN_KEY_RATE:
        checks.add("key.max_per_second", f"must be 0 or at least {limits.MIN_KEY_RATE:g}, is {key.max_per_second:g}")
    if key.HasField("expire_time") and not _later(key.expire_time, time_us):
        checks.add("key.expire_time", "must be a time in the future")
    checks.done()


def _check_functions(checks: Checks, key: api.Key) -> None:
    checks.function_names("key.functions", key.functions, limits.MAX_KEY_FUNCTIONS)
    if key.functions and api.SCOPE_ADMIN in key.scopes:
        checks.add("key.functions", "must be empty with the scope admin, which can make keys without a limit")


def _later(time: Timestamp, time_us: int) -> bool:
    try:
        return time.ToMicroseconds() > time_us
    except ValueError:
        return False
