"""homing.v1.LogService."""

from __future__ import annotations

from collections.abc import AsyncIterator

from homing.v1 import log_service_pb2 as api
from homing_server.auth.visibility import Visibility
from homing_server.errors import Violation, invalid_request
from homing_server.front.api.caller import caller
from homing_server.front.api.context import CallContext
from homing_server.logs.tail import LogTails


class LogService:
    """Serves what functions write."""

    def __init__(self, log_tails: LogTails, visibility: Visibility) -> None:
        self._log_tails = log_tails
        self._visibility = visibility

    async def TailLogs(
        self, request: api.TailLogsRequest, _context: CallContext
    ) -> AsyncIterator[api.TailLogsResponse]:
        """Stream log lines."""
        if not request.id:
            raise invalid_request([Violation(field="id", description="must not be empty")])
        await self._visibility.check_function_of(request.id, caller())
        async for response in self._log_tails.tail(request):
            yield response
