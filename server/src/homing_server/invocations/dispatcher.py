"""Moves what is due from the store to the broker, so much of it that the broker stays small, and never loses track.

The records that are SENT are its outbox: committed as to be published, and not yet seen confirmed. Back-pressure: what
the broker has no room for stays in the store.

What admission has just committed goes to the broker at once where there is room and nothing older waits; all else is
fed from the store when it is due, unless its function is paused. What was committed as sent and is not seen confirmed,
because this server or another died in between, or the broker did, is taken back and published again under a new
generation.

Of several servers one feeds and sweeps; each publishes what it accepts. That two feed for a moment, as one takes over,
does no harm: what is claimed is claimed in a transaction, and what is taken back is of a generation.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import structlog

from homing_core import lifecycle, limits
from homing_core.broker import Broker, BrokerError, Outgoing, UnroutableError
from homing_core.clock import now_us
from homing_core.lifecycle import Custody
from homing_server.functions.catalog import Catalog
from homing_server.payloads.signed_urls import SignedUrls
from homing_server.store import dispatch, functions, outbox, stops, sync_calls
from homing_server.store.accept import Draft
from homing_server.store.dispatch import Work
from homing_server.store.effects import CommitEffects
from homing_server.store.engine import Database
from homing_server.store.outbox import Dispatch

_log = structlog.get_logger(__name__)

PUBLISHERS = 8
"""How many loops publish: so many functions whose queues hang are borne before the others wait."""
_PUBLISH_BATCH_SIZE = 500
_CLAIM_BATCH_SIZE = 500
_CONFIRM_PAUSE_SECONDS = 0.25
"""Confirms are noted this late, in seconds: most invocations have gone further by then and need no note."""
_POLL_SECONDS = 1.0
"""How often, in seconds, the store is asked for work that another server put there."""
_TAKE_BACK_DELAY_US = 500_000


@dataclass(slots=True)
class _Load:
    """What is at the broker of one function."""

    messages: int = 0
    size: int = 0
    new_messages: int = 0
    new_size: int = 0
    """What was added since the last count began, and may be missing from it."""

    def add(self, size: int) -> None:
        self.messages += 1
        self.size += size
        self.new_messages += 1
        self.new_size += size

    def remove(self, size: int) -> None:
        self.messages = max(0, self.messages - 1)
        self.size = max(0, self.size - size)

    def begin_count(self, uncommitted: Iterable[Draft]) -> None:
        sizes = [draft.size for draft in uncommitted]
        self.new_messages, self.new_size = len(sizes), sum(sizes)

    def end_count(self, messages: int, size: int) -> None:
        # What is counted twice takes room until the next count; too little is never counted.
        self.messages, self.size = messages + self.new_messages, size + self.new_size

    def room(self) -> tuple[int, int]:
        return limits.MAX_BROKER_MESSAGES - self.messages, limits.MAX_BROKER_BYTES - self.size


class Dispatcher:
    """Publishes work."""

    def __init__(
        self,
        database: Database,
        broker: Broker,
        catalog: Catalog,
        *,
        urls: SignedUrls,
        announce: Callable[[CommitEffects], None],
        resend_after: float,
    ) -> None:
        """Prepare to dispatch.

        :param urls: Signs what lets workers read and write large bodies.
        :param announce: Notified of what ended here: what waited too long.
        :param resend_after: Seconds after which what was never seen confirmed is published again.
        """
        self._announce = announce
        self._database = database
        self._broker = broker
        self._catalog = catalog
        self._urls = urls
        self._resend_after_us = int(resend_after * 1e6)
        self._loads: dict[str, _Load] = {}
        self._reserved: dict[str, Draft] = {}
        """What has room at the broker and is not yet committed."""
        self._outbox: dict[str, list[Work]] = {}
        """By function, what is to be published."""
        self._outbox_filled = asyncio.Event()
        self._publishing: set[str] = set()
        """The functions of which a batch is on its way: the queue of one may hang without holding up the others."""
        self._in_flight: dict[Dispatch, Work] = {}
        """Committed as sent by this server and not yet seen confirmed."""
        self._confirmed: dict[str, int] = {}
        """Confirmed by the broker and not yet noted in the store: id and generation."""
        self._due: dict[str, int] = {}
        """By function, when the store has work that is due."""
        self._fed = asyncio.Event()
        catalog.on_change(lambda _: self._fed.set())

    async def recover(self, *, republish_all: bool) -> None:
        """Take back, before anything is published, what was at a broker that does not have it any more.

        :param republish_all: Whether that is so although the broker keeps its messages: its queues, or what the store
            knew of them, were lost.
        """
        if self._broker.keeps_messages and not republish_all:
            return
        stopped, lost, count = await self._database.write(
            lambda connection: (
                stops.stop_all_lost(connection, now_us=now_us()),
                sync_calls.end_all_lost(connection, now_us=now_us()),
                dispatch.take_back_all(connection, due_us=now_us()),
            )
        )
        if stopped or lost or count:
            _log.info("work_under_way_taken_back", count=count, stopped=stopped, sync_calls_lost=lost)

    def reserve(self, draft: Draft) -> None:
        """Have a draft committed as sent where it can go to the broker now; else it stays as the store holds it."""
        function = draft.spec.function
        load = self._loads.get(function) or self._loads.setdefault(function, _Load())
        messages, size = load.room()
        if (
            draft.record.due_us > draft.create_us
            or self._catalog.is_paused(function)
            or self._due.get(function, draft.create_us + 1) <= draft.create_us
            or messages < 1
            or size < draft.size
            or not self._broker.connected
        ):
            return
        draft.record = lifecycle.invocation.accepted_and_dispatched(time_us=draft.create_us)
        load.add(draft.size)
        self._reserved[draft.id] = draft

    def release(self, draft: Draft) -> None:
        """Undo the reservation of a draft that was not accepted."""
        if draft.record.custody is Custody.SENT:
            self._reserved.pop(draft.id, None)
            self._unload(draft.spec.function, draft.size)

    def send(self, work: Sequence[Work]) -> None:
        """Publish work that has been committed as sent."""
        if work:
            for item in work:
                self._reserved.pop(item.message.invocation_id, None)
                self._in_flight[item.key] = item
                self._outbox.setdefault(item.message.spec.function, []).append(item)
            self._outbox_filled.set()

    def wake(self, function: str, due_us: int) -> None:
        """Tell that the store has work of a function that is due at a time."""
        self._due[function] = min(self._due.get(function, due_us), due_us)
        self._fed.set()

    def on_committed(self, effects: CommitEffects) -> None:
        """Take note of what the recorder has committed."""
        for invocation_id, function, size in effects.left_broker:
            self._confirmed.pop(invocation_id, None)
            self._unload(function, size)
            if function in self._due:
                self._fed.set()
        for function, due_us in effects.due.items():
            self.wake(function, due_us)

    async def publish_outbox(self) -> None:
        """Wait for work to send and publish a batch of one function's. One step of several loops."""
        function = await self._next_to_publish()
        work = self._outbox.pop(function)
        if len(work) > _PUBLISH_BATCH_SIZE:
            self._outbox[function] = work[_PUBLISH_BATCH_SIZE:]
        self._publishing.add(function)
        try:
            await self._publish(function, work[:_PUBLISH_BATCH_SIZE])
        finally:
            self._publishing.discard(function)
            self._outbox_filled.set()

    async def note_confirms(self) -> None:
        """Note in the store what the broker has confirmed. One step of a loop."""
        await asyncio.sleep(_CONFIRM_PAUSE_SECONDS)
        noted = list(self._confirmed.items())[:5000]
        if noted:
            await self._database.write(outbox.INVOCATIONS.confirm, noted)
            for invocation_id, generation in noted:
                if self._confirmed.get(invocation_id) == generation:
                    del self._confirmed[invocation_id]

    async def feed(self) -> None:
        """Wait until the store has work that is due and there is room for it, and send it. One step of a loop."""
        await self._wait_for_due()
        if not self._broker.connected:
            await asyncio.sleep(0.1)
            return
        for function, due_us in list(self._due.items()):
            if due_us <= now_us() and not self._catalog.is_paused(function):
                await self._feed_function(function)

    async def sweep(self) -> None:
        """Take back what nobody has seen confirmed. One step of a loop."""
        await asyncio.sleep(_POLL_SECONDS)
        before = now_us() - self._resend_after_us
        work = await self._database.read(outbox.INVOCATIONS.forgotten, sent_before_us=before)
        forgotten = [key for key in work if key not in self._in_flight and self._confirmed.get(key[0]) != key[1]]
        if forgotten:
            _log.info("unconfirmed_work_taken_back", invocations=len(forgotten))
            await self._database.write(dispatch.take_back_work, forgotten, due_us=now_us())

    async def survey(self) -> None:
        """Look in the store for what is due, and count anew what is at the broker. One step of a loop."""
        await asyncio.sleep(_POLL_SECONDS)
        for name, load in self._loads.items():
            load.begin_count(draft for draft in self._reserved.values() if draft.spec.function == name)
        due, loads = await self._database.read(
            lambda connection: (dispatch.next_due(connection), dispatch.at_broker(connection))
        )
        for name in self._loads.keys() | loads.keys():
            self._loads.setdefault(name, _Load()).end_count(*loads.get(name, (0, 0)))
        for function, due_us in due.items():
            self.wake(function, due_us)

    async def _next_to_publish(self) -> str:
        while True:
            for function in self._outbox:
                if function not in self._publishing:
                    return function
            self._outbox_filled.clear()
            await self._outbox_filled.wait()

    async def _publish(self, function: str, batch: Sequence[Work]) -> None:
        now = now_us()
        for item in batch:
            message = item.message
            access = self._urls.access(message.invocation_id, message.spec.payload, start_by_us=message.start_by_us)
            message.bodies.CopyFrom(access)
        outgoing = [
            Outgoing(function=function, body=item.message.SerializeToString(), expires_in=_expiry(item, now))
            for item in batch
        ]
        try:
            outcomes = await self._broker.publish_work(outgoing)
        except BaseException:
            for item in batch:
                # From here on the sweeper finds them.
                self._in_flight.pop(item.key, None)
            raise
        failed: list[Work] = []
        for item, outcome in zip(batch, outcomes, strict=True):
            if outcome is None:
                self._in_flight.pop(item.key, None)
                self._confirmed[item.message.invocation_id] = item.message.generation
            else:
                failed.append(item)
        if failed:
            await self._take_back(function, failed, next(outcome for outcome in outcomes if outcome is not None))
            unroutable = any(isinstance(outcome, UnroutableError) for outcome in outcomes)
            if unroutable and not self._catalog.is_deleted(function):
                await self._broker.open_function(function)

    async def _wait_for_due(self) -> None:
        self._fed.clear()
        ready = [
            due_us for name, due_us in self._due.items() if self._has_room(name) and not self._catalog.is_paused(name)
        ]
        wait = (min(ready) - now_us()) / 1e6 if ready else None
        if wait is None or wait > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._fed.wait()

    def _has_room(self, function: str) -> bool:
        load = self._loads.get(function)
        return load is None or (load.messages < limits.MAX_BROKER_MESSAGES and load.size < limits.MAX_BROKER_BYTES)

    async def _feed_function(self, function: str) -> None:
        if self._catalog.is_deleted(function):
            # It came back to the store after its function was deleted: a worker let it go, or was lost with it.
            self._due.pop(function, None)
            self._announce(await self._database.write(functions.invalidate_stored, function, now_us=now_us()))
            return
        load = self._loads.setdefault(function, _Load())
        messages, size = load.room()
        if messages < 1 or size < 1:
            return
        now = now_us()
        claim, due = await self._database.write(
            lambda connection: (
                dispatch.claim_work(
                    connection, function, now_us=now, most=min(messages, _CLAIM_BATCH_SIZE), most_bytes=size
                ),
                dispatch.next_due(connection),
            )
        )
        for item in claim.work:
            load.add(item.size)
        if function in due:
            self._due[function] = due[function]
        else:
            self._due.pop(function, None)
        self.send(claim.work)
        self._announce(claim.effects)

    async def _take_back(self, function: str, failed: Sequence[Work], reason: BrokerError) -> None:
        """Return what was not confirmed to the store; it is published again under a new generation."""
        _log.warning("not_confirmed", function=function, invocations=len(failed), error=str(reason))
        for item in failed:
            # From here on the sweeper finds them, should the store not take them back now.
            self._in_flight.pop(item.key, None)
            self._unload(function, item.size)
        due_us = now_us() + _TAKE_BACK_DELAY_US
        keys = [item.key for item in failed]
        await self._database.write(dispatch.take_back_work, keys, due_us=due_us)
        self.wake(function, due_us)

    def _unload(self, function: str, size: int) -> None:
        self._loads.setdefault(function, _Load()).remove(size)


def _expiry(item: Work, now: int) -> float | None:
    """Return in how many seconds the broker shall drop a message that no worker took."""
    if not item.message.start_by_us:
        return None
    return max(0.001, (item.message.start_by_us - now) / 1e6)
