"""The parts of a server that have to do with synchronous calls, with a broker that a test scripts."""

from __future__ import annotations

import asyncio
from pathlib import Path

from sqlalchemy import select

from homing.v1 import invocation_pb2 as api
from homing_core.ids import new_id
from homing_core.lifecycle import State
from homing_core.wire.v1 import (
    CancelledCall,
    Control,
    Ended,
    SyncReply,
    SyncStarted,
)
from homing_server.auth.identity import EVERYBODY
from homing_server.cluster.presence import Presence
from homing_server.cluster.registry import WorkerRegistry
from homing_server.cluster.wait_reasons import WaitReasons
from homing_server.control import ControlChannel
from homing_server.functions.catalog import Catalog
from homing_server.invocations.sync_calls import SyncCalls
from homing_server.invocations.sync_records import SyncRecords
from homing_server.payloads.blobs import Blobs
from homing_server.payloads.signed_urls import SignedUrls
from homing_server.store import schema
from homing_server.store.effects import CommitEffects
from homing_server.store.engine import Database
from homing_server.tasks import Tasks
from homing_server.vault.keyring import Keyring
from homing_server.watch.hub import WatchHub
from support.connections import connect
from support.inbox import until
from support.scripted_broker import ScriptedBroker
from support.store import make_spec


class Bench:
    """The parts of a server that have to do with synchronous calls."""

    def __init__(self, database: Database, tasks: Tasks, folder: Path) -> None:
        self.broker = ScriptedBroker()
        catalog, presence, urls = Catalog(database), Presence(), SignedUrls()
        urls.open("http://127.0.0.1:1", database.data_key)
        self.control = ControlChannel(
            "server",
            self.broker,
            catalog=catalog,
            hub=WatchHub(database),
            keyring=Keyring(database),
            presence=presence,
            registry=WorkerRegistry(database),
            tasks=tasks,
        )
        self.database, self.catalog = database, catalog
        self.effects: list[CommitEffects] = []
        self.blobs = Blobs(database, folder)
        self.calls = SyncCalls(
            self.broker,
            presence,
            WaitReasons(catalog, presence),
            urls,
            blobs=self.blobs,
            catalog=catalog,
            control=self.control,
            records=SyncRecords(database, catalog, announce=self.effects.append),
            tasks=tasks,
        )
        connect(self.broker, self.control, self.calls)

    async def call(self, *, seconds: float = 60.0) -> asyncio.Task[api.Invocation]:
        """Make a call, and return it once it was published."""
        published = len(self.broker.sync)
        id_ = new_id()
        task = asyncio.create_task(
            self.calls.call(id_, make_spec(), timeout=seconds, caller=EVERYBODY, traceparent=""), name=id_
        )
        await until(lambda: len(self.broker.sync) > published)
        return task

    def reply(self, id_: str, *, started: SyncStarted | None = None, ended: Ended | None = None) -> None:
        """Have a worker answer."""
        reply = SyncReply(invocation_id=id_, started=started, ended=ended)
        self.broker.replies[-1].hand(reply.SerializeToString())

    async def record(self) -> None:
        """Have what lasts recorded, as it is once a second."""
        await self.calls.record_lasting()

    async def state_of(self, call: asyncio.Task[api.Invocation]) -> str:
        """Return the state that the record of a call is in; empty where it has none."""
        with self.database.reading() as connection:
            query = select(schema.invocations.c.state).where(schema.invocations.c.id == call.get_name())
            state = connection.execute(query).scalar_one_or_none()
        return "" if state is None else State(state).name

    @property
    def announced(self) -> list[list[CancelledCall]]:
        """What was announced of calls whose callers went away, message by message."""
        told = [Control.FromString(body) for body in self.broker.control]
        return [list(control.cancelled_calls.calls) for control in told if control.HasField("cancelled_calls")]

    async def quiet(self) -> None:
        """Wait until what was to be announced was."""
        (await self.call()).cancel()
        marker = self.broker.sync[-1].invocation_id
        await until(lambda: any(call.invocation_id == marker for calls in self.announced for call in calls))
