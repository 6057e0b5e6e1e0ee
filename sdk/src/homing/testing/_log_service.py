"""What a fake server answers about logs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import grpc

from homing.testing._records import ENDS
from homing.testing._refusal import Refusal
from homing.testing._rules import Rules
from homing.v1 import log_service_pb2 as api
from homing.v1 import log_service_pb2_grpc

if TYPE_CHECKING:
    from homing.testing._state import State

_MAX_TAIL: Final = 10_000


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

    def TailFunctionLogs(  # noqa: N802
        self, request: api.TailFunctionLogsRequest, context: grpc.ServicerContext
    ) -> Iterator[api.TailFunctionLogsResponse]:
        store = self._store
        try:
            self.state.check("TailFunctionLogs")
            rules = Rules()
            if not request.function:
                rules.add("function", "must not be empty")
            if not 0 <= request.tail <= _MAX_TAIL:
                rules.add("tail", f"must be 0 to {_MAX_TAIL}, is {request.tail}")
            rules.done()
            self.state.find(request.function)
        except Refusal as refusal:
            refusal.abort(context)
        context.add_callback(store.wake)
        lines = store.function_logs[request.function]
        since = request.since.ToMicroseconds() if request.HasField("since") else 0
        place = int(request.resume_token or 0)
        if request.tail and not place:
            with store.changed:
                place = max(0, len(lines) - request.tail)
        while True:
            with store.changed:
                new = lines[place:]
            yield from (line for line in new if line.time.ToMicroseconds() >= since)
            place += len(new)
            if not request.follow or not context.is_active():
                return
            store.wait(lambda: len(lines) > place or not context.is_active(), None)  # noqa: B023
