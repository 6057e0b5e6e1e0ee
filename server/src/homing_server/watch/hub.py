"""Lets callers wait: for the end of one invocation (long polling), or for all results, or changes, in their order."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from homing.v1 import invocation_pb2 as api
from homing_server.store import schema
from homing_server.store.engine import Database
from homing_server.store.read import changes_after, ended_after, get_invocations, results_after
from homing_server.watch.feed import Feed

_SKIM_ITEMS = 500


class WatchHub:
    """Follows what this and other servers record, and wakes those who wait for it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.results = Feed(database, schema.RESULT_SEQ, read_after=results_after, floor=lambda floor: floor.result_seq)
        """The ends of invocations."""
        self.changes = Feed(database, schema.CHANGE_SEQ, read_after=changes_after, floor=lambda floor: floor.change_seq)
        """All changes. Nothing is read of them while nobody watches."""
        self._waiters: dict[str, list[asyncio.Future[None]]] = {}

    async def open(self) -> None:
        """Start from where the store is."""
        await self.results.last()
        await self.changes.last()

    async def close(self) -> None:
        """End all watches and answer all who wait, since this server stops: they go on at another one."""
        await self.results.close()
        await self.changes.close()
        self._wake(list(self._waiters))

    def notify(self, *, result_seq: int, change_seq: int) -> None:
        """Take note that results and changes up to these numbers were committed."""
        self.results.notify(result_seq)
        self.changes.notify(change_seq)

    async def follow_results(self) -> None:
        """Wait for results and wake those who wait for them. One step of a loop."""
        committed = await self.results.wait_for_commit()
        while self.results.watched and (page := await self.results.read_page()):
            self._wake(item.invocation.id for item in page)
        if self.results.watched:
            return
        if not self._waiters:
            # Nobody to wake: who comes later finds in the store what has ended.
            await self.results.skip_to(committed)
            return
        while ended := await self._database.read(ended_after, self.results.seq, most=_SKIM_ITEMS):
            await self.results.skip_to(ended[-1][0])
            self._wake(invocation_id for _, invocation_id in ended)

    async def follow_changes(self) -> None:
        """Wait for changes and wake those who watch them. One step of a loop."""
        committed = await self.changes.wait_for_commit()
        while self.changes.watched and await self.changes.read_page():
            pass
        if not self.changes.watched:
            await self.changes.skip_to(committed)

    async def wait_ended(self, invocation_id: str, timeout: float) -> api.Invocation | None:  # noqa: ASYNC109
        """Return an invocation once it has ended, or as it is after so many seconds; None where there is none."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiters = self._waiters.setdefault(invocation_id, [])
        waiters.append(waiter)
        try:
            invocation = await self._get(invocation_id)
            if invocation is None or invocation.HasField("end_time"):
                return invocation
            if not self.results.closed:
                await asyncio.wait([waiter], timeout=timeout)
        finally:
            waiters.remove(waiter)
            if not waiters:
                self._waiters.pop(invocation_id, None)
        return await self._get(invocation_id)

    def _wake(self, ended: Iterable[str]) -> None:
        for invocation_id in ended:
            for waiter in self._waiters.get(invocation_id, ()):
                if not waiter.done():
                    waiter.set_result(None)

    async def _get(self, invocation_id: str) -> api.Invocation | None:
        found = await self._database.read(get_invocations, [invocation_id], include_payload=False)
        return found[0] if found else None
