"""How far calls about many have come, by their request ids: so that one that broke off can go on, and is counted once.

Each batch of such a call notes in its own transaction what it did. So the counts are exact wherever it breaks off. Of
several calls with one request id the latest goes on; the batches of those before it are refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, exists, insert, select, update

from homing_server.errors import bulk_call_taken_over, request_id_reused
from homing_server.store import schema

_table = schema.bulk_calls


@dataclass(frozen=True, kw_only=True, slots=True)
class BulkCall:
    """A call about many, and how far it is."""

    caller: str
    request_id: str
    """Empty where nothing is remembered of it."""
    method: str
    fingerprint: bytes
    """What is the same in all requests that the request id may stand for."""
    begin_us: int
    """When the first call with the request id began: what came later is not touched."""
    last_seq: int = 0
    """The number of the last result at that time."""
    turn: int = 1
    place: tuple[int, str] | None = None
    """The time and id of the last that was dealt with; None where the place does not matter, or at the beginning."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """What was done so far, by the names that the response has for it."""
    done: bool = False

    @property
    def dealt_with(self) -> int:
        """How many records something was done about, or tried."""
        return sum(count for name, count in self.counts.items() if name != "matched")

    def counted(self, **more: int) -> BulkCall:
        """Return the call when more was done."""
        return replace(
            self, counts={**self.counts, **{name: self.counts.get(name, 0) + count for name, count in more.items()}}
        )


def find(connection: Connection, call: BulkCall) -> BulkCall | None:
    """Return how far an earlier call with the same request id came; None where there was none.

    :raises ApiError: ALREADY_EXISTS: it had other content.
    """
    if not call.request_id:
        return None
    row = connection.execute(select(_table).where(_this(call))).one_or_none()
    if row is None:
        return None
    if (row.method, row.fingerprint) != (call.method, call.fingerprint):
        raise request_id_reused(call.request_id)
    return _call_of(row)


def begin(connection: Connection, call: BulkCall, *, now_us: int) -> BulkCall:
    """Note that a call begins, or takes over from an earlier one with the same request id; return how far that is.

    :raises ApiError: ALREADY_EXISTS: the earlier one had other content.
    """
    if not call.request_id:
        return call
    earlier = find(connection, call)
    if earlier is None:
        connection.execute(insert(_table).values(**_identity(call), **_progress(call), update_us=now_us))
        return call
    if earlier.done:
        return earlier
    taken_over = replace(earlier, turn=earlier.turn + 1)
    connection.execute(update(_table).where(_this(call)).values(turn=taken_over.turn, update_us=now_us))
    return taken_over


def advance(connection: Connection, call: BulkCall, *, now_us: int) -> None:
    """Note how far a call is, in the transaction that brought it there.

    :raises ApiError: ABORTED: a later one has taken over. The transaction must not be committed.
    """
    if not call.request_id:
        return
    mine = update(_table).where(_this(call), _table.c.turn == call.turn)
    if not connection.execute(mine.values(**_progress(call), update_us=now_us)).rowcount:
        raise bulk_call_taken_over(call.request_id)


def any_forgettable(connection: Connection, *, before_us: int) -> bool:
    """Tell whether there are calls that did nothing since a time."""
    return connection.execute(select(exists().where(_table.c.update_us < before_us))).scalar_one()


def forget(connection: Connection, *, before_us: int) -> int:
    """Forget the calls that did nothing since a time; return how many."""
    return connection.execute(delete(_table).where(_table.c.update_us < before_us)).rowcount


def _this(call: BulkCall) -> ColumnElement[bool]:
    return and_(_table.c.caller == call.caller, _table.c.request_id == call.request_id)


def _identity(call: BulkCall) -> dict[str, Any]:
    """Return the columns that never change."""
    return {
        "caller": call.caller,
        "request_id": call.request_id,
        "method": call.method,
        "fingerprint": call.fingerprint,
        "begin_us": call.begin_us,
        "last_seq": call.last_seq,
        "turn": call.turn,
    }


def _progress(call: BulkCall) -> dict[str, Any]:
    """Return the columns that a batch changes."""
    place_us, place_id = call.place or (0, "")
    return {"place_us": place_us, "place_id": place_id, "counts": json.dumps(dict(call.counts)), "done": call.done}


def _call_of(row: Row[Any]) -> BulkCall:
    return BulkCall(
        caller=row.caller,
        request_id=row.request_id,
        method=row.method,
        fingerprint=row.fingerprint,
        begin_us=row.begin_us,
        last_seq=row.last_seq,
        turn=row.turn,
        place=(row.place_us, row.place_id) if row.place_id else None,
        counts=json.loads(row.counts),
        done=row.done,
    )
