"""The leases of leader election: who has a role that one server alone may have, and until when."""

from __future__ import annotations

from sqlalchemy import Connection, insert, or_, select, update

from homing_server.store import schema

_leaders = schema.leaders


def take_lead(connection: Connection, role: str, server: str, *, now_us: int, until_us: int) -> bool:
    """Take a role until a time, or keep it until then; tell whether this server has it now."""
    free = or_(_leaders.c.server == server, _leaders.c.until_us < now_us)
    values = {"server": server, "until_us": until_us}
    if connection.execute(update(_leaders).where(_leaders.c.role == role, free).values(values)).rowcount:
        return True
    if connection.execute(select(_leaders.c.role).where(_leaders.c.role == role)).one_or_none() is not None:
        return False
    connection.execute(insert(_leaders).values(role=role, **values))
    return True


def leave_lead(connection: Connection, role: str, server: str) -> None:
    """Give a role up where this server has it."""
    connection.execute(update(_leaders).where(_leaders.c.role == role, _leaders.c.server == server).values(until_us=0))
