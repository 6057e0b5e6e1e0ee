"""Dispatching from the store: what is due is claimed, confirmed, taken back, forgotten, or expires."""

from __future__ import annotations

import asyncio
from pathlib import Path

from homing.v1 import invocation_pb2 as api
from homing_core.clock import now_us
from homing_core.lifecycle import Custody, State
from homing_server.store import dispatch, outbox
from homing_server.store.engine import Database
from support.reporter import Reporter
from support.store import (
    HOUR,
    accept_all,
    accept_sent,
    claimed,
    deliveries_of,
    life,
    make_draft,
    make_spec,
    opened,
    read,
    record,
    row_of,
)
from support.store_steps import MINUTE, claim, take_back


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
