"""Serves lists and counts: which filters are good, what a page token means."""

from __future__ import annotations

from homing.v1 import invocation_pb2
from homing.v1 import invocation_service_pb2 as api
from homing_server.auth.identity import Identity
from homing_server.cluster.wait_reasons import Holds
from homing_server.rules.filters import check_filter
from homing_server.rules.paging import MAX_PAGE_BYTES, Paging
from homing_server.rules.validation import Checks
from homing_server.store.engine import Database
from homing_server.store.list_pages import Place, list_invocations
from homing_server.store.state_counts import count_selected

_MAX_COUNT = 10_000
_PAGING = Paging(kind="invocations", place={"create_us": int, "id": str}, default_size=50)


class Lists:
    """Lists and counts invocations."""

    def __init__(self, database: Database, holds: Holds) -> None:
        self._database = database
        self._holds = holds

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
        invocations = map(self._holds.explain, found.invocations)
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
