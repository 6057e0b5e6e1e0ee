"""Connections for calls that last, beside that of the others.

A server takes so many calls at a time over one connection, and gRPC lets the others wait. Those that wait for an
execution, and streams, would keep all others waiting, so they have connections of their own, as many as it takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from homing._aio.seam.channel import AsyncChannel
from homing._aio.stubs import AsyncStubs, stubs_of
from homing._core.settings import ConnectionSettings
from homing.v1 import invocation_service_pb2_grpc

_CALLS: Final = 50
"""So many calls go over a connection before another one is made: somewhat less than a server takes."""
_MOST: Final = 20


class _Lane:
    """One connection, and the calls that are under way over it."""

    def __init__(self, settings: ConnectionSettings) -> None:
        self.channel = AsyncChannel(settings, alone=True)
        self.calls: set[AsyncLease] = set()
        self.stubs = stubs_of(self.channel.use())


class AsyncLease:
    """A place for one call on a connection, until it is given back."""

    def __init__(self, lane: _Lane) -> None:
        self._lane = lane
        lane.calls.add(self)

    @property
    def stubs(self) -> AsyncStubs:
        """The stubs for the call."""
        return self._lane.stubs

    def give_back(self, _call: object = None) -> None:
        """Make room for another call; done twice it does no more."""
        self._lane.calls.discard(self)


class AsyncLanes:
    """Hands out connections."""

    def __init__(self, settings: ConnectionSettings) -> None:
        self._settings = settings
        self._lanes: list[_Lane] = []

    def lend(self) -> AsyncLease:
        """Return a place for one call.

        :raises WrongLoopError: It is used in another event loop.
        """
        lane = min(self._lanes, key=lambda lane: len(lane.calls), default=None)
        if lane is None or (len(lane.calls) >= _CALLS and len(self._lanes) < _MOST):
            lane = _Lane(self._settings)
            self._lanes.append(lane)
        return AsyncLease(lane)

    @contextmanager
    def lane(self) -> Iterator[invocation_service_pb2_grpc.InvocationServiceAsyncStub]:
        """Lend the stub for one call.

        :raises WrongLoopError: It is used in another event loop.
        """
        lease = self.lend()
        try:
            yield lease.stubs.invocations
        finally:
            lease.give_back()

    async def close(self) -> None:
        """Cancel the calls."""
        for lane in self._lanes:
            await lane.channel.close()
