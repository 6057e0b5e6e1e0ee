# Generated from _aio/mapping.py by scripts/unasync.py; do not edit.
"""Maps a function over items with a bounded number of workers."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Generic, TypeVar

from homing._core.mapping import AHEAD, Done, ReorderBuffer, is_fatal
from homing._sync.seam.workers import WORK_ERRORS, Workers, iterator_of

Item = TypeVar("Item")
Out = TypeVar("Out")


class _Pool(Generic[Item, Out]):
    """The workers of a map. Each takes the next item and sees it through, so inputs go in while results come out."""

    def __init__(
        self,
        run: Callable[[Item], Out],
        items: Iterator[Item],
        *,
        concurrency: int,
        stop_on_error: bool,
    ) -> None:
        self._run = run
        self._items = items
        self._concurrency = concurrency
        self._stop_on_error = stop_on_error
        self._taking = threading.Lock()
        self._slots = threading.Semaphore(AHEAD * concurrency)
        self._taken = 0
        self._working = 0
        self._stopped = False
        self._workers = Workers()
        self.done: queue.SimpleQueue[Done[Out] | None] = queue.SimpleQueue()
        """What came of the items, and at the end one None."""

    def start(self) -> None:
        """Start one worker; each starts another as soon as it has an item, up to the limit."""
        self._working += 1
        self._workers.start(self._work)

    def stop(self) -> None:
        """Take no further item."""
        self._stopped = True
        for _ in range(self._concurrency):  # who waits for a slot learns it
            self._slots.release()
        self._workers.cancel()

    def release(self) -> None:
        """One result was handed out: another item may be taken."""
        self._slots.release()

    def _work(self) -> None:
        while True:
            self._slots.acquire()
            with self._taking:
                taken = self._take()
                if taken is None:
                    self._stopped = True
                    self._working -= 1
                    if self._working == 0:
                        self.done.put_nowait(None)
                    else:  # the next one waits for a slot too, only to learn the same
                        self._slots.release()
                    return
                if self._working < self._concurrency and not self._stopped:
                    self.start()
            place, item = taken
            try:
                outcome: Done[Out] = Done(place, value=self._run(item))
            except WORK_ERRORS as error:
                outcome = Done(place, error=error, fatal=is_fatal(error))
                if self._stop_on_error or outcome.fatal:
                    self._stopped = True
            self.done.put_nowait(outcome)

    def _take(self) -> tuple[int, Item] | None:
        if self._stopped:
            return None
        try:
            item = next(self._items)
        except StopIteration:
            return None
        except WORK_ERRORS as error:
            self.done.put_nowait(Done(self._taken, error=error, fatal=True))
            self._taken += 1
            return None
        if self._stopped:  # while this one was waited for
            return None
        self._taken += 1
        return self._taken - 1, item


def map_items(
    run: Callable[[Item], Out],
    items: Iterable[Item],
    *,
    concurrency: int,
    ordered: bool,
    return_exceptions: bool,
) -> Generator[Out | Exception, None, None]:
    """Yield what comes of the items. See ``Client.map``."""
    pool = _Pool(run, iterator_of(items), concurrency=concurrency, stop_on_error=not return_exceptions)
    buffer: ReorderBuffer[Out] = ReorderBuffer(ordered)
    pool.start()
    try:
        while (done := pool.done.get()) is not None:
            for turn in buffer.ready(done):
                if turn.error is None:
                    yield turn.value  # type: ignore[misc]  # without an error there is a value
                elif return_exceptions and not turn.fatal and isinstance(turn.error, Exception):
                    yield turn.error
                else:
                    raise turn.error
                pool.release()
    finally:
        pool.stop()
