"""homing.v1.LogService."""

from __future__ import annotations

from collections.abc import AsyncIterator

from homing.v1 import log_service_pb2 as api
from homing.v1 import log_service_pb2_grpc
from homing_server.errors import Violation, invalid_request, invocation_not_found
from homing_server.front.grpc.caller import caller
from homing_server.front.grpc.status import Context
from homing_server.logs.tail import LogTails
from homing_server.store.engine import Database
from homing_server.store.visibility import origin_of


class LogService(log_service_pb2_grpc.LogServiceServicer):
    """Serves what functions write."""

    def __init__(self, log_tails: LogTails, database: Database) -> None:
        self._log_tails = log_tails
        self._database = database

    async def TailLogs(self, request: api.TailLogsRequest, _context: Context) -> AsyncIterator[api.TailLogsResponse]:
        """Stream log lines."""
        if not request.id:
            raise invalid_request([Violation(field="id", description="must not be empty")])
        identity = caller()
        if identity.functions:
            origin = await self._database.read(origin_of, request.id)
            if origin is None:
                raise invocation_not_found(request.id)
            identity.check_function(origin.function)
        async for response in self._log_tails.tail(request):
            yield response
