"""Deliveries in the store: which are made, which are due, what workers are told, and where they end."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, func, insert, select, update

from homing.v1 import function_pb2
from homing.v1 import invocation_pb2 as api
from homing.v1.payload_pb2 import Payload
from homing.v1.policy_pb2 import Callback, Destination
from homing_core import limits
from homing_core.broker import BrokerError, PublishRefusedError, PublishUnknownError
from homing_core.clock import now_us
from homing_core.ids import new_id
from homing_core.lifecycle import Custody, State
from homing_server.store import delivery_claims, dispatch, outbox, schema
from homing_server.store.delivery_claims import MAX_OUTSTANDING_DELIVERIES
from homing_server.store.engine import Database
from homing_server.store.functions import invalidate_stored, mark_deleted, put_function
from support.delivery_bench import ENDS, HOOK, OPEN, SECOND, Bench, end_with, report, spec_to, take, until
from support.scripted_broker import ScriptedBroker
from support.store import (
    accept_all,
    accept_sent,
    deliveries_of,
    life,
    make_draft,
    make_spec,
    opened,
    read,
    record,
    row_of,
)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with opened(tmp_path, functions=["resize", "next"]) as database:
        yield database


async def test_p6_destinations_depend_on_the_end(database: Database) -> None:
    uris = {"on_success": ["https://a.example/", "amqp:x/y"], "on_failure": ["https://b.example/"]}
    good = await end_with(database, State.SUCCEEDED, **uris, callback=HOOK)
    bad = [await end_with(database, state, **uris, callback=HOOK) for state in ENDS]

    assert [(delivery.kind, delivery.uri) for delivery in (await read(database, good)).deliveries] == [
        (api.DELIVERY_KIND_CALLBACK, HOOK),
        (api.DELIVERY_KIND_ON_SUCCESS, "https://a.example/"),
        (api.DELIVERY_KIND_ON_SUCCESS, "amqp:x/y"),
    ]
    for key in bad:
        assert [(delivery.kind, delivery.uri) for delivery in (await read(database, key)).deliveries] == [
            (api.DELIVERY_KIND_CALLBACK, HOOK),
            (api.DELIVERY_KIND_ON_FAILURE, "https://b.example/"),
        ]
    receivers = {row.receiver for row in await deliveries_of(database, good)}
    assert receivers == {"https://example.org:443", "https://a.example:443", "amqp:x"}


async def test_p6_a_functions_destinations_hold_where_the_invocation_has_none(database: Database) -> None:
    with database.writing() as connection:
        put_function(
            connection,
            function_pb2.Function(
                name="resize",
                image="resize:1",
                on_success=[Destination(uri="https://f.example/")],
                on_failure=[Destination(uri="function:next")],
            ),
            now_us=now_us(),
        )
    of_function = await end_with(database, State.SUCCEEDED)
    own = await end_with(database, State.SUCCEEDED, on_success=["https://own.example/"])
    stored = make_draft(make_spec())
    await accept_all(database, stored)
    with database.writing() as connection:
        mark_deleted(connection, "resize")
        invalidate_stored(connection, "resize", now_us=now_us())

    assert [each.uri for each in (await read(database, of_function)).deliveries] == ["https://f.example/"]
    assert [each.uri for each in (await read(database, own)).deliveries] == ["https://own.example/"]
    gone = await read(database, stored.id)
    assert gone.state == api.INVOCATION_STATE_INVALID
    assert [each.uri for each in gone.deliveries] == ["function:next"]
    with database.reading() as connection:
        assert connection.execute(select(schema.dead_letters.c.id)).scalars().all() == [stored.id]


async def test_of_each_receiver_a_bounded_part_goes_the_oldest_first(database: Database) -> None:
    keys = await accept_sent(database, MAX_OUTSTANDING_DELIVERIES + 5, callback="https://slow.example/")
    for key in keys:
        await record(database, *life(key))
    other = await end_with(database, State.SUCCEEDED, callback=HOOK)

    first = await take(database, most=1000)
    assert Counter(message.uri for message in first) == {"https://slow.example/": MAX_OUTSTANDING_DELIVERIES, HOOK: 1}
    assert {message.invocation_id for message in first} == {*keys[:MAX_OUTSTANDING_DELIVERIES], other}
    assert not await take(database)

    await record(database, *(report(message, api.DELIVERY_STATE_DELIVERED) for message in first[:2]))
    assert [message.invocation_id for message in await take(database)] == keys[
        MAX_OUTSTANDING_DELIVERIES : MAX_OUTSTANDING_DELIVERIES + 2
    ]


async def test_a_delivery_that_is_let_go_comes_again_when_it_is_due(database: Database) -> None:
    key = await end_with(database, State.SUCCEEDED, callback=HOOK)
    (message,) = await take(database)
    due_us = now_us() + 30 * SECOND
    pending = report(message, api.DELIVERY_STATE_PENDING, reasons=["TIMEOUT", "RECEIVER_DOWN"], due_us=due_us)
    await record(database, report(message, api.DELIVERY_STATE_DELIVERING), pending, pending)

    (shown,) = (await read(database, key)).deliveries
    assert shown.next_attempt_time.ToMicroseconds() == due_us
    assert (shown.state, len(shown.attempts)) == (api.DELIVERY_STATE_PENDING, 2)
    assert not await take(database)
    (again,) = await take(database, at_us=due_us)
    assert (again.generation, again.prior_attempts, again.tried) == (2, 1, True)
    # What is said of the former dispatch comes too late, unless it has arrived after all.
    assert (await record(database, report(message, api.DELIVERY_STATE_DEAD))).refused == 1
    assert (await read(database, key)).deliveries[0].state == api.DELIVERY_STATE_PENDING


async def test_one_that_arrived_after_all_is_not_made_again(database: Database) -> None:
    key = await end_with(database, State.SUCCEEDED, callback=HOOK)
    (message,) = await take(database)
    with database.writing() as connection:
        # Its confirm was lost.
        outbox.DELIVERIES.take_back(connection, [(message.delivery_id, message.generation)], due_us=now_us())
    await record(database, report(message, api.DELIVERY_STATE_DELIVERED))

    assert (await read(database, key)).deliveries[0].state == api.DELIVERY_STATE_DELIVERED
    assert not await take(database, at_us=now_us() + SECOND)


async def test_what_was_never_tried_for_real_is_told_so(database: Database) -> None:
    await end_with(database, State.SUCCEEDED, callback=HOOK)
    (message,) = await take(database)
    await record(database, report(message, api.DELIVERY_STATE_PENDING, reasons=["RECEIVER_DOWN"]))
    (again,) = await take(database)
    assert (again.prior_attempts, again.tried) == (0, False)
    assert 0 < message.since_us == again.since_us


async def test_a_broker_that_keeps_nothing_has_deliveries_published_again(database: Database) -> None:
    await end_with(database, State.SUCCEEDED, callback=HOOK)
    (message,) = await take(database)
    with database.writing() as connection:
        dispatch.take_back_all(connection, due_us=now_us())
    (again,) = await take(database)
    assert (again.delivery_id, again.generation) == (message.delivery_id, 2)


async def test_looking_for_what_is_due_costs_what_receivers_there_are(database: Database) -> None:
    """However many deliveries wait: SQLite asks the index once for each receiver."""
    key = await end_with(database, State.SUCCEEDED)
    rows = [
        {
            "id": new_id(),
            "invocation_id": key,
            "kind": api.DELIVERY_KIND_CALLBACK,
            "target": Callback(url=f"https://r{number % 3}.example/").SerializeToString(),
            "receiver": f"https://r{number % 3}.example:443",
            "state": api.DELIVERY_STATE_PENDING,
            "generation": 0,
            "redelivery_count": 0,
            "custody": int(Custody.STORE),
            "due_us": number,
            "sent_us": 0,
            "create_us": 0,
            "end_us": 0,
            "history": b"",
        }
        for number in range(20_000)
    ]
    with database.writing() as connection:
        connection.execute(insert(schema.deliveries), rows)
    with database.reading() as connection:
        assert delivery_claims.due_by_receiver(connection) == {
            f"https://r{number}.example:443": number for number in range(3)
        }
        raw = connection.connection.driver_connection
        assert raw is not None
        steps = 0

        def count() -> int:
            nonlocal steps
            steps += 1
            return 0

        raw.set_progress_handler(count, 100)
        delivery_claims.due_by_receiver(connection)
        raw.set_progress_handler(None, 0)
    assert steps * 100 < 5000


async def test_a_destination_is_told_of_bodies_as_far_as_the_envelope_shows_them(
    database: Database, tmp_path: Path
) -> None:
    await end_with(database, State.SUCCEEDED, on_success=[HOOK], data=b"x" * (limits.MAX_ENVELOPE_BODY + 1))
    await end_with(database, State.SUCCEEDED, callback=HOOK)
    destination, callback = await take(database)

    assert (len(destination.request.data), destination.request.size) == (
        limits.MAX_ENVELOPE_BODY,
        limits.MAX_ENVELOPE_BODY + 1,
    )
    assert not destination.result.payload.data
    assert destination.result.status_code == 200
    assert destination.attempt_count == 1
    assert callback.callback.url == HOOK
    assert not callback.HasField("request")


async def test_of_bodies_that_are_stored_apart_the_beginning_is_shown(database: Database) -> None:
    draft = make_draft(spec_to(on_success=[HOOK]), sent=True)
    draft.spec.payload.CopyFrom(Payload(content_type="text/plain"))
    await accept_all(database, draft)
    await record(database, *life(draft.id))
    blob = Payload(content_type="text/plain")
    blob.blob.id, blob.blob.size = "b" * 36, 1_000_000
    with database.writing() as connection:
        connection.execute(update(schema.payloads).values(request=blob.SerializeToString()))
        claim = delivery_claims.claim(
            connection,
            now_us=now_us(),
            most=1,
            head=lambda blob_id: f"of {blob_id[:3]}".encode(),
            check=OPEN.check_passing_on,
        )
    (message,) = claim.messages
    assert (message.request.data, message.request.size) == (b"of bbb", 1_000_000)


async def test_p11_a_delivery_to_a_function_becomes_an_invocation_with_the_envelope(database: Database) -> None:
    key = await end_with(database, State.SUCCEEDED, on_success=["function:next"], data=b"asked")
    with database.writing() as connection:
        claim = delivery_claims.claim(
            connection, now_us=now_us(), most=10, head=lambda _: b"", check=OPEN.check_passing_on
        )

    assert (claim.messages, claim.chained.caused) == ([], ["next"])
    (delivery,) = (await read(database, key)).deliveries
    assert delivery.state == api.DELIVERY_STATE_DELIVERED
    caused = await read(database, delivery.caused, include_payload=True)
    assert (caused.function, caused.caused_by, caused.depth) == ("next", key, 1)
    envelope = json.loads(caused.spec.payload.data)
    assert envelope["requestContext"]["requestId"] == key
    assert envelope["requestPayload"] == "asked"
    with database.writing() as connection:
        (work,) = dispatch.claim_work(connection, "next", now_us=now_us(), most=10, most_bytes=10**6).work
    assert work.message.depth == 1
    assert not work.message.spec.on_success


async def test_p11_it_becomes_one_although_the_server_dies(database: Database) -> None:
    await end_with(database, State.SUCCEEDED, on_success=["function:next"])

    def die(connection: Connection) -> None:
        delivery_claims.claim(connection, now_us=now_us(), most=10, head=lambda _: b"", check=OPEN.check_passing_on)
        raise RuntimeError("died before the commit")

    with pytest.raises(RuntimeError):
        await database.write(die)
    for _ in range(2):
        with database.writing() as connection:
            delivery_claims.claim(connection, now_us=now_us(), most=10, head=lambda _: b"", check=OPEN.check_passing_on)
    with database.reading() as connection:
        query = select(func.count()).select_from(schema.invocations).where(schema.invocations.c.function == "next")
        assert connection.execute(query).scalar_one() == 1


async def test_p11_a_cycle_ends_with_a_record_that_says_so(database: Database) -> None:
    with database.writing() as connection:
        for name, other in (("resize", "next"), ("next", "resize")):
            to = [Destination(uri=f"function:{other}")]
            function = function_pb2.Function(name=name, image=f"{name}:1", on_success=to)
            put_function(connection, function, now_us=now_us())
    key = await end_with(database, State.SUCCEEDED)
    chain = [key]
    while True:
        with database.writing() as connection:
            delivery_claims.claim(connection, now_us=now_us(), most=10, head=lambda _: b"", check=OPEN.check_passing_on)
        (delivery,) = (await read(database, chain[-1])).deliveries
        if not delivery.caused:
            break
        chain.append(delivery.caused)
        with database.writing() as connection:
            dispatch.claim_work(
                connection, (await row_of(database, chain[-1])).function, now_us=now_us(), most=1, most_bytes=10**6
            )
        await record(database, *life(chain[-1]))

    assert len(chain) == 1 + limits.MAX_DEPTH
    assert (await read(database, chain[-1])).depth == limits.MAX_DEPTH
    assert delivery.state == api.DELIVERY_STATE_DEAD
    assert delivery.attempts[0].failure.reason == "DEPTH_EXCEEDED"
    with database.reading() as connection:
        assert connection.execute(select(schema.dead_letters.c.id)).scalars().all() == [delivery.id]


async def test_a_function_that_is_gone_makes_a_dead_letter(database: Database) -> None:
    key = await end_with(database, State.SUCCEEDED, on_success=["function:gone"])
    with database.writing() as connection:
        assert (
            delivery_claims.claim(
                connection, now_us=now_us(), most=10, head=lambda _: b"", check=OPEN.check_passing_on
            ).chained.dead
            == 1
        )
    (delivery,) = (await read(database, key)).deliveries
    assert (delivery.state, delivery.attempts[0].failure.reason) == (api.DELIVERY_STATE_DEAD, "FUNCTION_NOT_FOUND")


async def test_p6_deliveries_go_until_they_are_confirmed(
    bench: Bench, broker: ScriptedBroker, database: Database
) -> None:
    failures: list[BrokerError | None] = [PublishUnknownError("cut"), PublishRefusedError("full")]
    broker.fail_deliveries = lambda _: failures.pop(0) if failures else None
    (key,) = await accept_sent(database, 1, callback="http://127.0.0.1/")
    bench.deliveries.on_committed(await record(database, *life(key)))
    await until(lambda: len(broker.deliveries) == 1)
    (message,) = broker.deliveries
    assert (message.invocation_id, message.generation, message.result.status_code) == (key, 3, 200)
    assert message.callback == Callback(url="http://127.0.0.1/")
    assert message.kind == api.DELIVERY_KIND_CALLBACK


async def test_what_is_due_later_goes_then_without_being_asked_for(
    bench: Bench, broker: ScriptedBroker, database: Database
) -> None:
    (key,) = await accept_sent(database, 1, callback=HOOK)
    bench.deliveries.on_committed(await record(database, *life(key)))
    await until(lambda: len(broker.deliveries) == 1)
    due_us = now_us() + SECOND // 4
    pending = report(broker.deliveries[0], api.DELIVERY_STATE_PENDING, reasons=["TIMEOUT"], due_us=due_us)
    bench.deliveries.on_committed(await record(database, pending))
    await until(lambda: len(broker.deliveries) == 2)
    assert now_us() >= due_us


async def test_functions_are_woken_that_deliveries_invoke(bench: Bench, database: Database) -> None:
    draft = make_draft(spec_to(on_success=["function:next"]), sent=True)
    await accept_all(database, draft)
    bench.deliveries.on_committed(await record(database, *life(draft.id)))
    await until(lambda: bench.caused == ["next"])
