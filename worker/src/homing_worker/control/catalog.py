"""The functions as servers told of them."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from homing_core.wire.v1 import FunctionState, Snapshot

_log = structlog.get_logger(__name__)

ChangeHook = Callable[[str, FunctionState | None, int], None]
"""Takes the name of a function and how it is now, or None where it is gone, and the time of the news."""


class Catalogue:
    """Keeps the newest revision of each function, deleted ones remembered so that old news does not revive them."""

    def __init__(self, on_change: ChangeHook) -> None:
        self._on_change = on_change
        self._known: dict[str, FunctionState] = {}
        self._fresh: set[str] = set()

    def ask(self) -> None:
        """Note that a snapshot is asked for: what is heard of a function from now on is newer than it may be."""
        self._fresh.clear()

    def apply(self, state: FunctionState, time_us: int) -> None:
        """Take what a server says of one function."""
        name = state.function.name
        self._fresh.add(name)
        known = self._known.get(name)
        if known is not None and not _newer(state, known):
            return
        self._known[name] = state
        if not state.deleted:
            self._on_change(name, state, time_us)
        elif known is not None and not known.deleted:
            self._on_change(name, None, time_us)

    def merge(self, snapshot: Snapshot, time_us: int) -> None:
        """Take the state of all functions: those it does not name are gone, unless they were heard of since."""
        named = {state.function.name for state in snapshot.functions}
        for name, known in list(self._known.items()):
            if name not in named and name not in self._fresh and not known.deleted:
                known.deleted = True
                self._on_change(name, None, time_us)
        for state in snapshot.functions:
            self.apply(state, time_us)


def _newer(state: FunctionState, known: FunctionState) -> bool:
    if state.function.revision == known.function.revision:
        return (state.deleted and not known.deleted) or state.secrets_version > known.secrets_version
    return state.function.revision > known.function.revision
