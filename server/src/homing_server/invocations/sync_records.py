"""The records of this server's synchronous calls that last: made while they are under way, so that they can be seen.

Most calls are over in milliseconds, and are recorded by the event of their end alone. What has been in flight for a
second gets its record before, with all others of which that is so, in one transaction a second; and so does the worker
that begins it. The end of a call that never started, or whose function leaves no records by now, is told by no worker:
its server tells it, where there is a record.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from homing.v1 import invocation_pb2 as api
from homing_core.clock import now_us
from homing_core.limits import MAX_ATTEMPT_TIMEOUT
from homing_core.wire.v1 import AttemptRecord, Ended, Event, SyncRequest
from homing_server.functions.catalog import Catalog
from homing_server.invocations.answer_stream import AnswerStream
from homing_server.store.effects import CommitEffects
from homing_server.store.engine import Database
from homing_server.store.invocation_rows import CALL_TOKEN, call_event
from homing_server.store.read import get_invocations
from homing_server.store.sync_calls import put_off_loss, record_calls

_LASTING_SECONDS = 1.0
"""A call that has been in flight for so many seconds gets a record."""
_LOST_SECONDS: Final = 60.0
"""An attempt that ran for as long as it may is told of within so many seconds."""
_BATCH_SIZE: Final = 200
"""So many are recorded in a transaction: each may bring a payload."""


@dataclass(slots=True, eq=False)
class Call:
    """A synchronous call whose caller waits at this server."""

    request: SyncRequest
    answer: asyncio.Future[Ended | api.Invocation | None]
    """The end as its worker tells it; or the record, where that ended without the worker; None where a worker begins to
    stream the answer, and then another one has the end."""
    worker: str = ""
    """Who runs it; empty until it starts."""
    start_us: int = 0
    recorded: str | None = None
    """The worker that its record tells of, which is being written at least; None where there is no record."""
    stopping: bool = False
    """Whether a stop was asked for."""
    stream: AnswerStream | None = None
    """Its answer as the caller is passed it; None where the caller wants it whole."""
    outlives: bool = False
    """Whether its record says that it goes on past the deadline."""

    @property
    def id(self) -> str:
        """Return the id of the invocation."""
        return self.request.invocation_id


class SyncRecords:
    """Records calls that last."""

    def __init__(self, database: Database, catalog: Catalog, *, announce: Callable[[CommitEffects], None]) -> None:
        """Prepare to record.

        :param announce: Notified of what each transaction changed, after its commit.
        """
        self._database = database
        self._catalog = catalog
        self._announce = announce
        self._ends: dict[str, Event] = {}
        """What is to be told of the ends of calls that have records, by id."""

    async def keep(self, calls: Iterable[Call]) -> None:
        """Record what lasts of these calls and what has become of others; answer those that ended by a stop."""
        lasting_us = now_us() - int(_LASTING_SECONDS * 1e6)
        calls = list(calls)
        news = [
            call
            for call in calls
            if call.recorded != call.worker
            and call.request.create_us <= lasting_us
            and self._catalog.records_calls(call.request.spec.function)
        ]
        for first in range(0, len(news), _BATCH_SIZE):
            await self._record(news[first : first + _BATCH_SIZE])
        await self._let_outlive([call for call in calls if call.stream is not None and call.stream.streams])
        if self._ends:
            await self._end()
        await self._answer({call.id: call for call in calls if call.stopping})

    def note_end(self, call: Call, ended: Ended) -> None:
        """Note how a call ended, where it has a record and its worker reports no end, or perhaps none."""
        reported = ended.attempts and self._catalog.records_calls(call.request.spec.function)
        if call.recorded is not None and not reported:
            self._ends[call.id] = call_event(call.id, time_us=now_us(), worker=call.worker, ended=ended)

    def withdraw_end(self, invocation_id: str) -> None:
        """Forget what was noted of a call that has not started: a worker has begun it, and will tell its end."""
        self._ends.pop(invocation_id, None)

    async def _record(self, calls: Sequence[Call]) -> None:
        for call in calls:
            # Before it is written, since it may end meanwhile.
            call.recorded = call.worker
        requests = {call.id: call.request for call in calls}
        started = [_started(call) for call in calls if call.worker]
        try:
            effects = await self._database.write(record_calls, requests, started)
        except BaseException:
            for call in calls:
                call.recorded = None
            raise
        self._announce(effects)

    async def _let_outlive(self, calls: Iterable[Call]) -> None:
        """See that calls whose answers stream are not taken for lost at their deadlines, which count no more."""
        news = [call for call in calls if call.recorded is not None and not call.outlives]
        if not news:
            return
        lost_us = now_us() + int((MAX_ATTEMPT_TIMEOUT + _LOST_SECONDS) * 1e6)
        await self._database.write(put_off_loss, [call.id for call in news], lost_us=lost_us)
        for call in news:
            call.outlives = True

    async def _end(self) -> None:
        ends, self._ends = self._ends, {}
        try:
            effects = await self._database.write(record_calls, {}, list(ends.values()))
        except BaseException:
            self._ends = ends | self._ends
            raise
        self._announce(effects)

    async def _answer(self, stopping: dict[str, Call]) -> None:
        """Answer calls whose records have ended: a stop that no worker had to carry out is told by nobody else."""
        if not stopping:
            return
        for invocation in await self._database.read(get_invocations, stopping, include_payload=False):
            answer = stopping[invocation.id].answer
            if invocation.HasField("end_time") and not answer.done():
                answer.set_result(invocation)


def _started(call: Call) -> Event:
    attempt = AttemptRecord(token=CALL_TOKEN, ordinal=1, worker=call.worker, start_us=call.start_us)
    return call_event(call.id, time_us=call.start_us, worker=call.worker, running=attempt)
