"""Connections for calls that last, beside that of the others.

A server takes so many calls at a time over one connection, and gRPC lets the others wait. Those that wait for an
execution would keep all others waiting, so they have connections of their own, as many as it takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from homing._aio.seam.channel import AsyncChannel
from homing._core.settings import ConnectionSettings
from homing.v1 import invocation_service_pb2_grpc

_CALLS: Final = 50
"""So many calls go over a connection before another one is made: somewhat less than a server takes."""
_MOST: Final = 20


class _Lane:
    """One connection, and the calls that are under way over it."""

    def __init__(self, settings: ConnectionSettings) -> None:
        self.channel = AsyncChannel(settings, alone=True)
        self.calls: set[object] = set()
        self.stub = invocation_service_pb2_grpc.InvocationServiceStub(self.channel.use())


class AsyncLanes:
    """Hands out connections."""

    def __init__(self, settings: ConnectionSettings) -> None:
        self._settings = settings
        self._lanes: list[_Lane] = []

    @contextmanager
    def lane(self) -> Iterator[invocation_service_pb2_grpc.InvocationServiceAsyncStub]:
        """Lend the stub for one call.

        :raises WrongLoopError: It is used in another event loop.
        """
        lane = min(self._lanes, key=lambda lane: len(lane.calls), default=None)
        if lane is None or (len(lane.calls) >= _CALLS and len(self._lanes) < _MOST):
            lane = _Lane(self._settings)
            self._lanes.append(lane)
        call = object()
        lane.calls.add(call)
        try:
            yield lane.stub
        finally:
            lane.calls.remove(call)

    async def close(self) -> None:
        """Cancel the calls."""
        for lane in self._lanes:
            await lane.channel.close()
