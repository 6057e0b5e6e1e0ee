"""The catalog: the functions, as servers announced them."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from homing_core.wire.v1 import FunctionState, Snapshot

_log = structlog.get_logger(__name__)

ChangeHook = Callable[[str, FunctionState | None, int], None]
"""Takes the name of a function and how it is now, or None where it is gone, and up to which revision."""


class Catalog:
    """Keeps the newest revision of each function. Deleted ones are remembered, so that nothing stale revives them."""

    def __init__(self, on_change: ChangeHook) -> None:
        self._on_change = on_change
        self._known: dict[str, FunctionState] = {}
        self._announced: set[str] = set()
        """Which functions were announced since a snapshot was asked for: it may be older than what is known of them."""

    def expect_snapshot(self) -> None:
        """Note that a snapshot is asked for."""
        self._announced.clear()

    def apply(self, state: FunctionState) -> None:
        """Take what a server announces of one function."""
        name = state.function.name
        self._announced.add(name)
        known = self._known.get(name)
        if known is not None and not _newer(state, known):
            return
        self._known[name] = state
        if not state.deleted:
            self._on_change(name, state, state.function.revision)
        elif known is not None and not known.deleted:
            self._on_change(name, None, state.function.revision)

    def merge(self, snapshot: Snapshot) -> None:
        """Take the state of all functions: those it does not name are gone, unless they were announced since."""
        named = {state.function.name for state in snapshot.functions}
        for name, known in list(self._known.items()):
            if name not in named and name not in self._announced and not known.deleted:
                known.deleted = True
                self._on_change(name, None, known.function.revision)
        for state in snapshot.functions:
            self.apply(state)


def _newer(state: FunctionState, known: FunctionState) -> bool:
    if state.function.revision == known.function.revision:
        return (state.deleted and not known.deleted) or state.secrets_version > known.secrets_version
    return state.function.revision > known.function.revision
