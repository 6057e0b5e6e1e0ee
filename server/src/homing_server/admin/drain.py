"""Empties the queues that a deleted function leaves, and removes them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from google.protobuf.message import DecodeError

from homing_core.broker import Broker, Received
from homing_core.wire.v1 import SyncRequest, WorkMessage

_PREFETCH = 200
_POLL_SECONDS = 0.5
"""How often, in seconds, is looked whether the queues are empty."""


class Drain:
    """Takes what is in the queues of a deleted function to be ended, until they are empty or it is deployed again.

    What was accepted for a later function of the name is given back untouched, and ends the drain: this server may not
    have heard of the deploy yet.
    """

    def __init__(
        self,
        broker: Broker,
        function: str,
        *,
        revision: int,
        settle: Callable[[Received], None],
        refuse: Callable[[SyncRequest, Received], None],
    ) -> None:
        """Prepare to drain.

        :param revision: Of the deletion.
        :param settle: Ends an asynchronous invocation.
        :param refuse: Refuses a synchronous call.
        """
        self.revision = revision
        self._broker = broker
        self._function = function
        self._settle = settle
        self._refuse = refuse
        self._ending = asyncio.Event()
        self._ended = asyncio.Event()
        self._kept: list[Received] = []

    def end(self) -> None:
        """Take no more, and leave the queues."""
        self._ending.set()

    async def ended(self) -> None:
        """Wait until it takes no more and what it keeps is given back."""
        await self._ended.wait()

    async def run(self, invalidate: Callable[[], Awaitable[int]]) -> bool:
        """Drain; return whether the queues are gone.

        :param invalidate: Ends what waits in the store, and counts it.
        :raises BrokerError: The connection was lost.
        """
        try:
            consumers = []
            try:
                consumers.append(await self._broker.consume_work(self._function, self._take_work, prefetch=_PREFETCH))
                consumers.append(await self._broker.consume_sync(self._function, self._take_call, prefetch=_PREFETCH))
                await self._until_empty(invalidate)
            finally:
                for consumer in consumers:
                    await consumer.cancel()
                for message in self._kept:
                    message.requeue()
            return not self._ending.is_set() and await self._broker.close_function(self._function)
        finally:
            self._ended.set()

    async def _until_empty(self, invalidate: Callable[[], Awaitable[int]]) -> None:
        while not self._ending.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_POLL_SECONDS):
                    await self._ending.wait()
                    return
            depth = await self._broker.depth(self._function)
            if depth.work == depth.sync == 0 and await invalidate() == 0:
                return

    def _take_work(self, message: Received) -> None:
        try:
            revision = WorkMessage.FromString(message.body).function_revision
        except DecodeError:
            revision = 0
        if revision > self.revision:
            self._keep(message)
        else:
            self._settle(message)

    def _take_call(self, message: Received) -> None:
        request = SyncRequest.FromString(message.body)
        if request.function_revision > self.revision:
            self._keep(message)
        else:
            self._refuse(request, message)

    def _keep(self, message: Received) -> None:
        # Given back once nothing is consumed here any more, since it would only come again.
        self._kept.append(message)
        self._ending.set()
