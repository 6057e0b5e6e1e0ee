"""Leases at the server: one that is not renewed is ended, and only once it is sure that no renewal is on its way."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from homing.v1 import invocation_pb2 as api
from homing_core.clock import now_us
from homing_core.lifecycle import Custody
from homing_server.invocations import leases
from homing_server.invocations.leases import Leases
from homing_server.invocations.recorder import Recorder
from homing_server.metrics import Metrics
from homing_server.store import dispatch
from homing_server.store.effects import CommitEffects
from homing_server.store.engine import Database
from homing_server.tasks import Tasks
from support.connections import connect
from support.inbox import eventually, until
from support.reporter import Reporter
from support.scripted_broker import ScriptedBroker
from support.store import accept_sent, counters, opened, row_of

TERM_US = 300_000
SHORT = 0.3


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with opened(tmp_path) as database:
        yield database


@pytest.fixture
async def broker(database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ScriptedBroker]:
    """Yield the broker of a server that records and watches over leases, both fast."""
    monkeypatch.setattr(leases, "_SWEEP_SECONDS", 0.02)
    broker = ScriptedBroker()

    def announce(effects: CommitEffects) -> None:
        watch.on_committed(effects)

    recorder = Recorder(database, broker, Metrics(), announce=announce)
    connect(broker, recorder)
    watch = Leases(database, broker, recorder, grace=SHORT)
    async with Tasks() as tasks:
        tasks.repeat(recorder.record_group, pause=0.05)
        tasks.repeat(watch.sweep, pause=0.05)
        await broker.start()
        yield broker


async def custody(database: Database, key: str) -> Custody:
    return Custody((await row_of(database, key)).custody)


async def leased(database: Database, broker: ScriptedBroker) -> tuple[str, Reporter]:
    """Return an invocation whose worker answers for it, with that worker."""
    (key,) = await accept_sent(database, 1)
    worker = Reporter(1, invocation_id=key)
    message = broker.events[-1].hand_events(worker.running(), worker.leased(TERM_US))
    await until(lambda: message.fate == "acked")
    assert await custody(database, key) is Custody.LEASE
    return key, worker


async def return_marks(broker: ScriptedBroker, count: int = 1) -> None:
    """Wait for so many marks and have them come back."""
    await until(lambda: len(broker.marks) >= count)
    messages = broker.events[-1].hand(*broker.marks)
    broker.marks.clear()
    await until(lambda: all(message.fate == "acked" for message in messages))


async def test_a_lease_ends_once_a_mark_has_come_back_behind_it(database: Database, broker: ScriptedBroker) -> None:
    key, _ = await leased(database, broker)
    await return_marks(broker)
    # Its time is over, but the mark is on its way, and a renewal might be before it.
    await until(lambda: bool(broker.marks))
    assert await custody(database, key) is Custody.LEASE
    await return_marks(broker)
    await eventually(lambda: custody(database, key), Custody.STORE)
    assert (await row_of(database, key)).state == api.INVOCATION_STATE_RETRYING


async def test_what_was_leased_is_taken_back_where_everything_starts_anew(
    database: Database, broker: ScriptedBroker
) -> None:
    key, _ = await leased(database, broker)
    assert await database.write(dispatch.take_back_all, due_us=now_us()) == 1
    assert await custody(database, key) is Custody.STORE


async def test_a_renewal_before_the_mark_counts_and_changes_nothing(database: Database, broker: ScriptedBroker) -> None:
    key, worker = await leased(database, broker)
    await return_marks(broker)
    before = await counters(database)
    for _ in range(3):
        await until(lambda: bool(broker.marks))
        renewal = broker.events[-1].hand_events(worker.leased(TERM_US))
        await return_marks(broker)
        assert renewal.fate == "acked"
    assert await custody(database, key) is Custody.LEASE
    assert await counters(database) == before
    await return_marks(broker)
    await eventually(lambda: custody(database, key), Custody.STORE)


async def test_whatever_was_away_leases_last_for_the_grace_from_then_on(
    database: Database, broker: ScriptedBroker
) -> None:
    key, worker = await leased(database, broker)
    await return_marks(broker)
    await until(lambda: bool(broker.marks))
    broker.lose()
    broker.marks.clear()
    broker.up = True
    for setup in broker.setups:
        await setup()
    # The first mark tells that this recorder is the active one again, even where nothing else is said.
    await return_marks(broker)
    assert await custody(database, key) is Custody.LEASE
    await until(lambda: bool(broker.marks))
    renewal = broker.events[-1].hand_events(worker.leased(TERM_US))
    await return_marks(broker)
    assert renewal.fate == "acked"
    assert await custody(database, key) is Custody.LEASE
