"""Maps a function over items with a bounded number of workers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from typing import Generic, TypeVar

from homing._aio.seam.workers import WORK_ERRORS, AsyncWorkers, iterator_of
from homing._core.mapping import AHEAD, Done, ReorderBuffer, is_fatal

Item = TypeVar("Item")
Out = TypeVar("Out")


class _Pool(Generic[Item, Out]):
    """The workers of a map. Each takes the next item and sees it through, so inputs go in while results come out."""

    def __init__(
        self,
        run: Callable[[Item], Awaitable[Out]],
        items: AsyncIterator[Item],
        *,
        concurrency: int,
        stop_on_error: bool,
    ) -> None:
        self._run = run
        self._items = items
        self._concurrency = concurrency
        self._stop_on_error = stop_on_error
        self._taking = asyncio.Lock()
        self._slots = asyncio.Semaphore(AHEAD * concurrency)
        self._taken = 0
        self._working = 0
        self._stopped = False
        self._workers = AsyncWorkers()
        self.done: asyncio.Queue[Done[Out] | None] = asyncio.Queue()
        """What came of the items, and at the end one None."""

    def start(self) -> None:
        """Start one worker; each starts another as soon as it has an item, up to the limit."""
        self._working += 1
        self._workers.start(self._work)

    async def stop(self) -> None:
        """Take no further item."""
        self._stopped = True
        for _ in range(self._concurrency):  # who waits for a slot learns it
            self._slots.release()
        await self._workers.cancel()

    def release(self) -> None:
        """One result was handed out: another item may be taken."""
        self._slots.release()

    async def _work(self) -> None:
        while True:
            await self._slots.acquire()
            async with self._taking:
                taken = await self._take()
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
                outcome: Done[Out] = Done(place, value=await self._run(item))
            except WORK_ERRORS as error:
                outcome = Done(place, error=error, fatal=is_fatal(error))
                if self._stop_on_error or outcome.fatal:
                    self._stopped = True
            self.done.put_nowait(outcome)

    async def _take(self) -> tuple[int, Item] | None:
        if self._stopped:
            return None
        try:
            item = await anext(self._items)
        except StopAsyncIteration:
            return None
        except WORK_ERRORS as error:
            self.done.put_nowait(Done(self._taken, error=error, fatal=True))
            self._taken += 1
            return None
        if self._stopped:  # while this one was waited for
            return None
        self._taken += 1
        return self._taken - 1, item


async def map_items(
    run: Callable[[Item], Awaitable[Out]],
    items: Iterable[Item] | AsyncIterable[Item],
    *,
    concurrency: int,
    ordered: bool,
    return_exceptions: bool,
) -> AsyncGenerator[Out | Exception, None]:
    """Yield what comes of the items. See ``AsyncClient.map``."""
    pool = _Pool(run, iterator_of(items), concurrency=concurrency, stop_on_error=not return_exceptions)
    buffer: ReorderBuffer[Out] = ReorderBuffer(ordered)
    pool.start()
    try:
        while (done := await pool.done.get()) is not None:
            for turn in buffer.ready(done):
                if turn.error is None:
                    yield turn.value  # type: ignore[misc]  # without an error there is a value
                elif return_exceptions and not turn.fatal and isinstance(turn.error, Exception):
                    yield turn.error
                else:
                    raise turn.error
                pool.release()
    finally:
        await pool.stop()
