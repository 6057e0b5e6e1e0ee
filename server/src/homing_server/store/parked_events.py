"""Events that this version cannot record, kept until one can: a parking lot.

They are of a kind that only a later version knows, or recording them failed. What parks them takes them from the
broker, so they must be here first: they are written in the transaction that is committed before the acknowledgement.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, insert, select

from homing_server.store import schema

MAX_PARKED = 100_000
"""So many events are kept at the most; what comes beyond stays at the broker, where the backlog shows."""
_MAX_WHY_CHARACTERS = 2_000

_parked = schema.parked_events


class ParkingFullError(Exception):
    """There is no room for more events that cannot be recorded."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Parked:
    """An event message that is kept."""

    number: int
    body: bytes
    """A ``homing_core.wire.v1.EventBatch`` as it came, or what came in place of one."""


def park(connection: Connection, bodies: Sequence[bytes], *, why: str, now_us: int) -> None:
    """Keep event messages.

    :param why: Why they could not be recorded, for whoever looks.
    :raises ParkingFullError: There is no room.
    """
    if count(connection) + len(bodies) > MAX_PARKED:
        raise ParkingFullError(f"{MAX_PARKED} events are parked already: upgrade the servers, or look at why")
    connection.execute(
        insert(_parked), [{"body": body, "why": why[:_MAX_WHY_CHARACTERS], "park_us": now_us} for body in bodies]
    )


def parked(connection: Connection, *, after: int, most: int) -> list[Parked]:
    """Return a page of what is kept, the oldest first.

    :param after: The number of the last one of the page before; 0 for the first page.
    """
    query = select(_parked.c.number, _parked.c.body).where(_parked.c.number > after).order_by(_parked.c.number)
    return [Parked(number=number, body=body) for number, body in connection.execute(query.limit(most))]


def unpark(connection: Connection, numbers: Collection[int]) -> None:
    """Forget what has been recorded meanwhile."""
    connection.execute(delete(_parked).where(_parked.c.number.in_(numbers)))


def count(connection: Connection) -> int:
    """Return how many are kept."""
    return connection.execute(select(func.count()).select_from(_parked)).scalar_one()
