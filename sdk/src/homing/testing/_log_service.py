"""What a fake server answers about logs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import grpc

from homing.testing._records import ENDS
from homing.testing._refusal import Refusal
from homing.v1 import log_service_pb2 as api
from homing.v1 import log_service_pb2_grpc

if TYPE_CHECKING:
    from homing.testing._state import State


class Logs(log_service_pb2_grpc.LogServiceServicer):
    """homing.v1.LogService."""

    def __init__(self, state: State) -> None:
        self.state = state
        self._store = state.store

    def TailLogs(  # noqa: N802
        self, request: api.TailLogsRequest, context: grpc.ServicerContext
    ) -> Iterator[api.TailLogsResponse]:
        store = self._store
        try:
            self.state.check("TailLogs")
            store.get(request.id)
        except Refusal as refusal:
            refusal.abort(context)
        context.add_callback(store.wake)
        record, lines = store.records[request.id], store.logs[request.id]
        place = 0
        while True:
            with store.changed:
                ended, new = record.state in ENDS, lines[place:]
            yield from new
            place += len(new)
            if ended or not request.follow or not context.is_active():
                return
            store.wait(lambda: len(lines) > place or record.state in ENDS or not context.is_active(), None)  # noqa: B023
