"""The context of a call as services see it, when it came over gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import grpc

if TYPE_CHECKING:
    # Only the type stubs know this class as a generic one.
    Context = grpc.aio.ServicerContext[Any, Any]
else:
    Context = grpc.aio.ServicerContext

_ID_METADATA: Final = "homing-invocation-id"


class GrpcCall:
    """A call over gRPC: a CallContext, and the Responses of a stream."""

    __slots__ = ("_begun", "_context", "peer", "time_remaining", "write")

    def __init__(self, context: Context) -> None:
        self._begun = False
        self._context = context
        self.peer = context.peer
        self.time_remaining = context.time_remaining
        self.write = context.write

    def traceparent(self) -> str:
        """Return the trace context that the caller sent along; empty where there is none."""
        metadata: Mapping[str, str | bytes] = dict(self._context.invocation_metadata() or ())
        value = metadata.get("traceparent", "")
        return value[:64] if isinstance(value, str) else ""

    async def send_invocation_id(self, invocation_id: str) -> None:
        """Tell the caller, before the answer, which invocation they wait for."""
        self._begun = True
        await self._context.send_initial_metadata(((_ID_METADATA, invocation_id),))

    async def begin(self) -> None:
        """Send the headers of a stream before its messages, and to the end, unless they were sent.

        gRPC sends them with the first message otherwise, and notes that once the message has been sent. Where that is
        broken off it would send them again, with the status, which fails: whoever calls would wait for ever.
        """
        if self._begun:
            return
        sending = asyncio.ensure_future(self._context.send_initial_metadata(()))
        try:
            await asyncio.shield(sending)
        except asyncio.CancelledError:
            await asyncio.gather(sending, return_exceptions=True)
            raise


def host_of(context: Context) -> str:
    """Return where a call comes from, as gRPC has it, without the port."""
    return context.peer().rpartition(":")[0]
