"""Stops invocations: those that wait in the store at once, all others once it is certain that nobody will start them.

A stop of what may be at the broker is announced to all workers, again and again, until the one that runs it reports
its end, or every worker has said that it does not hold it and will not start it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import replace

import structlog
from sqlalchemy import Connection

from homing.v1 import invocation_pb2
from homing.v1 import invocation_service_pb2 as api
from homing_core import limits
from homing_core.broker import Broker
from homing_core.clock import now_us
from homing_core.lifecycle import ENDS, State
from homing_server.auth.identity import Identity
from homing_server.cluster.registry import WorkerRegistry
from homing_server.control import ControlChannel
from homing_server.errors import invocation_ended, invocation_not_found
from homing_server.invocations.bulk_calls import BulkCalls, bulk_call
from homing_server.rules.filters import check_bulk_filter
from homing_server.rules.validation import Checks
from homing_server.store import bulk_calls, stops, tombstones
from homing_server.store.bulk_calls import BulkCall
from homing_server.store.effects import CommitEffects
from homing_server.store.engine import Database
from homing_server.store.list_pages import Place
from homing_server.store.stops import Requested

_log = structlog.get_logger(__name__)

_REPEAT_SECONDS = 1.0
"""How often is looked for stops that are under way, those of other servers too; they are announced again."""
_GATHER_SECONDS = 0.01
"""Answers of workers gather for so many seconds."""
_MAX_UNDER_WAY = 5000
"""At most so many stops are looked after at a time."""
_FORGET_SECONDS = 30.0
_REMEMBERED_SECONDS = 24 * 3600.0
"""After so many seconds the message of a stopped invocation is taken for gone although the queue was never empty."""


class Stops:
    """Carries out stops."""

    def __init__(
        self,
        database: Database,
        broker: Broker,
        control: ControlChannel,
        registry: WorkerRegistry,
        *,
        calls: BulkCalls,
        announce: Callable[[CommitEffects], None],
    ) -> None:
        """Prepare to stop.

        :param calls: Carry out stops of many.
        :param announce: Notified of what each transaction changed, after its commit.
        """
        self._database = database
        self._broker = broker
        self._control = control
        self._registry = registry
        self._calls = calls
        self._announce = announce
        self._announced_at = 0.0

    async def stop(self, invocation_id: str, *, caller: Identity, reason: str) -> None:
        """Stop an invocation, or ask for it where it may be in flight; asked twice is asked once.

        :raises ApiError: INVALID_ARGUMENT, NOT_FOUND, FAILED_PRECONDITION: it has ended.
        """
        checks = Checks()
        checks.text("reason", reason, limits.MAX_STOP_REASON)
        checks.done()
        requested = await self._database.write(
            stops.request_stop, invocation_id, caller=caller.name, reason=reason, now_us=now_us()
        )
        state = requested.states.get(invocation_id)
        if state is None:
            raise invocation_not_found(invocation_id)
        if state in ENDS and not requested.effects.ended:
            raise invocation_ended(invocation_id, state.name)
        await self._follow(requested)

    def stop_selected(
        self, request: api.BulkStopRequest, *, caller: Identity
    ) -> AsyncGenerator[api.BulkStopResponse, None]:
        """Stop all that a filter selects and that were accepted before the call began; tell how far it is.

        :raises ApiError: INVALID_ARGUMENT; and as BulkCalls says.
        """
        call = bulk_call(request, caller=caller)
        checks = Checks()
        check_bulk_filter(checks, request.filter)
        caller.narrow(request.filter)
        checks.text("reason", request.reason, limits.MAX_STOP_REASON)
        checks.request_id(request.request_id)
        checks.done()
        return self._calls.run(
            call,
            caller=caller,
            dry_run=request.dry_run,
            count=lambda connection, call: _count(connection, call, request),
            batches=lambda call: self._stop_all(call, request),
            response=api.BulkStopResponse,
        )

    async def settle(self) -> None:
        """Look after the stops that are under way. One step of a loop on every server."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_REPEAT_SECONDS):
                await self._registry.news.wait()
        self._registry.news.clear()
        await asyncio.sleep(_GATHER_SECONDS)
        under_way = await self._database.read(stops.under_way, most=_MAX_UNDER_WAY)
        workers = await self._registry.strike_off(under_way.workers)
        certain = [
            stop.invocation_id
            for stop in under_way.stops
            if self._registry.has_acknowledged(stop.invocation_id, workers)
        ]
        for start in range(0, len(certain), limits.MAX_STOPS):
            ids = certain[start : start + limits.MAX_STOPS]
            self._announce(await self._database.write(stops.stop_all, ids, now_us=now_us()))
        rest = [stop for stop in under_way.stops if not self._registry.has_acknowledged(stop.invocation_id, workers)]
        if rest and time.monotonic() - self._announced_at >= _REPEAT_SECONDS:
            self._announced_at = time.monotonic()
            await self._control.announce_stops(rest)
        self._registry.forget_acknowledged({stop.invocation_id for stop in under_way.stops})

    async def forget(self) -> None:
        """Forget the tombstones of messages that are gone. One step of a loop.

        A message that comes again, since the broker was killed before it had written that it was let go, is delivered
        before all others. So it is gone where the queue is empty and nothing was heard of it for a while.
        """
        await asyncio.sleep(_FORGET_SECONDS)
        if self._registry.connected_seconds < limits.TOMBSTONE_KEPT:
            return
        now = now_us()
        kept, remembered = (now - int(seconds * 1e6) for seconds in (limits.TOMBSTONE_KEPT, _REMEMBERED_SECONDS))
        for function in await self._database.read(tombstones.forgettable, before_us=kept):
            depth = await self._broker.depth(function)
            empty = depth.work == depth.sync == 0
            await self._database.write(tombstones.forget, function, before_us=kept if empty else remembered)

    async def _stop_all(self, call: BulkCall, request: api.BulkStopRequest) -> AsyncGenerator[BulkCall, None]:
        before = None
        # Some may have moved from a state that was not yet looked at to one that was.
        while call.counts != before:
            before = call.counts
            for part in stops.split(request.filter, stops.STOPPABLE):
                place: Place | None = None
                while True:
                    call, place = await self._calls.whole(self._stop_page(call, part, place, request.reason))
                    yield call
                    if place is None:
                        break

    async def _stop_page(
        self, call: BulkCall, part: invocation_pb2.InvocationFilter, place: Place | None, reason: str
    ) -> tuple[BulkCall, Place | None]:
        requested, call, place = await self._database.write(_stop_page, call, part, after=place, reason=reason)
        await self._follow(requested)
        return call, place

    async def _follow(self, requested: Requested) -> None:
        """Announce what was asked for."""
        self._announce(requested.effects)
        if requested.stops:
            await self._control.announce_stops(requested.stops)
            # Where no worker is, none will answer.
            self._registry.news.set()


def _count(connection: Connection, call: BulkCall, request: api.BulkStopRequest) -> Mapping[str, int]:
    """Count what there is to stop, and what is being stopped already."""

    def count(states: Sequence[State]) -> int:
        parts = stops.split(request.filter, states)
        return sum(stops.count(connection, part, accepted_by_us=call.begin_us) for part in parts)

    stopping = count([State.STOPPING])
    matched = count(stops.STOPPABLE) + stopping
    return {"matched": matched} if request.dry_run else {"matched": matched, "stopping": stopping}


def _stop_page(
    connection: Connection,
    call: BulkCall,
    part: invocation_pb2.InvocationFilter,
    *,
    after: Place | None,
    reason: str,
) -> tuple[Requested, BulkCall, Place | None]:
    """Stop a page of those that a part of a filter selects, and note it."""
    requested, place = stops.request_page(
        connection,
        part,
        after=after,
        accepted_by_us=call.begin_us,
        caller=call.caller,
        reason=reason,
        now_us=now_us(),
    )
    if requested.states:
        call = call.counted(stopped=len(requested.effects.ended), stopping=len(requested.stops))
        # Some have come to match only now, as their state has changed.
        matched = max(call.counts["matched"], call.counts["stopped"] + call.counts["stopping"])
        call = replace(call, counts={**call.counts, "matched": matched})
        bulk_calls.advance(connection, call, now_us=now_us())
    return requested, call, place
