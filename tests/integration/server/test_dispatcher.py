"""Admission and dispatcher: nothing is accepted by half, the broker stays small, and no hand-over is forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from homing.v1 import function_pb2
from homing.v1 import invocation_pb2 as api
from homing_core import limits
from homing_core.broker import BrokerError, PublishRefusedError, PublishUnknownError, UnroutableError
from homing_core.broker.rabbitmq import RabbitBroker
from homing_core.clock import now_us
from homing_core.lifecycle import Custody, State
from homing_core.wire.v1 import FunctionState, WorkMessage
from homing_server.auth.identity import EVERYBODY
from homing_server.errors import ApiError, Code
from homing_server.functions.catalog import Catalog
from homing_server.invocations import dispatcher
from homing_server.invocations.admission import Accepted, Admission
from homing_server.invocations.dispatcher import Dispatcher
from homing_server.metrics import Metrics
from homing_server.payloads.blobs import Blobs
from homing_server.payloads.signed_urls import SignedUrls
from homing_server.store.dispatch import at_broker
from homing_server.store.effects import CommitEffects
from homing_server.store.engine import Database, StoreUnavailableError
from homing_server.store.functions import mark_deleted
from homing_server.store.state_counts import count_states
from homing_server.tasks import Tasks
from support.inbox import Inbox, eventually, until
from support.scripted_broker import ScriptedBroker
from support.store import (
    LOOPBACK_GUARD,
    accept_all,
    accept_sent,
    count,
    life,
    make_draft,
    make_spec,
    opened,
    record,
    row_of,
)

MINUTE = 60 * 1_000_000


class Bench:
    """Admission and dispatcher, as in a server."""

    def __init__(self, database: Database, broker: ScriptedBroker | RabbitBroker, *, resend_after: float = 600) -> None:
        self.database = database
        self.catalog = Catalog(database)
        self.announced: list[CommitEffects] = []
        self.dispatcher = Dispatcher(
            database,
            broker,
            self.catalog,
            urls=SignedUrls(),
            announce=self.announced.append,
            resend_after=resend_after,
        )
        blobs = Blobs(database, Path("/nowhere"))
        self.admission = Admission(
            database, self.catalog, self.dispatcher, Metrics(), blobs=blobs, guard=LOOPBACK_GUARD
        )

    async def run(self, tasks: Tasks) -> None:
        await self.catalog.load()
        parts = self.dispatcher
        for step in (
            parts.publish_outbox,
            parts.note_confirms,
            parts.survey,
            parts.feed,
            parts.sweep,
        ):
            tasks.repeat(step, pause=0.05)
        tasks.repeat(self.admission.commit_group, pause=0.05)

    async def accept(self, spec: api.InvocationSpec | None = None, *, request_id: str = "") -> Accepted:
        return await self.admission.accept(
            spec or make_spec(), request_id=request_id, caller=EVERYBODY, traceparent="", connection=lambda: "one"
        )

    async def custody(self, key: str) -> Custody:
        return Custody((await row_of(self.database, key)).custody)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with opened(tmp_path, functions=["resize", "figlet"]) as database:
        yield database


@pytest.fixture
async def tasks() -> AsyncIterator[Tasks]:
    async with Tasks() as tasks:
        yield tasks


@pytest.fixture
def broker() -> ScriptedBroker:
    return ScriptedBroker()


@pytest.fixture
async def bench(database: Database, broker: ScriptedBroker, tasks: Tasks) -> Bench:
    bench = Bench(database, broker)
    await bench.run(tasks)
    return bench


def fails(*errors: BrokerError) -> Callable[[WorkMessage], BrokerError | None]:
    """Fail the first publishes with these errors."""
    left = list(errors)
    return lambda _: left.pop(0) if left else None


# --- Admission


async def test_all_of_a_group_that_was_committed_are_answered_though_the_server_stops(
    database: Database, broker: ScriptedBroker
) -> None:
    bench = Bench(database, broker)
    await bench.catalog.load()
    calls = [asyncio.create_task(bench.accept()) for _ in range(20)]
    committing = asyncio.create_task(bench.admission.commit_group())
    # The first few have their answers, and the others wait for their turn.
    await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
    assert not committing.done()
    committing.cancel()

    async with asyncio.timeout(5):
        accepted = await asyncio.gather(*calls)

    assert len({each.id for each in accepted}) == 20


async def test_p1_accepted_is_committed_and_goes_to_the_broker_at_once(bench: Bench, broker: ScriptedBroker) -> None:
    accepted = await bench.accept(make_spec(data=b"x", callback="http://127.0.0.1/"))
    row = await row_of(bench.database, accepted.id)
    assert (row.state, row.generation) == (State.ENQUEUED, 1)
    await until(lambda: len(broker.work) == 1)
    (message,) = broker.work
    assert (message.invocation_id, message.generation, message.spec.payload.data) == (accepted.id, 1, b"x")
    assert not message.spec.HasField("callback")
    assert message.start_by_us == row.start_by_us
    await eventually(lambda: bench.custody(accepted.id), Custody.BROKER)


async def test_accepts_that_come_together_are_committed_together(
    bench: Bench, broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits = 0
    write = Database.write

    async def counting(*arguments: Any, **options: Any) -> object:
        nonlocal commits
        commits += 1
        return await write(*arguments, **options)

    monkeypatch.setattr(Database, "write", counting)
    accepted = await asyncio.gather(*(bench.accept(make_spec(data=str(n).encode())) for n in range(300)))
    assert commits < 20
    assert len({each.id for each in accepted}) == 300
    await until(lambda: len(broker.work) == 300)
    assert [message.invocation_id for message in broker.work] == [each.id for each in accepted]


async def test_p7_repeats_and_conflicts(bench: Bench, broker: ScriptedBroker) -> None:
    same = await asyncio.gather(*(bench.accept(make_spec(data=b"x"), request_id="r") for _ in range(10)))
    assert len({each.id for each in same}) == 1
    assert sorted(each.draft is None for each in same) == [False] + [True] * 9
    with pytest.raises(ApiError) as caught:
        await bench.accept(make_spec(data=b"y"), request_id="r")
    assert (caught.value.code, caught.value.reason) == (Code.ALREADY_EXISTS, "REQUEST_ID_REUSED")
    assert same[0].id in caught.value.message
    await until(lambda: len(broker.work) == 1)
    assert bench.dispatcher._loads["resize"].messages == 1, "what was not accepted takes no room"


async def test_p1_accept_that_cannot_be_committed_is_unavailable_and_leaves_nothing(
    bench: Bench, broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Database.write

    async def broken(*_: object, **__: object) -> None:
        raise StoreUnavailableError("the store could not be written: database or disk is full")

    monkeypatch.setattr(Database, "write", broken)
    outcomes = await asyncio.gather(*(bench.accept() for _ in range(5)), return_exceptions=True)
    for outcome in outcomes:
        assert isinstance(outcome, ApiError)
        assert (outcome.code, outcome.reason) == (Code.UNAVAILABLE, "STORE_UNAVAILABLE")
        assert outcome.retry_after
    monkeypatch.setattr(Database, "write", write)
    assert await count(bench.database) == 0
    assert bench.dispatcher._loads["resize"].messages == 0
    accepted = await bench.accept()
    await until(lambda: [message.invocation_id for message in broker.work] == [accepted.id])


async def test_accept_of_a_function_that_is_gone_is_not_found(bench: Bench) -> None:
    with pytest.raises(ApiError, match="there is no function 'nope'"):
        await bench.accept(make_spec("nope"))
    with bench.database.writing() as connection:
        mark_deleted(connection, "figlet")
    # The catalogue does not know yet, as on another server.
    with pytest.raises(ApiError, match="there is no function 'figlet'") as caught:
        await bench.accept(make_spec("figlet"))
    assert caught.value.code is Code.NOT_FOUND
    assert await count(bench.database) == 0


async def test_caller_that_goes_away_does_not_disturb_the_others(bench: Bench) -> None:
    calls = [asyncio.create_task(bench.accept()) for _ in range(20)]
    await asyncio.sleep(0)
    calls[3].cancel()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(outcome, Accepted) for outcome in outcomes) == 19


# --- Where work waits


async def test_scheduled_work_goes_when_it_is_due(bench: Bench, broker: ScriptedBroker) -> None:
    spec = make_spec()
    due_us = now_us() + 700_000
    spec.schedule_time.FromMicroseconds(due_us)
    accepted = await bench.accept(spec)
    assert await bench.custody(accepted.id) is Custody.STORE
    await until(lambda: len(broker.work) == 1)
    assert now_us() >= due_us
    past = make_spec()
    past.schedule_time.CopyFrom(Timestamp(seconds=1))
    await bench.accept(past)
    await until(lambda: len(broker.work) == 2)


async def test_work_waits_in_the_store_while_the_broker_is_away(bench: Bench, broker: ScriptedBroker) -> None:
    broker.up = False
    accepted = [await bench.accept() for _ in range(5)]
    assert {await bench.custody(each.id) for each in accepted} == {Custody.STORE}
    broker.up = True
    await until(lambda: len(broker.work) == 5)
    assert [message.invocation_id for message in broker.work] == [each.id for each in accepted], "oldest first"


async def test_newcomers_queue_up_behind_what_waits(
    database: Database, broker: ScriptedBroker, tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "MAX_BROKER_MESSAGES", 10)
    bench = Bench(database, broker)
    await bench.run(tasks)
    accepted = [(await bench.accept()).id for _ in range(40)]
    await until(lambda: len(broker.work) == 10)
    seen: list[str] = []
    while len(seen) < 40:
        await until(lambda: len(broker.work) > len(seen))
        key = broker.work[len(seen)].invocation_id
        seen.append(key)
        with database.reading() as connection:
            (believed, _) = (at_broker(connection))["resize"]
        assert believed <= 10
        bench.dispatcher.on_committed(await record(database, *life(key)))
        if len(seen) == 20:
            accepted += [(await bench.accept()).id for _ in range(5)]
    await until(lambda: len(broker.work) == 45)
    assert [message.invocation_id for message in broker.work] == accepted


async def test_broker_holds_a_bounded_number_of_messages(
    database: Database, broker: ScriptedBroker, tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the true limit, and more waiting than it."""
    await accept_all(database, *(make_draft() for _ in range(limits.MAX_BROKER_MESSAGES + 700)))
    await accept_all(database, *(make_draft(make_spec("figlet")) for _ in range(3)))
    bench = Bench(database, broker)
    await bench.run(tasks)
    await until(lambda: len(broker.work) >= limits.MAX_BROKER_MESSAGES + 3)
    for _ in range(3):
        await bench.accept()
    # Two surveys pass, which count anew.
    await bench.dispatcher.survey()
    await bench.dispatcher.survey()
    assert len(broker.work) == limits.MAX_BROKER_MESSAGES + 3
    assert sum(message.spec.function == "figlet" for message in broker.work) == 3, "the other function is not held up"
    with database.reading() as connection:
        assert (at_broker(connection))["resize"][0] == limits.MAX_BROKER_MESSAGES


async def test_broker_holds_a_bounded_number_of_bytes(bench: Bench, broker: ScriptedBroker) -> None:
    data = bytes(limits.MAX_INLINE_PAYLOAD)
    most = limits.MAX_BROKER_BYTES // (len(data) + 512)
    for start in range(0, most + 12, 20):
        await asyncio.gather(*(bench.accept(make_spec(data=data)) for _ in range(min(20, most + 12 - start))))
    await until(lambda: len(broker.work) >= most)
    await bench.dispatcher.survey()
    assert most <= len(broker.work) <= most + 1
    first = broker.work[0].invocation_id
    bench.dispatcher.on_committed(await record(bench.database, *life(first)))
    await until(lambda: len(broker.work) >= most + 1)


async def test_count_of_what_is_at_the_broker_misses_nothing_that_is_under_way(
    bench: Bench, broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweeper counts in the store while accepts are being committed and while work is being fed."""
    monkeypatch.setattr(limits, "MAX_BROKER_MESSAGES", 60)
    sweeping = True

    async def sweep() -> None:
        while sweeping:
            await bench.dispatcher.survey()

    monkeypatch.setattr(dispatcher, "_POLL_SECONDS", 0.001)
    sweeps = asyncio.create_task(sweep())
    for _ in range(15):
        await asyncio.gather(*(bench.accept() for _ in range(20)))
    sweeping = False
    await sweeps
    assert len(broker.work) == 60
    for message in list(broker.work):
        bench.dispatcher.on_committed(await record(bench.database, *life(message.invocation_id)))
    await until(lambda: len(broker.work) == 120)


async def test_what_waited_too_long_ends_instead_of_going(
    database: Database, broker: ScriptedBroker, tasks: Tasks
) -> None:
    old = make_draft(make_spec(callback="http://127.0.0.1/"), create_us=now_us() - 90 * MINUTE)
    await accept_all(database, old)
    bench = Bench(database, broker)
    await bench.run(tasks)
    await until(lambda: bool(bench.announced))
    assert bench.announced[0].ended == {old.id: State.EXPIRED}
    assert bench.announced[0].deliveries == 1
    assert not broker.work


# --- What the broker did not take


@pytest.mark.parametrize("error", [PublishUnknownError("cut"), PublishRefusedError("full"), UnroutableError("none")])
async def test_p3_what_was_not_confirmed_goes_again_under_a_new_generation(
    bench: Bench, broker: ScriptedBroker, error: BrokerError
) -> None:
    broker.fail_work = fails(error, error)
    accepted = await bench.accept()
    await until(lambda: len(broker.work) == 1)
    assert (broker.work[0].invocation_id, broker.work[0].generation) == (accepted.id, 3)
    assert broker.opened == (["resize", "resize"] if isinstance(error, UnroutableError) else [])


async def test_publish_that_raises_forgets_nothing(database: Database, broker: ScriptedBroker, tasks: Tasks) -> None:
    def raises(_: WorkMessage) -> BrokerError | None:
        broker.fail_work = fails()
        raise RuntimeError("the channel is in the wrong state")

    bench = Bench(database, broker, resend_after=0.1)
    await bench.run(tasks)
    broker.fail_work = raises
    accepted = await bench.accept()
    await until(lambda: len(broker.work) == 1)
    assert (broker.work[0].invocation_id, broker.work[0].generation) == (accepted.id, 2)


async def test_sweeper_finds_what_a_dead_server_committed(
    database: Database, broker: ScriptedBroker, tasks: Tasks
) -> None:
    """It died between commit and publish, or between confirm and note: nobody can tell, so it goes again."""
    keys = await accept_sent(database, 30)
    bench = Bench(database, broker, resend_after=0.1)
    await bench.run(tasks)
    await until(lambda: len(broker.work) >= 30)
    assert {message.invocation_id for message in broker.work} == set(keys)
    assert {message.generation for message in broker.work} == {2}


async def test_sweeper_lets_alone_what_is_still_being_published(
    database: Database, broker: ScriptedBroker, tasks: Tasks
) -> None:
    confirmed = asyncio.Event()

    async def wait() -> None:
        await confirmed.wait()

    broker.published = wait
    bench = Bench(database, broker, resend_after=0.05)
    await bench.run(tasks)
    accepted = await bench.accept()
    for _ in range(2):
        await bench.dispatcher.sweep()
    assert (await row_of(database, accepted.id)).generation == 1
    confirmed.set()
    await until(lambda: len(broker.work) == 1)
    await eventually(lambda: bench.custody(accepted.id), Custody.BROKER)
    assert broker.work[0].generation == 1


async def test_note_of_a_confirm_survives_a_store_that_is_away(
    bench: Bench, broker: ScriptedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = 0
    write = Database.write

    async def broken(*_: object, **__: object) -> None:
        nonlocal tries
        tries += 1
        raise StoreUnavailableError("away")

    accepted = await bench.accept()
    monkeypatch.setattr(Database, "write", broken)
    await until(lambda: tries >= 2)
    monkeypatch.setattr(Database, "write", write)
    await eventually(lambda: bench.custody(accepted.id), Custody.BROKER)
    assert len(broker.work) == 1


# --- Deliveries


# --- With RabbitMQ


async def test_work_goes_through_rabbitmq_and_none_is_lost_when_its_connection_is(
    database: Database, tasks: Tasks, broker_url: str
) -> None:
    broker = RabbitBroker(broker_url, name="server")
    worker = RabbitBroker(broker_url, name="worker")
    try:
        await broker.start()
        await worker.start()
        bench = Bench(database, broker, resend_after=1.0)
        await bench.run(tasks)
        inbox = Inbox()
        # Its queues are made when the first message finds none.
        accepted = [await bench.accept(make_spec(data=b"first"))]
        accepted += await asyncio.gather(*(bench.accept(make_spec(data=str(n).encode())) for n in range(300)))
        broker._publishing.connection.abort()
        accepted += await asyncio.gather(*(bench.accept(make_spec(data=str(n).encode())) for n in range(300)))
        await worker.consume_work("resize", inbox, prefetch=1000)
        latest: dict[str, int] = {}

        async def all_there() -> int:
            while not inbox._messages.empty():
                received = await inbox.next()
                message = WorkMessage.FromString(received.body)
                latest[message.invocation_id] = max(latest.get(message.invocation_id, 0), message.generation)
                received.ack()
            return len(latest)

        await eventually(all_there, 601)
        assert latest.keys() == {each.id for each in accepted}

        async def current() -> bool:
            await all_there()
            rows = [await row_of(database, key) for key in latest]
            return all(row.generation == latest[row.id] and row.custody == Custody.BROKER for row in rows)

        await eventually(current, wanted=True)
        with database.reading() as connection:
            assert count_states(connection) == {State.ENQUEUED: 601}
    finally:
        await worker.close()
        await broker.close()


# --- Pausing


async def test_work_of_a_paused_function_stays_in_the_store_until_it_is_resumed(
    bench: Bench, broker: ScriptedBroker
) -> None:
    paused = function_pb2.Function(name="resize", revision=2, paused=True)
    bench.catalog.learn(FunctionState(function=paused))
    held = [await bench.accept(make_spec(data=str(n).encode())) for n in range(3)]
    (scheduled,) = [make_draft(due_us=now_us() + 100_000)]
    await accept_all(bench.database, scheduled)
    other = await bench.accept(make_spec("figlet"))
    await until(lambda: [message.invocation_id for message in broker.work] == [other.id])
    for _ in range(3):
        # What is due is looked for, and left.
        await bench.dispatcher.survey()
    for accepted in held:
        assert await bench.custody(accepted.id) is Custody.STORE
    assert len(broker.work) == 1

    bench.catalog.learn(FunctionState(function=function_pb2.Function(name="resize", revision=3)))
    await until(lambda: len(broker.work) == 5)
    assert {message.invocation_id for message in broker.work[1:]} == {*(one.id for one in held), scheduled.id}
