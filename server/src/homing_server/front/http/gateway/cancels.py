"""Stops what was to be done later, by its call id: `DELETE /async-function/CALL-ID`."""

from __future__ import annotations

import re
from typing import Final

from homing.v1 import invocation_pb2
from homing.v1 import invocation_service_pb2 as api
from homing_server.auth import audit
from homing_server.auth.identity import Identity
from homing_server.auth.visibility import Visibility
from homing_server.errors import ApiError, Code, invocation_not_found, key_missing
from homing_server.invocations.queries import Queries
from homing_server.invocations.stops import Stops

_CALL_ID: Final = re.compile(r"[!-~]{1,128}")
_METHOD: Final = "/homing.v1.InvocationService/BulkStop"
_REASON: Final = "DELETE /async-function/CALL-ID"


class Cancels:
    """Stops all that show a call id, or the one invocation of this id."""

    def __init__(self, queries: Queries, stops: Stops, visibility: Visibility) -> None:
        self._queries = queries
        self._stops = stops
        self._visibility = visibility

    async def cancel(self, call_id: str, *, caller: Identity) -> None:
        """Stop what shows a call id and has not ended, or have it stopped by its worker.

        :raises ApiError: NOT_FOUND: nothing shows it; UNAUTHENTICATED or PERMISSION_DENIED.
        """
        if not caller.known:
            raise key_missing()
        caller.check_call(_METHOD)
        if not _CALL_ID.fullmatch(call_id):
            raise invocation_not_found(call_id)
        request = api.BulkStopRequest(filter=invocation_pb2.InvocationFilter(call_id=call_id), reason=_REASON)
        outcome = "CANCELLED"
        try:
            await self._stop(request, caller)
            outcome = "OK"
        except ApiError as error:
            outcome = error.code.name
            raise
        finally:
            audit.log_action(_METHOD, caller=caller.name, request=request, outcome=outcome)

    async def _stop(self, request: api.BulkStopRequest, caller: Identity) -> None:
        matched = 0
        async for told in self._stops.stop_selected(request, caller=caller):
            matched = told.matched
        if not matched and not await self._shows(request.filter.call_id, caller):
            await self._stop_one(request.filter.call_id, caller)

    async def _shows(self, call_id: str, caller: Identity) -> bool:
        """Tell whether something shows a call id that has ended."""
        request = api.ListInvocationsRequest(filter=invocation_pb2.InvocationFilter(call_id=call_id), page_size=1)
        return bool((await self._queries.list(request, caller=caller)).invocations)

    async def _stop_one(self, invocation_id: str, caller: Identity) -> None:
        """Stop the invocation of an id, which shows another call id."""
        try:
            await self._visibility.check_function_of(invocation_id, caller)
            await self._stops.stop(invocation_id, caller=caller, reason=_REASON)
        except ApiError as error:
            if error.code is not Code.FAILED_PRECONDITION:  # it has ended
                raise
