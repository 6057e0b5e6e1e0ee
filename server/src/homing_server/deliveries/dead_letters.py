"""Dead letters: lists the invocations and deliveries that came to nothing, redrives them, and purges them.

To redrive is to try again and to forget: an invocation becomes a re-run, a delivery is made again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

from homing.v1.dead_letter_pb2 import DEAD_LETTER_KIND_INVOCATION, DeadLetter, DeadLetterFilter, DeadLetterKind
from homing.v1.dead_letter_service_pb2 import (
    ListDeadLettersRequest,
    ListDeadLettersResponse,
    PurgeDeadLettersRequest,
    PurgeDeadLettersResponse,
    RedriveDeadLettersRequest,
    RedriveDeadLettersResponse,
)
from homing_core import limits
from homing_core.clock import now_us
from homing_server.auth.identity import Identity
from homing_server.invocations.admission import Accepted, Admission
from homing_server.invocations.reruns import CANNOT_RUN_AGAIN, check_rate, gap_us_of, rerun_of
from homing_server.rules.filters import MAX_FUNCTIONS
from homing_server.rules.paging import Paging
from homing_server.rules.validation import Checks
from homing_server.store import dead_letters as stored
from homing_server.store.dead_letters import Page, Place
from homing_server.store.engine import Database
from homing_server.store.read import get_invocations

_BATCH_SIZE: Final = 100
"""So many payloads are in memory at a time."""
_PAGING: Final = Paging(kind="dead_letters", place={"time_us": int, "id": str, "until_us": int}, default_size=50)
"""All pages of a list are of what there was when the first one was read."""


class DeadLetters:
    """Serves dead letters."""

    def __init__(self, database: Database, admission: Admission, *, redelivered: Callable[[], None]) -> None:
        """Prepare to serve.

        :param redelivered: Notified when deliveries are to be made again.
        """
        self._database = database
        self._admission = admission
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

    async def redrive(
        self, request: RedriveDeadLettersRequest, *, caller: Identity, traceparent: str
    ) -> RedriveDeadLettersResponse:
        """Try again what a filter selects of what there is by now.

        Each is tried again and forgotten before the next page is read, invocations under a request id of their own: a
        call that broke off can be repeated, and runs none twice.

        :raises ApiError: INVALID_ARGUMENT; UNAVAILABLE: the store failed, perhaps after some were tried again.
        """
        begin_us = now_us()
        checks = Checks()
        _check_bulk_filter(checks, request.filter)
        caller.narrow(request.filter)
        check_rate(checks, request.max_per_second)
        checks.done()
        matched = await self._database.read(stored.count, request.filter, until_us=begin_us)
        response = RedriveDeadLettersResponse(matched=matched)
        gap_us = gap_us_of(request.max_per_second, matched, "dead letters")
        if request.dry_run:
            return response
        place = 0
        async for page in self._pages(request.filter, until_us=begin_us):
            due_us = {each.id: begin_us + round(gap_us * number) for number, each in enumerate(page, place)}
            place += len(page)
            invocations = [each for each in page if each.kind == DEAD_LETTER_KIND_INVOCATION]
            await self._rerun(invocations, due_us, response, caller=caller, traceparent=traceparent)
            dead = {each.id: due_us[each.id] for each in page if each.kind != DEAD_LETTER_KIND_INVOCATION}
            if dead:
                response.redelivered += await self._database.write(stored.revive, dead)
                self._redelivered()
        return response

    async def purge(self, request: PurgeDeadLettersRequest, *, caller: Identity) -> PurgeDeadLettersResponse:
        """Forget what a filter selects of what there is by now.

        :raises ApiError: INVALID_ARGUMENT; UNAVAILABLE: the store failed, perhaps after some were forgotten.
        """
        begin_us = now_us()
        checks = Checks()
        _check_bulk_filter(checks, request.filter)
        caller.narrow(request.filter)
        checks.done()
        response = PurgeDeadLettersResponse(
            matched=await self._database.read(stored.count, request.filter, until_us=begin_us)
        )
        if not request.dry_run:
            async for page in self._pages(request.filter, until_us=begin_us):
                response.purged += await self._database.write(stored.remove, [each.id for each in page])
        return response

    async def _rerun(
        self,
        dead: Sequence[DeadLetter],
        due_us: dict[str, int],
        response: RedriveDeadLettersResponse,
        *,
        caller: Identity,
        traceparent: str,
    ) -> None:
        if not dead:
            return
        found = await self._database.read(get_invocations, [each.id for each in dead], include_payload=True)
        reruns = [
            rerun_of(invocation, request_id=f"redrive:{invocation.id}", due_us=due_us[invocation.id])
            for invocation in found
        ]
        outcomes = await self._admission.accept_reruns(reruns, caller=caller, traceparent=traceparent)
        done = []
        for rerun, outcome in zip(reruns, outcomes, strict=True):
            if isinstance(outcome, Accepted):
                done.append(rerun.of)
            elif outcome.code in CANNOT_RUN_AGAIN:
                response.refused += 1
            else:
                await self._database.write(stored.remove, done)
                raise outcome
        await self._database.write(stored.remove, done)
        response.rerun += len(done)

    async def _pages(self, selection: DeadLetterFilter, *, until_us: int) -> AsyncIterator[Sequence[DeadLetter]]:
        after: Place | None = None
        while True:
            page = await self._page(selection, after=after, until_us=until_us, size=_BATCH_SIZE)
            if page.dead_letters:
                yield page.dead_letters
            after = page.next
            if after is None:
                return

    async def _page(self, selection: DeadLetterFilter, *, after: Place | None, until_us: int, size: int) -> Page:
        return await self._database.read(stored.page_of, selection, after=after, until_us=until_us, size=size)


def _check_filter(checks: Checks, selection: DeadLetterFilter) -> None:
    if len(selection.ids) > limits.MAX_DEAD_LETTER_IDS:
        checks.add("filter.ids", f"must be at most {limits.MAX_DEAD_LETTER_IDS}, are {len(selection.ids)}")
    for id_ in selection.ids:
        checks.text("filter.ids", id_, 36)
    if selection.kind not in DeadLetterKind.values():
        checks.add("filter.kind", f"{selection.kind} is not a kind")
    checks.function_names("filter.functions", selection.functions, MAX_FUNCTIONS)
    checks.time_range("filter.time", selection.time)


def _check_bulk_filter(checks: Checks, selection: DeadLetterFilter) -> None:
    """Check the filter of a call that changes all that it selects: it must not select everything by oversight."""
    bounds = selection.time
    bounded = bounds.HasField("start_time") or bounds.HasField("end_time")
    if not (bounded or selection.ids or selection.kind or selection.functions):
        checks.add("filter", "must have at least one field set")
    _check_filter(checks, selection)
