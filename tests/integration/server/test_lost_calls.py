"""Synchronous calls that are lost: their records end, and only once it is sure that their end is not on its way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from homing_core.clock import now_us
from homing_core.ids import new_id
from homing_core.lifecycle import State
from homing_core.limits import CONTROL_SILENCE
from homing_core.wire.v1 import AttemptRecord, Event, SyncRequest, WorkerStatus
from homing_server.cluster.presence import Presence
from homing_server.invocations import lost_calls
from homing_server.invocations.lost_calls import LostCalls
from homing_server.invocations.recorder import Recorder
from homing_server.metrics import Metrics
from homing_server.store import sync_calls
from homing_server.store.engine import Database
from homing_server.store.invocation_rows import CALL_TOKEN, call_event
from homing_server.tasks import Tasks
from support.connections import connect
from support.inbox import eventually, until
from support.reporter import Reporter
from support.scripted_broker import ScriptedBroker
from support.store import HOUR, make_spec, opened, row_of


class Clock:
    """Goes when it is told to."""

    seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@dataclass(frozen=True)
class Bench:
    """A server that records, and looks after calls that are lost."""

    database: Database
    broker: ScriptedBroker
    presence: Presence
    clock: Clock

    def call(self, *, worker: str = "", seconds: float = 3600.0) -> SyncRequest:
        """Record a call that is under way, at a worker or waiting."""
        now = now_us()
        request = SyncRequest(
            invocation_id=new_id(), spec=make_spec(), create_us=now, deadline_us=now + round(seconds * 1e6)
        )
        key = request.invocation_id
        attempt = AttemptRecord(token=CALL_TOKEN, ordinal=1, worker=worker, start_us=now)
        started = [call_event(key, time_us=now, worker=worker, running=attempt)] if worker else []
        with self.database.writing() as connection:
            sync_calls.record_calls(connection, {key: request}, started)
        return request

    async def state_of(self, call: SyncRequest) -> State:
        return State((await row_of(self.database, call.invocation_id)).state)

    async def becomes(self, call: SyncRequest, state: State) -> None:
        """Have marks come back until a call is in a state."""

        async def ask() -> State:
            self.broker.events[-1].hand(*self.broker.marks)
            self.broker.marks.clear()
            return await self.state_of(call)

        await eventually(ask, state)


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(lost_calls, "_SWEEP_SECONDS", 0.02)
    broker, clock = ScriptedBroker(), Clock()
    presence = Presence(clock=clock)
    async with opened(tmp_path) as database, Tasks() as tasks:
        recorder = Recorder(database, broker, Metrics(), announce=lambda _: None)
        connect(broker, recorder)
        tasks.repeat(recorder.record_group, pause=0.05)
        tasks.repeat(LostCalls(database, broker, recorder, presence).sweep, pause=0.05)
        await broker.start()
        presence.connected()
        yield Bench(database, broker, presence, clock)


async def test_a_call_is_lost_some_time_after_its_deadline(bench: Bench) -> None:
    waiting, running = bench.call(seconds=-HOUR), bench.call(seconds=-HOUR, worker="w")
    young, at_deadline = bench.call(worker="w"), bench.call(seconds=0)
    await bench.becomes(running, State.FAILED)
    assert await bench.state_of(waiting) is State.EXPIRED
    assert (await bench.state_of(young), await bench.state_of(at_deadline)) == (State.RUNNING, State.ENQUEUED)


async def test_what_its_worker_reported_before_the_mark_counts(bench: Bench) -> None:
    call = bench.call(seconds=-HOUR, worker="w")
    await until(lambda: bool(bench.broker.marks))
    worker = Reporter(1, invocation_id=call.invocation_id)
    worker.running()
    end = Event(invocation_id=call.invocation_id, token=CALL_TOKEN, time_us=now_us(), worker="w")
    end.sync_ended.request.CopyFrom(call)
    end.sync_ended.ended.CopyFrom(worker.ended(State.SUCCEEDED).ended)
    assert await bench.state_of(call) is State.RUNNING, "no mark has come back"
    bench.broker.events[-1].hand_events(end)
    await bench.becomes(call, State.SUCCEEDED)


async def test_a_call_is_lost_with_its_worker_whatever_its_deadline(bench: Bench) -> None:
    lost, other, waiting = bench.call(worker="lost"), bench.call(worker="other"), bench.call()
    bench.presence.on_status(WorkerStatus(worker="lost"))
    bench.clock.seconds += CONTROL_SILENCE + 1.0
    bench.presence.on_status(WorkerStatus(worker="other"))
    await bench.becomes(lost, State.FAILED)
    assert (await bench.state_of(other), await bench.state_of(waiting)) == (State.RUNNING, State.ENQUEUED)


def test_silence_counts_from_the_connection() -> None:
    clock = Clock()
    presence = Presence(clock=clock)
    presence.connected()
    presence.on_status(WorkerStatus(worker="w"))
    clock.seconds += CONTROL_SILENCE
    assert not presence.is_lost("w")
    assert not presence.is_lost("never heard of")
    clock.seconds += 1.0
    assert presence.is_lost("w")
    assert presence.is_lost("never heard of")
    presence.connected()
    assert not presence.is_lost("w")
