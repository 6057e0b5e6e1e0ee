"""The composition root of the server: reads the settings, builds the parts, hands them to each other and runs them."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import AsyncExitStack

import structlog
import uvloop

from homing_core.broker import Broker, ForeignBrokerError
from homing_core.broker.rabbitmq import RabbitBroker, TopologyError
from homing_core.guard import Guard
from homing_core.logs import configure_logs
from homing_core.memory import freeze_startup_objects
from homing_core.open_files import raise_limit_of_files
from homing_core.private import make_data_dir
from homing_core.settings import settings_of_process
from homing_server.admin.api_keys import ApiKeys
from homing_server.admin.deployment import Deployment
from homing_server.admin.secrets import Secrets
from homing_server.admin.signing_keys import SigningKeys
from homing_server.auth import audit
from homing_server.auth.authority import Authority
from homing_server.auth.key_cache import KeyCache
from homing_server.auth.refusals import Refusals
from homing_server.auth.visibility import Visibility
from homing_server.cluster.leadership import Leadership
from homing_server.cluster.presence import Presence
from homing_server.cluster.registry import WorkerRegistry
from homing_server.cluster.wait_reasons import WaitReasons
from homing_server.control import ControlChannel
from homing_server.deliveries.dead_letters import DeadLetters
from homing_server.deliveries.dispatcher import DeliveryDispatcher
from homing_server.errors import ApiError
from homing_server.front.api.calls import Calls
from homing_server.front.api.dead_letter_service import DeadLetterService
from homing_server.front.api.function_service import FunctionService
from homing_server.front.api.invocation_service import InvocationService
from homing_server.front.api.key_service import KeyService
from homing_server.front.api.log_service import LogService
from homing_server.front.api.payload_service import PayloadService
from homing_server.front.api.requests import Readers
from homing_server.front.api.secret_service import SecretService
from homing_server.front.api.services import Services
from homing_server.front.api.serving import Serving
from homing_server.front.api.signing_key_service import SigningKeyService
from homing_server.front.grpc.server import GrpcFront
from homing_server.front.http.data_port import DataPort
from homing_server.front.http.gateway.bodies import Bodies
from homing_server.front.http.gateway.cancels import Cancels
from homing_server.front.http.gateway.door import Gateway
from homing_server.front.http.gateway.metrics import GatewayMetrics
from homing_server.front.http.host_names import HostNames, is_loopback
from homing_server.front.http.operations import Operations
from homing_server.front.http.rest.app import Rest
from homing_server.front.http.root import Root
from homing_server.front.http.server import HttpFront
from homing_server.front.http.system.app import System
from homing_server.functions.catalog import Catalog
from homing_server.invocations.admission import Admission
from homing_server.invocations.bulk_calls import BulkCalls
from homing_server.invocations.dispatcher import PUBLISHERS, Dispatcher
from homing_server.invocations.leases import Leases
from homing_server.invocations.lost_calls import LostCalls
from homing_server.invocations.queries import Queries
from homing_server.invocations.reconciliation import Reconciliation
from homing_server.invocations.recorder import Recorder
from homing_server.invocations.reruns import Reruns
from homing_server.invocations.retention import Retention
from homing_server.invocations.stops import Stops
from homing_server.invocations.sync_calls import SyncCalls
from homing_server.invocations.sync_records import SyncRecords
from homing_server.logs.ingest import LogIngest
from homing_server.logs.tail import LogTails
from homing_server.metrics import Metrics
from homing_server.payloads.blobs import Blobs
from homing_server.payloads.signed_urls import SignedUrls
from homing_server.payloads.uploads import Uploads
from homing_server.settings import ServerSettings
from homing_server.store.effects import CommitEffects
from homing_server.store.engine import Database, StoreUnavailableError
from homing_server.store.sequences import read_counters
from homing_server.tasks import Tasks
from homing_server.vault.keyring import Keyring
from homing_server.vault.vault import open_vault
from homing_server.watch.hub import WatchHub
from homing_server.watch.service import WatchService

_log = structlog.get_logger(__name__)

_HEALTH_SECONDS = 0.5


class Server:
    """All parts of one server process."""

    def __init__(self, settings: ServerSettings, connect: Callable[[str], Broker]) -> None:
        """Build the parts.

        :param connect: Makes the broker, given the name of the server.
        :raises ValueError: The settings would let everybody in by oversight, or a file for TLS cannot be used.
        """
        _check_exposure(settings)
        self.ready = asyncio.Event()
        """Set once it serves."""
        self.grpc_address = ""
        self.http_address = ""
        self._settings = settings
        self._tasks = tasks = Tasks()
        self._name = f"{socket.gethostname()}-{secrets.token_hex(4)}"
        self._draining = False
        self._takes_over = settings.take_over_broker
        self._metrics = Metrics()
        self._database = Database(settings.database_url)
        self._broker = connect(self._name)
        self._blobs = Blobs(self._database, settings.blob_dir)
        self._urls = SignedUrls()
        self._presence = Presence()
        self._catalog = Catalog(self._database)
        self._hub = WatchHub(self._database)
        self._registry = WorkerRegistry(self._database)
        self._keyring = Keyring(self._database)
        self._signing_keys = SigningKeys(self._database, self._keyring)
        self._control = ControlChannel(
            self._name,
            self._broker,
            catalog=self._catalog,
            hub=self._hub,
            keyring=self._keyring,
            presence=self._presence,
            registry=self._registry,
            tasks=tasks,
        )
        self._dispatcher = Dispatcher(
            self._database,
            self._broker,
            self._catalog,
            urls=self._urls,
            announce=self._announce,
            resend_after=settings.resend_after,
        )
        self._deliveries = DeliveryDispatcher(
            self._database,
            self._broker,
            blobs=self._blobs,
            urls=self._urls,
            authority=Authority(
                authentication=settings.authentication, has_root=bool(settings.root_key.get_secret_value())
            ),
            metrics=self._metrics,
            caused=self._caused,
            resend_after=settings.resend_after,
        )
        guard = settings.delivery_guard
        self._admission = Admission(
            self._database, self._catalog, self._dispatcher, self._metrics, blobs=self._blobs, guard=guard
        )
        self._leadership = Leadership(self._database, "dispatcher", self._name, self._metrics.dispatching)
        self._admission.on_accepted(self._hub.changes.wake)
        self._deployment = Deployment(
            self._database,
            self._broker,
            self._catalog,
            self._control,
            urls=settings.function_guard,
            deliveries=guard,
            tasks=tasks,
            announce=self._announce,
        )
        wait_reasons = WaitReasons(self._catalog, self._presence)
        self._bulk_calls = BulkCalls(self._database, tasks)
        self._stops = Stops(
            self._database,
            self._broker,
            self._control,
            self._registry,
            calls=self._bulk_calls,
            announce=self._announce,
        )
        self._sync_calls = SyncCalls(
            self._broker,
            self._presence,
            wait_reasons,
            self._urls,
            blobs=self._blobs,
            catalog=self._catalog,
            control=self._control,
            records=SyncRecords(self._database, self._catalog, announce=self._announce),
            tasks=tasks,
        )
        self._logs = LogIngest(self._database, self._broker)
        self._log_tails = LogTails(self._database, self._logs)
        self._recorder = Recorder(self._database, self._broker, self._metrics, announce=self._announce)
        self._retention = Retention(self._database)
        self._leases = Leases(self._database, self._broker, self._recorder, grace=settings.lease_grace)
        self._reconciliation = Reconciliation(
            self._database,
            self._broker,
            self._metrics,
            catalog=self._catalog,
            control=self._control,
            presence=self._presence,
            recorder=self._recorder,
            interval=settings.conservation_interval,
        )
        self._key_cache = KeyCache(self._database, root_key=settings.root_key.get_secret_value())
        self._refusals = Refusals()
        if settings.authentication:
            self._control.on_keys_changed(self._key_cache.load)
        self._readers = Readers()
        self._operations = Operations(self._metrics)
        self._uploads = Uploads(self._database)
        self._gateway = self._open_gateway(guard, wait_reasons)
        self._grpc, self._http = self._fronts(self._services(guard, wait_reasons))
        self._set_up_connections()

    def _services(self, guard: Guard, wait_reasons: WaitReasons) -> Services:
        """Build the services of the API."""
        visibility = Visibility(self._database)
        invocations = InvocationService(
            admission=self._admission,
            blobs=self._blobs,
            catalog=self._catalog,
            guard=guard,
            wait_reasons=wait_reasons,
            hub=self._hub,
            queries=Queries(self._database, wait_reasons),
            reruns=Reruns(self._database, self._admission, self._bulk_calls),
            stops=self._stops,
            sync_calls=self._sync_calls,
            visibility=visibility,
            watches=WatchService(self._database, self._hub, wait_reasons, self._metrics),
            sync_timeout=self._settings.sync_timeout,
        )
        return Services(
            invocations=invocations,
            payloads=PayloadService(self._blobs, self._uploads, visibility),
            logs=LogService(self._log_tails, visibility, self._catalog),
            dead_letters=DeadLetterService(
                DeadLetters(
                    self._database,
                    self._catalog,
                    self._admission,
                    self._bulk_calls,
                    redelivered=self._deliveries.wake,
                )
            ),
            functions=FunctionService(self._catalog, self._deployment),
            secrets=SecretService(Secrets(self._database, self._keyring, self._catalog, self._control)),
            signing_keys=SigningKeyService(self._signing_keys),
            keys=KeyService(ApiKeys(self._database, self._key_cache, self._control, self._keyring)),
        )

    def _open_gateway(self, guard: Guard, wait_reasons: WaitReasons) -> Gateway:
        """Build what functions are invoked by over plain HTTP."""
        cancels = Cancels(Queries(self._database, wait_reasons), self._stops, Visibility(self._database))
        return Gateway(
            admission=self._admission,
            bodies=Bodies(self._blobs, self._uploads),
            blobs=self._blobs,
            cancels=cancels,
            catalog=self._catalog,
            guard=guard,
            hub=self._hub,
            metrics=GatewayMetrics(self._metrics.registry, self._catalog),
            presence=self._presence,
            sync_calls=self._sync_calls,
            sync_timeout=self._settings.sync_timeout,
            needs_keys=self._settings.authentication,
        )

    def _fronts(self, services: Services) -> tuple[GrpcFront, HttpFront]:
        """Build what the API is called by."""
        settings = self._settings
        keys = self._key_cache if settings.authentication else None
        calls = Calls()
        serving = Serving(calls, self._refusals)
        grpc = GrpcFront(
            settings.grpc_listen,
            services,
            tls=settings.tls,
            compress=settings.compress_responses,
            keys=keys,
            serving=serving,
            readers=self._readers,
        )
        system = System(
            services,
            serving,
            catalog=self._catalog,
            presence=self._presence,
            database=self._database,
            tails=self._log_tails,
        )
        root = Root(
            [
                *self._operations.areas,
                *DataPort(self._blobs, self._urls, receive=self._sync_calls.receive_stream).areas,
                *Rest(services, serving, self._readers).areas,
                *self._gateway.areas,
                *system.areas,
            ],
            keys=keys,
            calls=calls,
            refusals=self._refusals,
            names=HostNames.of(settings.http_listen, settings.data_url),
        )
        return grpc, HttpFront(settings.http_listen, root, tls=settings.tls)

    def _set_up_connections(self) -> None:
        """Say what is set up, in this order, over each connection to the broker, and what is forgotten with it.

        Functions are known, and workers heard, before anything comes that has to do with them.
        """
        self._broker.on_connected(self._claim_broker)
        for part in (self._control, self._deployment, self._sync_calls, self._logs, self._recorder):
            self._broker.on_connected(part.consume)
            self._broker.on_lost(part.lost)
        if self._settings.authentication:
            # What was said of keys while there was no connection nobody has heard.
            self._broker.on_connected(self._key_cache.load)

    async def _claim_broker(self) -> None:
        await self._broker.claim(self._database.identity, take_over=self._takes_over)
        self._takes_over = False

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until told to stop, then let the calls under way end.

        :raises StoreUnavailableError: The store cannot be opened.
        :raises NoAdminKeyError: Keys are needed, and there is none.
        :raises SecretKeyError: The key that its secrets are encrypted with is not there, or is another one.
        :raises ListenError: An address cannot be listened on.
        """
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._database.close)
            stack.push_async_callback(self._broker.close)
            await stack.enter_async_context(self._tasks)
            starting = asyncio.create_task(self._start())
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
            stack.callback(stopping.cancel)
            try:
                if starting.done():
                    await starting
                    await stopping
                else:
                    starting.cancel()
                    await asyncio.gather(starting, return_exceptions=True)
            finally:
                await self._stop()

    async def _start(self) -> None:
        await self._database.open()
        settings = self._settings
        self._keyring.open(
            await open_vault(
                self._database,
                given=settings.secret_key.get_secret_value(),
                path=settings.secret_key_file,
                former=settings.former_secret_key.get_secret_value(),
            )
        )
        await self._signing_keys.open()
        if settings.authentication:
            await self._key_cache.open()
            self._tasks.repeat(self._key_cache.follow)
        await self._dispatcher.recover(republish_all=settings.republish_all)
        await self._catalog.load()
        await self._hub.open()
        for step in (
            self._admission.commit_group,
            *[self._dispatcher.publish_outbox] * PUBLISHERS,
            self._dispatcher.note_confirms,
            self._dispatcher.survey,
            self._deliveries.feed,
            self._leadership.renew,
            self._leadership.led(self._dispatcher.feed),
            self._leadership.led(self._dispatcher.sweep),
            self._leadership.led(self._deliveries.sweep),
            self._recorder.record_group,
            self._recorder.retry_parked,
            self._leases.sweep,
            self._logs.store_group,
            self._logs.remove_orphans,
            self._hub.follow_results,
            self._hub.follow_changes,
            self._deployment.settle_group,
            self._stops.settle,
            self._stops.forget,
            self._sync_calls.look_for_lost_workers,
            self._sync_calls.record_lasting,
            LostCalls(self._database, self._broker, self._recorder, self._presence).sweep,
            self._control.ping,
            self._reconciliation.measure,
            self._retention.remove_expired,
            self._bulk_calls.forget,
            self._blobs.sweep,
            self._refusals.tell,
        ):
            self._tasks.repeat(step)
        await self._set_serving(serving=False)
        self.grpc_address = await self._grpc.start()
        self.http_address = await self._http.start()
        scheme = "http" if settings.tls is None else "https"
        # Before the broker is reached, and with it the first worker.
        self._urls.open(self._settings.data_url or f"{scheme}://{self.http_address}", self._database.data_key)
        self._control.data_url = self._gateway.own_origin = self._urls.base
        await self._broker.start()
        self._tasks.repeat(self._watch_health)
        await self._set_serving(serving=True)
        self.ready.set()
        _log.info("ready", server=self._name, grpc=self.grpc_address, http=self.http_address)

    async def _stop(self) -> None:
        _log.info("stopping")
        self._draining = True
        with contextlib.suppress(StoreUnavailableError):
            await self._leadership.resign()
        await self._set_serving(serving=False)
        self._log_tails.close()
        self._bulk_calls.close()
        self._sync_calls.drain()
        await self._hub.close()
        grace = self._settings.drain_timeout
        await asyncio.gather(self._grpc.stop(grace), self._http.drain(grace))
        await self._http.stop()
        self._readers.close()

    def _announce(self, effects: CommitEffects) -> None:
        self._dispatcher.on_committed(effects)
        self._deliveries.on_committed(effects)
        self._leases.on_committed(effects)
        self._control.on_committed(effects)

    def _caused(self, function: str, due_us: int) -> None:
        self._dispatcher.wake(function, due_us)
        self._hub.changes.wake()

    async def _watch_health(self) -> None:
        serving = self._broker.connected and await self._store_answers() and not self._draining
        await self._set_serving(serving=serving)
        await asyncio.sleep(_HEALTH_SECONDS)

    async def _store_answers(self) -> bool:
        try:
            await self._database.read(read_counters)
        except StoreUnavailableError:
            return False
        return True

    async def _set_serving(self, *, serving: bool) -> None:
        self._operations.set_serving(serving)
        await self._grpc.set_serving(serving)


def _check_exposure(settings: ServerSettings) -> None:
    """Refuse to let everybody in by oversight.

    :raises ValueError: The server would listen to more than this host without authentication.
    """
    for name in ("grpc_listen", "http_listen"):
        if is_loopback(getattr(settings, name).rpartition(":")[0]):
            continue
        if settings.authentication:
            if settings.tls is None:
                _log.warning("api_keys_unencrypted", listen=name, hint="set HOMING_TLS_CERT and HOMING_TLS_KEY")
        elif not settings.allow_unauthenticated:
            raise ValueError(
                f"{name}={getattr(settings, name)} is not a loopback address, and this server has no authentication:"
                " set HOMING_ROOT_KEY to a secret of at least 32 characters, or HOMING_ALLOW_UNAUTHENTICATED=true if"
                " whoever reaches it may do everything"
            )


async def _run(settings: ServerSettings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    tls = settings.broker_tls
    server = Server(settings, lambda name: RabbitBroker(settings.broker_url, name=f"homing-server {name}", tls=tls))
    await server.run(stop)


def main() -> None:
    """Run the server: the console script ``homing-server``."""
    settings = settings_of_process(ServerSettings, "homing-server")
    configure_logs(settings.log_level)
    audit.log_at_any_level()
    raise_limit_of_files()
    freeze_startup_objects()
    try:
        make_data_dir(settings.data_dir)
        uvloop.run(_run(settings))
    except (OSError, RuntimeError, ValueError, ApiError, TopologyError, ForeignBrokerError) as error:
        sys.exit(f"homing-server: {error}")


if __name__ == "__main__":
    main()
