"""The worker's composition root: reads the settings, builds the parts and hands them to each other."""

from __future__ import annotations

import asyncio
import random
import secrets
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Final

import structlog
import uvloop
from prometheus_client import start_http_server

from homing_core.broker import Broker
from homing_core.broker.rabbitmq import RabbitBroker, TopologyError
from homing_core.cancelled_calls import CancelledCalls
from homing_core.listening import listening
from homing_core.logs import configure_logs
from homing_core.memory import freeze_startup_objects
from homing_core.private import make_data_dir
from homing_core.settings import settings_of_process
from homing_core.wire.v1 import FunctionState
from homing_worker.control.catalog import Catalog
from homing_worker.control.gate import Gate
from homing_worker.control.link import ControlLink
from homing_worker.control.secrets import SecretLink
from homing_worker.control.tombstones import Tombstones
from homing_worker.deliveries.deliverer import Deliverer
from homing_worker.deliveries.webhook import WebhookClient
from homing_worker.execution.lanes import Lanes
from homing_worker.execution.leases import Leases
from homing_worker.execution.services import RunServices
from homing_worker.metrics import Metrics
from homing_worker.reporting.events import EventPublisher
from homing_worker.reporting.logs import LogPublisher
from homing_worker.reporting.progress import ProgressEndpoint
from homing_worker.runtime import Runtime, StartFailedError
from homing_worker.runtime.answer_stream import AnswerStreams
from homing_worker.runtime.bodies import Bodies
from homing_worker.runtime.command_users import CommandUsers
from homing_worker.runtime.data_ports import DataPorts
from homing_worker.runtime.docker import DockerRuntime
from homing_worker.runtime.http_command import HttpCommandRuntime
from homing_worker.runtime.http_program import Show
from homing_worker.runtime.process import ProcessRuntime
from homing_worker.runtime.secret_files import SecretFiles
from homing_worker.runtime.url import UrlRuntime
from homing_worker.settings import WorkerSettings

_log = structlog.get_logger(__name__)

_LAST_CONFIRMS_TIMEOUT: Final = 3.0
"""Seconds that the last events may take to be confirmed when the worker is closed."""


class Worker:
    """A worker with all its parts."""

    def __init__(self, settings: WorkerSettings, connect: Callable[[str], Broker], *, show: Show | None = None) -> None:
        """Build the parts.

        :param connect: Makes the broker, given the name of the worker.
        :param show: Is given what programs that serve HTTP write, with the names of their functions.
        """
        self.name = f"{settings.worker_name}-{secrets.token_hex(4)}"
        self.ready = asyncio.Event()
        """Set once it consumes work for the first time."""
        self._settings = settings
        self._show = show
        self._metrics = Metrics()
        self._broker = connect(self.name)
        self._gate = Gate()
        self._secrets = SecretLink()
        self._secret_files = SecretFiles(settings.data_dir)
        server_tls = settings.server_tls
        ports = DataPorts()
        self._bodies = Bodies(settings.data_dir / "spool", ports=ports, tls=server_tls)
        self._streams = AnswerStreams(tls=server_tls)
        self._events = EventPublisher(self._broker, self._metrics)
        self._logs = LogPublisher(self._broker, self._metrics)
        self._progress = ProgressEndpoint(self._gate, listen=settings.progress_listen, url=settings.progress_url)
        runtimes: list[Runtime] = [UrlRuntime(settings.function_guard)]
        for name in settings.runtimes:
            runtimes += self._make_runtimes(name)
        self._runtimes = {runtime.source: runtime for runtime in runtimes}
        tombstones = Tombstones()
        rng = random.Random()  # noqa: S311 jitter
        services = RunServices(
            worker=self.name,
            broker=self._broker,
            gate=self._gate,
            tombstones=tombstones,
            cancelled_calls=CancelledCalls(),
            secrets=self._secrets,
            events=self._events,
            logs=self._logs,
            progress=self._progress,
            bodies=self._bodies,
            streams=self._streams,
            metrics=self._metrics,
            rng=rng,
        )
        self._lanes = Lanes(self._runtimes, services)
        self._leases = Leases(self._lanes, self._gate, after=settings.lease_after, term=settings.lease_term)
        self._webhooks = WebhookClient(settings.delivery_guard, self._bodies, server_tls=server_tls)
        self._deliverer = Deliverer(
            self._broker,
            self._events,
            self._webhooks,
            self._secrets,
            self._metrics,
            worker=self.name,
            guard=settings.delivery_guard,
            schedule=settings.schedule,
            rng=rng,
        )
        self._control = ControlLink(
            self._broker,
            Catalog(self._on_function_changed),
            self._gate,
            tombstones,
            self._secrets,
            worker=self.name,
            sources=list(self._runtimes),
            loads=lambda: self._lanes.loads,
            stop=self._lanes.stop,
            cancel_calls=self._lanes.cancel_calls,
            on_server=ports.announced,
            consume=self._consume,
        )
        self._metrics.watch(lambda: self._lanes)
        # A connection sets up the control link alone, which has the rest consume once it has a snapshot: nothing may
        # start without the tombstones. Deliveries come first then, since they need no instances.
        self._broker.on_connected(self._control.on_connected)
        self._consumers: Sequence[Deliverer | Lanes] = (self._deliverer, self._lanes)
        for part in (self._control, *self._consumers):
            self._broker.on_lost(part.on_connection_lost)

    async def run(self, stop: asyncio.Event) -> None:
        """Work until the event is set, then shut down gracefully."""
        async with AsyncExitStack() as stack:
            if address := self._settings.metrics_listen:
                host, _, port = address.rpartition(":")
                with listening("metrics_listen", address):
                    server, _ = start_http_server(int(port), host.strip("[]"), registry=self._metrics.registry)
                stack.callback(server.shutdown)
            self._secret_files.sweep()
            stack.callback(self._secret_files.close)
            for close in self._closes():
                stack.push_async_callback(close)
            for runtime in self._runtimes.values():
                await runtime.open()
            await self._progress.open(runtime.host for runtime in self._runtimes.values() if runtime.host)
            self._leases.open()
            starting = asyncio.create_task(self._broker.start())
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                stack.callback(stopping.cancel)
                await starting
                await stopping
                await self._drain()
            else:
                starting.cancel()
                await asyncio.gather(starting, return_exceptions=True)

    def _closes(self) -> Sequence[Callable[[], Awaitable[None]]]:
        """Return what closes the parts. The last goes first: what uses a part is closed before it."""
        return (
            *(runtime.close for runtime in self._runtimes.values()),
            self._broker.close,
            self._events.close,
            self._confirm_last_events,
            self._logs.close,
            self._bodies.close,
            self._streams.close,
            self._webhooks.close,
            self._deliverer.close,
            self._progress.close,
            self._lanes.close,
            self._leases.close,
            self._control.close,
        )

    async def _drain(self) -> None:
        """Shut down gracefully: finish what runs, as far as the time-out allows, and see its events confirmed."""
        _log.info("draining", worker=self.name)
        await self._control.announce_drain()
        try:
            async with asyncio.timeout(self._settings.drain_timeout):
                await asyncio.gather(self._lanes.drain(), self._deliverer.drain())
                await asyncio.gather(self._events.flush(), self._logs.flush())
            await self._control.announce_drained()
        except TimeoutError:
            _log.warning("drain_timed_out", worker=self.name)

    async def _confirm_last_events(self) -> None:
        """See confirmed what was reported last, such as returned leases, where that is soon done."""
        try:
            async with asyncio.timeout(_LAST_CONFIRMS_TIMEOUT):
                await self._events.flush()
        except TimeoutError:
            _log.warning("events_not_confirmed", worker=self.name)

    async def _consume(self) -> None:
        for consumer in self._consumers:
            await consumer.consume()
        if not self.ready.is_set():
            self.ready.set()
            _log.info("ready", worker=self.name)

    def _on_function_changed(self, name: str, state: FunctionState | None, revision: int) -> None:
        if state is None:
            self._secrets.forget(name)
        self._lanes.change(name, state, revision)

    def _make_runtimes(self, name: str) -> Sequence[Runtime]:
        settings = self._settings
        match name:
            case "docker":
                docker = DockerRuntime(
                    url=settings.docker_url,
                    data_dir=settings.data_dir,
                    files=self._secret_files,
                    defaults=settings.container_defaults,
                    owner=self.name,
                    start_timeout=settings.start_timeout,
                    pull_timeout=settings.pull_timeout,
                    stop_grace=settings.stop_grace,
                )
                return (docker,)
            case "process":
                users = CommandUsers(settings.command_uids)
                programs = HttpCommandRuntime(
                    self._secret_files,
                    users,
                    data_dir=settings.data_dir,
                    owner=self.name,
                    start_timeout=settings.start_timeout,
                    stop_grace=settings.stop_grace,
                    show=self._show,
                )
                return ProcessRuntime(self._secret_files, users), programs
            case _:
                raise ValueError(f"there is no runtime {name}")


async def _run(settings: WorkerSettings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    tls = settings.broker_tls
    worker = Worker(settings, lambda name: RabbitBroker(settings.broker_url, name=f"homing-worker {name}", tls=tls))
    work = asyncio.create_task(worker.run(stop))

    def on_signal() -> None:
        if stop.is_set():
            # The second signal: at once.
            work.cancel()
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    try:
        await work
    except asyncio.CancelledError:
        if not work.cancelled():
            raise


def main() -> None:
    """Run the worker: the console script ``homing-worker``."""
    settings = settings_of_process(WorkerSettings, "homing-worker")
    configure_logs(settings.log_level)
    freeze_startup_objects()
    try:
        make_data_dir(settings.data_dir)
        uvloop.run(_run(settings))
    except (OSError, RuntimeError, ValueError, TopologyError, StartFailedError) as error:
        sys.exit(f"homing-worker: {error}")
