"""The worker's talk with the servers: it greets them, hears of functions, and says how it is."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog
from google.protobuf.message import DecodeError
from tenacity import AsyncRetrying, retry_if_exception_type, wait_random_exponential

from homing_core import limits
from homing_core.broker import Broker, BrokerError, Received
from homing_core.clock import now_us
from homing_core.wire.v1 import Control, FunctionLoad, Snapshot, Tombstone, WorkerStatus
from homing_worker import __version__
from homing_worker.control.catalog import Catalogue
from homing_worker.control.gate import Gate
from homing_worker.control.secrets import SecretLink
from homing_worker.control.tombstones import Tombstones

_log = structlog.get_logger(__name__)

_HELLO_INTERVAL: Final = 1.0
_REFRESH_INTERVAL: Final = 600.0
"""A worker that knows of stops asks anew this often, in seconds, to forget those that servers have forgotten."""
_GATHER: Final = 0.02
"""What is obeyed is told this late, in seconds, and what is wanted asked for: so much of it goes in one message."""


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
        tombstones: Tombstones,
        secrets: SecretLink,
        *,
        worker: str,
        sources: Sequence[str],
        loads: Callable[[], list[FunctionLoad]],
        stop: Callable[[Sequence[Tombstone]], set[str]],
        consume: Callable[[], Awaitable[None]],
    ) -> None:
        """Prepare to talk.

        :param loads: Returns what this worker does for each function.
        :param stop: Stops what is in hand of these; returns the ids of what is.
        :param consume: Begins to consume work.
        """
        self._broker = broker
        self._catalogue = catalogue
        self._gate = gate
        self._tombstones = tombstones
        self._secrets = secrets
        self._worker = worker
        self._sources = sources
        self._loads = loads
        self._stop = stop
        self._consume = consume
        self._address = ""
        self._servers: set[str] = set()
        self._snapshot = asyncio.Event()
        self._greeting: asyncio.Task[None] | None = None
        self._status: asyncio.Task[None] | None = None
        self._obeying: asyncio.Task[None] | None = None
        self._obeyed: set[str] = set()
        self._asking: asyncio.Task[None] | None = None
        self._wanted = asyncio.Event()
        secrets.on_wanted(self._ask)
        self._informed_at = 0.0
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

    async def left(self) -> None:
        """Tell the servers that this worker has nothing in hand any more, as its last word."""
        await self._say(last=True)

    async def close(self) -> None:
        """Stop talking."""
        tasks = [task for task in (self._greeting, self._status, self._obeying, self._asking) if task is not None]
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
        age = max(0.0, (now_us() - control.time_us) / 1e6)
        self._gate.heard(age)
        kind = control.WhichOneof("kind")
        if kind == "function":
            self._catalogue.apply(control.function, control.time_us)
        elif kind == "tombstones":
            self._heed(control.tombstones.tombstones)
        elif kind is None:
            # What a later version says and this one does not know: nothing durable is told here.
            _log.debug("unknown_control", server=control.server, version=control.version)
        elif kind == "sealed":
            self._secrets.take(control.sealed)
        if kind == "snapshot":
            self._learn(control.snapshot, control.time_us, age)
        elif missed and not self._leaving and (self._greeting is None or self._greeting.done()):
            self._greet(consume=False)

    def _learn(self, snapshot: Snapshot, time_us: int, age: float) -> None:
        if age >= self._gate.silence:
            # Either it was long on its way or the clocks differ; what is in it cannot be relied on.
            _log.warning("snapshot_is_old", seconds=round(age, 1), hint="are the clocks of all hosts synchronized?")
            return
        self._tombstones.merge(snapshot.tombstones)
        self._stop(snapshot.tombstones)
        self._catalogue.merge(snapshot, time_us)
        self._gate.informed(age)
        self._informed_at = asyncio.get_running_loop().time()
        self._snapshot.set()

    def _heed(self, stops: Sequence[Tombstone]) -> None:
        """Stop what is in hand; of the rest tell that it is not, and will not be started."""
        self._tombstones.add(stops)
        held = self._stop(stops)
        self._obeyed.update(stop.invocation_id for stop in stops if stop.invocation_id not in held)
        if self._obeyed and (self._obeying is None or self._obeying.done()):
            self._obeying = asyncio.create_task(self._tell_obeyed())

    async def _tell_obeyed(self) -> None:
        while self._obeyed:
            await asyncio.sleep(_GATHER)
            told = [self._obeyed.pop() for _ in range(min(len(self._obeyed), limits.MAX_STOPS))]
            # Where this does not arrive the servers tell of the stops again.
            await self._say(obeyed=told)

    def _ask(self) -> None:
        """Ask for secrets that are wanted."""
        self._wanted.set()
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask_until_told())

    async def _ask_until_told(self) -> None:
        """Ask for what is wanted: soon where it is new, and again now and then until it has come."""
        while self._secrets.wanted:
            await asyncio.sleep(_GATHER)
            self._wanted.clear()
            await self._say(wanted=self._secrets.wanted)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_HELLO_INTERVAL):
                    await self._wanted.wait()

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
            old = asyncio.get_running_loop().time() - self._informed_at > _REFRESH_INTERVAL
            if (
                old
                and len(self._tombstones)
                and not self._leaving
                and (self._greeting is None or self._greeting.done())
            ):
                self._greet(consume=False)

    async def _say(
        self, *, hello: bool = False, last: bool = False, obeyed: Sequence[str] = (), wanted: Sequence[str] = ()
    ) -> None:
        status = WorkerStatus(
            worker=self._worker,
            time_us=now_us(),
            control_address=self._address,
            hello=hello,
            leaving=self._leaving,
            sources=self._sources,
            functions=() if last else self._loads(),
            tombstones_acknowledged=obeyed,
            seal_key=self._secrets.seal_key,
            secrets_wanted=wanted,
            version=__version__,
        )
        try:
            await self._broker.publish_status(status.SerializeToString())
        except BrokerError as error:
            _log.debug("status_not_sent", error=str(error))
