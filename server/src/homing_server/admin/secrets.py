"""Makes, changes, lists and removes secrets. What is shown of them never has their values."""

from __future__ import annotations

import structlog
from sqlalchemy import Connection

from homing.v1 import secret_service_pb2 as api
from homing_core import limits
from homing_core.clock import now_us
from homing_core.wire.v1 import FunctionState
from homing_server.auth.identity import Identity
from homing_server.control import ControlChannel
from homing_server.errors import secret_exists, secret_in_use, secret_not_found
from homing_server.functions.catalog import Catalog
from homing_server.rules.paging import BY_NAME, Paging, name_after
from homing_server.rules.validation import Checks
from homing_server.store import secrets as stored
from homing_server.store.engine import Database
from homing_server.store.functions import deleted_revision
from homing_server.store.invocation_rows import timestamp
from homing_server.store.secrets import StoredSecret
from homing_server.vault.keyring import Keyring

_log = structlog.get_logger(__name__)

_PAGING = Paging(kind="secrets", place=BY_NAME)
_SECRETS_ARE = "secrets are"


class Secrets:
    """Keeps secrets."""

    def __init__(self, database: Database, keyring: Keyring, catalog: Catalog, control: ControlChannel) -> None:
        self._database = database
        self._keyring = keyring
        self._catalog = catalog
        self._control = control

    async def create(self, name: str, value: bytes, *, caller: Identity) -> api.Secret:
        """Make a secret.

        :raises ApiError: PERMISSION_DENIED; INVALID_ARGUMENT; ALREADY_EXISTS.
        """
        caller.check_unlimited(_SECRETS_ARE)
        _check(name, value)
        encrypted = self._keyring.encrypt_secret(name, value)
        secret = await self._database.write(stored.create_secret, name, encrypted, now_us=now_us())
        if secret is None:
            raise secret_exists(name)
        _log.info("secret_created", secret=name)
        return _message(secret)

    async def update(self, name: str, value: bytes, *, caller: Identity) -> api.Secret:
        """Give a secret another value, and have the instances that see it replaced.

        :raises ApiError: PERMISSION_DENIED; INVALID_ARGUMENT; NOT_FOUND.
        """
        caller.check_unlimited(_SECRETS_ARE)
        _check(name, value)
        encrypted = self._keyring.encrypt_secret(name, value)
        changed = await self._database.write(_update, name, encrypted, now_us=now_us())
        if changed is None:
            raise secret_not_found(name)
        secret, states = changed
        for state in states:
            self._catalog.learn(state)
            await self._control.announce_function(state)
        _log.info("secret_updated", secret=name, version=secret.version, functions=len(states))
        return _message(secret)

    async def list(self, request: api.ListSecretsRequest, *, caller: Identity) -> api.ListSecretsResponse:
        """Return a page of secrets.

        :raises ApiError: PERMISSION_DENIED; INVALID_ARGUMENT.
        """
        caller.check_unlimited(_SECRETS_ARE)
        checks = Checks()
        cursor = _PAGING.cursor(checks, request)
        checks.done()
        secrets, more = await self._database.read(stored.list_secrets, after=name_after(cursor), size=cursor.size)
        page = cursor.page(map(_message, secrets), more=more, place_of=lambda secret: {"after": secret.name})
        return api.ListSecretsResponse(secrets=page.items, next_page_token=page.next_page_token)

    async def delete(self, name: str, *, caller: Identity) -> None:
        """Remove a secret.

        :raises ApiError: PERMISSION_DENIED; NOT_FOUND; FAILED_PRECONDITION where a function names it.
        """
        caller.check_unlimited(_SECRETS_ARE)
        users = await self._database.write(stored.delete_secret, name)
        if users is None:
            raise secret_not_found(name)
        if users:
            raise secret_in_use(name, users)
        _log.info("secret_deleted", secret=name)


def _update(
    connection: Connection, name: str, value: bytes, *, now_us: int
) -> tuple[StoredSecret, list[FunctionState]] | None:
    """Give a secret another value; return it, and the functions that name it as they are now."""
    secret = stored.update_secret(connection, name, value, now_us=now_us)
    if secret is None:
        return None
    users = stored.users_of(connection, name)
    versions = stored.versions_of(connection, users)
    return secret, [
        FunctionState(
            function=function,
            secrets_version=version,
            deleted_revision=deleted_revision(connection, function.name),
        )
        for function, version in zip(users, versions, strict=True)
    ]


def _check(name: str, value: bytes) -> None:
    checks = Checks()
    checks.secret_name("name", name)
    if not 1 <= len(value) <= limits.MAX_SECRET:
        checks.add("value", f"must have 1 to {limits.MAX_SECRET} bytes (64 KiB), has {len(value)}")
    checks.done()


def _message(secret: StoredSecret) -> api.Secret:
    return api.Secret(
        name=secret.name,
        version=secret.version,
        create_time=timestamp(secret.create_us),
        update_time=timestamp(secret.update_us),
    )
