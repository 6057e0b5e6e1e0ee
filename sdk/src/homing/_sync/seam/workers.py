"""Work at the same time, in threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeVar

Item = TypeVar("Item")

WORK_ERRORS: Final = BaseException
"""What a worker reports to who reads the results: all, since nobody else would learn of it."""


class Workers:
    """Threads that do the same.

    They are daemons: one that waits for an invocation when its map has ended must not keep the process alive.
    """

    def start(self, work: Callable[[], None]) -> None:
        """Start one more."""
        threading.Thread(target=work, name="homing-map", daemon=True).start()

    def cancel(self) -> None:
        """Do nothing: threads cannot be cancelled. They end by themselves when what they wait for has come."""


def iterator_of(items: Iterable[Item]) -> Iterator[Item]:
    """Return what iterates over the items."""
    return iter(items)
