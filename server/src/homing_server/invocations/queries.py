"""Serves what is asked about invocations: records, lists and counts."""

from __future__ import annotations

from collections.abc import Collection

from homing.v1 import invocation_pb2
from homing.v1 import invocation_service_pb2 as api
from homing_server.auth.identity import Identity
from homing_server.cluster.wait_reasons import WaitReasons
from homing_server.errors import invocation_not_found
from homing_server.invocations.admission import Accepted
from homing_server.rules.filters import check_filter
from homing_server.rules.paging import MAX_PAGE_BYTES, Paging
from homing_server.rules.validation import Checks
from homing_server.store.accept import Draft
from homing_server.store.engine import Database
from homing_server.store.invocation_rows import accepted_invocation
from homing_server.store.list_pages import Place, list_invocations
from homing_server.store.read import get_invocations
from homing_server.store.state_counts import count_selected

_MAX_COUNT = 10_000
_PAGING = Paging(kind="invocations", place={"create_us": int, "id": str}, default_size=50)


class Queries:
    """Reads invocations, each with the reason why it waits."""

    def __init__(self, database: Database, wait_reasons: WaitReasons) -> None:
        self._database = database
        self._wait_reasons = wait_reasons

    async def get(self, invocation_id: str, *, caller: Identity, include_payload: bool) -> invocation_pb2.Invocation:
        """Return a record that the caller may read.

        :raises ApiError: NOT_FOUND; PERMISSION_DENIED.
        """
        invocation = await self.record(invocation_id, include_payload=include_payload)
        caller.check_read(function=invocation.function, caller=invocation.caller, caused=bool(invocation.caused_by))
        return invocation

    async def record(self, invocation_id: str, *, include_payload: bool = False) -> invocation_pb2.Invocation:
        """Return a record, for who is known to be allowed to see it.

        :raises ApiError: NOT_FOUND.
        """
        invocations = await self.records({invocation_id}, include_payload=include_payload)
        if invocation_id not in invocations:
            raise invocation_not_found(invocation_id)
        return invocations[invocation_id]

    async def records(
        self, ids: Collection[str], *, include_payload: bool = False, include_result: bool = True
    ) -> dict[str, invocation_pb2.Invocation]:
        """Return those records that there are, by id, for who is known to be allowed to see them."""
        if not ids:
            return {}
        invocations = await self._database.read(
            get_invocations, ids, include_payload=include_payload, include_result=include_result
        )
        return {invocation.id: self._wait_reasons.explain(invocation) for invocation in invocations}

    async def accepted(self, accepted: Accepted, *, caller: Identity) -> invocation_pb2.Invocation:
        """Return what was accepted, as its caller may see it."""
        if accepted.draft is None:
            return redacted_for_anonymous(await self.record(accepted.id), caller)
        return self.fresh(accepted.draft)

    def fresh(self, draft: Draft) -> invocation_pb2.Invocation:
        """Return what has just been made of a draft."""
        return self._wait_reasons.explain(
            accepted_invocation(draft.id, draft.record, draft.spec, create_us=draft.create_us, rerun_of=draft.rerun_of)
        )

    async def list(self, request: api.ListInvocationsRequest, *, caller: Identity) -> api.ListInvocationsResponse:
        """Return a page.

        :raises ApiError: INVALID_ARGUMENT.
        """
        caller.narrow(request.filter)
        checks = Checks()
        check_filter(checks, request.filter)
        if request.order not in api.InvocationOrder.values():
            checks.add("order", f"{request.order} is not an order")
        cursor = _PAGING.cursor(checks, request)
        checks.done()
        found = await self._database.read(
            list_invocations,
            request.filter,
            oldest_first=request.order == api.INVOCATION_ORDER_OLDEST_FIRST,
            after=None if cursor.after is None else Place(**cursor.after),
            size=cursor.size,
            max_bytes=MAX_PAGE_BYTES,
            include_payload=request.include_payload,
            include_result=request.include_result,
        )
        invocations = map(self._wait_reasons.explain, found.invocations)
        page = cursor.page(invocations, more=found.next is not None, place_of=_place_of)
        return api.ListInvocationsResponse(invocations=page.items, next_page_token=page.next_page_token)

    async def count(self, request: api.CountInvocationsRequest, *, caller: Identity) -> api.CountInvocationsResponse:
        """Return how many there are.

        :raises ApiError: INVALID_ARGUMENT.
        """
        caller.narrow(request.filter)
        checks = Checks()
        check_filter(checks, request.filter)
        checks.done()
        counts = await self._database.read(count_selected, request.filter, most=_MAX_COUNT + 1)
        return api.CountInvocationsResponse(
            counts=[
                api.CountInvocationsResponse.Count(
                    state=invocation_pb2.InvocationState.ValueType(state),
                    count=min(count, _MAX_COUNT),
                    more=count > _MAX_COUNT,
                )
                for state, count in counts.items()
            ]
        )


def _place_of(invocation: invocation_pb2.Invocation) -> dict[str, int | str]:
    return {"create_us": invocation.create_time.ToMicroseconds(), "id": invocation.id}


def redacted_for_anonymous(invocation: invocation_pb2.Invocation, caller: Identity) -> invocation_pb2.Invocation:
    """Return of an earlier invocation what its caller may see: who shows no key may have guessed its request id."""
    if caller.known:
        return invocation
    return invocation_pb2.Invocation(
        id=invocation.id,
        function=invocation.function,
        state=invocation.state,
        create_time=invocation.create_time,
    )
