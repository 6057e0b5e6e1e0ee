"""Snapshots that come in parts: each counts once all of them are there."""

from __future__ import annotations

from homing_core.wire.v1 import Control, Snapshot


class SnapshotParts:
    """Puts snapshots together. Of each server the newest that has begun is kept; parts come in order, or not at all."""

    def __init__(self) -> None:
        self._begun: dict[str, tuple[int, Snapshot]] = {}
        """By server, the time of the snapshot and what has come of it, whose `part` is the last one that did."""

    def take(self, control: Control) -> Snapshot | None:
        """Take a part; return the snapshot where it is whole now."""
        part = control.snapshot
        if part.parts <= 1:
            return part
        time_us, begun = self._begun.get(control.server, (0, Snapshot()))
        if part.part == 0:
            begun = Snapshot()
        elif time_us != control.time_us or begun.part != part.part - 1:
            return None  # one of those before it was lost: it is asked for again
        begun.MergeFrom(part)
        if part.part < part.parts - 1:
            self._begun[control.server] = control.time_us, begun
            return None
        self._begun.pop(control.server, None)
        return begun
