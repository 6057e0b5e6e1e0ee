"""Properties of the database: short texts that are set once."""

from __future__ import annotations

from sqlalchemy import Connection, insert, select, update

from homing_server.store import schema

_table = schema.properties


def read_property(connection: Connection, name: str) -> str | None:
    """Return a property of the database; None where it has none of this name."""
    return connection.execute(select(_table.c.value).where(_table.c.name == name)).scalar_one_or_none()


def get_or_set(connection: Connection, name: str, new: str) -> str:
    """Return a property of the database; where it has none yet, it is the new one from now on."""
    value = read_property(connection, name)
    if value is None:
        connection.execute(insert(_table).values(name=name, value=new))
    return new if value is None else value


def change(connection: Connection, name: str, value: str) -> None:
    """Give a property that there is another value."""
    connection.execute(update(_table).where(_table.c.name == name).values(value=value))
