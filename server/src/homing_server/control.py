"""The control channel: what servers announce to each other and to all workers, and the statuses of workers."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence

import structlog
from google.protobuf.message import DecodeError

from homing_core.broker import Broker, BrokerUnavailableError, Received
from homing_core.cancelled_calls import CancelledCalls
from homing_core.clock import now_us
from homing_core.limits import CONTROL_INTERVAL, CONTROL_SILENCE, MAX_STOPS
from homing_core.wire import v1 as wire
from homing_core.wire.v1 import (
    CancelledCall,
    Control,
    FunctionState,
    KeysChanged,
    Ping,
    ResultsRecorded,
    Tombstone,
    Tombstones,
    WorkerStatus,
)
from homing_server import __version__
from homing_server.cluster.presence import Presence
from homing_server.cluster.registry import WorkerRegistry
from homing_server.cluster.snapshots import snapshot_parts
from homing_server.functions.catalog import Catalog
from homing_server.store.effects import CommitEffects
from homing_server.tasks import Tasks
from homing_server.vault.keyring import Keyring
from homing_server.watch.hub import WatchHub

_log = structlog.get_logger(__name__)


class ControlChannel:
    """This server's end of the control channel."""

    def __init__(
        self,
        name: str,
        broker: Broker,
        *,
        catalog: Catalog,
        hub: WatchHub,
        keyring: Keyring,
        presence: Presence,
        registry: WorkerRegistry,
        tasks: Tasks,
    ) -> None:
        self._name = name
        self._broker = broker
        self._catalog = catalog
        self._hub = hub
        self._keyring = keyring
        self._presence = presence
        self._registry = registry
        self._tasks = tasks
        self.data_url = ""
        """Where workers reach the data port of this server; they are told with everything."""
        self.cancelled_calls = CancelledCalls()
        """The synchronous calls of this server whose callers went away; snapshots have them."""
        self._others: dict[str, float] = {}
        self._welcoming: set[str] = set()
        """Where snapshots are on their way to: who asks again meanwhile gets no other."""
        self._unannounced: dict[str, FunctionState] = {}
        """Functions that changed while there was no connection, by name."""
        self._keys_changed: Callable[[], Awaitable[None]] | None = None
        self._stopped: Callable[[Iterable[Tombstone]], None] | None = None

    async def consume(self) -> None:
        """Take control messages and statuses over a new connection."""
        await self._broker.consume_control(self._on_control)
        await self._catalog.load()  # after listening has begun, so that no change falls in between
        self._presence.connected()
        await self._broker.consume_status(self._on_status)
        self._registry.connected()

    def lost(self) -> None:
        """Note that there is no connection: silence means nothing."""
        self._registry.lost()

    def on_keys_changed(self, hook: Callable[[], Awaitable[None]]) -> None:
        """Call a hook when another server has made or revoked API keys."""
        self._keys_changed = hook

    def on_stops(self, hook: Callable[[Iterable[Tombstone]], None]) -> None:
        """Call a hook with the stops that this or another server announces to workers."""
        self._stopped = hook

    async def ping(self) -> None:
        """Announce that this server lives, and what it could not announce before. One step of a loop."""
        with contextlib.suppress(BrokerUnavailableError):
            while self._unannounced:
                name, state = next(iter(self._unannounced.items()))
                await self._publish(Control(function=state))
                if self._unannounced.get(name) is state:
                    del self._unannounced[name]
            await self._publish(Control(ping=Ping()))
        await asyncio.sleep(CONTROL_INTERVAL)

    async def announce_function(self, state: FunctionState) -> None:
        """Announce that a function was deployed, changed or deleted.

        Where this server has no connection that is done at the next one: others may have theirs.
        """
        self._unannounced.pop(state.function.name, None)
        try:
            await self._publish(Control(function=state))
        except BrokerUnavailableError:
            self._unannounced[state.function.name] = state

    async def announce_stops(self, stops: Sequence[Tombstone]) -> None:
        """Announce tombstones to all workers. Where the broker is away nobody hears of them."""
        with contextlib.suppress(BrokerUnavailableError):
            for start in range(0, len(stops), MAX_STOPS):
                await self._publish(Control(tombstones=Tombstones(tombstones=stops[start : start + MAX_STOPS])))

    async def announce_cancelled_calls(self, calls: Sequence[CancelledCall]) -> None:
        """Announce to all workers that the callers of synchronous calls went away.

        Where the broker is away nobody hears of it before the next snapshot.
        """
        self.cancelled_calls.add(calls)
        with contextlib.suppress(BrokerUnavailableError):
            for start in range(0, len(calls), MAX_STOPS):
                part = wire.CancelledCalls(calls=calls[start : start + MAX_STOPS])
                await self._publish(Control(cancelled_calls=part))

    async def announce_keys_changed(self) -> None:
        """Announce that API keys were made or revoked; without the broker the other servers see it by themselves."""
        with contextlib.suppress(BrokerUnavailableError):
            await self._publish(Control(keys_changed=KeysChanged()))

    @property
    def alone(self) -> bool:
        """Whether no other server was heard of lately."""
        return not any(time.monotonic() - at < CONTROL_SILENCE for at in self._others.values())

    def on_committed(self, effects: CommitEffects) -> None:
        """Announce to the other servers that results and changes were committed here."""
        if effects.change_seq:
            self._hub.notify(result_seq=effects.result_seq, change_seq=effects.change_seq)
            # One that was not heard of yet looks by itself until it is.
            if self._broker.connected and not self.alone:
                results = ResultsRecorded(result_seq=effects.result_seq, change_seq=effects.change_seq)
                message = Control(results=results)
                self._tasks.run(self._publish(message), "announce results")

    async def _publish(self, message: Control) -> None:
        message.time_us = now_us()
        await self._broker.publish_control(self._encoded(message))

    async def _send(self, address: str, message: Control) -> None:
        await self._broker.publish_control_to(address, self._encoded(message))

    def _encoded(self, message: Control) -> bytes:
        """Return a message as it travels, with who says it."""
        message.server = self._name
        message.version = __version__
        message.data_url = self.data_url
        return message.SerializeToString()

    def _on_control(self, received: Received) -> None:
        try:
            message = Control.FromString(received.body)
        except DecodeError:
            _log.warning("unreadable_control_dropped")
            return
        finally:
            received.ack()
        if message.server != self._name:
            self._others[message.server] = time.monotonic()
        match message.WhichOneof("kind"):
            case "function":
                self._catalog.learn(message.function)
            case "results":
                recorded = message.results
                self._hub.notify(result_seq=recorded.result_seq, change_seq=recorded.change_seq)
            case "tombstones" if self._stopped is not None:
                self._stopped(message.tombstones.tombstones)
            case "keys_changed" if self._keys_changed is not None:
                self._tasks.run(self._keys_changed(), "read keys")
            case None:
                # What another version says and this one does not know: nothing durable is told here.
                _log.debug("unknown_control", server=message.server, version=message.version)

    def _on_status(self, received: Received) -> None:
        try:
            status = WorkerStatus.FromString(received.body)
        except DecodeError:
            _log.warning("unreadable_status_dropped")
            return
        finally:
            received.ack()
        self._presence.on_status(status)
        self._registry.on_status(status)
        if (status.hello or self._registry.is_unknown(status)) and status.control_address not in self._welcoming:
            self._welcoming.add(status.control_address)
            self._tasks.run(self._welcome(status), "snapshot")
        if status.secrets_wanted and status.seal_key:
            self._tasks.run(self._send_secrets(status), "secrets")

    async def _welcome(self, status: WorkerStatus) -> None:
        """Enroll a worker, and send it a snapshot of what there is to know."""
        try:
            time_us = now_us()
            stops = await self._registry.enroll(status.worker)
            _log.info("worker_connected", worker=status.worker, version=status.version or "unknown")
            content = self._catalog.live(), stops, self.cancelled_calls
            parts = snapshot_parts(*content) if status.takes_parts else snapshot_parts(*content, most=sys.maxsize)
            for part in parts:
                await self._send(status.control_address, Control(time_us=time_us, snapshot=part))
                await asyncio.sleep(0)  # others are to get their turn: there may be many parts
        finally:
            self._welcoming.discard(status.control_address)

    async def _send_secrets(self, status: WorkerStatus) -> None:
        """Send a worker what it asks for, encrypted to it. Each server does: once it has it, it asks no more."""
        for sealed in await self._keyring.sealed(status.secrets_wanted, status.seal_key):
            await self._send(status.control_address, Control(time_us=now_us(), sealed=sealed))
