"""The control link: heartbeats to the servers, and what they announce; a snapshot comes before any work."""

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
from homing_core.wire.v1 import CancelledCall, Control, FunctionLoad, Snapshot, Tombstone, WorkerStatus
from homing_worker import __version__
from homing_worker.control.catalog import Catalog
from homing_worker.control.gate import Gate
from homing_worker.control.secrets import SecretLink
from homing_worker.control.snapshots import SnapshotParts
from homing_worker.control.tombstones import Tombstones

_log = structlog.get_logger(__name__)

_REQUEST_INTERVAL: Final = 1.0
"""Seconds after which a request that was not answered is sent again."""
_REFRESH_INTERVAL: Final = 600.0
"""Seconds after which a worker that has tombstones asks for a snapshot, to forget those that servers have removed."""
_BATCH_DELAY: Final = 0.02
"""Seconds that replies to stops and requests for secrets gather, to go in one message."""


class ControlLink:
    """Asks for a snapshot at every connection, and consumes work only once it has one.

    It asks again at the first message of a server that it has not heard before, or of any server after a silence:
    something may have been missed meanwhile.
    """

    def __init__(
        self,
        broker: Broker,
        catalog: Catalog,
        gate: Gate,
        tombstones: Tombstones,
        secrets: SecretLink,
        *,
        worker: str,
        sources: Sequence[str],
        loads: Callable[[], list[FunctionLoad]],
        stop: Callable[[Sequence[Tombstone]], set[str]],
        cancel_calls: Callable[[Sequence[CancelledCall]], None],
        on_server: Callable[[str, str], None],
        consume: Callable[[], Awaitable[None]],
    ) -> None:
        """Prepare to connect.

        :param loads: Returns what this worker does for each function.
        :param stop: Stops what this worker has of these; returns the ids of what it has.
        :param cancel_calls: Stops what this worker has of these, and lets it start no other.
        :param on_server: Takes the name of a server and where it says that its data port is.
        :param consume: Begins to consume work.
        """
        self._broker = broker
        self._catalog = catalog
        self._gate = gate
        self._tombstones = tombstones
        self._secrets = secrets
        self._worker = worker
        self._sources = sources
        self._loads = loads
        self._stop = stop
        self._cancel_calls = cancel_calls
        self._on_server = on_server
        self._consume = consume
        self._address = ""
        self._servers: set[str] = set()
        self._snapshot = asyncio.Event()
        self._requesting: asyncio.Task[None] | None = None
        self._heartbeats: asyncio.Task[None] | None = None
        self._acknowledging: asyncio.Task[None] | None = None
        self._acknowledged: set[str] = set()
        self._fetching: asyncio.Task[None] | None = None
        self._wanted = asyncio.Event()
        secrets.on_wanted(self._fetch_secrets)
        self._snapshot_at = 0.0
        self._parts = SnapshotParts()
        self._arriving = False
        """Whether a part of a snapshot came lately, so that the others are on their way."""
        self._leaving = False

    async def on_connected(self) -> None:
        """Consume control messages over a new connection, and ask for a snapshot."""
        self._address = await self._broker.consume_control(self._on_control)
        self._request_snapshot(consume=True)
        if self._heartbeats is None:
            self._heartbeats = asyncio.create_task(self._send_heartbeats())

    def on_connection_lost(self) -> None:
        """Ask for nothing more: the next connection begins anew."""
        if self._requesting is not None:
            self._requesting.cancel()

    async def announce_drain(self) -> None:
        """Announce that this worker drains: it starts nothing more."""
        self._leaving = True
        if self._requesting is not None:
            self._requesting.cancel()
        await self._publish_status()

    async def announce_drained(self) -> None:
        """Announce that nothing of this worker is in flight any more, as its last message."""
        await self._publish_status(last=True)

    async def close(self) -> None:
        """Send no more heartbeats."""
        started = (self._requesting, self._heartbeats, self._acknowledging, self._fetching)
        tasks = [task for task in started if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _on_control(self, received: Received) -> None:
        try:
            control = Control.FromString(received.body)
        except DecodeError:
            _log.error("control_message_unreadable", size=len(received.body))
            return
        finally:
            received.ack()
        missed = not self._gate.open or self._gate.doubted or control.server not in self._servers
        self._servers.add(control.server)
        age = max(0.0, (now_us() - control.time_us) / 1e6)
        self._gate.heard(age)
        self._on_server(control.server, control.data_url)
        kind = control.WhichOneof("kind")
        if kind == "function":
            self._catalog.apply(control.function)
        elif kind == "tombstones":
            self._apply_stops(control.tombstones.tombstones)
        elif kind == "cancelled_calls":
            self._cancel_calls(control.cancelled_calls.calls)
        elif kind is None:
            # What a later version announces and this one does not know: nothing durable is announced.
            _log.debug("control_message_unknown", server=control.server, version=control.version)
        elif kind == "sealed":
            self._secrets.take(control.sealed)
        if kind == "snapshot":
            whole = self._parts.take(control)
            if whole is None:
                self._arriving = True
            else:
                self._apply_snapshot(whole, age)
        elif missed and not self._leaving and (self._requesting is None or self._requesting.done()):
            self._request_snapshot(consume=False)

    def _apply_snapshot(self, snapshot: Snapshot, age: float) -> None:
        if age >= self._gate.max_silence:
            # Either it was delayed or the clocks differ; what is in it cannot be relied on.
            _log.warning("snapshot_too_old", seconds=round(age, 1), hint="are the clocks of all hosts synchronized?")
            return
        self._tombstones.merge(snapshot.tombstones)
        self._stop(snapshot.tombstones)
        self._cancel_calls(snapshot.cancelled_calls)
        self._catalog.merge(snapshot)
        self._gate.reopen(age)
        self._snapshot_at = asyncio.get_running_loop().time()
        self._snapshot.set()

    def _apply_stops(self, stops: Sequence[Tombstone]) -> None:
        """Stop what this worker has; acknowledge of the rest that it does not have it and will not start it."""
        self._tombstones.add(stops)
        held = self._stop(stops)
        self._acknowledged.update(stop.invocation_id for stop in stops if stop.invocation_id not in held)
        if self._acknowledged and (self._acknowledging is None or self._acknowledging.done()):
            self._acknowledging = asyncio.create_task(self._acknowledge_stops())

    async def _acknowledge_stops(self) -> None:
        while self._acknowledged:
            await asyncio.sleep(_BATCH_DELAY)
            batch = [self._acknowledged.pop() for _ in range(min(len(self._acknowledged), limits.MAX_STOPS))]
            # Where this does not arrive the servers announce the stops again.
            await self._publish_status(acknowledged=batch)

    def _fetch_secrets(self) -> None:
        """Ask for the secrets that are waited for."""
        self._wanted.set()
        if self._fetching is None or self._fetching.done():
            self._fetching = asyncio.create_task(self._request_secrets())

    async def _request_secrets(self) -> None:
        """Ask for what is wanted: soon where it is new, and again now and then until it has come."""
        while self._secrets.wanted:
            await asyncio.sleep(_BATCH_DELAY)
            self._wanted.clear()
            await self._publish_status(wanted=self._secrets.wanted)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_REQUEST_INTERVAL):
                    await self._wanted.wait()

    def _request_snapshot(self, *, consume: bool) -> None:
        if self._requesting is not None:
            self._requesting.cancel()
        self._requesting = asyncio.create_task(self._await_snapshot(consume=consume))

    async def _await_snapshot(self, *, consume: bool) -> None:
        """Ask for a snapshot until one comes, then begin to consume."""
        self._catalog.expect_snapshot()
        self._snapshot.clear()
        while not self._snapshot.is_set():
            await self._publish_status(hello=True)
            self._arriving = True
            while self._arriving and not self._snapshot.is_set():
                self._arriving = False
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_REQUEST_INTERVAL):
                        await self._snapshot.wait()
        if not consume:
            return
        # Where the connection is lost meanwhile this is cancelled, and the next connection begins anew.
        await AsyncRetrying(
            retry=retry_if_exception_type(BrokerError), wait=wait_random_exponential(multiplier=0.5, max=10.0)
        )(self._consume)

    async def _send_heartbeats(self) -> None:
        while True:
            await asyncio.sleep(limits.CONTROL_INTERVAL)
            await self._publish_status()
            old = asyncio.get_running_loop().time() - self._snapshot_at > _REFRESH_INTERVAL
            if (
                old
                and len(self._tombstones)
                and not self._leaving
                and (self._requesting is None or self._requesting.done())
            ):
                self._request_snapshot(consume=False)

    async def _publish_status(
        self, *, hello: bool = False, last: bool = False, acknowledged: Sequence[str] = (), wanted: Sequence[str] = ()
    ) -> None:
        status = WorkerStatus(
            worker=self._worker,
            time_us=now_us(),
            control_address=self._address,
            hello=hello,
            leaving=self._leaving,
            sources=self._sources,
            functions=() if last else self._loads(),
            tombstones_acknowledged=acknowledged,
            seal_key=self._secrets.seal_key,
            secrets_wanted=wanted,
            version=__version__,
            takes_parts=True,
        )
        try:
            await self._broker.publish_status(status.SerializeToString())
        except BrokerError as error:
            _log.debug("heartbeat_not_sent", error=str(error))
