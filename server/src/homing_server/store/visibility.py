"""Which function invocations are of, and who asked for them: what decides who may see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, exists, select

from homing_server.store import schema

_invocations = schema.invocations
_uses = schema.blob_uses
_columns = (_invocations.c.function, _invocations.c.caller, _invocations.c.caused_by)


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """Where an invocation comes from."""

    function: str
    caller: str
    caused: bool
    """Whether it comes from a delivery: whoever it is for did not ask for this one."""


def origin_of(connection: Connection, invocation_id: str) -> Origin | None:
    """Return where an invocation comes from; None where there is no record of it."""
    query = select(*_columns).where(_invocations.c.id == invocation_id)
    row = connection.execute(query).one_or_none()
    return None if row is None else _origin(row)


@dataclass(frozen=True, kw_only=True, slots=True)
class Body:
    """Who has to do with a stored body."""

    stored_by: str | None
    """The caller who stored it, or got it as an answer; None where it is the result of an asynchronous invocation."""
    used: bool
    """Whether an invocation refers to it, be it one without a record."""
    origins: Sequence[Origin]
    """Where the recorded invocations come from that refer to it."""


def body_of(connection: Connection, blob_id: str) -> Body | None:
    """Return who has to do with a stored body; None where there is none."""
    used = exists().where(_uses.c.blob_id == schema.blobs.c.id)
    found = connection.execute(
        select(schema.blobs.c.stored_by, used.label("used")).where(schema.blobs.c.id == blob_id)
    ).one_or_none()
    if found is None:
        return None
    return Body(
        stored_by=found.stored_by,
        used=bool(found.used),
        origins=_origins_of_blob(connection, blob_id) if found.used else (),
    )


def _origins_of_blob(connection: Connection, blob_id: str) -> Sequence[Origin]:
    query = (
        select(*_columns)
        .join(_uses, _uses.c.invocation_id == _invocations.c.id)
        .where(_uses.c.blob_id == blob_id)
        .distinct()
    )
    return [_origin(row) for row in connection.execute(query)]


def _origin(row: Row[Any, Any, Any]) -> Origin:
    return Origin(function=row.function, caller=row.caller, caused=bool(row.caused_by))
