"""Lets callers wait for ends: one invocation's, or all that match a filter, in their order and from any point on.

Every server tails the store by the number that each result was given, woken by the recorder's word, its own or through
control messages. Watchers read at their own pace from a window of recent results that all of them share, and from the
store where they are further behind: a slow one costs no memory and misses nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncIterator, Sequence
from itertools import islice
from operator import attrgetter

from sqlalchemy import Connection

from homing.v1 import invocation_pb2 as api
from homing_server.errors import resume_token_expired
from homing_server.store import schema
from homing_server.store.counters import read_counters
from homing_server.store.engine import Database
from homing_server.store.reading import StoredResult, ended_after, get_invocations, results_after
from homing_server.store.removing import floor_of

_WINDOW = 2000
_WINDOW_BYTES = 32 * 1024 * 1024
_PAGE = 500
_POLL = 1.0
"""How often, in seconds, the store is asked for results that nobody told of."""


class WatchHub:
    """Knows how far the results go and wakes those who wait for them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._seq = 0
        self._told = asyncio.Event()
        self._told_seq = 0
        self._moved = asyncio.Condition()
        self._window: deque[StoredResult] = deque()
        self._window_bytes = 0
        self._window_start = 0
        """All results after this number, up to the hub's, are in the window."""
        self._watchers = 0
        self._waiters: dict[str, list[asyncio.Future[None]]] = {}

    @property
    def seq(self) -> int:
        """The number of the last result that this server knows of."""
        return self._seq

    async def open(self) -> None:
        """Start from where the store is."""
        self._seq = (await self._database.read(read_counters))[schema.RESULT_SEQ]
        self._window_start = self._seq

    def tell(self, seq: int) -> None:
        """Tell that results up to this number have been committed."""
        if seq > self._seq:
            self._told_seq = max(seq, self._told_seq)
            self._told.set()

    async def tail(self) -> None:
        """Wait for results and wake those who wait for them. One step of the hub's loop."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_POLL):
                await self._told.wait()
        self._told.clear()
        if self._told_seq > self._seq and not self._watchers and not self._waiters:
            # Nobody to wake: who comes later finds in the store what has ended.
            self._seq = self._told_seq
            self._forget(self._seq)
            return
        while await self._tail_page() == _PAGE:
            pass

    async def wait_ended(self, invocation_id: str, timeout: float) -> api.Invocation | None:  # noqa: ASYNC109
        """Return an invocation once it has ended, or as it is after so many seconds; None where there is none."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiters = self._waiters.setdefault(invocation_id, [])
        waiters.append(waiter)
        try:
            invocation = await self._get(invocation_id)
            if invocation is None or invocation.HasField("end_time"):
                return invocation
            await asyncio.wait([waiter], timeout=timeout)
        finally:
            waiters.remove(waiter)
            if not waiters:
                self._waiters.pop(invocation_id, None)
        return await self._get(invocation_id)

    async def results(self, seq: int, functions: frozenset[str] = frozenset()) -> AsyncIterator[Sequence[StoredResult]]:
        """Yield pages of the results after this number, for ever; an empty page means that none is there now.

        :param functions: Those of which results are wanted; none means all.
        :raises ApiError: OUT_OF_RANGE: results of these functions after this number have been removed.
        """
        self._watchers += 1
        try:
            while True:
                page = await self._page(seq, functions)
                if page:
                    seq = page[-1].seq
                yield page
        finally:
            self._watchers -= 1
            if not self._watchers:
                self._forget(self._seq)

    async def check_kept(self, seq: int, functions: frozenset[str]) -> None:
        """Check that the results of these functions after this number are all there.

        :raises ApiError: OUT_OF_RANGE.
        """
        _check_floor((await self._database.read(floor_of, functions)).result_seq, seq)

    async def moved_past(self, seq: int, timeout: float) -> bool:  # noqa: ASYNC109
        """Wait until there are results after this number, or so many seconds; tell whether there are."""
        async with self._moved:
            try:
                async with asyncio.timeout(timeout):
                    await self._moved.wait_for(lambda: self._seq > seq)
            except TimeoutError:
                return False
        return True

    async def _page(self, seq: int, functions: frozenset[str]) -> Sequence[StoredResult]:
        if seq >= self._seq:
            return []
        if seq >= self._window_start:
            # Numbers have gaps where retention removed records.
            skip = bisect_right(self._window, seq, key=attrgetter("seq"))
            return list(islice(self._window, skip, skip + _PAGE))
        page, floor = await self._database.read(_results_above_floor, seq, functions)
        _check_floor(floor, seq)
        return page

    async def _tail_page(self) -> int:
        page: Sequence[StoredResult] = []
        floor = 0
        if self._watchers:
            page, floor = await self._database.read(_results_above_floor, self._seq, frozenset[str]())
            ended = [(result.seq, result.invocation.id) for result in page]
        else:
            ended = await self._database.read(ended_after, self._seq, most=_PAGE)
        if not ended:
            return 0
        # Watchers come and go at every await: window and number change together, in one step.
        if page and floor <= self._seq:
            self._remember(page)
        else:
            self._forget(ended[-1][0])
        self._seq = ended[-1][0]
        async with self._moved:
            self._moved.notify_all()
        for _, invocation_id in ended:
            for waiter in self._waiters.get(invocation_id, ()):
                if not waiter.done():
                    waiter.set_result(None)
        return len(ended)

    def _remember(self, page: Sequence[StoredResult]) -> None:
        for result in page:
            self._window.append(result)
            self._window_bytes += result.invocation.ByteSize()
        while len(self._window) > _WINDOW or (self._window_bytes > _WINDOW_BYTES and self._window):
            oldest = self._window.popleft()
            self._window_bytes -= oldest.invocation.ByteSize()
            self._window_start = oldest.seq

    def _forget(self, seq: int) -> None:
        """Begin the window anew after a number."""
        self._window.clear()
        self._window_bytes = 0
        self._window_start = seq

    async def _get(self, invocation_id: str) -> api.Invocation | None:
        found = await self._database.read(get_invocations, [invocation_id], include_payload=False)
        return found[0] if found else None


def _check_floor(floor: int, seq: int) -> None:
    if floor > seq:
        raise resume_token_expired("results after it were removed, since their retention is over")


def _results_above_floor(
    connection: Connection, seq: int, functions: frozenset[str]
) -> tuple[Sequence[StoredResult], int]:
    """Return a page of the results after a number, and up to which number some of these functions were removed."""
    return results_after(connection, seq, most=_PAGE), floor_of(connection, functions).result_seq
