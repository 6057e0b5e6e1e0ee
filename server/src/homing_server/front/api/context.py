"""What a service may ask of the call that it serves, whatever that came by."""

from __future__ import annotations

from typing import Any, Protocol


class CallContext(Protocol):
    """A call that is under way."""

    def peer(self) -> str:
        """Return what tells the caller's connection from others."""
        ...

    def traceparent(self) -> str:
        """Return the trace context that the caller sent along; empty where there is none."""
        ...

    def time_remaining(self) -> float | None:
        """Return how many seconds the caller still waits; None where they said no time."""
        ...

    async def send_invocation_id(self, invocation_id: str) -> None:
        """Tell the caller, before the answer, which invocation they wait for."""
        ...


class Responses(Protocol):
    """Where the messages of a stream go."""

    async def begin(self) -> None:
        """Tell the caller, before the first message, that there will be a stream."""
        ...

    async def write(self, response: Any) -> None:
        """Send a message, which may be serialised already; return once there is room for another one."""
        ...
