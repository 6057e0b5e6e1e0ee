"""homing.v1.DeadLetterService."""

from __future__ import annotations

from collections.abc import AsyncIterator

from homing.v1 import dead_letter_service_pb2 as api
from homing.v1 import dead_letter_service_pb2_grpc
from homing_server.deliveries.dead_letters import DeadLetters
from homing_server.front.grpc.caller import caller
from homing_server.front.grpc.status import Context, traceparent


class DeadLetterService(dead_letter_service_pb2_grpc.DeadLetterServiceServicer):
    """Serves dead letters."""

    def __init__(self, dead_letters: DeadLetters) -> None:
        self._dead_letters = dead_letters

    async def ListDeadLetters(
        self, request: api.ListDeadLettersRequest, _context: Context
    ) -> api.ListDeadLettersResponse:
        """Return a page of dead letters."""
        return await self._dead_letters.list(request, caller=caller())

    def RedriveDeadLetters(
        self, request: api.RedriveDeadLettersRequest, context: Context
    ) -> AsyncIterator[api.RedriveDeadLettersResponse]:
        """Try dead letters again."""
        return self._dead_letters.redrive(request, caller=caller(), traceparent=traceparent(context))

    def PurgeDeadLetters(
        self, request: api.PurgeDeadLettersRequest, _context: Context
    ) -> AsyncIterator[api.PurgeDeadLettersResponse]:
        """Forget dead letters."""
        return self._dead_letters.purge(request, caller=caller())
