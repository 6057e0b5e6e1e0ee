"""Dead letters: lists the invocations and deliveries that came to nothing, redrives them, and purges them.

To redrive is to try again and to forget: an invocation becomes a re-run, a delivery is made again.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from sqlalchemy import Connection

from homing.v1.dead_letter_pb2 import DEAD_LETTER_KIND_INVOCATION, DeadLetter, DeadLetterFilter, DeadLetterKind
from homing.v1.dead_letter_service_pb2 import (
    ListDeadLettersRequest,
    ListDeadLettersResponse,
    PurgeDeadLettersRequest,
    PurgeDeadLettersResponse,
    RedriveDeadLettersRequest,
    RedriveDeadLettersResponse,
)
from homing_core.clock import now_us
from homing_core.destinations import function_of
from homing_server.auth.identity import Identity
from homing_server.errors import ApiError
from homing_server.functions.catalog import Catalog
from homing_server.invocations.admission import CANNOT_RUN_AGAIN, Admission
from homing_server.invocations.bulk_calls import BulkCalls, bulk_call
from homing_server.invocations.reruns import check_rate, check_spread, due_times, rerun_of
from homing_server.rules.paging import Paging
from homing_server.rules.validation import Checks
from homing_server.store import bulk_calls
from homing_server.store import dead_letters as stored
from homing_server.store.accept import Outcome, Verdict
from homing_server.store.bulk_calls import BulkCall
from homing_server.store.dead_letters import Page, Place
from homing_server.store.engine import Database
from homing_server.store.read import get_invocations

_BATCH_SIZE: Final = 100
"""So many payloads are in memory at a time."""
_PURGE_SIZE: Final = 500
"""So many are forgotten in one transaction."""
_PAGING: Final = Paging(kind="dead_letters", place={"time_us": int, "id": str, "until_us": int}, default_size=50)
"""All pages of a list are of what there was when the first one was read."""


class DeadLetters:
    """Serves dead letters."""

    def __init__(
        self,
        database: Database,
        catalog: Catalog,
        admission: Admission,
        calls: BulkCalls,
        *,
        redelivered: Callable[[], None],
    ) -> None:
        """Prepare to serve.

        :param calls: Carry out what is done to many.
        :param redelivered: Notified when deliveries are to be made again.
        """
        self._database = database
        self._catalog = catalog
        self._admission = admission
        self._calls = calls
        self._redelivered = redelivered

    async def list(self, request: ListDeadLettersRequest, *, caller: Identity) -> ListDeadLettersResponse:
        """Return a page, the newest first.

        :raises ApiError: INVALID_ARGUMENT.
        """
        caller.narrow(request.filter)
        checks = Checks()
        _check_filter(checks, request.filter)
        cursor = _PAGING.cursor(checks, request)
        checks.done()
        after: Place | None = None
        until_us = now_us()
        if cursor.after is not None:
            after, until_us = Place(time_us=cursor.after["time_us"], id=cursor.after["id"]), cursor.after["until_us"]
        found = await self._page(request.filter, after=after, until_us=until_us, size=cursor.size)
        page = cursor.page(
            found.dead_letters,
            more=found.next is not None,
            place_of=lambda each: {"time_us": each.time.ToMicroseconds(), "id": each.id, "until_us": until_us},
        )
        return ListDeadLettersResponse(dead_letters=page.items, next_page_token=page.next_page_token)

    def redrive(
        self, request: RedriveDeadLettersRequest, *, caller: Identity, traceparent: str
    ) -> AsyncGenerator[RedriveDeadLettersResponse, None]:
        """Try again what a filter selects of what there was when the call began; tell how far it is.

        Each is tried again and forgotten in one transaction, so that nobody tries it again twice.

        :raises ApiError: INVALID_ARGUMENT; and as BulkCalls says.
        """
        call = bulk_call(request, caller=caller)
        checks = Checks()
        _check_bulk_filter(checks, request.filter)
        caller.narrow(request.filter)
        checks.request_id(request.request_id)
        check_rate(checks, request.max_per_second)
        checks.done()

        def count(connection: Connection, call: BulkCall) -> Mapping[str, int]:
            matched = stored.count(connection, request.filter, until_us=call.begin_us)
            check_spread(request.max_per_second, matched, "dead letters")
            return {"matched": matched}

        async def batches(call: BulkCall) -> AsyncGenerator[BulkCall, None]:
            more = True
            while more:
                call, more = await self._calls.whole(
                    self._redrive_page(call, request, caller=caller, traceparent=traceparent)
                )
                yield call

        return self._calls.run(
            call,
            caller=caller,
            dry_run=request.dry_run,
            count=count,
            batches=batches,
            response=RedriveDeadLettersResponse,
        )

    def purge(
        self, request: PurgeDeadLettersRequest, *, caller: Identity
    ) -> AsyncGenerator[PurgeDeadLettersResponse, None]:
        """Forget what a filter selects of what there was when the call began; tell how far it is.

        :raises ApiError: INVALID_ARGUMENT; and as BulkCalls says.
        """
        call = bulk_call(request, caller=caller)
        checks = Checks()
        _check_bulk_filter(checks, request.filter)
        caller.narrow(request.filter)
        checks.request_id(request.request_id)
        checks.done()

        async def batches(call: BulkCall) -> AsyncGenerator[BulkCall, None]:
            before = None
            while call.counts != before:
                before = call.counts
                call = await self._calls.whole(self._database.write(_purge_page, call, request.filter))
                yield call

        return self._calls.run(
            call,
            caller=caller,
            dry_run=request.dry_run,
            count=lambda connection, call: {
                "matched": stored.count(connection, request.filter, until_us=call.begin_us)
            },
            batches=batches,
            response=PurgeDeadLettersResponse,
        )

    async def _redrive_page(
        self, call: BulkCall, request: RedriveDeadLettersRequest, *, caller: Identity, traceparent: str
    ) -> tuple[BulkCall, bool]:
        """Try the next ones again; tell whether there are more."""
        after = None if call.place is None else Place(time_us=call.place[0], id=call.place[1])
        page = await self._page(request.filter, after=after, until_us=call.begin_us, size=_BATCH_SIZE)
        letters = page.dead_letters
        if not letters:
            return call, False
        due = due_times(call, request.max_per_second, len(letters), before=("rerun", "redelivered", "refused"))
        due_us = {each.id: time_us for each, time_us in zip(letters, due, strict=True)}
        invocations = [each.id for each in letters if each.kind == DEAD_LETTER_KIND_INVOCATION]
        deliveries = {
            each.id: due_us[each.id]
            for each in letters
            if each.kind != DEAD_LETTER_KIND_INVOCATION and await self._may_deliver(each, caller)
        }
        found = await self._database.read(get_invocations, invocations, include_payload=True)
        reruns = [rerun_of(invocation, due_us=due_us[invocation.id]) for invocation in found]
        drafts = await self._admission.draft_reruns(reruns, caller=caller, traceparent=traceparent)

        def note(connection: Connection, verdicts: Sequence[Verdict]) -> BulkCall:
            decided = zip(drafts, verdicts, strict=True)
            rerun = [draft.rerun_of for draft, verdict in decided if verdict.outcome is Outcome.ACCEPTED]
            if stored.remove(connection, rerun) < len(rerun):
                raise _SeenToError
            noted = call.counted(
                rerun=len(rerun),
                redelivered=stored.redrive(connection, deliveries),
                refused=len(letters) - len(rerun) - len(deliveries),
            )
            noted = replace(noted, place=(letters[-1].time.ToMicroseconds(), letters[-1].id))
            bulk_calls.advance(connection, noted, now_us=now_us())
            return noted

        try:
            call = await self._admission.commit(drafts, note)
        except _SeenToError:
            # They are looked for anew, from the same place on: those that are gone are not found again.
            return call, True
        if deliveries:
            self._redelivered()
        return call, page.next is not None

    async def _may_deliver(self, letter: DeadLetter, caller: Identity) -> bool:
        """Tell whether a caller may have a delivery made: to a function, where they may invoke it."""
        function = function_of(letter.delivery.uri)
        if function:
            try:
                await self._catalog.check_invoke(function, caller)
            except ApiError as error:
                if error.code not in CANNOT_RUN_AGAIN:
                    raise
                return False
        return True

    async def _page(self, selection: DeadLetterFilter, *, after: Place | None, until_us: int, size: int) -> Page:
        return await self._database.read(stored.page_of, selection, after=after, until_us=until_us, size=size)


def _check_filter(checks: Checks, selection: DeadLetterFilter) -> None:
    for index, id_ in enumerate(selection.ids):
        checks.text(f"filter.ids[{index}]", id_, 36)
    if selection.kind not in DeadLetterKind.values():
        checks.add("filter.kind", f"{selection.kind} is not a kind")
    checks.function_names("filter.functions", selection.functions)
    checks.time_range("filter.time", selection.time)


def _check_bulk_filter(checks: Checks, selection: DeadLetterFilter) -> None:
    """Check the filter of a call that changes all that it selects: it must not select everything by oversight."""
    bounds = selection.time
    bounded = bounds.HasField("start_time") or bounds.HasField("end_time")
    if not (bounded or selection.ids or selection.kind or selection.functions):
        checks.add("filter", "must have at least one field set")
    _check_filter(checks, selection)


def _purge_page(connection: Connection, call: BulkCall, selection: DeadLetterFilter) -> BulkCall:
    """Forget some, and note it."""
    purged = stored.purge(connection, selection, until_us=call.begin_us, most=_PURGE_SIZE)
    if purged:
        call = call.counted(purged=purged)
        bulk_calls.advance(connection, call, now_us=now_us())
    return call


class _SeenToError(Exception):
    """Somebody else has tried one of them again, or forgotten it, meanwhile."""
