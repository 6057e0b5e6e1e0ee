"""Secrets in the store: their values encrypted, which functions name them, and how far their changes go.

Every change of a secret raises a counter and notes its number in the row. The version of a function's secrets is the
highest number among them: it rises whenever one of them gets another value.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from sqlalchemy import Connection, delete, insert, select, update

from homing.v1 import function_pb2
from homing_server.store import schema
from homing_server.store.sequences import raise_counters, read_counters

_secrets = schema.secrets
_functions = schema.functions
_ABOUT = (_secrets.c.name, _secrets.c.version, _secrets.c.create_us, _secrets.c.update_us)


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredSecret:
    """A secret without its value."""

    name: str
    version: int
    create_us: int
    update_us: int


@dataclass(frozen=True, kw_only=True, slots=True)
class SealedSecrets:
    """The secrets of a function, encrypted as they are in the store."""

    values: Mapping[str, bytes]
    version: int
    """The number of the last change of any secret: not less than that of the function's own."""


def create_secret(connection: Connection, name: str, value: bytes, *, now_us: int) -> StoredSecret | None:
    """Make a secret; None where there is one of this name.

    :param value: Its value, encrypted.
    """
    if _find(connection, name) is not None:
        return None
    secret = StoredSecret(name=name, version=1, create_us=now_us, update_us=now_us)
    connection.execute(insert(_secrets).values(**asdict(secret), seq=_next(connection), value=value))
    return secret


def update_secret(connection: Connection, name: str, value: bytes, *, now_us: int) -> StoredSecret | None:
    """Give a secret another value; None where there is none of this name.

    :param value: Its value, encrypted.
    """
    secret = _find(connection, name)
    if secret is None:
        return None
    changed = replace(secret, version=secret.version + 1, update_us=now_us)
    statement = update(_secrets).where(_secrets.c.name == name)
    connection.execute(statement.values(**asdict(changed), seq=_next(connection), value=value))
    return changed


def delete_secret(connection: Connection, name: str) -> Sequence[str] | None:
    """Remove a secret that no function names; return those that do, and None where there is no such secret."""
    if _find(connection, name) is None:
        return None
    users = [function.name for function in users_of(connection, name)]
    if not users:
        connection.execute(delete(_secrets).where(_secrets.c.name == name))
        _next(connection)
    return users


def list_secrets(connection: Connection, *, after: str, size: int) -> tuple[list[StoredSecret], bool]:
    """Return secrets by name that come after this one, and whether there are more."""
    query = select(*_ABOUT).where(_secrets.c.name > after).order_by(_secrets.c.name).limit(size + 1)
    rows = connection.execute(query).mappings().all()
    return [StoredSecret(**row) for row in rows[:size]], len(rows) > size


def users_of(connection: Connection, name: str) -> list[function_pb2.Function]:
    """Return the functions that name a secret, by their names."""
    query = select(_functions.c.definition).where(_functions.c.deleted.is_(False)).order_by(_functions.c.name)
    functions = map(function_pb2.Function.FromString, connection.execute(query).scalars())
    return [function for function in functions if name in function.secrets]


def missing_secrets(connection: Connection, names: Iterable[str]) -> list[str]:
    """Return those of these names that no secret has."""
    wanted = set(names)
    if not wanted:
        return []
    query = select(_secrets.c.name).where(_secrets.c.name.in_(wanted))
    return sorted(wanted.difference(connection.execute(query).scalars()))


def version_of(connection: Connection, function: function_pb2.Function) -> int:
    """Return the version of a function's secrets; 0 where it names none."""
    return versions_of(connection, [function])[0]


def versions_of(connection: Connection, functions: Sequence[function_pb2.Function]) -> list[int]:
    """Return the versions of the secrets of functions; 0 where one names none."""
    if not any(function.secrets for function in functions):
        return [0] * len(functions)
    numbers = {row.name: row.seq for row in connection.execute(select(_secrets.c.name, _secrets.c.seq))}
    return [max((numbers.get(name, 0) for name in function.secrets), default=0) for function in functions]


def secrets_of(connection: Connection, function: function_pb2.Function) -> SealedSecrets:
    """Return the secrets of a function."""
    values = {}
    if function.secrets:
        query = select(_secrets.c.name, _secrets.c.value).where(_secrets.c.name.in_(function.secrets))
        values = {row.name: row.value for row in connection.execute(query)}
    return SealedSecrets(values=values, version=read_counters(connection)[schema.SECRETS_SEQ])


def change_values(connection: Connection, change: Callable[[str, bytes], bytes]) -> int:
    """Encrypt all values in another way, given their names; return how many there are. No secret changes by that."""
    rows = connection.execute(select(_secrets.c.name, _secrets.c.value)).all()
    for name, value in rows:
        connection.execute(update(_secrets).where(_secrets.c.name == name).values(value=change(name, value)))
    return len(rows)


def _find(connection: Connection, name: str) -> StoredSecret | None:
    row = connection.execute(select(*_ABOUT).where(_secrets.c.name == name)).mappings().one_or_none()
    return None if row is None else StoredSecret(**row)


def _next(connection: Connection) -> int:
    return raise_counters(connection, {schema.SECRETS_SEQ: 1})[schema.SECRETS_SEQ]
