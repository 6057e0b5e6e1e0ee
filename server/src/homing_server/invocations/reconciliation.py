"""Reconciliation (P5): counts what went in, what is there and what came out, in the store and at the broker.

The difference, the drift, must be 0. The store is counted in one transaction and so exactly. Store and broker cannot be
counted at one moment: their difference is taken only from a count during which no record changed and no event was on
its way.

Work is found to be lost while others' goes on, too: what was at the broker before its queue was seen empty, and no
worker had it waiting since, and none has spoken of it in any event until then, was in a queue that somebody emptied or
removed. Where that is so twice running, it is taken back, to be published again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import structlog
from sqlalchemy import Connection

from homing.v1.dead_letter_pb2 import DEAD_LETTER_KIND_DELIVERY, DEAD_LETTER_KIND_INVOCATION
from homing_core.broker import Broker
from homing_core.clock import now_us
from homing_core.lifecycle import Custody, State
from homing_core.limits import CONTROL_INTERVAL
from homing_server.cluster.presence import Presence
from homing_server.control import ControlChannel
from homing_server.functions.catalog import Catalog
from homing_server.invocations.recorder import Recorder
from homing_server.metrics import Metrics
from homing_server.store import dead_letters, delivery_rows, dispatch, outbox, schema
from homing_server.store.engine import Database
from homing_server.store.outbox import Dispatch
from homing_server.store.sequences import read_counters
from homing_server.store.state_counts import count_states

_log = structlog.get_logger(__name__)

_COUNT_SHARE = 0.01
"""Counting all records may take so much of a processor: very many are counted more rarely."""
_ON_ITS_WAY_SECONDS = CONTROL_INTERVAL / 2
"""A status that came within so many seconds may have been made before the count began."""
_POLL_SECONDS = 0.1
_KINDS = {DEAD_LETTER_KIND_INVOCATION: "invocation", DEAD_LETTER_KIND_DELIVERY: "delivery"}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Counts:
    """What the store holds, at one moment."""

    counters: Mapping[str, int]
    states: Mapping[State, int]
    deliveries: Mapping[Custody, int]
    """Those that are not over, by who holds them."""
    dead_letters: Mapping[int, int]
    """By kind."""


class Reconciliation:
    """Measures drift."""

    def __init__(
        self,
        database: Database,
        broker: Broker,
        metrics: Metrics,
        *,
        catalog: Catalog,
        control: ControlChannel,
        presence: Presence,
        recorder: Recorder,
        interval: float,
    ) -> None:
        self._database = database
        self._broker = broker
        self._catalog = catalog
        self._control = control
        self._recorder = recorder
        self._presence = presence
        self._metrics = metrics
        self._interval = interval
        self._count_seconds = 0.0
        self._missing: dict[str, set[Dispatch]] = {}
        """By function, what was at the broker at the last count, as far as the store knew, and was not there."""

    async def measure(self) -> None:
        """Count records, and the broker's messages when nothing moves. One step of a loop."""
        await asyncio.sleep(max(self._interval, self._count_seconds / _COUNT_SHARE))
        self._metrics.workers.set(self._presence.workers)
        self._metrics.worker_versions.clear()
        for version, workers in self._presence.versions().items():
            self._metrics.worker_versions.labels(version or "unknown").set(workers)
        await self._count_records()
        # Only the active recorder knows whether events are in its hand.
        if self._broker.connected and (self._recorder.active or self._control.alone):
            self._metrics.events_waiting.set(await self._broker.events_depth())
            await self._count_broker()
            await self._find_lost()

    async def _count_records(self) -> None:
        counts, self._count_seconds = await self._database.read(_count)
        for custody in (Custody.STORE, Custody.SENT, Custody.BROKER):
            self._metrics.deliveries_waiting.labels(custody.name.lower()).set(counts.deliveries.get(custody, 0))
        for kind, name in _KINDS.items():
            self._metrics.dead_letters.labels(name).set(counts.dead_letters.get(kind, 0))
        for state in State:
            self._metrics.records.labels(state.name).set(counts.states.get(state, 0))
        accepted, removed = counts.counters[schema.ACCEPTED], counts.counters[schema.REMOVED]
        drift = accepted - removed - sum(counts.states.values())
        self._metrics.record_drift.set(drift)

    async def _count_broker(self) -> None:
        began = time.time()
        change_seq = await self._change_seq()
        await self._reports()
        believed = await self._database.read(dispatch.at_broker)
        drift = {}
        for state in self._catalog.live():
            name = state.function.name
            there = await self._depth(name) + self._presence.in_flight(name)
            drift[name] = believed.get(name, (0, 0))[0] - there
        moving = not self._recorder.idle or await self._broker.events_depth()
        if moving or await self._change_seq() != change_seq:
            return
        for name, difference in drift.items():
            self._metrics.broker_drift.labels(name).set(difference)
        self._metrics.settled.set(began)

    async def _find_lost(self) -> None:
        """Take back what was missing at the last count already; note what is missing now."""
        before, self._missing = self._missing, {}
        believed = await self._database.read(dispatch.at_broker)
        empty = [name for name in believed if not await self._depth(name)]
        candidates = {name: await self._unstarted(name) for name in empty}
        if not any(candidates.values()):
            return
        # A message may have gone to a worker, or have come back from one, since its queue was looked at.
        await self._reports()
        if self._presence.silent:
            return  # what such a worker has comes back once the broker knows that it is gone
        missing = {
            name: keys
            for name, keys in candidates.items()
            if not (self._presence.waiting(name) or await self._depth(name))
        }
        # What workers have said of it until now is recorded by then.
        if not any(missing.values()) or await self._recorder.mark() is None:
            return
        for name, keys in missing.items():
            self._missing[name] = keys & await self._unstarted(name)
            if lost := self._missing[name] & before.get(name, set()):
                await self._take_back(name, lost)

    async def _unstarted(self, function: str) -> set[Dispatch]:
        return await self._database.read(outbox.INVOCATIONS.unstarted, function)

    async def _reports(self) -> None:
        """Wait until every worker has reported what it has in flight from now on."""
        late = time.monotonic() + _ON_ITS_WAY_SECONDS
        while not self._presence.all_reported_since(late):  # noqa: ASYNC110 they are looked at, in a loop of seconds
            await asyncio.sleep(_POLL_SECONDS)

    async def _depth(self, function: str) -> int:
        return (await self._broker.depth(function)).work

    async def _take_back(self, function: str, lost: Collection[Dispatch]) -> None:
        """Have published again what is lost; the dispatcher makes the queue anew where there is none."""
        count = await self._database.write(outbox.INVOCATIONS.take_back_lost, lost, due_us=now_us())
        if count:
            _log.warning("lost_work_taken_back", function=function, invocations=count)

    async def _change_seq(self) -> int:
        return (await self._database.read(read_counters))[schema.CHANGE_SEQ]


def _count(connection: Connection) -> tuple[_Counts, float]:
    """Return what there is, and the seconds of processor time that it took to count it."""
    begin = time.thread_time()
    counts = _Counts(
        counters=read_counters(connection),
        states=count_states(connection),
        deliveries=delivery_rows.count_waiting(connection),
        dead_letters=dead_letters.count_by_kind(connection),
    )
    return counts, time.thread_time() - begin
