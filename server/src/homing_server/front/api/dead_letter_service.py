"""homing.v1.DeadLetterService."""

from __future__ import annotations

from collections.abc import AsyncIterator

from homing.v1 import dead_letter_service_pb2 as api
from homing_server.deliveries.dead_letters import DeadLetters
from homing_server.front.api.caller import caller
from homing_server.front.api.context import CallContext


class DeadLetterService:
    """Serves dead letters."""

    def __init__(self, dead_letters: DeadLetters) -> None:
        self._dead_letters = dead_letters

    async def ListDeadLetters(
        self, request: api.ListDeadLettersRequest, _context: CallContext
    ) -> api.ListDeadLettersResponse:
        """Return a page of dead letters."""
        return await self._dead_letters.list(request, caller=caller())

    def RedriveDeadLetters(
        self, request: api.RedriveDeadLettersRequest, context: CallContext
    ) -> AsyncIterator[api.RedriveDeadLettersResponse]:
        """Try dead letters again."""
        return self._dead_letters.redrive(request, caller=caller(), traceparent=context.traceparent())

    def PurgeDeadLetters(
        self, request: api.PurgeDeadLettersRequest, _context: CallContext
    ) -> AsyncIterator[api.PurgeDeadLettersResponse]:
        """Forget dead letters."""
        return self._dead_letters.purge(request, caller=caller())
