"""Loops that run for as long as the server does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

import structlog

from homing_core.broker import BrokerError
from homing_server.errors import ApiError

_log = structlog.get_logger(__name__)

T = TypeVar("T")


class Tasks:
    """Owns background tasks and cancels them at the end."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def repeat(self, step: Callable[[], Awaitable[None]], *, pause: float = 1.0) -> None:
        """Run a step again and again. A step that fails is logged and run again after a pause in seconds."""
        self._start(self._repeat(step, pause), step.__qualname__)

    def run(self, work: Awaitable[None], name: str) -> None:
        """Run something once. Its failure is logged."""
        self._start(self._run(work, name), name)

    async def finish(self, work: Coroutine[Any, Any, T], name: str) -> T:
        """Do something and return what came of it; it is done to its end, even where who waits for it goes away."""
        return await asyncio.shield(self._start(work, name))

    def _start(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    @staticmethod
    async def _repeat(step: Callable[[], Awaitable[None]], pause: float) -> None:
        while True:
            try:
                await step()
            except Exception as error:  # noqa: BLE001 a loop outlives every failure of a step
                _log.warning("step_failed", step=step.__qualname__, error=str(error), exc_info=_unexpected(error))
                await asyncio.sleep(pause)

    @staticmethod
    async def _run(work: Awaitable[None], name: str) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001 nobody else would hear of it
            _log.warning("task_failed", task=name, error=str(error), exc_info=_unexpected(error))


def _unexpected(error: Exception) -> bool:
    return not isinstance(error, (ApiError, BrokerError))
