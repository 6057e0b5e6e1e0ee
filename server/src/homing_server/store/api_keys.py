"""API keys in the store: what they allow, and the digests by which they are known. Revoked ones stay, as a record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, func, insert, or_, select, update

from homing.v1.key_service_pb2 import Key
from homing_server.store import schema

_keys = schema.api_keys


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredKey:
    """A key in force."""

    key: Key
    digest: bytes = field(repr=False)


def insert_key(connection: Connection, key: Key, digest: bytes) -> bool:
    """Add a key; tell whether its name was free."""
    query = select(_keys.c.id).where(_keys.c.name == key.name, _keys.c.revoke_us == 0)
    if connection.execute(query).first() is not None:
        return False
    definition = key.SerializeToString()
    connection.execute(
        insert(_keys).values(id=key.id, name=key.name, digest=digest, definition=definition, revoke_us=0)
    )
    return True


def revoke_key(connection: Connection, key: str, *, now_us: int) -> Key | None:
    """End a key, given its id or its name; return it, and None where there is none in force."""
    query = select(_keys.c.id, _keys.c.definition).where(
        _keys.c.revoke_us == 0, or_(_keys.c.id == key, _keys.c.name == key)
    )
    # Where one has as its name what another has as its id, the id counts.
    rows = sorted(connection.execute(query), key=lambda row: row.id != key)
    if not rows:
        return None
    connection.execute(update(_keys).where(_keys.c.id == rows[0].id).values(revoke_us=now_us))
    return Key.FromString(rows[0].definition)


def get_key(connection: Connection, key_id: str) -> tuple[Key, bool]:
    """Return a key of which there is a record, and whether it is in force."""
    query = select(_keys.c.definition, _keys.c.revoke_us).where(_keys.c.id == key_id)
    row = connection.execute(query).one()
    return Key.FromString(row.definition), row.revoke_us == 0


def key_named(connection: Connection, name: str) -> Key | None:
    """Return the key of this name that is not revoked, though it may have expired; None where there is none."""
    query = select(_keys.c.definition).where(_keys.c.name == name, _keys.c.revoke_us == 0)
    definition = connection.execute(query).scalar_one_or_none()
    return None if definition is None else Key.FromString(definition)


def list_keys(connection: Connection, *, after: str, size: int) -> tuple[list[Key], bool]:
    """Return keys in force by name that come after this one, and whether there are more."""
    query = (
        select(_keys.c.definition)
        .where(_keys.c.revoke_us == 0, _keys.c.name > after)
        .order_by(_keys.c.name)
        .limit(size + 1)
    )
    keys = [Key.FromString(definition) for definition in connection.execute(query).scalars()]
    return keys[:size], len(keys) > size


def keys_in_force(connection: Connection) -> Sequence[StoredKey]:
    """Return all keys that are not revoked; some may have expired."""
    query = select(_keys.c.definition, _keys.c.digest).where(_keys.c.revoke_us == 0)
    return [StoredKey(key=Key.FromString(row.definition), digest=row.digest) for row in connection.execute(query)]


def version_of_keys(connection: Connection) -> tuple[int, int]:
    """Return what differs after every change of the keys: how many there were ever, and how many were revoked."""
    query = select(func.count(), func.count().filter(_keys.c.revoke_us > 0)).select_from(_keys)
    made, revoked = connection.execute(query).one()
    return made, revoked
