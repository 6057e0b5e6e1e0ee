"""Serves log tails: what is stored, then what comes, until the invocation has ended and its lines are in.

A tail reads the store, so it works at any server; it is woken at once where the lines come in at its own. It holds one
page at a time and reads the next one when its reader has taken it, so a slow one costs nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence

from homing.v1.log_service_pb2 import TailLogsRequest, TailLogsResponse
from homing_core.clock import now_us
from homing_core.wire.v1 import LogLine
from homing_server.errors import ErrorReason, invocation_not_found, unavailable
from homing_server.logs.ingest import LogIngest
from homing_server.store.engine import Database
from homing_server.store.invocation_rows import timestamp
from homing_server.store.logs import (
    FunctionLine,
    LogMark,
    LogPage,
    LogPlace,
    read_function_logs,
    read_last_function_logs,
    read_logs,
    read_marked_function_logs,
)

MAX_LAST_LINES = 10_000
"""So many of the last lines of a function may be asked for."""
_PAGE_BATCHES = 20
_POLL_SECONDS = 0.5
"""How often, in seconds, the store is asked for lines that came in at another server."""
_GRACE_SECONDS = 1.0
"""For so many seconds after its end lines of an invocation may still come."""


class LogTails:
    """Opens tails."""

    def __init__(self, database: Database, logs: LogIngest) -> None:
        self._database = database
        self._logs = logs
        self._closed = False

    def close(self) -> None:
        """End all tails, within the time between two looks: who reads along asks another server."""
        self._closed = True

    async def tail(self, request: TailLogsRequest) -> AsyncIterator[TailLogsResponse]:
        """Yield the lines of an invocation, those that are stored and, where it is asked for, those that come.

        :raises ApiError: NOT_FOUND: there is no record of it, or none yet, of a synchronous call that runs.
            UNAVAILABLE: the server stops.
        """
        number = 0
        last_look: float | None = None
        """When all lines are in, once the end is known."""
        with self._logs.news(request.id) as news:
            while True:
                news.clear()
                late = last_look is not None and time.monotonic() >= last_look
                page = await self._database.read(read_logs, request.id, after=number, most=_PAGE_BATCHES)
                if page is None:
                    raise invocation_not_found(request.id)
                number = page.number
                for line in page.lines:
                    yield _response(line)
                if page.complete and (late or not request.follow):
                    return
                if self._closed:
                    raise unavailable(ErrorReason.SERVER_STOPPING, "the server stops; tail again")
                if not page.complete:
                    continue
                if page.end_us and last_look is None:
                    last_look = time.monotonic() + _left(page)
                    if last_look <= time.monotonic():
                        return
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_POLL_SECONDS):
                        await news.wait()

    async def tail_function(
        self, function: str, *, since_us: int = 0, lines: int = 0, follow: bool = False, mark: LogMark | None = None
    ) -> AsyncIterator[Sequence[tuple[LogMark, FunctionLine]]]:
        """Yield the lines of a function, whatever invocations it served, page by page, and those that come.

        With each comes from where to go on after it.

        :param since_us: Lines of before that are left out.
        :param lines: How many of those that are stored, the last ones; 0 for all.
        :param follow: Whether to wait for more; then this ends with the server alone.
        :param mark: Goes on after a line; ``lines`` counts no more then.
        :raises ApiError: UNAVAILABLE: the server stops.
        """
        place = LogPlace()
        with self._logs.news(function) as news:
            if mark is not None:
                begun = await self._database.read(
                    read_marked_function_logs, function, mark, since_us=since_us, most=MAX_LAST_LINES
                )
                place = begun.place
                yield begun.marked(since_us)
            elif lines:
                last = await self._database.read(
                    read_last_function_logs, function, since_us=since_us, lines=lines, most=lines
                )
                place = last.place
                yield last.marked(since_us)
            while follow or mark is not None or not lines:
                news.clear()
                page = await self._database.read(
                    read_function_logs, function, after=place, since_us=since_us, most=_PAGE_BATCHES
                )
                place = page.place
                if page.lines:
                    yield page.marked(since_us)
                if page.complete and not follow:
                    return
                if self._closed:
                    raise unavailable(ErrorReason.SERVER_STOPPING, "the server stops; tail again")
                if page.complete:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_POLL_SECONDS):
                            await news.wait()


def _left(page: LogPage) -> float:
    """Return how many seconds after now lines may still come; the clock that told the end may be another one."""
    return min(_GRACE_SECONDS, _GRACE_SECONDS - (now_us() - page.end_us) / 1e6)


def _response(line: LogLine) -> TailLogsResponse:
    return TailLogsResponse(time=timestamp(line.time_us), stream=line.stream, text=line.text, shared=line.shared)
