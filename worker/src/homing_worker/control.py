"""The worker's talk with the servers: it greets them, hears of functions, and says how it is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog
from google.protobuf.message import DecodeError
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from homing_core import limits
from homing_core.broker import Broker, BrokerError, Received
from homing_core.clock import now_us
from homing_core.wire.v1 import Control, FunctionLoad, WorkerStatus
from homing_worker.catalogue import Catalogue
from homing_worker.gate import Gate

_log = structlog.get_logger(__name__)

_HELLO_INTERVAL: Final = 1.0


class ControlLink:
    """Asks for a snapshot at every connection, and consumes work only once it has one.

    It asks again when a server speaks that it has not heard before, or any server after a silence: news may have
    been missed meanwhile.
    """

    def __init__(
        self,
        broker: Broker,
        catalogue: Catalogue,
        gate: Gate,
        *,
        worker: str,
        sources: Sequence[str],
        loads: Callable[[], list[FunctionLoad]],
        consume: Callable[[], Awaitable[None]],
    ) -> None:
        self._broker = broker
        self._catalogue = catalogue
        self._gate = gate
        self._worker = worker
        self._sources = sources
        self._loads = loads
        self._consume = consume
        self._address = ""
        self._servers: set[str] = set()
        self._snapshot = asyncio.Event()
        self._greeting: asyncio.Task[None] | None = None
        self._status: asyncio.Task[None] | None = None
        self._leaving = False

    async def connected(self) -> None:
        """Set up what a new connection needs."""
        self._address = await self._broker.consume_control(self._on_control)
        self._greet(consume=True)
        if self._status is None:
            self._status = asyncio.create_task(self._tell_status())

    def lost(self) -> None:
        """Heed that the connection was lost."""
        if self._greeting is not None:
            self._greeting.cancel()

    async def leave(self) -> None:
        """Tell the servers that this worker starts nothing more."""
        self._leaving = True
        if self._greeting is not None:
            self._greeting.cancel()
        await self._say()

    async def close(self) -> None:
        """Stop talking."""
        tasks = [task for task in (self._greeting, self._status) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _on_control(self, received: Received) -> None:
        try:
            control = Control.FromString(received.body)
        except DecodeError:
            _log.error("unreadable_control", size=len(received.body))
            return
        finally:
            received.ack()
        missed = not self._gate.open or control.server not in self._servers
        self._servers.add(control.server)
        self._gate.heard()
        kind = control.WhichOneof("kind")
        if kind == "function":
            self._catalogue.apply(control.function, control.time_us)
        elif kind == "snapshot":
            self._catalogue.merge(control.snapshot, control.time_us)
            self._snapshot.set()
        elif missed and not self._leaving and (self._greeting is None or self._greeting.done()):
            self._greet(consume=False)

    def _greet(self, *, consume: bool) -> None:
        if self._greeting is not None:
            self._greeting.cancel()
        self._greeting = asyncio.create_task(self._hello(consume=consume))

    async def _hello(self, *, consume: bool) -> None:
        """Ask for a snapshot until one comes, then begin to consume."""
        self._catalogue.ask()
        self._snapshot.clear()
        while not self._snapshot.is_set():
            await self._say(hello=True)
            try:
                async with asyncio.timeout(_HELLO_INTERVAL):
                    await self._snapshot.wait()
            except TimeoutError:
                continue
        if not consume:
            return
        # Where the connection is lost meanwhile this is cancelled, and the next connection begins anew.
        await AsyncRetrying(
            retry=retry_if_exception_type(BrokerError), wait=wait_random_exponential(multiplier=0.5, max=10.0)
        )(self._consume)

    async def _tell_status(self) -> None:
        while True:
            await asyncio.sleep(limits.CONTROL_INTERVAL)
            await self._say()

    async def _say(self, *, hello: bool = False) -> None:
        status = WorkerStatus(
            worker=self._worker,
            time_us=now_us(),
            control_address=self._address,
            hello=hello,
            leaving=self._leaving,
            sources=self._sources,
            functions=self._loads(),
        )
        try:
            await self._broker.publish_status(status.SerializeToString())
        except BrokerError as error:
            _log.debug("status_not_sent", error=str(error))
