"""Runs ended invocations again, one by its id or all that a filter selects."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import replace

from sqlalchemy import Connection

from homing.v1 import invocation_pb2
from homing.v1 import invocation_service_pb2 as api
from homing_core import limits
from homing_core.clock import now_us
from homing_core.lifecycle import ENDS, State
from homing_server.auth.identity import Identity
from homing_server.errors import invocation_not_ended, invocation_not_found
from homing_server.invocations.admission import Accepted, Admission, Rerun
from homing_server.invocations.bulk_calls import BulkCalls, bulk_call
from homing_server.rules.filters import check_bulk_filter
from homing_server.rules.validation import Checks, check_payload
from homing_server.store import bulk_calls
from homing_server.store.accept import Outcome, Verdict
from homing_server.store.bulk_calls import BulkCall
from homing_server.store.engine import Database
from homing_server.store.list_pages import Place
from homing_server.store.read import get_invocations
from homing_server.store.rerun_selection import count_rerunnable, rerunnable_page

_PAGE_SIZE = 100
_PAGE_BYTES = 8 * limits.MIB
"""What is in memory at a time."""


class Reruns:
    """Makes new invocations of ended ones."""

    def __init__(self, database: Database, admission: Admission, calls: BulkCalls) -> None:
        """Prepare to run again.

        :param calls: Carry out re-runs of many.
        """
        self._database = database
        self._admission = admission
        self._calls = calls

    async def rerun(self, request: api.RerunInvocationRequest, *, caller: Identity, traceparent: str) -> Accepted:
        """Run one again.

        :raises ApiError: NOT_FOUND: the invocation or its function; FAILED_PRECONDITION: it has not ended;
            INVALID_ARGUMENT; and as where it were asked for anew.
        """
        checks = Checks()
        checks.request_id(request.request_id)
        if request.HasField("payload"):
            check_payload(checks, "payload", request.payload)
        checks.done()
        found = await self._database.read(get_invocations, [request.id], include_payload=True)
        if not found:
            raise invocation_not_found(request.id)
        state = State(found[0].state)
        if state not in ENDS:
            raise invocation_not_ended(request.id, state.name)
        rerun = rerun_of(found[0], request_id=request.request_id)
        if request.HasField("payload"):
            rerun.spec.payload.CopyFrom(request.payload)
            rerun = replace(rerun, new_payload=True)
        return await self._admission.accept_rerun(rerun, caller=caller, traceparent=traceparent)

    def rerun_all(
        self, request: api.BulkRerunRequest, *, caller: Identity, traceparent: str
    ) -> AsyncGenerator[api.BulkRerunResponse, None]:
        """Run again what a filter selects of the invocations that had ended when the call began; tell how far it is.

        What a cap on the rate lets wait is scheduled, each by its place among all that match: so a call that goes on
        after it broke off keeps to the rate of the first.

        :raises ApiError: INVALID_ARGUMENT; and as BulkCalls says.
        """
        call = bulk_call(request, caller=caller)
        checks = Checks()
        check_bulk_filter(checks, request.filter)
        caller.narrow(request.filter)
        checks.request_id(request.request_id)
        check_rate(checks, request.max_per_second)
        checks.done()

        def count(connection: Connection, call: BulkCall) -> Mapping[str, int]:
            matched = count_rerunnable(
                connection, request.filter, last_seq=call.last_seq, include_rerun=request.include_rerun
            )
            check_spread(request.max_per_second, matched, "invocations")
            return {"matched": matched}

        async def batches(call: BulkCall) -> AsyncGenerator[BulkCall, None]:
            more = True
            while more:
                call, more = await self._calls.whole(
                    self._rerun_page(call, request, caller=caller, traceparent=traceparent)
                )
                yield call

        return self._calls.run(
            call,
            caller=caller,
            dry_run=request.dry_run,
            count=count,
            batches=batches,
            response=api.BulkRerunResponse,
        )

    async def _rerun_page(
        self, call: BulkCall, request: api.BulkRerunRequest, *, caller: Identity, traceparent: str
    ) -> tuple[BulkCall, bool]:
        """Run the next ones again; tell whether there are more."""
        page = await self._database.read(
            rerunnable_page,
            request.filter,
            last_seq=call.last_seq,
            include_rerun=request.include_rerun,
            after=None if call.place is None else Place(create_us=call.place[0], id=call.place[1]),
            size=_PAGE_SIZE,
            max_bytes=_PAGE_BYTES,
        )
        if not page.invocations:
            return call, False
        due = due_times(call, request.max_per_second, len(page.invocations), before=("accepted", "refused"))
        reruns = [rerun_of(invocation, due_us=due_us) for invocation, due_us in zip(page.invocations, due, strict=True)]
        drafts = await self._admission.draft_reruns(reruns, caller=caller, traceparent=traceparent)
        last = page.invocations[-1]

        def note(connection: Connection, verdicts: Sequence[Verdict]) -> BulkCall:
            accepted = sum(verdict.outcome is Outcome.ACCEPTED for verdict in verdicts)
            noted = call.counted(accepted=accepted, refused=len(reruns) - accepted)
            noted = replace(noted, place=(last.create_time.ToMicroseconds(), last.id))
            bulk_calls.advance(connection, noted, now_us=now_us())
            return noted

        return await self._admission.commit(drafts, note), page.next is not None


def rerun_of(invocation: invocation_pb2.Invocation, *, request_id: str = "", due_us: int = 0) -> Rerun:
    """Return that an invocation is to run again as it was asked for, but when it was to run."""
    spec = invocation.spec
    spec.ClearField("schedule_time")
    spec.ClearField("delay")
    return Rerun(of=invocation.id, spec=spec, request_id=request_id, due_us=due_us)


def check_rate(checks: Checks, max_per_second: float) -> None:
    """Check the cap on the rate of what is run, or delivered, again."""
    if not 0 <= max_per_second <= limits.MAX_BULK_RATE:
        checks.add("max_per_second", f"must be from 0 to {limits.MAX_BULK_RATE:.12g}, is {max_per_second:.12g}")


def check_spread(max_per_second: float, matched: int, what: str) -> None:
    """Check for how long a cap on the rate spreads many.

    :raises ApiError: INVALID_ARGUMENT: for longer than anything may be put off.
    """
    if _gap_us(max_per_second) * matched > limits.MAX_DELAY * 1e6:
        checks = Checks()
        checks.add("max_per_second", f"would spread {matched} {what} over more than {limits.MAX_DELAY / 86400:g} days")
        checks.done()


def due_times(call: BulkCall, max_per_second: float, number: int, *, before: Sequence[str]) -> list[int]:
    """Return when each of the next ones is due, in microseconds since the epoch, so that a cap on the rate is kept.

    :param before: The names of the counts that tell how many were dealt with before them.
    """
    first = sum(call.counts.get(name, 0) for name in before)
    gap_us = _gap_us(max_per_second)
    return [call.begin_us + round(gap_us * place) for place in range(first, first + number)]


def _gap_us(max_per_second: float) -> float:
    return 1e6 / max_per_second if max_per_second else 0.0
