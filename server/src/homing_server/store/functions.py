"""Functions in the store. A deleted one leaves its name and revision: a later one of the name goes on from it.

So revisions tell the work of a deleted function from that of a later one: what was accepted under a revision before
that of the last deletion has lost its function, whatever was deployed since.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from homing.v1 import function_pb2
from homing_core import lifecycle
from homing_core.lifecycle import Custody, Step
from homing_server.store import schema, tombstones
from homing_server.store.effects import CommitEffects
from homing_server.store.invocation_rows import Change, record_of
from homing_server.store.record import store_changes
from homing_server.store.secrets import versions_of

_functions = schema.functions
_invocations = schema.invocations

_BATCH_SIZE = 500


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredFunction:
    """A function, or what a deleted one left."""

    function: function_pb2.Function
    deleted: bool
    drained: bool
    deleted_revision: int
    """Of the last deletion of a function of this name; 0 where there was none."""
    secrets_version: int
    """Rises with the values of its secrets; 0 where it has none."""


def all_functions(connection: Connection) -> list[StoredFunction]:
    """Return all functions and what deleted ones left, by name."""
    return _stored(connection, connection.execute(select(_functions).order_by(_functions.c.name)).all())


def get_function(connection: Connection, name: str) -> StoredFunction | None:
    """Return a function, or what a deleted one left; None where there never was one."""
    row = connection.execute(select(_functions).where(_functions.c.name == name)).one_or_none()
    return None if row is None else _stored(connection, [row])[0]


def put_function(
    connection: Connection, wanted: function_pb2.Function, *, now_us: int, force: bool = False
) -> tuple[function_pb2.Function, bool]:
    """Create or change a function; return it as it is now and whether it is new. The same again changes nothing.

    :param force: Whether it is rolled out anew although it may be the same.
    """
    row = connection.execute(select(_functions).where(_functions.c.name == wanted.name)).one_or_none()
    last = None if row is None else function_pb2.Function.FromString(row.definition)
    created = row is None or row.deleted
    function = function_pb2.Function()
    function.CopyFrom(wanted)
    function.revision = 1 if last is None else last.revision + 1
    function.update_time.FromMicroseconds(now_us)
    function.create_time.CopyFrom(function.update_time if last is None or created else last.create_time)
    function.paused = last is not None and not created and last.paused
    function.rollout_revision = 0 if last is None or created else last.rollout_revision
    if force:
        function.rollout_revision = function.revision
    if last is not None and not created and _same(last, function):
        return last, False
    values = {
        "revision": function.revision,
        "definition": function.SerializeToString(),
        "deleted": False,
        "drained": False,
    }
    if row is None:
        connection.execute(insert(_functions).values(name=function.name, **values))
    else:
        connection.execute(update(_functions).where(_functions.c.name == function.name).values(values))
    return function, created


def change_function(
    connection: Connection, name: str, change: Callable[[function_pb2.Function], None], *, now_us: int
) -> function_pb2.Function | None:
    """Change a part of a function; return it as it is now, or None where there is none.

    A change that changes nothing makes no revision.

    :param change: Changes the function that it is given; where it raises nothing is changed.
    """
    row = connection.execute(select(_functions).where(_functions.c.name == name)).one_or_none()
    if row is None or row.deleted:
        return None
    last = function_pb2.Function.FromString(row.definition)
    function = function_pb2.Function()
    function.CopyFrom(last)
    change(function)
    if function == last:
        return last
    function.revision += 1
    function.update_time.FromMicroseconds(now_us)
    values = {"revision": function.revision, "definition": function.SerializeToString()}
    connection.execute(update(_functions).where(_functions.c.name == name).values(values))
    return function


def mark_deleted(connection: Connection, name: str) -> function_pb2.Function | None:
    """Delete a function; return what it leaves, or None where there is none."""
    row = connection.execute(select(_functions).where(_functions.c.name == name)).one_or_none()
    if row is None or row.deleted:
        return None
    last = function_pb2.Function.FromString(row.definition)
    # What waits ends, and is delivered where the function asked for it while it was there.
    left = function_pb2.Function(
        name=name, revision=row.revision + 1, on_success=last.on_success, on_failure=last.on_failure
    )
    if last.HasField("retention"):
        # Its records are kept as long as it was said when it was there.
        left.retention.CopyFrom(last.retention)
    statement = update(_functions).where(_functions.c.name == name)
    connection.execute(
        statement.values(
            revision=left.revision,
            definition=left.SerializeToString(),
            deleted=True,
            drained=False,
            deleted_revision=left.revision,
        )
    )
    return left


def mark_drained(connection: Connection, name: str, *, revision: int) -> bool:
    """Note that the queues of a deleted function are gone; return whether none of the name was deployed meanwhile.

    :param revision: Of the deletion.
    """
    statement = update(_functions).where(_functions.c.name == name, _functions.c.revision == revision)
    if not connection.execute(statement.values(drained=True)).rowcount:
        return False
    tombstones.forget_function(connection, name)
    return True


def deleted_revision(connection: Connection, name: str) -> int:
    """Return the revision of the last deletion of a function of this name; 0 where there was none."""
    query = select(_functions.c.deleted_revision).where(_functions.c.name == name)
    return connection.execute(query).scalar_one_or_none() or 0


def invalidate_stored(connection: Connection, name: str, *, now_us: int) -> CommitEffects:
    """End a batch of what waits in the store and has lost its function; none ended means that none are left."""
    query = (
        select(_invocations)
        .where(
            schema.live(_invocations),
            _invocations.c.custody == int(Custody.STORE),
            _invocations.c.function == name,
            _invocations.c.function_revision < deleted_revision(connection, name),
        )
        .limit(_BATCH_SIZE)
    )
    effects = CommitEffects()
    rows = connection.execute(query).all()
    store_changes(connection, [_invalidated(row, now_us=now_us) for row in rows], effects)
    return effects


def _invalidated(row: Row[Any], *, now_us: int) -> Change:
    """Return the end of a waiting invocation whose function is gone: INVALID, or FAILED where it has run before."""
    before = record_of(row)
    step = lifecycle.invocation.function_deleted(before, function=row.function, time_us=now_us)
    assert isinstance(step, Step), "what waits has not ended"
    return Change.of(row, before, step)


def _stored(connection: Connection, rows: Sequence[Row[Any]]) -> list[StoredFunction]:
    functions = [function_pb2.Function.FromString(row.definition) for row in rows]
    versions = versions_of(connection, functions)
    return [
        StoredFunction(
            function=function,
            deleted=row.deleted,
            drained=row.drained,
            deleted_revision=row.deleted_revision,
            secrets_version=version,
        )
        for row, function, version in zip(rows, functions, versions, strict=True)
    ]


def _same(one: function_pb2.Function, other: function_pb2.Function) -> bool:
    one_, other_ = function_pb2.Function(), function_pb2.Function()
    one_.CopyFrom(one)
    other_.CopyFrom(other)
    for function in (one_, other_):
        function.ClearField("revision")
        function.ClearField("update_time")
    return one_ == other_
