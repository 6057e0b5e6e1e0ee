"""Serves lists and counts: which filters are good, what a page token means."""

from __future__ import annotations

import hashlib

from homing.v1 import invocation_pb2
from homing.v1 import invocation_service_pb2 as api
from homing_server.auth.identity import Identity
from homing_server.cluster.wait_reasons import Holds
from homing_server.rules.filters import check_filter
from homing_server.rules.tokens import decode_token, encode_token
from homing_server.rules.validation import Checks
from homing_server.store.engine import Database
from homing_server.store.list_pages import Place, list_invocations
from homing_server.store.state_counts import count_selected

_DEFAULT_PAGE = 50
_MAX_PAGE = 1000
_MAX_COUNT = 10_000
_PLACE = {"create_us": int, "id": str, "question": str}
"""What a page token holds."""


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
        checks.integer("page_size", request.page_size, 0, 2**31)
        if request.order not in api.InvocationOrder.values():
            checks.add("order", f"{request.order} is not an order")
        question = _fingerprint(request)
        after = None
        if request.page_token:
            place = decode_token("invocations", request.page_token, field="page_token", holds=_PLACE)
            if place["question"] != question:
                checks.add("page_token", "belongs to a request with another filter, order or content")
            after = Place(create_us=place["create_us"], id=place["id"])
        checks.done()
        page = await self._database.read(
            list_invocations,
            request.filter,
            oldest_first=request.order == api.INVOCATION_ORDER_OLDEST_FIRST,
            after=after,
            size=min(request.page_size or _DEFAULT_PAGE, _MAX_PAGE),
            include_payload=request.include_payload,
            include_result=request.include_result,
        )
        token = ""
        if page.next is not None:
            place = {"create_us": page.next.create_us, "id": page.next.id, "question": question}
            token = encode_token("invocations", place)
        return api.ListInvocationsResponse(
            invocations=[self._holds.explain(invocation) for invocation in page.invocations], next_page_token=token
        )

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


def _fingerprint(request: api.ListInvocationsRequest) -> str:
    """Return what must be the same in all requests for pages of one list."""
    question = api.ListInvocationsRequest()
    question.CopyFrom(request)
    question.ClearField("page_token")
    question.ClearField("page_size")
    return hashlib.sha256(question.SerializeToString(deterministic=True)).hexdigest()[:16]
