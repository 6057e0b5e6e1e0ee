"""Synchronous calls at a server: what it announces when their callers go away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from homing.v1 import invocation_pb2 as api
from homing_core.clock import now_us
from homing_core.ids import new_id
from homing_core.wire.v1 import CancelledCall, Control, Ended, SyncReply, SyncStarted, WorkerStatus
from homing_server.auth.identity import EVERYBODY
from homing_server.cluster.presence import Presence
from homing_server.cluster.registry import WorkerRegistry
from homing_server.cluster.wait_reasons import WaitReasons
from homing_server.control import ControlChannel
from homing_server.functions.catalog import Catalog
from homing_server.invocations import sync_calls
from homing_server.invocations.sync_calls import SyncCalls
from homing_server.payloads.signed_urls import SignedUrls
from homing_server.store.engine import Database
from homing_server.tasks import Tasks
from homing_server.vault.keyring import Keyring
from homing_server.watch.hub import WatchHub
from support.connections import connect
from support.inbox import until
from support.scripted_broker import ScriptedBroker
from support.store import make_spec, opened


class Bench:
    """The parts of a server that have to do with synchronous calls."""

    def __init__(self, database: Database, tasks: Tasks) -> None:
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
        reasons = WaitReasons(catalog, presence)
        self.calls = SyncCalls(self.broker, presence, reasons, urls, catalog=catalog, control=self.control, tasks=tasks)
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


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with opened(tmp_path) as database, Tasks() as tasks:
        bench = Bench(database, tasks)
        await bench.broker.start()
        yield bench


async def gone(*calls: asyncio.Task[api.Invocation]) -> None:
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    assert all(call.cancelled() for call in calls)


async def test_calls_whose_callers_go_away_together_are_announced_together(bench: Bench) -> None:
    calls = [await bench.call() for _ in range(20)]
    await gone(*calls)
    await until(lambda: bool(bench.announced))

    requests = bench.broker.sync
    assert bench.announced == [
        [CancelledCall(invocation_id=each.invocation_id, deadline_us=each.deadline_us) for each in requests]
    ]


async def test_what_is_answered_or_at_its_deadline_is_not_announced(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync_calls, "_DEADLINE_MARGIN_SECONDS", 30.0)
    answered, late = await bench.call(), await bench.call(seconds=29.0)
    bench.reply(answered.get_name(), ended=Ended(state=api.INVOCATION_STATE_SUCCEEDED))
    answered.cancel()
    await gone(late)
    await bench.quiet()

    told = {call.invocation_id for calls in bench.announced for call in calls}
    assert not told & {answered.get_name(), late.get_name()}


async def test_a_server_that_shuts_down_cuts_calls_off_and_stops_none(bench: Bench) -> None:
    before, after = await bench.call(), await bench.call()
    await gone(before)
    bench.calls.drain()
    await gone(after)
    await until(lambda: bool(bench.announced))

    assert [[call.invocation_id for call in calls] for calls in bench.announced] == [[before.get_name()]]


async def test_a_worker_that_starts_one_all_the_same_hears_of_it_again(bench: Bench) -> None:
    call = await bench.call()
    await gone(call)
    await until(lambda: len(bench.announced) == 1)
    bench.reply("nobody", started=SyncStarted(worker="w"))
    bench.reply(call.get_name(), started=SyncStarted(worker="w"))
    await until(lambda: len(bench.announced) == 2)

    assert bench.announced[0] == bench.announced[1]


async def test_what_nobody_could_hear_of_is_announced_over_the_next_connection(bench: Bench) -> None:
    call = await bench.call()
    bench.broker.up = False
    await gone(call)
    await until(lambda: len(bench.control.cancelled_calls) == 1)
    assert bench.announced == []
    await bench.broker.start()
    await until(lambda: bool(bench.announced))

    assert [[call.invocation_id for call in calls] for calls in bench.announced] == [[call.get_name()]]


async def test_snapshots_have_them_until_their_deadlines(bench: Bench) -> None:
    long, short = await bench.call(), await bench.call(seconds=1.0)
    await gone(long, short)
    await until(lambda: bool(bench.announced))
    deadline_us = bench.broker.sync[1].deadline_us
    await until(lambda: now_us() > deadline_us)
    hello = WorkerStatus(worker="w", control_address="w", hello=True)
    bench.broker.statuses[-1].hand(hello.SerializeToString())

    def snapshots() -> list[Control]:
        told = [Control.FromString(body) for body in bench.broker.control]
        return [control for control in told if control.HasField("snapshot")]

    await until(lambda: bool(snapshots()))
    assert [call.invocation_id for call in snapshots()[0].snapshot.cancelled_calls] == [long.get_name()]
