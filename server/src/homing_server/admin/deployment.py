"""Deploys, pauses, scales and deletes functions, and settles the work that deleted ones leave behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping

import structlog
from google.protobuf.message import DecodeError
from sqlalchemy import Connection

from homing.v1 import function_pb2
from homing.v1 import invocation_pb2 as api
from homing_core import lifecycle
from homing_core.broker import Broker, BrokerError, Received
from homing_core.clock import now_us
from homing_core.guard import Guard
from homing_core.lifecycle import Step
from homing_core.wire.v1 import FunctionState, SyncReply, SyncRequest, WorkMessage
from homing_server.admin.drain import Drain
from homing_server.control import ControlChannel
from homing_server.errors import Violation, function_not_found, invalid_request, revision_mismatch, shown
from homing_server.functions.catalog import Catalog, state_of
from homing_server.rules.update_mask import updated
from homing_server.rules.validation import Checks, check_function, check_instances
from homing_server.store import functions as stored
from homing_server.store import tombstones
from homing_server.store.dispatch import take_back_unstarted
from homing_server.store.effects import CommitEffects
from homing_server.store.engine import Database
from homing_server.store.invocation_rows import Change, record_of
from homing_server.store.record import select_invocations, store_changes
from homing_server.store.secrets import missing_secrets
from homing_server.tasks import Tasks

_log = structlog.get_logger(__name__)

_PREFETCH_MESSAGES = 200


class Deployment:
    """Changes functions."""

    def __init__(
        self,
        database: Database,
        broker: Broker,
        catalog: Catalog,
        control: ControlChannel,
        *,
        urls: Guard,
        deliveries: Guard,
        tasks: Tasks,
        announce: Callable[[CommitEffects], None],
    ) -> None:
        """Prepare to deploy.

        :param urls: Decides where functions may be that are URLs.
        :param deliveries: Decides where the outcomes of a function's invocations may be delivered to.
        :param announce: Notified of the invocations that ended because their function is gone.
        """
        self._database = database
        self._broker = broker
        self._catalog = catalog
        self._control = control
        self._urls = urls
        self._deliveries = deliveries
        self._tasks = tasks
        self._announce = announce
        self._drains: dict[str, Drain] = {}
        """By function, what is drained over the connection that there is now."""
        self._left_behind: list[Received] = []
        self._arrived = asyncio.Event()
        catalog.on_change(self._on_change)

    async def consume(self) -> None:
        """Take over a new connection what no worker will: what the broker gave up, and what deleted functions left."""
        await self._broker.consume_dead_work(self._settle, prefetch=_PREFETCH_MESSAGES)
        for left in await self._catalog.load():
            self._start_draining(left)

    def lost(self) -> None:
        """Forget what consumed over the lost connection; over the next one it begins anew."""
        for drain in self._drains.values():
            drain.end()
        self._drains = {}

    async def deploy(
        self,
        wanted: function_pb2.Function,
        *,
        paths: Collection[str] | None = None,
        expected_revision: int | None = None,
        force: bool = False,
    ) -> tuple[function_pb2.Function, bool]:
        """Create or change a function; return it as it is now and whether it is new.

        :param paths: The fields that are set, the others stay; None for all.
        :param expected_revision: The revision that it must have now, 0 where there must be none; None for any.
        :param force: Whether it is rolled out anew although nothing has changed.
        :raises ApiError: INVALID_ARGUMENT; NOT_FOUND where there is none and no source is set; ABORTED where it is not
            at the expected revision.
        """
        state, created = await self._database.write(
            _put,
            wanted,
            paths=paths,
            expected_revision=expected_revision,
            force=force,
            urls=self._urls,
            deliveries=self._deliveries,
            now_us=now_us(),
        )
        function = state.function
        self._catalog.learn(state)
        drain = self._drains.get(function.name)
        if drain is not None:
            # What comes from now on is for this function, and its queues must not be removed any more.
            drain.end()
            await drain.ended()
        if self._broker.connected:
            try:
                await self._broker.open_function(function.name)
            except BrokerError as error:
                # The dispatcher makes missing queues when it meets them.
                _log.warning("queues_not_made", function=function.name, error=str(error))
        await self._control.announce_function(state)
        _log.info("function_deployed", function=function.name, revision=function.revision, created=created)
        return function, created

    async def pause(self, name: str, *, paused: bool) -> function_pb2.Function:
        """Hold the work of a function, or let it go on; return the function.

        :raises ApiError: NOT_FOUND.
        """

        def change(function: function_pb2.Function) -> None:
            function.paused = paused

        return await self._change(name, change)

    async def scale(
        self, name: str, *, min_instances: int | None = None, max_instances: int | None = None
    ) -> function_pb2.Function:
        """Change how many instances of a function each worker keeps and starts; None leaves a bound as it is.

        :raises ApiError: NOT_FOUND; INVALID_ARGUMENT where the bounds do not go together.
        """

        def change(function: function_pb2.Function) -> None:
            if min_instances is not None:
                function.min_instances = min_instances
            if max_instances is not None:
                function.max_instances = max_instances
            checks = Checks()
            check_instances(checks, function)
            checks.done()

        return await self._change(name, change)

    async def delete(self, name: str) -> int:
        """Delete a function; return how many of its invocations ended because they waited in the store.

        Those that wait at the broker end as its queues are drained.

        :raises ApiError: NOT_FOUND.
        """
        left = await self._database.write(stored.mark_deleted, name)
        if left is None:
            raise function_not_found(name)
        state = FunctionState(function=left, deleted=True, deleted_revision=left.revision)
        self._catalog.learn(state)
        await self._control.announce_function(state)
        invalidated = await self._invalidate_stored(name)
        self._start_draining(state)
        _log.info("function_deleted", function=name, invalidated=invalidated)
        return invalidated

    async def _change(self, name: str, change: Callable[[function_pb2.Function], None]) -> function_pb2.Function:
        state = await self._database.write(_change, name, change, now_us=now_us())
        if state is None:
            raise function_not_found(name)
        function = state.function
        self._catalog.learn(state)
        # Said even where nothing has changed: who asks again may do so because the first word was lost.
        await self._control.announce_function(state)
        _log.info(
            "function_changed",
            function=name,
            revision=function.revision,
            paused=function.paused,
            min_instances=function.min_instances,
            max_instances=function.max_instances,
        )
        return function

    async def _invalidate_stored(self, name: str) -> int:
        count = 0
        while True:
            effects = await self._database.write(stored.invalidate_stored, name, now_us=now_us())
            if not effects.ended:
                return count
            count += len(effects.ended)
            self._announce(effects)

    def _start_draining(self, left: FunctionState) -> None:
        name, revision = left.function.name, left.deleted_revision
        earlier = self._drains.get(name)
        if earlier is None or earlier.revision < revision:
            drain = Drain(self._broker, name, revision=revision, settle=self._settle, refuse=self._refuse)
            self._drains[name] = drain
            self._tasks.run(self._drain(name, drain, earlier), f"drain {name}")

    async def _drain(self, name: str, drain: Drain, earlier: Drain | None) -> None:
        try:
            if earlier is not None:
                earlier.end()
                await earlier.ended()
            gone = await drain.run(lambda: self._invalidate_stored(name))
            if gone and not await self._database.write(stored.mark_drained, name, revision=drain.revision):
                await self._restore_queues(name)
        finally:
            if self._drains.get(name) is drain:
                del self._drains[name]

    async def _restore_queues(self, name: str) -> None:
        """Make the queues anew that were removed just as the name was deployed again, with what was in them."""
        count = await self._database.write(take_back_unstarted, name, due_us=now_us())
        _log.info("work_of_removed_queue_taken_back", function=name, count=count)
        await self._broker.open_function(name)

    def _on_change(self, name: str) -> None:
        drain = self._drains.get(name)
        if drain is not None and not self._catalog.is_deleted(name):
            drain.end()

    def _settle(self, message: Received) -> None:
        self._left_behind.append(message)
        self._arrived.set()

    async def settle_group(self) -> None:
        """Wait for work messages that no worker will take and end their invocations. One step of a loop."""
        await self._arrived.wait()
        self._arrived.clear()
        messages, self._left_behind = self._left_behind, []
        if not messages:
            return
        work: dict[str, tuple[WorkMessage, Received]] = {}
        for message in messages:
            item = _read(message)
            if item is not None and item.generation >= work.get(item.invocation_id, (item,))[0].generation:
                work[item.invocation_id] = item, message
        try:
            effects = await self._database.write(_end_all, work)
        except BaseException:
            for message in messages:
                message.requeue()
            raise
        for message in messages:
            message.ack()
        self._announce(effects)

    def _refuse(self, request: SyncRequest, message: Received) -> None:
        self._tasks.run(self._refuse_sync(request, message), "refuse sync call")

    async def _refuse_sync(self, request: SyncRequest, message: Received) -> None:
        reply = SyncReply(invocation_id=request.invocation_id)
        reply.ended.state = api.INVOCATION_STATE_INVALID
        reply.ended.failure.CopyFrom(lifecycle.invocation.deleted(request.spec.function))
        message.ack()
        await self._broker.publish_reply(request.reply_to, reply.SerializeToString())


def _put(
    connection: Connection,
    wanted: function_pb2.Function,
    *,
    paths: Collection[str] | None,
    expected_revision: int | None,
    force: bool,
    urls: Guard,
    deliveries: Guard,
    now_us: int,
) -> tuple[FunctionState, bool]:
    """Create or change a function; return what is announced of it, and whether it is new."""
    last = stored.get_function(connection, wanted.name)
    current = None if last is None or last.deleted else last.function
    revision = 0 if current is None else current.revision
    if expected_revision not in {None, revision}:
        raise revision_mismatch(wanted.name, expected=expected_revision, actual=revision)
    if paths is not None:
        if current is None and wanted.WhichOneof("source") is None:
            raise function_not_found(wanted.name)
        wanted = updated(current or function_pb2.Function(), wanted, paths)
    checks = Checks()
    check_function(checks, wanted, urls=urls, deliveries=deliveries)
    checks.done()
    missing = missing_secrets(connection, wanted.secrets)
    if missing:
        raise invalid_request(
            [Violation(field="function.secrets", description=f"there is no secret {shown(name)}") for name in missing]
        )
    _, created = stored.put_function(connection, wanted, now_us=now_us, force=force)
    return _announced(connection, wanted.name), created


def _change(
    connection: Connection, name: str, change: Callable[[function_pb2.Function], None], *, now_us: int
) -> FunctionState | None:
    """Change a part of a function; return what is announced of it, or None where there is none."""
    function = stored.change_function(connection, name, change, now_us=now_us)
    return None if function is None else _announced(connection, name)


def _announced(connection: Connection, name: str) -> FunctionState:
    row = stored.get_function(connection, name)
    assert row is not None, "it has just been stored"
    return state_of(row)


def _read(message: Received) -> WorkMessage | None:
    try:
        return WorkMessage.FromString(message.body)
    except DecodeError:
        _log.error("unreadable_work_dropped", size=len(message.body))
        return None


def _end_all(connection: Connection, work: Mapping[str, tuple[WorkMessage, Received]]) -> CommitEffects:
    changes = []
    gone = []
    for row in select_invocations(connection, work):
        before = record_of(row)
        item, message = work[row.id]
        if before.stop_request is not None:
            gone.append((row.id, item.generation))
        step = lifecycle.invocation.dropped(
            before,
            generation=item.generation,
            why=message.dead_reason,
            function=item.spec.function,
            time_us=now_us(),
        )
        if isinstance(step, Step):
            changes.append(Change.of(row, before, step))
    effects = CommitEffects()
    store_changes(connection, changes, effects)
    tombstones.note_gone(connection, gone, now_us=now_us())
    return effects
