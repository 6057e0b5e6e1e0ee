"""Which function invocations are of, and who asked for them: what decides who may see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, select

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


def origins_of_blob(connection: Connection, blob_id: str) -> Sequence[Origin]:
    """Return where the recorded invocations come from that refer to a stored body."""
    query = (
        select(*_columns)
        .join(_uses, _uses.c.invocation_id == _invocations.c.id)
        .where(_uses.c.blob_id == blob_id)
        .distinct()
    )
    return [_origin(row) for row in connection.execute(query)]


def _origin(row: Row[Any, Any, Any]) -> Origin:
    return Origin(function=row.function, caller=row.caller, caused=bool(row.caused_by))
