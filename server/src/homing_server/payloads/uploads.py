"""How much a caller may have stored that no invocation refers to yet."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from homing_core.clock import now_us
from homing_core.limits import MAX_UPLOADS, MAX_UPLOADS_SIZE
from homing_server.errors import too_many_uploads
from homing_server.payloads.blobs import UNUSED_AFTER_SECONDS
from homing_server.store.blobs import unused_uploads
from homing_server.store.engine import Database


@dataclass(slots=True)
class _Amount:
    number: int = 0
    size: int = 0

    def has_room_for(self, size: int) -> bool:
        return self.number < MAX_UPLOADS and self.size + size <= MAX_UPLOADS_SIZE

    def add(self, number: int, size: int) -> None:
        self.number += number
        self.size += size


class Uploads:
    """Counts the uploads of each caller.

    What they come to at the most is known without asking: what invocations refer to since is left out once that is too
    much. So the store is asked once in many uploads. Each server counts those under way by itself.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._most: dict[str, _Amount] = {}
        """By caller, what is stored and under way at the most."""
        self._under_way: dict[str, _Amount] = {}

    @asynccontextmanager
    async def upload(self, caller: str, size: int) -> AsyncIterator[None]:
        """Count an upload of so many bytes while it is under way, and from then on what it stored.

        :raises ApiError: RESOURCE_EXHAUSTED: the caller has too many, or too much; UNAVAILABLE.
        """
        await self._check(caller, size)
        self._most[caller].add(1, size)
        under_way = self._under_way.setdefault(caller, _Amount())
        under_way.add(1, size)
        try:
            yield
        finally:
            under_way.add(-1, -size)
            if not under_way.number:
                self._under_way.pop(caller, None)

    async def _check(self, caller: str, size: int) -> None:
        known = self._most.get(caller)
        if known is not None and known.has_room_for(size):
            return
        since_us = now_us() - int(UNUSED_AFTER_SECONDS * 1e6)
        stored = await self._database.read(unused_uploads, caller, since_us=since_us)
        under_way = self._under_way.get(caller, _Amount())
        known = self._most[caller] = _Amount(stored[0] + under_way.number, stored[1] + under_way.size)
        if not known.has_room_for(size):
            raise too_many_uploads(number=known.number, size=known.size)
