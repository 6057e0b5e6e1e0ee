"""Follows the results, or the changes, of the store in their order, for all who watch them.

Every server follows the store by the number that each result or change was given, notified by whoever committed it,
itself or another server through control messages. Watchers read at their own pace from a window of what was
numbered last, which all of them share, and from the store where they are further behind: a slow one costs no memory and
misses nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import islice
from operator import attrgetter
from typing import Protocol

from sqlalchemy import Connection

from homing_server.errors import resume_token_expired
from homing_server.store.engine import Database
from homing_server.store.read import Numbered
from homing_server.store.retention import Floor, floor_of
from homing_server.store.sequences import read_counters

_WINDOW_ITEMS = 10_000
_WINDOW_BYTES = 32 * 1024 * 1024
_PAGE_ITEMS = 500
_POLL_SECONDS = 1.0
"""How often the store is asked for commits that nobody has notified."""


class ReadAfter(Protocol):
    """Reads what was numbered after a number, in order."""

    def __call__(self, connection: Connection, seq: int, *, most: int) -> Sequence[Numbered]:
        """Return at most so many."""


class Feed:
    """Knows how far a sequence goes, and wakes those who watch it."""

    def __init__(
        self, database: Database, counter: str, *, read_after: ReadAfter, floor: Callable[[Floor], int]
    ) -> None:
        """Prepare to follow a sequence.

        :param counter: The name of the counter that gives its numbers.
        :param floor: Returns the number of the sequence up to which records may have been removed.
        """
        self._database = database
        self._counter = counter
        self._read_after = read_after
        self._floor_of = floor
        self._seq = 0
        self._committed = asyncio.Event()
        self._committed_seq = 0
        self._moved = asyncio.Condition()
        self._window: deque[Numbered] = deque()
        self._window_bytes = 0
        self._window_start = 0
        """All that was numbered after this, up to the feed's own number, is in the window."""
        self._watchers = 0
        self.closed = False
        """Whether nobody is to watch here any more."""

    @property
    def seq(self) -> int:
        """The number up to which this server knows the sequence."""
        return self._seq

    @property
    def watched(self) -> bool:
        """Whether anybody watches."""
        return self._watchers > 0

    async def last(self) -> int:
        """Return the last number that was given. The feed may be behind it, or skips to it where nobody watches."""
        seq = (await self._database.read(read_counters))[self._counter]
        if not self._watchers:
            await self.skip_to(seq)
        return seq

    def notify(self, seq: int) -> None:
        """Take note that what has numbers up to this one was committed."""
        if seq > self._seq:
            self._committed_seq = max(seq, self._committed_seq)
            self._committed.set()

    def wake(self) -> None:
        """Take note that something was committed, under a number that the caller does not know."""
        if self._watchers:
            self._committed.set()

    async def wait_for_commit(self) -> int:
        """Wait for a commit, or until the store is to be asked; return the highest number that was notified."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_POLL_SECONDS):
                await self._committed.wait()
        self._committed.clear()
        return self._committed_seq

    async def read_page(self) -> Sequence[Numbered]:
        """Take the next page into the window and wake those who watch; return it, empty where nothing is left."""
        page, floor = await self._database.read(self._read_page, self._seq, frozenset[str]())
        if page:
            # Watchers come and go at every await: window and number change together, in one step.
            gap, self._seq = floor > self._seq, page[-1].seq
            if gap:
                # Some of what was numbered is not in the page: who misses it is told when the store is read again.
                self._forget()
            else:
                self._remember(page)
            async with self._moved:
                self._moved.notify_all()
        return page

    async def skip_to(self, seq: int) -> None:
        """Go on from a number without reading what is before it, unless it is passed already."""
        if seq > self._seq:
            self._seq = seq
            self._forget()
            async with self._moved:
                self._moved.notify_all()

    async def pages(self, seq: int, functions: frozenset[str]) -> AsyncIterator[Sequence[Numbered]]:
        """Yield pages of what has numbers after this one, for ever; an empty page means that nothing is there now.

        :param functions: Those that are asked about, others may be in the pages too; none means all.
        :raises ApiError: OUT_OF_RANGE: records of these functions after this number have been removed.
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
                self._forget()

    async def close(self) -> None:
        """Wake all who watch, so that they go elsewhere."""
        self.closed = True
        async with self._moved:
            self._moved.notify_all()

    async def moved_past(self, seq: int, timeout: float) -> bool:  # noqa: ASYNC109
        """Wait until there is something after this number, or so many seconds, or the end; tell whether there is."""
        async with self._moved:
            try:
                async with asyncio.timeout(timeout):
                    await self._moved.wait_for(lambda: self._seq > seq or self.closed)
            except TimeoutError:
                return False
        return self._seq > seq

    async def check_kept(self, seq: int, functions: frozenset[str]) -> None:
        """Check that the records of these functions after this number are all there.

        :raises ApiError: OUT_OF_RANGE.
        """
        self._check_floor(self._floor_of(await self._database.read(floor_of, functions)), seq)

    async def _page(self, seq: int, functions: frozenset[str]) -> Sequence[Numbered]:
        if seq >= self._seq:
            return []
        if seq >= self._window_start:
            # Numbers have gaps where records were removed, or have changed again since.
            skip = bisect_right(self._window, seq, key=_number)
            return list(islice(self._window, skip, skip + _PAGE_ITEMS))
        page, floor = await self._database.read(self._read_page, seq, functions)
        self._check_floor(floor, seq)
        return page

    def _read_page(self, connection: Connection, seq: int, functions: frozenset[str]) -> tuple[Sequence[Numbered], int]:
        """Return a page of what is after a number, and up to which number some of these functions were removed."""
        return self._read_after(connection, seq, most=_PAGE_ITEMS), self._floor_of(floor_of(connection, functions))

    @staticmethod
    def _check_floor(floor: int, seq: int) -> None:
        if floor > seq:
            raise resume_token_expired("records after it were removed, since their retention is over")

    def _remember(self, page: Sequence[Numbered]) -> None:
        for item in page:
            self._window.append(item)
            self._window_bytes += item.size
        while len(self._window) > _WINDOW_ITEMS or (self._window_bytes > _WINDOW_BYTES and self._window):
            oldest = self._window.popleft()
            self._window_bytes -= oldest.size
            self._window_start = oldest.seq

    def _forget(self) -> None:
        """Begin the window anew."""
        self._window.clear()
        self._window_bytes = 0
        self._window_start = self._seq


_number: Callable[[Numbered], int] = attrgetter("seq")
