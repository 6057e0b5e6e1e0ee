"""What a worker needs of a server, and no more: it tells of functions, hands out work, and keeps every event."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Self

from homing.v1.function_pb2 import Function
from homing.v1.invocation_pb2 import InvocationSpec
from homing_core.broker import Outgoing, Received
from homing_core.broker.rabbitmq import RabbitBroker
from homing_core.clock import now_us
from homing_core.ids import new_id
from homing_core.sealing import seal
from homing_core.wire.v1 import (
    CancelledCall,
    CancelledCalls,
    Control,
    DeliveryMessage,
    Ended,
    Event,
    EventBatch,
    FunctionSecrets,
    FunctionState,
    LogLine,
    LogMessage,
    Ping,
    Sealed,
    Snapshot,
    SyncReply,
    SyncRequest,
    Tombstone,
    Tombstones,
    WorkerStatus,
    WorkMessage,
)

PATIENCE = 60.0
PING_INTERVAL = 0.5


class FakeServer:
    """The server's side of the wire, for one event loop."""

    def __init__(self, url: str) -> None:
        self.name = f"fake-{new_id()[-6:]}"
        self.broker = RabbitBroker(url, name=self.name)
        self.functions: dict[str, FunctionState] = {}
        self.events: list[Event] = []
        self.statuses: list[WorkerStatus] = []
        self.logs: defaultdict[str, list[LogLine]] = defaultdict(list)
        """By invocation, the lines that it wrote."""
        self.stops: dict[str, Tombstone] = {}
        """By invocation, the tombstones that snapshots have."""
        self.cancelled: list[CancelledCall] = []
        """The cancelled calls that snapshots have."""
        self.signing_keys = [b"the key of the fake server, 32 B"]
        self.signing_version = 1
        self.secrets: dict[str, bytes] = {}
        """What workers are told that ask, whatever their function names."""
        self.secrets_version = 1
        self.silent = False
        """Whether it tells nothing to workers."""
        self._changed = asyncio.Condition()
        self._replies: defaultdict[str, list[SyncReply]] = defaultdict(list)
        self._reply_address = ""
        self._revision = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self.broker.on_connected(self._connected)
        await self.broker.start()
        self._spawn(self._ping())
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.broker.close()

    def state(self, function: Function) -> FunctionState:
        """Return a function as a new revision."""
        self._revision += 1
        function.revision = self._revision
        return FunctionState(function=function)

    async def deploy(self, function: Function) -> None:
        """Tell of a new function or of another revision of one."""
        await self.broker.open_function(function.name)
        state = self.functions[function.name] = self.state(function)
        await self._control(Control(function=state))

    async def delete(self, name: str) -> None:
        """Tell that a function is gone."""
        self._revision += 1
        del self.functions[name]
        gone = FunctionState(function=Function(name=name, revision=self._revision), deleted=True)
        await self._control(Control(function=gone))

    async def send(self, spec: InvocationSpec, **fields: Any) -> str:
        """Hand out an invocation; return its id."""
        (id_,) = await self.send_all([spec], **fields)
        return id_

    async def send_all(self, specs: list[InvocationSpec], **fields: Any) -> list[str]:
        """Hand out invocations; return their ids."""
        ids = [new_id() for _ in specs]
        values: dict[str, Any] = {"generation": 1, "create_us": now_us()} | fields
        outcomes = await self.broker.publish_work(
            [
                Outgoing(
                    function=spec.function,
                    body=WorkMessage(invocation_id=id_, spec=spec, **values).SerializeToString(),
                )
                for id_, spec in zip(ids, specs, strict=True)
            ]
        )
        assert outcomes == [None] * len(specs)
        return ids

    async def stop(self, id_: str, *, generation: int = 1) -> None:
        """Tell that an invocation is to be stopped."""
        self.remember(id_, generation=generation)
        await self._control(Control(tombstones=Tombstones(tombstones=[self.stops[id_]])))

    def remember(self, id_: str, *, generation: int = 1) -> None:
        """Have snapshots tell that an invocation is to be stopped."""
        self.stops[id_] = Tombstone(invocation_id=id_, generation=generation)

    async def obeyed(self, id_: str) -> WorkerStatus:
        """Return the first word of a worker that it does not hold an invocation and will not start it."""
        await self._until(lambda: any(id_ in status.tombstones_acknowledged for status in self.statuses))
        return next(status for status in self.statuses if id_ in status.tombstones_acknowledged)

    async def dispatch_again(self, id_: str, spec: InvocationSpec, *, generation: int, **fields: Any) -> None:
        """Hand out an invocation under a later generation."""
        message = WorkMessage(invocation_id=id_, spec=spec, generation=generation, create_us=now_us(), **fields)
        outgoing = Outgoing(function=spec.function, body=message.SerializeToString())
        assert await self.broker.publish_work([outgoing]) == [None]

    async def call(
        self, spec: InvocationSpec, *, seconds: float = 30.0, requires: Sequence[str] = (), id_: str = ""
    ) -> str:
        """Make a synchronous call that may take so long; return its id."""
        id_ = id_ or new_id()
        request = SyncRequest(
            invocation_id=id_,
            spec=spec,
            reply_to=self._reply_address,
            create_us=now_us(),
            deadline_us=now_us() + round(seconds * 1e6),
            requires=requires,
        )
        await self.broker.publish_sync(spec.function, request.SerializeToString(), expires_in=seconds)
        return id_

    async def cancel(self, id_: str) -> None:
        """Tell that the caller of a synchronous call went away."""
        await self._control(Control(cancelled_calls=CancelledCalls(calls=[self.cancelled_call(id_)])))

    def cancelled_call(self, id_: str, *, seconds: float = 30.0) -> CancelledCall:
        """Return what tells that the caller of a call went away which may take so long."""
        return CancelledCall(invocation_id=id_, deadline_us=now_us() + round(seconds * 1e6))

    async def reply(self, id_: str, kind: str = "ended") -> SyncReply:
        """Return the reply of that kind to a synchronous call once it is there."""
        await self._until(lambda: any(reply.WhichOneof("kind") == kind for reply in self._replies[id_]))
        return next(reply for reply in self._replies[id_] if reply.WhichOneof("kind") == kind)

    async def deliver(self, message: DeliveryMessage) -> None:
        """Hand out a delivery."""
        assert await self.broker.publish_deliveries([message.SerializeToString()]) == [None]

    def replies(self, id_: str) -> list[SyncReply]:
        """Return the replies to a synchronous call so far."""
        return list(self._replies[id_])

    async def dead(self) -> Received:
        """Return the next dead-lettered work message once it is there."""
        got: asyncio.Queue[Received] = asyncio.Queue()
        consumer = await self.broker.consume_dead_work(got.put_nowait, prefetch=1)
        async with asyncio.timeout(PATIENCE):
            received = await got.get()
        received.ack()
        await consumer.cancel()
        return received

    async def closed(self, function: str) -> bool:
        """Remove a function's queues as soon as nobody uses them; tell whether that was possible in time."""
        deadline = time.monotonic() + PATIENCE
        while not await self.broker.close_function(function):
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.05)
        return True

    def of(self, id_: str, kind: str = "") -> list[Event]:
        """Return the events of an invocation, or those of one kind."""
        return [
            event
            for event in self.events
            if event.invocation_id == id_ and (not kind or event.WhichOneof("kind") == kind)
        ]

    def distinct(self, id_: str, kind: str) -> list[Event]:
        """Return the events of one kind, each once: one whose confirm was lost with its connection is told again."""
        return list({event.SerializeToString(deterministic=True): event for event in self.of(id_, kind)}.values())

    async def event(self, id_: str, kind: str, *, number: int = 1) -> Event:
        """Return the n-th event of that kind of an invocation once it is there; one that is told again is the same."""
        await self._until(lambda: len(self.distinct(id_, kind)) >= number)
        return self.distinct(id_, kind)[number - 1]

    async def end(self, id_: str) -> Ended:
        """Return how an invocation ended once it has."""
        return (await self.event(id_, "ended")).ended

    async def last_word(self, id_: str) -> Event:
        """Return the event by which a worker let an invocation go once it is there."""
        kinds = {"ended", "deferred", "requeued"}
        await self._until(lambda: any(event.WhichOneof("kind") in kinds for event in self.of(id_)))
        return next(event for event in self.of(id_) if event.WhichOneof("kind") in kinds)

    async def log(self, id_: str, *texts: str, lines: int = 0) -> list[LogLine]:
        """Return what an invocation wrote once these lines are there and so many in all."""
        wanted = set(texts)
        await self._until(
            lambda: len(self.logs[id_]) >= lines and wanted <= {line.text for line in self.logs[id_]},
        )
        return list(self.logs[id_])

    async def status(self, wanted: Callable[[WorkerStatus], bool]) -> WorkerStatus:
        """Return the first status from now on that is as wanted."""
        seen = len(self.statuses)
        await self._until(lambda: any(wanted(status) for status in self.statuses[seen:]))
        return next(status for status in self.statuses[seen:] if wanted(status))

    async def drained(self, function: str) -> None:
        """Wait until a function's work queue is empty and no worker has a message of it in hand."""
        deadline = time.monotonic() + PATIENCE
        while (await self.broker.depth(function)).work:
            assert time.monotonic() < deadline, "the work queue does not become empty"
            await asyncio.sleep(0.05)
        await self.status(lambda status: all(load.in_flight == 0 for load in status.functions))

    async def _until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE), self._changed:
            await self._changed.wait_for(true)

    async def _connected(self) -> None:
        await self.broker.consume_status(self._on_status)
        await self.broker.consume_events(self._on_events, prefetch=100)
        await self.broker.consume_logs(self._on_logs, prefetch=100)
        self._reply_address = await self.broker.consume_replies(self._on_reply)

    def _on_status(self, received: Received) -> None:
        status = WorkerStatus.FromString(received.body)
        received.ack()
        self.statuses.append(status)
        self._notify()
        if status.hello and not self.silent:
            snapshot = Snapshot(
                functions=self.functions.values(), tombstones=self.stops.values(), cancelled_calls=self.cancelled
            )
            self._spawn(self._control(Control(snapshot=snapshot), status.control_address))
        for function in status.secrets_wanted if not self.silent else ():
            known = FunctionSecrets(
                secrets=self.secrets,
                secrets_version=self.secrets_version,
                signing_keys=self.signing_keys,
                signing_version=self.signing_version,
            )
            sealed = Sealed(function=function, box=seal(status.seal_key, known.SerializeToString(), function))
            self._spawn(self._control(Control(sealed=sealed), status.control_address))

    def _on_events(self, received: Received) -> None:
        self.events.extend(EventBatch.FromString(received.body).events)
        received.ack()
        self._notify()

    def _on_logs(self, received: Received) -> None:
        for batch in LogMessage.FromString(received.body).batches:
            self.logs[batch.invocation_id].extend(batch.lines)
        received.ack()
        self._notify()

    def _on_reply(self, received: Received) -> None:
        reply = SyncReply.FromString(received.body)
        received.ack()
        self._replies[reply.invocation_id].append(reply)
        self._notify()

    async def _control(self, control: Control, address: str = "") -> None:
        control.server = self.name
        control.time_us = now_us()
        if address:
            await self.broker.publish_control_to(address, control.SerializeToString())
        else:
            await self.broker.publish_control(control.SerializeToString())

    async def _ping(self) -> None:
        while True:
            if not self.silent and self.broker.connected:
                await self._control(Control(ping=Ping()))
            await asyncio.sleep(PING_INTERVAL)

    def _notify(self) -> None:
        async def notify() -> None:
            async with self._changed:
                self._changed.notify_all()

        self._spawn(notify())

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
