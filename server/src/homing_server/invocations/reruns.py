"""Runs ended invocations again, one by its id or all that a filter selects."""

from __future__ import annotations

from homing.v1 import invocation_pb2
from homing.v1 import invocation_service_pb2 as api
from homing_core import limits
from homing_core.clock import now_us
from homing_core.lifecycle import ENDS, State
from homing_server.auth.identity import Identity
from homing_server.errors import ApiError, Code, invocation_not_ended, invocation_not_found
from homing_server.invocations.admission import Accepted, Admission, Rerun
from homing_server.rules.filters import check_bulk_filter
from homing_server.rules.validation import Checks, check_payload
from homing_server.store import schema
from homing_server.store.engine import Database
from homing_server.store.list_pages import Place
from homing_server.store.read import get_invocations
from homing_server.store.rerun_selection import Rerunnable, count_rerunnable, rerun_request_id, rerunnable_page
from homing_server.store.sequences import read_counters

CANNOT_RUN_AGAIN = frozenset({Code.NOT_FOUND, Code.INVALID_ARGUMENT, Code.PERMISSION_DENIED})
"""What it needs is gone, or what it asks for is not allowed, not any more or not to this caller."""
_PAGE_SIZE = 100
_PAGE_BYTES = 8 * limits.MIB
"""What is in memory at a time."""


class Reruns:
    """Makes new invocations of ended ones."""

    def __init__(self, database: Database, admission: Admission) -> None:
        self._database = database
        self._admission = admission

    async def rerun(self, request: api.RerunInvocationRequest, *, caller: Identity, traceparent: str) -> Accepted:
        """Run one again.

        :raises ApiError: NOT_FOUND: the invocation or its function; FAILED_PRECONDITION: it has not ended;
            INVALID_ARGUMENT; and as where it were asked for anew.
        """
        checks = Checks()
        checks.text("request_id", request.request_id, limits.MAX_REQUEST_ID)
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
        return await self._admission.accept_rerun(rerun, caller=caller, traceparent=traceparent)

    async def rerun_all(
        self, request: api.BulkRerunRequest, *, caller: Identity, traceparent: str
    ) -> api.BulkRerunResponse:
        """Run again what a filter selects of the invocations that have ended by now.

        What a cap on the rate lets wait is scheduled, each by its place among all that match: so a call that is
        repeated after it broke off goes on at the rate of the first.

        :raises ApiError: INVALID_ARGUMENT; UNAVAILABLE: the store failed, perhaps after some were accepted.
        """
        begin_us = now_us()
        checks = Checks()
        check_bulk_filter(checks, request.filter)
        caller.narrow(request.filter)
        checks.text("request_id", request.request_id, limits.MAX_BULK_REQUEST_ID)
        check_rate(checks, request.max_per_second)
        checks.done()
        wanted = Rerunnable(
            selection=request.filter,
            last_seq=(await self._database.read(read_counters))[schema.RESULT_SEQ],
            caller=caller.name,
            request_id=request.request_id,
        )
        response = api.BulkRerunResponse(matched=await self._database.read(count_rerunnable, wanted))
        gap_us = gap_us_of(request.max_per_second, response.matched, "invocations")
        after: Place | None = None
        number = 0
        while not request.dry_run:
            page = await self._database.read(
                rerunnable_page, wanted, after=after, size=_PAGE_SIZE, max_bytes=_PAGE_BYTES
            )
            reruns = [
                rerun_of(
                    invocation,
                    request_id=rerun_request_id(request.request_id, invocation.id),
                    due_us=begin_us + round(gap_us * place),
                )
                for place, invocation in enumerate(page.invocations, number)
            ]
            for outcome in await self._admission.accept_reruns(reruns, caller=caller, traceparent=traceparent):
                _count(response, outcome)
            number += len(reruns)
            after = page.next
            if after is None:
                break
        return response


def rerun_of(invocation: invocation_pb2.Invocation, *, request_id: str, due_us: int = 0) -> Rerun:
    """Return that an invocation is to run again as it was asked for, but when it was to run."""
    spec = invocation.spec
    spec.ClearField("schedule_time")
    return Rerun(of=invocation.id, spec=spec, request_id=request_id, due_us=due_us)


def check_rate(checks: Checks, max_per_second: float) -> None:
    """Check the cap on the rate of what is run, or delivered, again."""
    if not 0 <= max_per_second <= limits.MAX_BULK_RATE:
        checks.add("max_per_second", f"must be from 0 to {limits.MAX_BULK_RATE:g}, is {max_per_second:g}")


def gap_us_of(max_per_second: float, matched: int, what: str) -> float:
    """Return the microseconds from one of many to the next.

    :raises ApiError: INVALID_ARGUMENT: so they would be spread over longer than anything may be put off.
    """
    gap_us = 1e6 / max_per_second if max_per_second else 0.0
    if gap_us * matched > limits.MAX_DELAY * 1e6:
        checks = Checks()
        checks.add("max_per_second", f"would spread {matched} {what} over more than {limits.MAX_DELAY / 86400:g} days")
        checks.done()
    return gap_us


def _count(response: api.BulkRerunResponse, outcome: Accepted | ApiError) -> None:
    """Count what became of one.

    :raises ApiError: It was refused for another reason than that it cannot run again.
    """
    if isinstance(outcome, Accepted):
        if outcome.draft is None:
            response.duplicates += 1
        else:
            response.accepted += 1
    elif outcome.code in CANNOT_RUN_AGAIN:
        response.refused += 1
    else:
        raise outcome
