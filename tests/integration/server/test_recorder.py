"""The recorder: one is active, what it was given is recorded, and what it cannot record stays at the broker."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Sequence
from pathlib import Path

import pytest
from sqlalchemy import Connection
from structlog.testing import capture_logs

from homing.v1 import invocation_pb2 as api
from homing_core.broker import Broker
from homing_core.broker.rabbitmq import RabbitBroker
from homing_core.clock import now_us
from homing_core.lifecycle import State
from homing_core.wire.v1 import Event, EventBatch
from homing_server.errors import ErrorReason, unavailable
from homing_server.invocations import recorder as recorder_module
from homing_server.invocations.recorder import Recorder
from homing_server.metrics import Metrics
from homing_server.store import engine, parked_events, schema
from homing_server.store.effects import CommitEffects
from homing_server.store.engine import Database, StoreUnavailableError
from homing_server.store.parked_events import ParkingFullError
from homing_server.store.read import ended_after
from homing_server.store.sequences import raise_counters
from homing_server.tasks import Tasks
from support.connections import connect
from support.inbox import eventually, until
from support.reporter import Reporter
from support.scripted_broker import ScriptedBroker
from support.store import accept_sent, counters, life, opened, read, record

SUCCEEDED = api.INVOCATION_STATE_SUCCEEDED


class Bench:
    """A recorder that runs, as in a server."""

    def __init__(self, database: Database, broker: Broker, tasks: Tasks) -> None:
        self.database = database
        self.metrics = Metrics()
        self.heard: list[CommitEffects] = []
        self.recorder = Recorder(database, broker, self.metrics, announce=self.heard.append)
        connect(broker, self.recorder)
        tasks.repeat(self.recorder.record_group, pause=0.05)

    def ended(self) -> dict[str, State]:
        return {key: state for effects in self.heard for key, state in effects.ended.items()}

    def parked(self) -> float:
        return self.metrics.registry.get_sample_value("homing_events_parked") or 0.0

    def counted(self, name: str) -> float:
        return self.metrics.registry.get_sample_value(f"homing_events_{name}_total") or 0.0


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with opened(tmp_path) as database:
        yield database


@pytest.fixture
async def tasks() -> AsyncIterator[Tasks]:
    async with Tasks() as tasks:
        yield tasks


async def test_recorded_is_acknowledged_and_announced(database: Database, tasks: Tasks) -> None:
    broker = ScriptedBroker()
    bench = Bench(database, broker, tasks)
    await broker.start()
    keys = await accept_sent(database, 3)
    messages = [broker.events[0].hand_events(*life(key)) for key in keys]
    await until(lambda: all(message.fate == "acked" for message in messages))
    assert bench.ended() == dict.fromkeys(keys, State.SUCCEEDED)
    assert bench.recorder.active
    await until(lambda: bench.recorder.idle)
    assert (bench.counted("recorded"), bench.counted("refused")) == (9, 0)


async def test_p3_earlier_recorder_is_refused_and_gives_back(tmp_path: Path, database: Database, tasks: Tasks) -> None:
    """The broker has made another one active while the first still has messages in hand."""
    broker = ScriptedBroker()
    first = Bench(database, broker, tasks)
    await broker.start()
    keys = await accept_sent(database, 3)
    one = broker.events[0].hand_events(*life(keys[0]))
    await until(lambda: one.fate == "acked")
    async with opened(tmp_path, functions=[]) as other:
        successor_broker = ScriptedBroker()
        second = Bench(other, successor_broker, tasks)
        await successor_broker.start()
        two = successor_broker.events[0].hand_events(*life(keys[1]))
        await until(lambda: two.fate == "acked")
        before = await counters(database)
        late = [broker.events[0].hand_events(*life(key, State.FAILED)) for key in keys]
        await until(lambda: all(message.fate == "requeued" for message in late))
        assert await counters(database) == before, "nothing of it was written"
        assert broker.events[0].cancelled
        await until(lambda: len(broker.events) == 2)
        again = successor_broker.events[0].hand_events(*life(keys[2]))
        await until(lambda: again.fate == "acked")
        assert first.ended() == {keys[0]: State.SUCCEEDED}
        assert second.ended() == dict.fromkeys(keys[1:], State.SUCCEEDED)
        # Should the second one go, the first is next.
        last = broker.events[1].hand_events(*life(keys[0]))
        await until(lambda: last.fate == "acked")
        assert first.counted("refused") == 3


async def test_p3_lost_recorder_does_not_depose_its_successor(
    database: Database, tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its connection is lost while it waits for the store: what it had in hand is for its successor."""
    broker = ScriptedBroker()
    bench = Bench(database, broker, tasks)
    await broker.start()
    (key,) = await accept_sent(database, 1)
    with database.writing() as connection:
        message = broker.events[0].hand_events(*life(key))
        await until(lambda: not bench.recorder._in_flight)
        broker.lose()
        epoch = (raise_counters(connection, {schema.EPOCH: 1}))[schema.EPOCH]
    await until(lambda: bench.recorder.idle)
    assert (await counters(database))[schema.EPOCH] == epoch
    assert (await read(database, key)).state == api.INVOCATION_STATE_ENQUEUED
    assert (message.fate, bench.heard) == ("", [])
    await broker.start()
    again = broker.events[1].hand_events(*life(key))
    await until(lambda: again.fate == "acked")
    assert bench.ended() == {key: State.SUCCEEDED}


async def test_p3_a_connection_lost_while_events_gather_deposes_nobody(database: Database) -> None:
    """Nothing is in hand then, so there is nothing to raise an epoch for."""
    broker = ScriptedBroker()
    recorder = Recorder(database, broker, Metrics(), announce=lambda _: None)
    connect(broker, recorder)
    await broker.start()
    (key,) = await accept_sent(database, 1)
    step = asyncio.create_task(recorder.record_group())
    await asyncio.sleep(0)
    started, *_ = life(key)
    broker.events[0].hand_events(started)
    for _ in range(10):
        # It has seen the event now, and waits for more.
        await asyncio.sleep(0)
    broker.lose()
    done, _ = await asyncio.wait({step}, timeout=0.3)
    assert not done, "there was nothing to record"
    assert (await counters(database))[schema.EPOCH] == 0
    await broker.start()
    again = broker.events[1].hand_events(*life(key))
    await step
    assert again.fate == "acked"
    assert (await counters(database))[schema.EPOCH] == 1


async def test_events_are_held_until_the_store_is_back(
    database: Database, tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = ScriptedBroker()
    bench = Bench(database, broker, tasks)
    await broker.start()
    keys = await accept_sent(database, 40)
    tries = 0
    write = Database.write

    async def broken(*_: object, **__: object) -> None:
        nonlocal tries
        tries += 1
        raise StoreUnavailableError("the disk is full")

    monkeypatch.setattr(Database, "write", broken)
    messages = [broker.events[0].hand_events(*life(key)) for key in keys]
    await until(lambda: tries >= 3)
    assert {message.fate for message in messages} == {""}
    monkeypatch.setattr(Database, "write", write)
    await until(lambda: all(message.fate == "acked" for message in messages))
    assert bench.ended() == dict.fromkeys(keys, State.SUCCEEDED)
    assert bench.parked() == 0


async def test_store_that_another_keeps_locked_is_waited_for(
    tmp_path: Path, tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_BUSY_TIMEOUT_MS", 20)
    async with opened(tmp_path) as database, opened(tmp_path, functions=[]) as other:
        broker = ScriptedBroker()
        bench = Bench(database, broker, tasks)
        await broker.start()
        (key,) = await accept_sent(database, 1)
        refused = asyncio.Event()
        commit = bench.recorder._commit_once

        async def watched(*arguments: object) -> CommitEffects:
            try:
                return await commit(*arguments)  # type: ignore[arg-type]
            except Exception:
                refused.set()
                raise

        monkeypatch.setattr(bench.recorder, "_commit_once", watched)
        with other.writing():
            message = broker.events[0].hand_events(*life(key))
            await _within(refused.wait())
            assert not message.fate
        await until(lambda: message.fate == "acked")
        assert bench.ended() == {key: State.SUCCEEDED}


async def _within(awaitable: Awaitable[object]) -> None:
    async with asyncio.timeout(30):
        await awaitable


async def test_event_that_cannot_be_recorded_harms_no_other(database: Database, tasks: Tasks) -> None:
    broker = ScriptedBroker()
    bench = Bench(database, broker, tasks)
    await broker.start()
    keys = await accept_sent(database, 6)
    nonsense = Reporter(1, invocation_id=keys[2], time_us=now_us()).ended(State.RUNNING)
    events = [event for key in keys if key != keys[2] for event in life(key)]
    with capture_logs() as logs:
        message = broker.events[0].hand_events(*events[:7], nonsense, *events[7:])
        (garbage,) = broker.events[0].hand(b"\xff\xff")
        await until(lambda: message.fate == "acked")
        await until(lambda: garbage.fate == "acked")
    (told,) = [entry for entry in logs if entry["event"] == "event_not_recorded"]
    assert keys[2] in told["event_text"]
    assert bench.ended() == {key: State.SUCCEEDED for key in keys if key != keys[2]}
    assert bench.parked() == 2
    kept = await database.read(parked_events.parked, after=0, most=10)
    assert {each.body for each in kept} == {EventBatch(events=[nonsense]).SerializeToString(), b"\xff\xff"}


async def test_events_of_an_unknown_kind_wait_for_a_version_that_knows_it(
    tmp_path: Path, database: Database, tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = ScriptedBroker()
    bench = Bench(database, broker, tasks)
    await broker.start()
    early, late = await accept_sent(database, 2)
    with monkeypatch.context() as earlier_version:
        earlier_version.setattr(recorder_module, "_KNOWN_KINDS", recorder_module._KNOWN_KINDS - {"ended"})
        message = broker.events[0].hand_events(*life(early), *life(late))
        await until(lambda: message.fate == "acked")
        assert (bench.parked(), bench.ended()) == (2, {})
        # An hour later it knows no more than before, and keeps them.
        monkeypatch.setattr(recorder_module, "_RETRY_PARKED_SECONDS", 0.0)
        await bench.recorder.retry_parked()
        assert (bench.parked(), bench.ended()) == (2, {})

    await bench.recorder.retry_parked()

    assert bench.ended() == {early: State.SUCCEEDED, late: State.SUCCEEDED}
    assert bench.parked() == await database.read(parked_events.count) == 0


async def test_an_event_is_kept_with_what_this_version_cannot_read_of_it(database: Database, tasks: Tasks) -> None:
    broker = ScriptedBroker()
    Bench(database, broker, tasks)
    await broker.start()
    (key,) = await accept_sent(database, 1)
    # Field 77, of length 3: a kind that does not exist yet.
    strange = Event(invocation_id=key, worker="later").SerializeToString() + b"\xea\x04\x03abc"
    (message,) = broker.events[0].hand(EventBatch(events=[Event.FromString(strange)]).SerializeToString())
    await until(lambda: message.fate == "acked")

    (kept,) = await database.read(parked_events.parked, after=0, most=10)
    (event,) = EventBatch.FromString(kept.body).events
    assert event.SerializeToString() == strange


async def test_where_too_many_are_parked_events_stay_at_the_broker(
    database: Database, tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parked_events, "MAX_PARKED", 1)
    broker = ScriptedBroker()
    bench = Bench(database, broker, tasks)
    await broker.start()
    full = asyncio.Event()
    commit = bench.recorder._commit_once

    async def watched(*arguments: object) -> CommitEffects:
        try:
            return await commit(*arguments)  # type: ignore[arg-type]
        except ParkingFullError:
            full.set()
            raise

    monkeypatch.setattr(bench.recorder, "_commit_once", watched)
    first, second = broker.events[0].hand(b"\xff\xff", b"\xff\xfe")
    await _within(full.wait())
    assert (first.fate, second.fate) == ("", "")
    monkeypatch.setattr(parked_events, "MAX_PARKED", 2)
    await until(lambda: (first.fate, second.fate) == ("acked", "acked"))


async def test_only_a_store_that_is_away_is_waited_for(
    database: Database, tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is refused for another reason is refused again however often it is tried."""
    broker = ScriptedBroker()
    bench = Bench(database, broker, tasks)
    await broker.start()
    (key,) = await accept_sent(database, 1)

    def refuse(connection: Connection, events: Sequence[Event]) -> CommitEffects:
        raise unavailable(ErrorReason.BROKER_UNAVAILABLE, "away")

    with monkeypatch.context() as patched:
        patched.setattr(recorder_module, "record_events", refuse)
        message = broker.events[0].hand_events(*life(key))
        await until(lambda: message.fate == "acked")
    assert bench.parked() == len(life(key))


# --- With RabbitMQ


@contextlib.asynccontextmanager
async def connected(url: str, name: str) -> AsyncIterator[RabbitBroker]:
    broker = RabbitBroker(url, name=name)
    try:
        yield broker
    finally:
        await broker.close()


async def publish(broker: Broker, keys: list[str], state: State = State.SUCCEEDED) -> None:
    for start in range(0, len(keys), 20):
        events = [event for key in keys[start : start + 20] for event in life(key, state)]
        await broker.publish_event(EventBatch(events=events).SerializeToString())


async def test_p5_two_recorders_take_over_from_each_other(
    tmp_path: Path, database: Database, tasks: Tasks, broker_url: str
) -> None:
    """Two servers on one store and one broker; the active one loses its connection again and again."""
    async with opened(tmp_path, functions=[]) as other, connected(broker_url, "worker") as worker:
        keys = await accept_sent(database, 400)
        benches: list[Bench] = []
        brokers: list[RabbitBroker] = []
        async with contextlib.AsyncExitStack() as stack:
            await worker.start()
            for number, store in enumerate((database, other)):
                broker = await stack.enter_async_context(connected(broker_url, f"server {number}"))
                benches.append(Bench(store, broker, tasks))
                brokers.append(broker)
                await broker.start()
            for start in range(0, 400, 100):
                await publish(worker, keys[start : start + 100])
                active = next(
                    (broker for broker, bench in zip(brokers, benches, strict=True) if bench.recorder.active), None
                )
                if active is not None:
                    active._consuming.connection.abort()

            async def ended() -> int:
                with database.reading() as connection:
                    return len(ended_after(connection, 0, most=1000))

            await eventually(ended, 400)
            await eventually(worker.events_depth, 0)
            await until(lambda: all(bench.recorder.idle for bench in benches))
        told = [key for bench in benches for effects in bench.heard for key in effects.ended]
        assert sorted(told) == sorted(keys), "each end was recorded once"
        effects = await record(database, *(event for key in keys for event in life(key, State.FAILED)))
        assert (effects.ended, effects.refused) == ({}, 1200)
