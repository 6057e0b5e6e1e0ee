"""Takes the events of all workers and commits them to the store, hundreds in a transaction.

Of all servers' recorders the broker keeps one active: the queue of events has a single active consumer. When another
becomes active while this one still has events in flight, both would record; so a recorder that becomes active raises an
epoch in the store, which is the fencing token of recorders: each of its transactions checks it, and the one that finds
a later epoch than its own gives back what it holds.

Events may come twice and in any order: recording is idempotent, by the fencing token of each dispatch.

What cannot be recorded, an event of a kind that only a later version knows say, is parked: kept in the store before it
is acknowledged, and tried again at every start and every minute, so that the first server that knows it records it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import structlog
from google.protobuf.message import DecodeError
from sqlalchemy import Connection
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_exponential_jitter

from homing_core.broker import Broker, Consumer, Received
from homing_core.clock import now_us
from homing_core.ids import new_id
from homing_core.wire.v1 import Event, EventBatch
from homing_server.metrics import Metrics
from homing_server.store import parked_events, schema
from homing_server.store.effects import CommitEffects
from homing_server.store.engine import Database, StoreUnavailableError
from homing_server.store.parked_events import ParkingFullError
from homing_server.store.record import record_events
from homing_server.store.sequences import holds_epoch, raise_counters

_log = structlog.get_logger(__name__)

_PREFETCH_MESSAGES = 200
_GROUP_EVENTS = 500
"""About so many events go into one transaction."""
DEFERRABLE_EVENTS = frozenset({"dequeued", "running", "attempt_ended", "sync_ended", "leased", "progress"})
"""The kinds of events that nobody waits for: they are recorded with the next one that somebody may wait for..."""
MAX_DEFER_SECONDS = 0.02
"""...or after so many seconds. So the start of a short run is recorded together with its end."""
_GATHER_SECONDS = 0.003
"""After a commit events gather for so many seconds: a transaction costs about as much as twenty events in it."""
_KNOWN_KINDS = frozenset(field.name for field in Event.DESCRIPTOR.oneofs_by_name["kind"].fields)
_RETRY_PARKED_SECONDS = 60.0
_PARKED_PAGE_SIZE = 100
_MARK_TIMEOUT_SECONDS = 10.0
"""A mark that takes more seconds than this went to another recorder, or this one is far behind."""


class _SupersededError(Exception):
    """Another recorder has become active."""


class _LostError(Exception):
    """The connection that events came by is lost: they come again, here or elsewhere."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Delivered:
    """An event message in flight, and what is in it."""

    message: Received
    batch: EventBatch
    unreadable: bool = False


class Recorder:
    """Records events while it is the active one."""

    def __init__(
        self, database: Database, broker: Broker, metrics: Metrics, *, announce: Callable[[CommitEffects], None]
    ) -> None:
        """Prepare to record.

        :param announce: Notified of what each transaction changed, after its commit.
        """
        self._database = database
        self._broker = broker
        self._metrics = metrics
        self._announce = announce
        self._epoch: int | None = None
        self._term = 0
        """Counts the consumptions: what came by an earlier one must not be recorded under the epoch of a later one."""
        self._consumer: Consumer | None = None
        self._in_flight: list[_Delivered] = []
        self._arrived = asyncio.Event()
        self._awaited = asyncio.Event()
        self._busy = False
        self._marks: dict[str, asyncio.Future[int | None]] = {}
        self._until_written = AsyncRetrying(
            retry=retry_if_exception_type((StoreUnavailableError, ParkingFullError)),
            wait=wait_exponential_jitter(multiplier=0.1, max=5),
            before_sleep=_log_retry,
        )

    @property
    def active(self) -> bool:
        """Whether this recorder is, as far as it knows, the active one."""
        return self._epoch is not None

    @property
    def epoch(self) -> int | None:
        """The epoch that this recorder records under; every connection, and every take-over, begins a new one."""
        return self._epoch

    @property
    def idle(self) -> bool:
        """Whether nothing is in flight that is not recorded."""
        return not self._in_flight and not self._busy

    async def consume(self) -> None:
        """Ask for events over a new connection, as the active recorder or as the next."""
        self._epoch = None
        self._term += 1
        self._consumer = await self._broker.consume_events(self._take, prefetch=_PREFETCH_MESSAGES)

    def lost(self) -> None:
        """Forget what is in flight: it comes again."""
        self._epoch = None
        self._term += 1
        self._consumer = None
        self._in_flight.clear()
        for mark in self._marks.values():
            if not mark.done():
                mark.set_result(None)

    async def mark(self) -> int | None:
        """Publish a mark, and return the epoch once it came back here: all that was published before is recorded.

        None where it does not come back soon: another recorder is active, or this one is behind. A recorder that has
        nothing to record becomes active by it.

        :raises BrokerError: The mark was not, or perhaps not, published.
        """
        key = new_id()
        self._marks[key] = asyncio.get_running_loop().create_future()
        try:
            await self._broker.publish_event(EventBatch(mark=key).SerializeToString())
            async with asyncio.timeout(_MARK_TIMEOUT_SECONDS):
                return await self._marks[key]
        except TimeoutError:
            return None
        finally:
            del self._marks[key]

    async def write(self, epoch: int, work: Callable[[Connection], CommitEffects]) -> bool:
        """Commit what follows from what was recorded, and announce it; tell whether the epoch still is the last one."""

        def under_epoch(connection: Connection) -> CommitEffects | None:
            return work(connection) if holds_epoch(connection, epoch) else None

        effects = await self._database.write(under_epoch)
        if effects is not None:
            self._announce(effects)
        return effects is not None

    async def record_group(self) -> None:
        """Wait for events and commit what has come. One step of the recorder's loop."""
        group: Sequence[_Delivered] = []
        while not group:
            if not self._in_flight:
                self._arrived.clear()
                await self._arrived.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(MAX_DEFER_SECONDS):
                    await self._awaited.wait()
            self._awaited.clear()
            # Empty where the connection was lost meanwhile, and with it what was in flight.
            group = self._next_group()
        self._busy = True
        try:
            await self._record(group)
        except _SupersededError:
            await self._resign(group)
        except _LostError:
            _log.info("events_left_for_redelivery", messages=len(group))
        finally:
            self._busy = False
        if not self._in_flight:
            await asyncio.sleep(_GATHER_SECONDS)

    def _take(self, message: Received) -> None:
        try:
            batch = EventBatch.FromString(message.body)
        except DecodeError:
            delivered = _Delivered(message=message, batch=EventBatch(), unreadable=True)
        else:
            delivered = _Delivered(message=message, batch=batch)
        self._in_flight.append(delivered)
        self._arrived.set()
        if not all(event.WhichOneof("kind") in DEFERRABLE_EVENTS for event in delivered.batch.events):
            self._awaited.set()

    def _next_group(self) -> list[_Delivered]:
        messages = events = 0
        while messages < len(self._in_flight) and events < _GROUP_EVENTS:
            events += len(self._in_flight[messages].batch.events)
            messages += 1
        group = self._in_flight[:messages]
        del self._in_flight[:messages]
        return group

    async def _record(self, group: Sequence[_Delivered]) -> None:
        unreadable = [delivered.message.body for delivered in group if delivered.unreadable]
        if unreadable:
            await self._park(unreadable, "it is no message that this version can read", self._term)
        events = [event for delivered in group for event in delivered.batch.events]
        unknown = [event for event in events if event.WhichOneof("kind") not in _KNOWN_KINDS]
        if unknown:
            bodies = [EventBatch(events=[event]).SerializeToString() for event in unknown]
            await self._park(bodies, "it is of a kind that this version does not know", self._term)
            events = [event for event in events if event.WhichOneof("kind") in _KNOWN_KINDS]
        await self._record_events(events, self._term)
        for delivered in group:
            delivered.message.ack()
            mark = self._marks.get(delivered.batch.mark)
            if mark is not None and not mark.done():
                mark.set_result(self._epoch)

    async def _record_events(self, events: Sequence[Event], term: int) -> None:
        """Commit events. One that cannot be recorded at all is found by halving and parked, so that others go on."""
        try:
            effects = await self._commit(events, term)
        except (_SupersededError, _LostError):
            raise
        except Exception as error:  # noqa: BLE001 whatever it is, the others' events must be recorded
            if len(events) > 1:
                half = len(events) // 2
                await self._record_events(events[:half], term)
                await self._record_events(events[half:], term)
                return
            _log.exception("event_not_recorded", event_text=str(events[0])[:2000])
            await self._park([EventBatch(events=events).SerializeToString()], f"{type(error).__name__}: {error}", term)
            return
        self._metrics.events.inc(len(events))
        self._metrics.events_refused.inc(effects.refused)
        for state in effects.ended.values():
            self._metrics.ended.labels(state.name).inc()
        self._announce(effects)

    async def retry_parked(self) -> None:
        """Record what was parked and can be recorded by now. One step of a loop."""
        after = 0
        while self._epoch is not None:
            page = await self._database.read(parked_events.parked, after=after, most=_PARKED_PAGE_SIZE)
            if not page:
                break
            after = page[-1].number
            for each in page:
                await self._retry(each)
        self._metrics.events_parked.set(await self._database.read(parked_events.count))
        await asyncio.sleep(_RETRY_PARKED_SECONDS)

    async def _retry(self, each: parked_events.Parked) -> None:
        """Record a parked message and forget it, in one transaction; leave it where that still cannot be done."""
        try:
            events = EventBatch.FromString(each.body).events
        except DecodeError:
            return
        epoch = self._epoch
        if epoch is None or any(event.WhichOneof("kind") not in _KNOWN_KINDS for event in events):
            return

        def recorded(connection: Connection) -> CommitEffects:
            parked_events.unpark(connection, [each.number])
            return record_events(connection, events)

        try:
            await self.write(epoch, recorded)
        except StoreUnavailableError:
            raise
        except Exception as error:  # noqa: BLE001 it was parked for such a one
            _log.warning("parked_event_not_recorded", number=each.number, error=f"{type(error).__name__}: {error}")
        else:
            _log.info("parked_event_recorded", number=each.number)

    async def _park(self, bodies: Sequence[bytes], why: str, term: int) -> None:
        """Keep what cannot be recorded, trying for as long as that cannot be done: it is nowhere else."""

        def park(connection: Connection) -> CommitEffects:
            parked_events.park(connection, bodies, why=why, now_us=now_us())
            return CommitEffects()

        await self._until_written(self._commit_once, park, term)
        self._metrics.events_parked.inc(len(bodies))
        _log.error("events_parked", events=len(bodies), why=why)

    async def _commit(self, events: Sequence[Event], term: int) -> CommitEffects:
        """Commit events, trying for as long as the store cannot be written: they are nowhere else."""
        return await self._until_written(self._commit_once, partial(record_events, events=events), term)

    async def _commit_once(self, work: Callable[[Connection], CommitEffects], term: int) -> CommitEffects:
        epoch = self._epoch if term == self._term else None
        if epoch is None:
            epoch = await self._database.write(self._raise_epoch, term)
            if term != self._term:
                raise _LostError
            self._epoch = epoch
            _log.info("recording_started", epoch=epoch)
        return await self._database.write(self._record_under, epoch, term, work)

    def _raise_epoch(self, connection: Connection, term: int) -> int:
        if term != self._term:
            raise _LostError
        return raise_counters(connection, {schema.EPOCH: 1})[schema.EPOCH]

    def _record_under(
        self, connection: Connection, epoch: int, term: int, work: Callable[[Connection], CommitEffects]
    ) -> CommitEffects:
        if not holds_epoch(connection, epoch):
            raise _SupersededError if term == self._term else _LostError
        return work(connection)

    async def _resign(self, group: Sequence[_Delivered]) -> None:
        """Give back what is in flight and queue up behind the recorder that is active now."""
        _log.warning("recorder_superseded", epoch=self._epoch)
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.cancel()
        for delivered in [*group, *self._in_flight]:
            delivered.message.requeue()
        self._in_flight.clear()
        await self.consume()


def _log_retry(state: RetryCallState) -> None:
    _log.warning("recording_retried", error=str(state.outcome and state.outcome.exception()))
