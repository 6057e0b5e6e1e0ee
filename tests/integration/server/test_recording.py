"""Recording in the store: events make records, results are numbered, ends make deliveries, and all adds up."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from sqlalchemy import text

from homing.v1 import invocation_pb2 as api
from homing.v1.payload_pb2 import Payload
from homing_core.clock import now_us
from homing_core.lifecycle import ENDS, Custody, State
from homing_core.wire.v1 import (
    DeliveryHistory,
)
from homing_server.store import dispatch, schema
from homing_server.store.effects import CommitEffects
from homing_server.store.engine import Database
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
    claimed,
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
from support.store_steps import MINUTE, claim, delivery_report, die_after, sync_end, take_back


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
