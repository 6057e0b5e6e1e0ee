"""Snapshots: what a worker must know before it takes work, in parts that each fit into a message."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from google.protobuf.message import Message

from homing_core.limits import MAX_SNAPSHOT_PART
from homing_core.wire.v1 import CancelledCall, FunctionState, Snapshot, Tombstone

_OVERHEAD = 8
"""Bytes that an entry takes besides its own, at most."""


def snapshot_parts(
    functions: Iterable[FunctionState],
    tombstones: Iterable[Tombstone],
    cancelled_calls: Iterable[CancelledCall],
    *,
    most: int = MAX_SNAPSHOT_PART,
) -> list[Snapshot]:
    """Return a snapshot in parts, one at least.

    :param most: The bytes that a part has at the most, unless a single entry has more.
    """
    parts = [Snapshot()]
    size = 0
    for field, entry in _entries(functions=functions, tombstones=tombstones, cancelled_calls=cancelled_calls):
        room = entry.ByteSize() + _OVERHEAD
        if size and size + room > most:
            parts.append(Snapshot())
            size = 0
        size += room
        getattr(parts[-1], field).append(entry)
    for number, part in enumerate(parts):
        part.part, part.parts = number, len(parts)
    return parts


def _entries(**fields: Iterable[Message]) -> Iterator[tuple[str, Message]]:
    for name, entries in fields.items():
        for entry in entries:
            yield name, entry
