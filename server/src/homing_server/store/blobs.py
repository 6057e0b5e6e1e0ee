"""Bodies that are kept in files: which ones there are, and which invocations refer to them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import Connection, bindparam, delete, exists, func, insert, select, update

from homing.v1.payload_pb2 import Blob
from homing_server.store import schema

_blobs = schema.blobs
_uses = schema.blob_uses
_invocations = schema.invocations

_BATCH_SIZE = 500

# Making a statement costs more than running it: those that run often are made once.
_select_known = select(_blobs.c.id).where(_blobs.c.id.in_(bindparam("ids", expanding=True)))
_insert_use = insert(_uses)
_delete_uses = delete(_uses).where(_uses.c.invocation_id.in_(bindparam("ids", expanding=True)))


def insert_blob(
    connection: Connection, blob: Blob, *, now_us: int, stored_by: str | None = None, invocation_id: str = ""
) -> None:
    """Record a blob whose file is in place.

    :param stored_by: The caller who stored it; None where it was no caller.
    :param invocation_id: The invocation whose result it is; empty for one that is yet to be referred to.
    """
    row = {"id": blob.id, "size": blob.size, "sha256": blob.sha256, "create_us": now_us, "stored_by": stored_by}
    connection.execute(insert(_blobs), row)
    if invocation_id:
        use_blobs(connection, [(invocation_id, blob.id)], now_us=now_us)


def find_blob(connection: Connection, blob_id: str) -> Blob | None:
    """Return a blob."""
    row = connection.execute(select(_blobs).where(_blobs.c.id == blob_id)).one_or_none()
    return None if row is None else Blob(id=row.id, size=row.size, sha256=row.sha256)


def unused_uploads(connection: Connection, caller: str, *, since_us: int) -> tuple[int, int]:
    """Return how many bodies a caller has stored since a time that no invocation refers to, and their bytes."""
    query = select(func.count(), func.coalesce(func.sum(_blobs.c.size), 0)).where(
        _blobs.c.stored_by == caller,
        _blobs.c.create_us >= since_us,
        ~exists().where(_uses.c.blob_id == _blobs.c.id),
    )
    number, size = connection.execute(query).one()
    return number, size


def known_blobs(connection: Connection, ids: Collection[str]) -> set[str]:
    """Return those of these ids that are blobs."""
    return set(connection.execute(_select_known, {"ids": list(ids)}).scalars())


def use_blobs(connection: Connection, uses: Sequence[tuple[str, str]], *, now_us: int) -> None:
    """Note which invocations, by their id, refer to which blobs. Both must be new to each other."""
    rows = [{"invocation_id": key, "blob_id": blob_id, "create_us": now_us} for key, blob_id in uses]
    connection.execute(_insert_use, rows)


def hold_blob(connection: Connection, invocation_id: str, blob_id: str, *, now_us: int) -> bool:
    """Let an invocation refer to a blob, and tell whether there is one."""
    if not known_blobs(connection, [blob_id]):
        return False
    use_blobs(connection, [(invocation_id, blob_id)], now_us=now_us)
    return True


def give_blob(connection: Connection, blob_id: str, caller: str) -> None:
    """Note that a body which no caller has stored is this one's all the same."""
    connection.execute(
        update(_blobs).where(_blobs.c.id == blob_id, _blobs.c.stored_by.is_(None)).values(stored_by=caller)
    )


def release_blobs(connection: Connection, invocation_ids: Collection[str]) -> None:
    """Forget what invocations that are removed refer to; what no other one refers to goes with the next sweep."""
    connection.execute(_delete_uses, {"ids": list(invocation_ids)})


def remove_unused(connection: Connection, *, uploaded_before_us: int, called_before_us: int) -> list[str]:
    """Forget blobs that no invocation refers to, a batch at a time.

    :param uploaded_before_us: Those that were stored before this time.
    :param called_before_us: Invocations that referred to a blob before this time and have no record are gone: they
        were synchronous and are not recorded.
    :return: The ids of the blobs. Their files are to be removed once this is committed.
    """
    gone = (
        select(_uses.c.invocation_id)
        .where(
            _uses.c.create_us < called_before_us,
            ~exists().where(_invocations.c.id == _uses.c.invocation_id),
        )
        .limit(_BATCH_SIZE)
    )
    connection.execute(delete(_uses).where(_uses.c.invocation_id.in_(gone)))
    unused = (
        select(_blobs.c.id)
        .where(_blobs.c.create_us < uploaded_before_us, ~exists().where(_uses.c.blob_id == _blobs.c.id))
        .limit(_BATCH_SIZE)
    )
    ids = list(connection.execute(unused).scalars())
    if ids:
        connection.execute(delete(_blobs).where(_blobs.c.id.in_(ids)))
    return ids
