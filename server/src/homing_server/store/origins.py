"""Which function invocations are of, and who asked for them: what decides who may see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select

from homing_server.store import schema

_invocations = schema.invocations
_uses = schema.blob_uses


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """Where an invocation comes from."""

    function: str
    caller: str


def origin_of(connection: Connection, invocation_id: str) -> Origin | None:
    """Return where an invocation comes from; None where there is no record of it."""
    query = select(_invocations.c.function, _invocations.c.caller).where(_invocations.c.id == invocation_id)
    row = connection.execute(query).one_or_none()
    return None if row is None else Origin(function=row.function, caller=row.caller)


def origins_of_blob(connection: Connection, blob_id: str) -> Sequence[Origin]:
    """Return where the recorded invocations come from that refer to a stored body."""
    query = (
        select(_invocations.c.function, _invocations.c.caller)
        .join(_uses, _uses.c.invocation_id == _invocations.c.id)
        .where(_uses.c.blob_id == blob_id)
        .distinct()
    )
    return [Origin(function=row.function, caller=row.caller) for row in connection.execute(query)]
