"""The store on a real database file: accepting, recording, dispatching, and what must add up."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from sqlalchemy import Connection, text

from homing.v1 import invocation_pb2 as api
from homing.v1.payload_pb2 import Payload
from homing_core.clock import now_us
from homing_core.lifecycle import ENDS, Custody, State
from homing_core.wire.v1 import (
    DeliveryAttemptRecord,
    DeliveryHistory,
    DeliveryReport,
    Ended,
    Event,
    SyncEnded,
    SyncRequest,
)
from homing_core.wire.v1 import Token as WireToken
from homing_server.errors import ApiError
from homing_server.store import dispatch, engine, outbox, schema
from homing_server.store.accept import Outcome, accept
from homing_server.store.effects import CommitEffects
from homing_server.store.engine import Database, NewerStoreError, StoreUnavailableError
from homing_server.store.functions import invalidate_stored, mark_deleted
from homing_server.store.read import ended_after, results_after
from homing_server.store.record import record_events
from homing_server.store.sequences import holds_epoch, raise_counters
from homing_server.store.state_counts import count_states
from support.reporter import Reporter
from support.store import (
    HOUR,
    accept_all,
    accept_sent,
    again,
    claimed,
    count,
    counters,
    deliveries_of,
    life,
    make_draft,
    make_spec,
    opened,
    read,
    record,
    row_of,
)

MINUTE = 60 * 1_000_000


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with opened(tmp_path, functions=["resize", "figlet"]) as database:
        yield database


# --- Opening


async def test_database_keeps_its_identity(tmp_path: Path) -> None:
    async with opened(tmp_path) as first:
        identity = first.identity
    async with opened(tmp_path) as second:
        assert second.identity == identity
    async with opened(tmp_path / "other") as other:
        assert other.identity != identity


OPEN = """
import asyncio, sys
from homing_server.store.engine import Database, NewerStoreError, StoreUnavailableError

async def main() -> None:
    database = Database(sys.argv[1])
    await database.open()
    print(database.identity)
    await database.close()

asyncio.run(main())
"""


async def test_several_servers_may_open_a_new_file_at_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'new' / 'homing.db'}"
    processes = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", OPEN, url, stdout=asyncio.subprocess.PIPE)
        for _ in range(3)
    ]
    said = [(await process.communicate())[0].strip() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len(set(said)) == 1
    assert len(said[0]) == 16


async def test_migration_that_fails_in_the_middle_leaves_the_schema_as_it_was(tmp_path: Path) -> None:
    def schema_of(connection: Connection) -> list[str]:
        return list(connection.execute(text("SELECT sql FROM sqlite_master ORDER BY name")).scalars())

    async with opened(tmp_path) as database:
        with database.writing() as connection:
            # Step 7 can be taken from here, 8 cannot: its column is there.
            connection.execute(text("ALTER TABLE functions DROP COLUMN deleted_revision"))
            connection.execute(text("ALTER TABLE invocations DROP COLUMN function_revision"))
            connection.execute(text("UPDATE alembic_version SET version_num = '0006'"))
            before = schema_of(connection)
    again_opened = Database(f"sqlite:///{tmp_path / 'homing.db'}")
    try:
        with pytest.raises(StoreUnavailableError, match="duplicate column name: stored_by"):
            await again_opened.open()
        with again_opened.reading() as connection:
            assert connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all() == ["0006"]
            assert schema_of(connection) == before
    finally:
        await again_opened.close()


async def test_store_of_a_later_version_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    async with opened(tmp_path) as database:
        with database.writing() as connection:
            connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    earlier = Database(f"sqlite:///{tmp_path / 'homing.db'}")
    try:
        with pytest.raises(NewerStoreError, match=r"schema 9999 of a later version of homing, this one knows \d{4} "):
            await earlier.open()
        with earlier.reading() as connection:
            assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == "9999"
    finally:
        await earlier.close()


async def test_commits_are_durable(database: Database) -> None:
    with database.writing() as connection:
        assert (connection.execute(text("PRAGMA journal_mode"))).scalar_one() == "wal"
        assert (connection.execute(text("PRAGMA synchronous"))).scalar_one() == 2, "FULL"
        assert (connection.execute(text("PRAGMA foreign_keys"))).scalar_one() == 1


async def test_store_that_is_busy_is_unavailable_and_no_other_error(database: Database) -> None:
    """The recorder tries again after this error, and takes every other one for the events' own fault."""
    database._writer.pool._timeout = 0.05  # type: ignore[attr-defined]
    with database.writing(), pytest.raises(ApiError, match="could not be written: it is too busy") as caught:
        await accept_all(database, make_draft())
    assert caught.value.reason == "STORE_UNAVAILABLE"


async def test_file_that_another_server_keeps_locked_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_BUSY_TIMEOUT_MS", 50)
    async with opened(tmp_path) as one, opened(tmp_path, functions=[]) as other:
        with one.writing(), pytest.raises(ApiError, match="database is locked"):
            await accept_all(other, make_draft())
        assert [verdict.outcome for verdict in await accept_all(other, make_draft())] == [Outcome.ACCEPTED]


# --- Accepting


async def test_accepted_is_stored_whole(database: Database) -> None:
    spec = make_spec(data=b"body", labels={"job": "7"}, callback="http://127.0.0.1/hook")
    draft = make_draft(spec, request_id="r", caller="me")
    (verdict,) = await accept_all(database, draft)
    assert (verdict.outcome, verdict.id) == (Outcome.ACCEPTED, draft.id)
    invocation = await read(database, draft.id, include_payload=True)
    assert (invocation.spec, invocation.caller) == (spec, "me")
    assert invocation.state == api.INVOCATION_STATE_ENQUEUED
    assert invocation.create_time.ToMicroseconds() == draft.create_us
    assert not (await read(database, draft.id)).spec.payload.data


async def test_p7_same_request_is_the_same_invocation(database: Database) -> None:
    draft = make_draft(make_spec(data=b"x"), request_id="r")
    await accept_all(database, draft)
    (verdict,) = await accept_all(database, again(draft))
    assert (verdict.outcome, verdict.id) == (Outcome.DUPLICATE, draft.id)
    assert await count(database) == 1


async def test_p7_other_content_under_the_same_request_id_is_refused(database: Database) -> None:
    draft = make_draft(make_spec(data=b"x"), request_id="r")
    await accept_all(database, draft)
    (verdict,) = await accept_all(database, make_draft(make_spec(data=b"y"), request_id="r"))
    assert (verdict.outcome, verdict.id) == (Outcome.CONFLICT, draft.id)
    assert await count(database) == 1


async def test_p7_another_caller_may_use_the_same_request_id(database: Database) -> None:
    draft = make_draft(request_id="r", caller="me")
    verdicts = await accept_all(database, draft, replace(again(draft), caller="you"))
    assert [verdict.outcome for verdict in verdicts] == [Outcome.ACCEPTED, Outcome.ACCEPTED]


async def test_p7_holds_within_one_group(database: Database) -> None:
    draft = make_draft(make_spec(data=b"x"), request_id="r")
    other = make_draft(make_spec(data=b"y"), request_id="r")
    free = make_draft(make_spec(data=b"x"))
    verdicts = await accept_all(database, draft, again(draft), other, free, again(free))
    assert [verdict.outcome for verdict in verdicts] == [
        Outcome.ACCEPTED,
        Outcome.DUPLICATE,
        Outcome.CONFLICT,
        Outcome.ACCEPTED,
        Outcome.ACCEPTED,
    ]
    assert [verdict.id for verdict in verdicts[:3]] == [draft.id] * 3


async def test_p7_holds_among_servers(tmp_path: Path, database: Database) -> None:
    drafts = [make_draft(make_spec(data=str(number).encode()), request_id=f"r{number}") for number in range(40)]
    async with opened(tmp_path, functions=[]) as other:
        verdicts = await asyncio.gather(
            *(accept_all(one, again(draft)) for draft in drafts for one in (database, other, database))
        )
    for number in range(len(drafts)):
        same = [verdict for (verdict,) in verdicts[number * 3 : number * 3 + 3]]
        assert len({verdict.id for verdict in same}) == 1
        assert sorted(verdict.outcome.name for verdict in same) == ["ACCEPTED", "DUPLICATE", "DUPLICATE"]
    assert await count(database) == len(drafts)
    assert (await counters(database))[schema.ACCEPTED] == len(drafts)


async def test_p7_outlives_the_end_of_the_invocation(database: Database) -> None:
    draft = make_draft(request_id="r", sent=True)
    await accept_all(database, draft)
    await record(database, *life(draft.id))
    (verdict,) = await accept_all(database, again(draft))
    assert (verdict.outcome, verdict.id) == (Outcome.DUPLICATE, draft.id)


async def test_deleted_function_takes_nothing(database: Database) -> None:
    with database.writing() as connection:
        mark_deleted(connection, "resize")
    verdicts = await accept_all(database, make_draft(), make_draft(make_spec("figlet")))
    assert [verdict.outcome for verdict in verdicts] == [Outcome.NO_FUNCTION, Outcome.ACCEPTED]
    assert await count(database) == 1


async def die_after(database: Database, work: Callable[[Connection], object]) -> None:
    def die(connection: Connection) -> None:
        work(connection)
        raise RuntimeError("died")

    await database.write(die)


async def test_accept_that_fails_leaves_nothing(database: Database) -> None:
    drafts = [make_draft(make_spec(labels={"a": "b"}), request_id="r")]
    with pytest.raises(RuntimeError, match="died"):
        await die_after(database, lambda connection: accept(connection, drafts))
    assert await count(database) == 0
    assert (await counters(database))[schema.ACCEPTED] == 0
    assert [verdict.outcome for verdict in await accept_all(database, *drafts)] == [Outcome.ACCEPTED]


# --- Recording


async def test_events_make_the_record(database: Database) -> None:
    (key,) = await accept_sent(database, 1)
    effects = await record(database, *life(key))
    assert effects.ended == {key: State.SUCCEEDED}
    assert effects.result_seq == 1
    assert effects.left_broker == [(key, "resize", 512)]
    invocation = await read(database, key)
    assert invocation.state == api.INVOCATION_STATE_SUCCEEDED
    assert invocation.result.status_code == 200
    assert invocation.attempt_count == 1
    assert invocation.HasField("start_time")
    assert invocation.HasField("end_time")


async def test_recording_twice_is_recording_once(database: Database) -> None:
    (key,) = await accept_sent(database, 1, callback="http://127.0.0.1/")
    await record(database, *life(key))
    before, numbers = await row_of(database, key), await counters(database)
    effects = await record(database, *life(key), *life(key))
    assert (effects.refused, effects.ended, effects.deliveries) == (6, {}, 0)
    assert await row_of(database, key) == before
    assert await counters(database) == numbers
    assert len(await deliveries_of(database, key)) == 1


async def test_p3_stale_attempt_cannot_settle(database: Database) -> None:
    (key,) = await accept_sent(database, 1)
    await take_back(database, (key, 1))
    await claim(database)
    effects = await record(database, *life(key, State.FAILED, generation=1))
    assert (effects.refused, effects.ended) == (3, {})
    await record(database, *life(key, generation=2))
    assert (await read(database, key)).state == api.INVOCATION_STATE_SUCCEEDED


async def test_hundreds_of_events_in_one_batch(database: Database) -> None:
    keys = await accept_sent(database, 400)
    events = [event for key in keys for event in life(key)]
    Random(7).shuffle(events)
    effects = await record(database, *events, *events[:100])
    assert effects.ended == dict.fromkeys(keys, State.SUCCEEDED)
    assert effects.result_seq == 400
    with database.reading() as connection:
        results = results_after(connection, 0, most=1000)
        assert [result.seq for result in results] == list(range(1, 401))
        assert {result.invocation.id for result in results} == set(keys)
        assert len(ended_after(connection, 390, most=1000)) == 10


async def test_results_are_numbered_without_gaps_over_transactions(database: Database) -> None:
    keys = await accept_sent(database, 30)
    for number in range(0, 30, 3):
        await record(database, *(event for key in keys[number : number + 3] for event in life(key)))
    with database.reading() as connection:
        assert [seq for seq, _ in ended_after(connection, 0, most=100)] == list(range(1, 31))


async def test_event_of_an_unknown_invocation_is_let_go(database: Database) -> None:
    effects = await record(database, *life("no such id"))
    assert effects == CommitEffects()


async def test_deferred_work_comes_back_when_it_is_due(database: Database) -> None:
    (key,) = await accept_sent(database, 1)
    worker = Reporter(1, invocation_id=key, time_us=now_us())
    due_us = now_us() + MINUTE
    effects = await record(database, worker.dequeued(), worker.running(), worker.deferred(due_us=due_us))
    assert effects.due == {"resize": due_us}
    assert effects.left_broker == [(key, "resize", 512)]
    invocation = await read(database, key)
    assert (invocation.state, invocation.wait_reason) == (
        api.INVOCATION_STATE_RETRYING,
        api.WAIT_REASON_BACKOFF,
    )
    assert invocation.wait_until.ToMicroseconds() == due_us
    assert invocation.result.status_code == 503, "the last answer so far"
    assert not await claim(database)
    (work,) = await claim(database, at_us=due_us)
    assert (work.message.generation, work.message.prior_attempts) == (2, 1)
    assert work.message.start_by_us == 0, "it has started in time"


async def test_the_last_answer_is_kept_though_the_end_brings_none(database: Database) -> None:
    (key,) = await accept_sent(database, 1)
    first = Reporter(1, 0, invocation_id=key, time_us=now_us())
    second = Reporter(1, 1, invocation_id=key, time_us=now_us())
    await record(database, first.deferred(due_us=now_us()), second.ended(State.TIMED_OUT))
    invocation = await read(database, key)
    assert (invocation.state, invocation.result.status_code) == (api.INVOCATION_STATE_TIMED_OUT, 503)


# --- Recording sync calls


def sync_end(key: str, *, state: State = State.SUCCEEDED, callback: str = "") -> Event:
    worker = Reporter(1, invocation_id=key, time_us=now_us())
    worker.running()
    end = worker.ended(state).ended
    request = SyncRequest(
        invocation_id=key,
        spec=make_spec(data=b"asked", labels={"job": "7"}, callback=callback),
        create_us=now_us() - MINUTE,
        caller="me",
    )
    event = Event(invocation_id=key, token=WireToken(generation=1), time_us=now_us(), worker="w1")
    event.sync_ended.CopyFrom(SyncEnded(request=request, ended=Ended.FromString(end.SerializeToString())))
    return event


async def test_sync_call_leaves_a_record_once(database: Database) -> None:
    event = sync_end("s1")
    effects = await record(database, event, event)
    assert effects.ended == {"s1": State.SUCCEEDED}
    effects = await record(database, event, sync_end("s2", state=State.FAILED))
    assert (effects.ended, effects.refused, effects.result_seq) == ({"s2": State.FAILED}, 1, 2)
    invocation = await read(database, "s1", include_payload=True)
    assert invocation.sync
    assert (invocation.caller, invocation.state) == ("me", api.INVOCATION_STATE_SUCCEEDED)
    assert invocation.spec.payload == Payload(content_type="text/plain", data=b"asked")
    assert invocation.result.status_code == 200
    assert invocation.attempt_count == 1
    assert (await counters(database))[schema.ACCEPTED] == 2


# --- Recording deliveries


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.FAILED, State.TIMED_OUT, State.EXPIRED, State.INVALID])
async def test_p6_every_end_makes_its_delivery(database: Database, state: State) -> None:
    (key,) = await accept_sent(database, 1, callback="http://127.0.0.1/hook")
    (bare,) = await accept_sent(database, 1)
    effects = await record(
        database, *(Reporter(1, invocation_id=each, time_us=now_us()).ended(state) for each in (key, bare))
    )
    assert effects.deliveries == 1
    (delivery,) = (await read(database, key)).deliveries
    assert (delivery.uri, delivery.state) == ("http://127.0.0.1/hook", api.DELIVERY_STATE_PENDING)
    assert delivery.kind == api.DELIVERY_KIND_CALLBACK
    assert not (await read(database, bare)).deliveries


async def test_p6_delivery_is_made_in_the_transaction_of_the_end(database: Database) -> None:
    (key,) = await accept_sent(database, 1, callback="http://127.0.0.1/hook")
    with pytest.raises(RuntimeError, match="died"):
        await die_after(database, lambda connection: record_events(connection, life(key)))
    assert not await deliveries_of(database, key)
    assert (await read(database, key)).state == api.INVOCATION_STATE_ENQUEUED
    with database.reading() as connection:
        assert ended_after(connection, 0, most=10) == []


async def test_p6_ends_that_no_worker_tells_make_deliveries_too(database: Database) -> None:
    """Waiting too long, and the deletion of the function."""
    old = make_draft(make_spec(callback="http://127.0.0.1/"), create_us=now_us() - 2 * HOUR)
    gone = make_draft(make_spec("figlet", callback="http://127.0.0.1/"))
    await accept_all(database, old, gone)
    assert not await claim(database)
    with database.writing() as connection:
        mark_deleted(connection, "figlet")
        effects = invalidate_stored(connection, "figlet", now_us=now_us())
    assert effects.ended == {gone.id: State.INVALID}
    assert (await read(database, old.id)).state == api.INVOCATION_STATE_EXPIRED
    for draft in (old, gone):
        assert len(await deliveries_of(database, draft.id)) == 1


def delivery_report(
    delivery_id: str,
    state: api.DeliveryState.ValueType,
    *attempts: int,
    generation: int = 1,
    count: int = 0,
) -> Event:
    return Event(
        token=WireToken(generation=generation, redelivery_count=count),
        time_us=now_us(),
        delivery=DeliveryReport(
            delivery_id=delivery_id,
            state=state,
            attempts=[DeliveryAttemptRecord(start_us=start_us, status_code=500) for start_us in attempts],
        ),
    )


async def test_p6_delivery_ends_once(database: Database) -> None:
    (key,) = await accept_sent(database, 1, callback="http://127.0.0.1/")
    await record(database, *life(key))
    with database.writing() as connection:
        (message,) = claimed(connection, now_us=now_us())
    assert (message.invocation_id, message.generation, message.result.status_code) == (key, 1, 200)
    id_ = message.delivery_id
    delivering = delivery_report(id_, api.DELIVERY_STATE_DELIVERING)
    delivered = delivery_report(id_, api.DELIVERY_STATE_DELIVERED, 10)
    await record(database, delivering, delivered, delivering)
    (row,) = await deliveries_of(database, key)
    assert (row.state, row.custody) == (api.DELIVERY_STATE_DELIVERED, Custody.NONE)
    dead = delivery_report(id_, api.DELIVERY_STATE_DEAD, 10, 20, count=1)
    assert (await record(database, dead, delivering)).refused == 2
    assert (await deliveries_of(database, key)) == [row]


async def test_redelivered_delivery_keeps_its_attempts(database: Database) -> None:
    (key,) = await accept_sent(database, 1, callback="http://127.0.0.1/")
    await record(database, *life(key))
    with database.writing() as connection:
        ((id_, generation),) = [
            (message.delivery_id, message.generation) for message in claimed(connection, now_us=now_us())
        ]
    assert generation == 1
    first = delivery_report(id_, api.DELIVERY_STATE_DELIVERING, 10, 20)
    late = delivery_report(id_, api.DELIVERY_STATE_DELIVERING, 10)
    stale = delivery_report(id_, api.DELIVERY_STATE_DEAD, 10, 20)
    last = delivery_report(id_, api.DELIVERY_STATE_DELIVERED, 30, count=1)
    await record(database, first, late)
    await record(database, delivery_report(id_, api.DELIVERY_STATE_DELIVERING, count=1), stale, last)
    (row,) = await deliveries_of(database, key)
    assert row.state == api.DELIVERY_STATE_DELIVERED
    assert [attempt.start_us for attempt in DeliveryHistory.FromString(row.history).attempts] == [10, 20, 30]


# --- Epochs


async def test_p3_later_epoch_shuts_out_an_earlier_one(tmp_path: Path, database: Database) -> None:
    async with opened(tmp_path, functions=[]) as other:
        with database.writing() as connection:
            first = (raise_counters(connection, {schema.EPOCH: 1}))[schema.EPOCH]
        with database.writing() as connection:
            assert holds_epoch(connection, first)
        with other.writing() as connection:
            second = (raise_counters(connection, {schema.EPOCH: 1}))[schema.EPOCH]
        assert second > first
        with database.writing() as connection:
            assert not holds_epoch(connection, first)
        with other.writing() as connection:
            assert holds_epoch(connection, second)


# --- Dispatching


async def claim(
    database: Database, function: str = "resize", *, at_us: int = 0, most: int = 500, most_bytes: int = 1 << 30
) -> list[dispatch.Work]:
    with database.writing() as connection:
        claim = dispatch.claim_work(connection, function, now_us=at_us or now_us(), most=most, most_bytes=most_bytes)
    return list(claim.work)


async def take_back(database: Database, *keys: tuple[str, int]) -> None:
    with database.writing() as connection:
        dispatch.take_back_work(connection, keys, due_us=now_us())


async def test_claimed_is_the_oldest_that_is_due(database: Database) -> None:
    now = now_us()
    drafts = [make_draft(make_spec(data=str(n).encode()), create_us=now - MINUTE + n) for n in range(6)]
    later = make_draft(due_us=now + MINUTE)
    other = make_draft(make_spec("figlet"))
    await accept_all(database, *reversed(drafts), later, other)
    with database.reading() as connection:
        assert dispatch.next_due(connection) == {"resize": drafts[0].create_us, "figlet": other.create_us}
    work = await claim(database, most=4)
    assert [item.message.invocation_id for item in work] == [draft.id for draft in drafts[:4]]
    assert [item.message.spec.payload.data for item in work] == [b"0", b"1", b"2", b"3"]
    assert [item.message.generation for item in work] == [1] * 4
    assert [item.message.invocation_id for item in await claim(database)] == [draft.id for draft in drafts[4:]]
    assert not await claim(database)
    with database.reading() as connection:
        assert dispatch.next_due(connection) == {"resize": now + MINUTE, "figlet": other.create_us}
        assert dispatch.at_broker(connection) == {"resize": (6, 6 * 513)}
    scheduled = await read(database, later.id)
    assert (scheduled.state, scheduled.wait_reason) == (
        api.INVOCATION_STATE_SCHEDULED,
        api.WAIT_REASON_SCHEDULED,
    )


async def test_claimed_is_bounded_by_size_but_never_nothing(database: Database) -> None:
    await accept_all(database, *(make_draft(make_spec(data=bytes(1000)), create_us=now_us() - 9 + n) for n in range(5)))
    assert len(await claim(database, most_bytes=3 * 1512)) == 3
    assert len(await claim(database, most_bytes=1)) == 1


async def test_claimed_work_is_claimed_once_by_two_servers(tmp_path: Path, database: Database) -> None:
    await accept_all(database, *(make_draft() for _ in range(60)))
    async with opened(tmp_path, functions=[]) as other:
        claims = await asyncio.gather(*(claim(one, most=7) for _ in range(6) for one in (database, other)))
    claimed = [item.key for work in claims for item in work]
    assert len(claimed) == len(set(claimed)) == 60


async def test_work_message_leaves_the_callback_out(database: Database) -> None:
    draft = make_draft(make_spec(data=b"x", callback="http://127.0.0.1/", labels={"a": "b"}))
    await accept_all(database, draft)
    (work,) = await claim(database)
    assert not work.message.spec.HasField("callback")
    assert work.message.spec.labels == {"a": "b"}
    assert (work.message.create_us, work.message.start_by_us) == (draft.create_us, draft.start_by_us)


async def test_p3_what_is_taken_back_goes_under_a_new_generation(database: Database) -> None:
    (key,) = await accept_sent(database, 1)
    await take_back(database, (key, 1))
    assert (await row_of(database, key)).custody == Custody.STORE
    (work,) = await claim(database)
    assert work.key == (key, 2)
    await take_back(database, (key, 1))
    assert (await row_of(database, key)).custody == Custody.SENT, "that was another dispatch"


async def test_what_a_worker_has_is_not_taken_back(database: Database) -> None:
    (key,) = await accept_sent(database, 1)
    await record(database, Reporter(1, invocation_id=key, time_us=now_us()).dequeued())
    await take_back(database, (key, 1))
    assert (await row_of(database, key)).custody == Custody.BROKER


async def test_confirm_is_noted_of_this_dispatch_only(database: Database) -> None:
    one, two, three = await accept_sent(database, 3)
    await take_back(database, (two, 1))
    await record(database, *life(three))
    with database.writing() as connection:
        outbox.INVOCATIONS.confirm(connection, [(one, 1), (two, 1), (three, 1)])
    assert [(await row_of(database, key)).custody for key in (one, two, three)] == [
        Custody.BROKER,
        Custody.STORE,
        Custody.NONE,
    ]


async def test_forgotten_is_what_was_sent_long_ago_and_never_confirmed(database: Database) -> None:
    sent, confirmed, young = (
        make_draft(sent=True, create_us=now_us() - MINUTE),
        make_draft(sent=True, create_us=now_us() - MINUTE),
        make_draft(sent=True),
    )
    await accept_all(database, sent, confirmed, young, make_draft(create_us=now_us() - MINUTE))
    with database.writing() as connection:
        outbox.INVOCATIONS.confirm(connection, [(confirmed.id, 1)])
    with database.reading() as connection:
        forgotten = outbox.INVOCATIONS.forgotten(connection, sent_before_us=now_us() - MINUTE // 2)
    assert forgotten == [(sent.id, 1)]
    (waiting,) = await claim(database)
    with database.reading() as connection:
        forgotten = outbox.INVOCATIONS.forgotten(connection, sent_before_us=now_us() + 1)
    assert set(forgotten) == {(sent.id, 1), (young.id, 1), waiting.key}


async def test_what_waited_too_long_expires_and_never_goes(database: Database) -> None:
    old = make_draft(create_us=now_us() - 2 * HOUR)
    scheduled = make_draft(create_us=now_us() - 3 * HOUR, due_us=now_us() - 2 * HOUR)
    young = make_draft()
    await accept_all(database, old, scheduled, young)
    with database.writing() as connection:
        taken = dispatch.claim_work(connection, "resize", now_us=now_us(), most=10, most_bytes=1 << 20)
    assert [item.message.invocation_id for item in taken.work] == [young.id]
    assert taken.effects.ended == {old.id: State.EXPIRED, scheduled.id: State.EXPIRED}
    invocation = await read(database, old.id)
    assert (invocation.state, invocation.failure.reason) == (api.INVOCATION_STATE_EXPIRED, "EXPIRED")
    assert not invocation.attempts


async def test_what_has_started_does_not_expire(database: Database) -> None:
    draft = make_draft(create_us=now_us() - 2 * HOUR, sent=True)
    await accept_all(database, draft)
    worker = Reporter(1, invocation_id=draft.id, time_us=now_us() - 2 * HOUR)
    await record(database, worker.running(), worker.requeued())
    (work,) = await claim(database)
    assert (work.message.start_by_us, work.message.prior_lost_starts) == (0, 1)


async def test_deliveries_are_claimed_and_settled(database: Database) -> None:
    (key,) = await accept_sent(database, 1, callback="http://127.0.0.1/")
    await record(database, *life(key))
    with database.writing() as connection:
        soon = now_us() + MINUTE
        (first,) = claimed(connection, now_us=soon)
        assert not claimed(connection, now_us=soon)
        forgotten = outbox.DELIVERIES.forgotten(connection, sent_before_us=soon + 1)
        assert forgotten == [(first.delivery_id, 1)]
        outbox.DELIVERIES.take_back(connection, forgotten, due_us=2000)
        (second,) = claimed(connection, now_us=soon)
        assert second.generation == 2
        outbox.DELIVERIES.confirm(connection, [(first.delivery_id, 1)])
    (row,) = await deliveries_of(database, key)
    assert row.custody == Custody.SENT, "the confirm was of an earlier dispatch"


# --- The line of events


async def test_line_of_events_tells_why_an_attempt_is_followed_by_another_and_what_became_of_deliveries(
    database: Database,
) -> None:
    draft = make_draft(make_spec(callback="http://127.0.0.1/?secret=1"), sent=True)
    await accept_all(database, draft)
    worker = Reporter(1, invocation_id=draft.id, time_us=now_us())
    failed = worker.attempt_ended()
    failed.attempt_ended.failure.reason = "HTTP_STATUS"
    failed.attempt_ended.next_delay_us, failed.attempt_ended.delay_reason = 1_500_000, "BACKOFF"
    await record(database, failed, worker.ended(State.FAILED))
    with database.writing() as connection:
        (message,) = claimed(connection, now_us=now_us())
    # The line is ordered by time; the worker's clock was asked before.
    ended_us = now_us() + MINUTE
    over = delivery_report(message.delivery_id, api.DELIVERY_STATE_DEAD, ended_us, ended_us + 5)
    for attempt, (status_code, reason) in zip(
        over.delivery.attempts, [(503, "HTTP_STATUS"), (0, "CONNECTION_FAILED")], strict=True
    ):
        attempt.duration_us, attempt.status_code, attempt.failure.reason = 1000, status_code, reason
    over.time_us = ended_us + 5000
    await record(database, over)
    events = (await read(database, draft.id)).events
    assert [
        (api.InvocationEventType.Name(event.type).removeprefix("INVOCATION_EVENT_TYPE_"), event.detail)
        for event in events
    ] == [
        ("ACCEPTED", ""),
        ("ENQUEUED", ""),
        ("RUNNING", ""),
        ("ATTEMPT_ENDED", "HTTP_STATUS; the next one in 1.5 s (BACKOFF)"),
        ("RETRYING", ""),
        ("RUNNING", ""),
        ("ATTEMPT_ENDED", ""),
        ("ENDED", "FAILED"),
        ("DELIVERY_FAILED", "CALLBACK, attempt 1: HTTP_STATUS 503"),
        ("DELIVERY_FAILED", "CALLBACK, attempt 2: CONNECTION_FAILED"),
        ("DELIVERY_DEAD", "CALLBACK: CONNECTION_FAILED"),
    ]
    times = [event.time.ToNanoseconds() for event in events[-4:]]
    assert times == sorted(times)


# --- Reconciliation


async def test_p5_what_was_accepted_is_what_is_there(database: Database) -> None:
    """Whatever happens, in whatever order: each accepted invocation is in one state, and the store knows who has it."""
    random = Random(5)
    keys = await accept_sent(database, 60)
    await accept_all(database, *(make_draft(create_us=now_us() - 2 * HOUR) for _ in range(5)))
    await accept_all(database, *(make_draft(make_spec("figlet")) for _ in range(5)))
    await record(database, *(sync_end(f"s{number}") for number in range(5)))
    events = [event for key in keys[:40] for event in life(key, random.choice([State.SUCCEEDED, State.FAILED]))]
    events += [Reporter(1, invocation_id=key, time_us=now_us()).dequeued() for key in keys[40:50]]
    events += [Reporter(1, invocation_id=key, time_us=now_us()).deferred(due_us=now_us()) for key in keys[50:55]]
    random.shuffle(events)
    await record(database, *events[:80])
    await claim(database, most=3)
    await record(database, *events[40:])
    with database.writing() as connection:
        mark_deleted(connection, "figlet")
        invalidate_stored(connection, "figlet", now_us=now_us())
    with database.reading() as connection:
        by_state = count_states(connection)
        believed = dispatch.at_broker(connection)
        query = text("SELECT custody, count(*) FROM invocations GROUP BY custody")
        custody = {Custody(each): number for each, number in connection.execute(query)}
    total = (await counters(database))[schema.ACCEPTED]
    assert total == sum(by_state.values()) == sum(custody.values()) == 75
    ended = sum(number for state, number in by_state.items() if state in ENDS)
    assert ended == custody[Custody.NONE] == (await counters(database))[schema.RESULT_SEQ]
    at_broker = custody.get(Custody.SENT, 0) + custody.get(Custody.BROKER, 0)
    assert believed == {"resize": (at_broker, at_broker * 512)}
