"""Signing keys in the store, encrypted: at most two of the server, and of each function that has its own.

Every change raises one counter. Its value is the version of all keys: what was read at a lower one may be outdated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, insert, or_, select, tuple_, update

from homing_server.store import schema
from homing_server.store.key_requests import KeyRequest
from homing_server.store.sequences import raise_counters, read_counters

_keys = schema.signing_keys
_NEWEST_FIRST = (_keys.c.create_us.desc(), _keys.c.id.desc())

KeyPlace = tuple[str, int, str]
"""Where a key is in the list of all: its function, when it was made, and its id."""

ACTIVE_KEYS = 2
"""So many keys of a function, or of the server, are active: the newest ones."""
OF_SERVER = ""
"""In place of the name of a function: the keys of all functions that have none of their own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredKey:
    """A signing key."""

    id: str
    function: str
    value: bytes
    """The key, encrypted."""
    create_us: int
    request: KeyRequest | None = None
    """The call that made it, where it had a request id: it stands for the key as long as that is kept."""


def add_key(connection: Connection, key: StoredKey) -> StoredKey:
    """Add a key, the newest of its function from now on; those that are not active any more are removed."""
    others = keys_of(connection, key.function)
    # A clock that was set back makes no new key an old one.
    create_us = max(key.create_us, others[0].create_us + 1 if others else 0)
    connection.execute(
        insert(_keys).values(
            id=key.id,
            function=key.function,
            value=key.value,
            create_us=create_us,
            request=key.request and key.request.digest,
            fingerprint=key.request and key.request.fingerprint,
        )
    )
    outdated = [other.id for other in others[ACTIVE_KEYS - 1 :]]
    if outdated:
        connection.execute(delete(_keys).where(_keys.c.id.in_(outdated)))
    _changed(connection)
    return replace(key, create_us=create_us)


def add_first_key(connection: Connection, key: StoredKey) -> bool:
    """Add a key where its function, or the server, has none; tell whether it had none."""
    if keys_of(connection, key.function):
        return False
    add_key(connection, key)
    return True


def get_key(connection: Connection, key_id: str) -> StoredKey | None:
    """Return a key; None where there is none of this id."""
    row = connection.execute(select(_keys).where(_keys.c.id == key_id)).one_or_none()
    return None if row is None else _stored(row)


def key_made_by(connection: Connection, request: KeyRequest) -> StoredKey | None:
    """Return the key that the call of a request id made; None where it made none, or that is not kept any more."""
    row = connection.execute(select(_keys).where(_keys.c.request == request.digest)).one_or_none()
    return None if row is None else _stored(row)


def remove_key(connection: Connection, key_id: str) -> None:
    """Remove a key."""
    connection.execute(delete(_keys).where(_keys.c.id == key_id))
    _changed(connection)


def keys_of(connection: Connection, function: str) -> list[StoredKey]:
    """Return the keys of a function, or of the server, the newest first."""
    query = select(_keys).where(_keys.c.function == function).order_by(*_NEWEST_FIRST)
    return [_stored(row) for row in connection.execute(query)]


def list_keys(
    connection: Connection, *, function: str, after: KeyPlace | None, size: int
) -> tuple[list[StoredKey], bool]:
    """Return a page of keys by function, the server's first, the newest of each first; and whether others follow.

    :param function: Whose; empty for all.
    :param after: Where the last one of the page before is; None for the first page.
    """
    query = select(_keys).order_by(_keys.c.function, *_NEWEST_FIRST).limit(size + 1)
    if function:
        query = query.where(_keys.c.function == function)
    if after is not None:
        its_function, create_us, key_id = after
        query = query.where(
            or_(
                _keys.c.function > its_function,
                and_(
                    _keys.c.function == its_function,
                    tuple_(_keys.c.create_us, _keys.c.id) < tuple_(create_us, key_id),
                ),
            )
        )
    found = [_stored(row) for row in connection.execute(query)]
    return found[:size], len(found) > size


def keys_that_sign(connection: Connection, function: str) -> tuple[Sequence[StoredKey], int]:
    """Return the keys that the deliveries of a function are signed with, the newest first, and the version of all."""
    return keys_of(connection, function) or keys_of(connection, OF_SERVER), signing_version(connection)


def signing_version(connection: Connection) -> int:
    """Return the version of all signing keys."""
    return read_counters(connection)[schema.SIGNING_SEQ]


def change_values(connection: Connection, change: Callable[[StoredKey], bytes]) -> int:
    """Encrypt all keys in another way; return how many there are. No key changes by that."""
    keys = [_stored(row) for row in connection.execute(select(_keys))]
    for key in keys:
        connection.execute(update(_keys).where(_keys.c.id == key.id).values(value=change(key)))
    return len(keys)


def _changed(connection: Connection) -> None:
    raise_counters(connection, {schema.SIGNING_SEQ: 1})


def _stored(row: Row[Any]) -> StoredKey:
    request = None if row.request is None else KeyRequest(digest=row.request, fingerprint=row.fingerprint)
    return StoredKey(id=row.id, function=row.function, value=row.value, create_us=row.create_us, request=request)
