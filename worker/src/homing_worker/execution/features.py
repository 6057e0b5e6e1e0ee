"""What work may require a worker to know, beyond what the first version knew (``requires`` of a message).

Work that requires what this worker does not know goes back unfinished, to be done by a worker that knows it: in an
upgrade there is one, or soon will be. Each has a pause before it, so that it does not go round and round meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

KNOWN: Final[frozenset[str]] = frozenset()
"""What this worker knows."""

RETURN_DELAY_SECONDS: Final = 30.0
"""The pause before an invocation, or a delivery, is dispatched again."""
SYNC_RETURN_DELAY_SECONDS: Final = 0.5
"""The pause before a synchronous call goes round again: its caller waits."""


def unknown(requires: Iterable[str]) -> list[str]:
    """Return what is required and this worker does not know, in order; nothing as a rule."""
    return sorted(set(requires) - KNOWN)
