"""Work at the same time, in tasks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable
from typing import Any, Final, TypeVar

Item = TypeVar("Item")

WORK_ERRORS: Final = Exception
"""What a worker reports to who reads the results. What is not of these ends the event loop, or the worker alone."""


class AsyncWorkers:
    """Tasks that do the same."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Start one more."""
        self._tasks.append(asyncio.get_running_loop().create_task(work()))

    async def cancel(self) -> None:
        """End them all."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def iterator_of(items: Iterable[Item] | AsyncIterable[Item]) -> AsyncIterator[Item]:
    """Return what iterates over the items."""
    return aiter(items) if isinstance(items, AsyncIterable) else _each(items)


async def _each(items: Iterable[Item]) -> AsyncIterator[Item]:
    for item in items:
        yield item
