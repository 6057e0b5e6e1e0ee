"""A ledger of invocations: what was accepted on one side, what a watch saw end on the other."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection

from homing import AsyncClient, InvocationState, WatchEvent

PATIENCE = 120.0
"""Seconds that anything may take which is waited for: far more than it needs, so that only what never comes fails."""


PAUSE = 0.1


async def until(condition: Callable[[], bool], *, within: float = PATIENCE) -> None:
    """Wait until something holds that nobody tells of."""
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110 nobody tells of it
            await asyncio.sleep(PAUSE)


class LedgerError(AssertionError):
    """The two sides do not match, or did not within the time."""


class Ledger:
    """Counts what goes in and what comes out."""

    def __init__(self) -> None:
        self.accepted: dict[str, str] = {}
        """The function of each invocation by its id."""
        self.seen: Counter[str] = Counter()
        """How often a watch told of each end."""
        self.ends: dict[str, WatchEvent] = {}
        self._changed = asyncio.Condition()

    async def accept(
        self, client: AsyncClient, function: str, count: int = 1, *, payload: str = "", at_once: int = 16
    ) -> list[str]:
        """Have so many invocations accepted, some of them at the same time; return their ids."""
        rest = iter(range(count))
        ids: list[str] = []

        async def caller() -> None:
            for number in rest:
                handle = await client.invoke_async(function, payload or f"{function} {number}")
                ids.append(handle.id)
                await self.note(handle.id, function)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(at_once, count)):
                group.create_task(caller())
        return ids

    async def note(self, invocation_id: str, function: str) -> None:
        """Book an invocation that was accepted."""
        self.accepted[invocation_id] = function
        async with self._changed:
            self._changed.notify_all()

    async def tell(self, event: WatchEvent) -> None:
        """Book an end that a watch told of."""
        self.ends[event.invocation.id] = event
        await self.see(event.invocation.id)

    async def see(self, invocation_id: str) -> None:
        """Book an end of which only the id is known."""
        self.seen[invocation_id] += 1
        async with self._changed:
            self._changed.notify_all()

    @contextlib.asynccontextmanager
    async def watching(self, client: AsyncClient, *, resume_token: str | None = None) -> AsyncIterator[None]:
        """Book all ends that a client sees, from now on or from a token on, while the block lasts."""
        async with client.watch_results(resume_token=resume_token) as events:

            async def follow() -> None:
                async for event in events:
                    await self.tell(event)

            task = asyncio.create_task(follow())
            try:
                yield
            finally:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    async def until(self, condition: Callable[[Ledger], bool], *, within: float = PATIENCE) -> None:
        """Wait until a condition holds."""
        async with self._changed:
            try:
                await asyncio.wait_for(self._changed.wait_for(lambda: condition(self)), within)
            except TimeoutError:
                raise LedgerError(f"not so within {within:g} s: {self.summary()}") from None

    async def until_ended(self, ids: Collection[str] | None = None, *, within: float = PATIENCE) -> None:
        """Wait until the ends of these invocations, or of all accepted ones, were told of."""
        wanted = self.accepted if ids is None else ids
        await self.until(lambda ledger: all(each in ledger.seen for each in wanted), within=within)

    async def close(self, client: AsyncClient, function: str, *, within: float = PATIENCE) -> None:
        """Wait for all ends and check that each was told of once, and nothing else was.

        The last entry is an invocation of its own: ends are told in their order, so what was told before it is all
        there is.
        """
        await self.until_ended(within=within)
        await self.accept(client, function)
        await self.until_ended(within=within)
        self.check()

    def check(self) -> None:
        """Check that each accepted invocation was told of once, and nothing else was."""
        if dict(self.seen) != dict.fromkeys(self.accepted, 1):
            raise LedgerError(f"the two sides do not match: {self.summary()}")

    def states(self, function: str = "") -> Counter[InvocationState]:
        """Count the ends by their states."""
        return Counter(
            event.invocation.state for event in self.ends.values() if function in {"", event.invocation.function}
        )

    def summary(self) -> str:
        """Say what does not match."""
        missing = [each for each in self.accepted if each not in self.seen]
        repeated = {each: count for each, count in self.seen.items() if count > 1}
        strange = [each for each in self.seen if each not in self.accepted]
        return (
            f"{len(self.accepted)} accepted, {len(self.seen)} ended; {len(missing)} not ended: {missing[:5]},"
            f" {len(repeated)} told more than once: {dict(list(repeated.items())[:5])},"
            f" {len(strange)} never accepted: {strange[:5]}"
        )
