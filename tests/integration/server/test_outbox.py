"""What statements do to many rows is what the life cycle does to each: both go side by side, over every state."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy import Connection, func, insert, select, update

from homing.v1 import invocation_pb2 as api
from homing.v1.policy_pb2 import Callback, Destination
from homing_core.ids import new_id
from homing_core.lifecycle import (
    Custody,
    Delivery,
    DeliveryState,
    Held,
    Record,
    Refusal,
    State,
    Step,
    Token,
    custody,
    delivery,
    invocation,
)
from homing_core.wire.v1 import AttemptRecord, DeliveryAttemptRecord
from homing_server.auth.authority import Authority
from homing_server.store import dead_letters, delivery_claims, dispatch, functions, schema, stops, sync_calls
from homing_server.store.delivery_rows import LIFE, columns_of, read_delivery
from homing_server.store.engine import Database
from homing_server.store.invocation_rows import record_of, values_of
from homing_server.store.outbox import DELIVERIES, INVOCATIONS, Outbox
from support.reporter import NOW
from support.store import accept_all, make_draft, opened

OPEN = Authority(authentication=False, has_root=False)
GENERATION = 3
LATER = NOW + 1000
HELD = [State.ENQUEUED, State.DEQUEUED, State.RUNNING, State.RETRYING, State.STOPPING]
STATES = {
    Custody.NONE: [State.SUCCEEDED, State.FAILED, State.TIMED_OUT, State.STOPPED, State.EXPIRED, State.INVALID],
    Custody.STORE: [State.SCHEDULED, State.ENQUEUED, State.RETRYING],
    Custody.SENT: [State.ENQUEUED, State.STOPPING],
    Custody.BROKER: HELD,
    Custody.LEASE: HELD,
    Custody.CALLER: [State.ENQUEUED, State.RUNNING, State.STOPPING],
}
"""By who holds an invocation, the states that it may be in."""
DELIVERY_STATES = {
    Custody.NONE: [DeliveryState.DELIVERED, DeliveryState.DEAD],
    Custody.STORE: [DeliveryState.PENDING],
    Custody.SENT: [DeliveryState.PENDING],
    Custody.BROKER: [DeliveryState.PENDING, DeliveryState.DELIVERING],
}

H = TypeVar("H", bound=Held)
Pure = Callable[[H], Step[H] | Refusal]


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with opened(tmp_path, functions=["resize"]) as database:
        yield database


# --- What there is


def records(*, every: bool = False) -> list[Record]:
    """Return invocations of every state and custody: of those that go together, or of all."""
    states = {holder: list(State) for holder in Custody} if every else STATES
    return [
        Record(
            state=state,
            token=Token(generation=0 if state is State.SCHEDULED else GENERATION, redelivery_count=2),
            custody=holder,
            due_us=NOW if holder is Custody.STORE else 0,
            sent_us=NOW if holder is Custody.SENT else 0,
            start_us=NOW if attempts else 0,
            end_us=NOW if holder is Custody.NONE else 0,
            attempts=attempts,
        )
        for holder, states_ in states.items()
        for state in states_
        for attempts in ((), (AttemptRecord(ordinal=1, start_us=NOW),))
        if not (attempts and state in {State.SCHEDULED, State.EXPIRED, State.INVALID} and not every)
    ]


def deliveries(*, every: bool = False) -> list[Delivery]:
    """Return deliveries of every state and custody: of those that go together, or of all."""
    states = {holder: list(DeliveryState) for holder in DELIVERY_STATES} if every else DELIVERY_STATES
    return [
        Delivery(
            state=state,
            token=Token(generation=GENERATION, redelivery_count=2),
            custody=holder,
            due_us=NOW if holder is Custody.STORE else 0,
            sent_us=NOW if holder is Custody.SENT else 0,
            since_us=NOW,
            end_us=NOW if holder is Custody.NONE else 0,
            attempts=(DeliveryAttemptRecord(start_us=NOW),),
        )
        for holder, states_ in states.items()
        for state in states_
    ]


async def store_records(database: Database, wanted: list[Record]) -> dict[str, Record]:
    """Store invocations as they are wanted, by id."""
    drafts = [make_draft(create_us=NOW) for _ in wanted]
    await accept_all(database, *drafts)
    stored = {draft.id: record for draft, record in zip(drafts, wanted, strict=True)}
    with database.writing() as connection:
        for key, record in stored.items():
            values = values_of(record)
            connection.execute(update(schema.invocations).where(schema.invocations.c.id == key).values(values))
    return stored


async def store_deliveries(
    database: Database, wanted: list[Delivery], *, uri: str = "https://a.example/"
) -> dict[str, Delivery]:
    """Store deliveries of one ended invocation as they are wanted, by id."""
    ended = next(record for record in records() if record.state is State.SUCCEEDED)
    (owner,) = await store_records(database, [ended])
    callback = uri.startswith("https:")
    target: Callback | Destination = Callback(url=uri) if callback else Destination(uri=uri)
    stored = {new_id(): one for one in wanted}
    rows = [
        columns_of(one)
        | {
            "id": key,
            "invocation_id": owner,
            "kind": api.DELIVERY_KIND_CALLBACK if callback else api.DELIVERY_KIND_ON_SUCCESS,
            "target": target.SerializeToString(),
            "receiver": f"r{number}" if callback else uri,
            "create_us": NOW,
        }
        for number, (key, one) in enumerate(stored.items())
    ]
    with database.writing() as connection:
        connection.execute(insert(schema.deliveries), rows)
    return stored


def stored_records(database: Database) -> dict[str, Record]:
    with database.reading() as connection:
        return {row.id: record_of(row) for row in connection.execute(select(schema.invocations))}


def stored_deliveries(database: Database) -> dict[str, Delivery]:
    with database.reading() as connection:
        return {key: read_delivery(life) for key, *life in connection.execute(select(schema.deliveries.c.id, *LIFE))}


def run(database: Database, work: Callable[[Connection], Any]) -> Any:
    with database.writing() as connection:
        return work(connection)


def expected(before: dict[str, H], pure: Pure[H]) -> dict[str, H]:
    """Return what the life cycle makes of each; what it refuses stays as it is."""
    steps = {key: pure(one) for key, one in before.items()}
    return {key: one if isinstance(steps[key], Refusal) else steps[key].after for key, one in before.items()}  # type: ignore[union-attr]


# --- The outbox of both


GENERATIONS = [GENERATION - 1, GENERATION, GENERATION + 1]


@pytest.mark.parametrize("generation", GENERATIONS)
async def test_confirmed(database: Database, generation: int) -> None:
    lives = await store_records(database, records(every=True))
    run(database, lambda connection: INVOCATIONS.confirm(connection, [(key, generation) for key in lives]))
    assert stored_records(database) == expected(lives, lambda one: custody.confirmed(one, generation=generation))


@pytest.mark.parametrize("generation", GENERATIONS)
async def test_deliveries_confirmed(database: Database, generation: int) -> None:
    lives = await store_deliveries(database, deliveries(every=True))
    run(database, lambda connection: DELIVERIES.confirm(connection, [(key, generation) for key in lives]))
    assert stored_deliveries(database) == expected(lives, lambda one: custody.confirmed(one, generation=generation))


@pytest.mark.parametrize("generation", GENERATIONS)
async def test_taken_back(database: Database, generation: int) -> None:
    lives = await store_records(database, records(every=True))
    keys = [(key, generation) for key in lives]
    run(database, lambda connection: dispatch.take_back_work(connection, keys, due_us=LATER))
    pure = lambda one: invocation.taken_back(one, generation=generation, due_us=LATER)  # noqa: E731 as the others
    assert stored_records(database) == expected(lives, pure)


@pytest.mark.parametrize("generation", GENERATIONS)
async def test_deliveries_taken_back(database: Database, generation: int) -> None:
    lives = await store_deliveries(database, deliveries(every=True))
    keys = [(key, generation) for key in lives]
    run(database, lambda connection: DELIVERIES.take_back(connection, keys, due_us=LATER))
    pure = lambda one: delivery.taken_back(one, generation=generation, due_us=LATER)  # noqa: E731 as the others
    assert stored_deliveries(database) == expected(lives, pure)


async def test_lost_with_the_broker(database: Database) -> None:
    lives = await store_records(database, records(every=True))
    count = run(database, lambda connection: dispatch.take_back_all(connection, due_us=LATER))
    after = expected(lives, lambda one: invocation.broker_lost(one, due_us=LATER))
    assert stored_records(database) == after
    assert count == sum(one != lives[key] for key, one in after.items())


async def test_deliveries_lost_with_the_broker(database: Database) -> None:
    lives = await store_deliveries(database, deliveries(every=True))
    run(database, lambda connection: dispatch.take_back_all(connection, due_us=LATER))
    assert stored_deliveries(database) == expected(lives, lambda one: delivery.broker_lost(one, due_us=LATER))


async def test_forgotten_is_what_can_be_taken_back_and_was_sent_long_ago(database: Database) -> None:
    lives: dict[str, Held] = {
        **await store_records(database, records(every=True)),
        **await store_deliveries(database, deliveries(every=True)),
    }
    for before_us, outbox in itertools.product((NOW, NOW + 1), (INVOCATIONS, DELIVERIES)):
        found = run(database, lambda connection: list_forgotten(connection, outbox, before_us))  # noqa: B023 at once
        kind = Record if outbox is INVOCATIONS else Delivery
        assert set(found) == {
            (key, one.token.generation)
            for key, one in lives.items()
            if isinstance(one, kind) and one.custody is Custody.SENT and one.sent_us < before_us
        }


def list_forgotten(connection: Connection, outbox: Outbox, sent_before_us: int) -> list[tuple[str, int]]:
    return outbox.forgotten(connection, sent_before_us=sent_before_us)


# --- Claims, leases, stops, deletions, redrives


async def test_claimed(database: Database) -> None:
    lives = await store_records(database, records())
    claim = run(
        database,
        lambda connection: dispatch.claim_work(connection, "resize", now_us=LATER, most=1000, most_bytes=2**30),
    )
    after = expected(lives, lambda one: invocation.dispatched(one, time_us=LATER))
    assert stored_records(database) == after
    taken = {key: one for key, one in after.items() if one != lives[key]}
    assert {work.key for work in claim.work} == {(key, one.token.generation) for key, one in taken.items()}


async def test_deliveries_claimed(database: Database) -> None:
    lives = await store_deliveries(database, deliveries())
    claim = run(
        database,
        lambda connection: delivery_claims.claim(
            connection, now_us=LATER, most=1000, head=lambda _: b"", check=OPEN.check_passing_on
        ),
    )
    after = expected(lives, lambda one: delivery.dispatched(one, time_us=LATER))
    assert stored_deliveries(database) == after
    taken = {key: one for key, one in after.items() if one != lives[key]}
    assert {(each.delivery_id, each.generation) for each in claim.messages} == {
        (key, one.token.generation) for key, one in taken.items()
    }


async def test_deliveries_to_functions_claimed(database: Database) -> None:
    lives = await store_deliveries(database, deliveries(), uri="function:resize")
    run(
        database,
        lambda connection: delivery_claims.claim(
            connection, now_us=LATER, most=1000, head=lambda _: b"", check=OPEN.check_passing_on
        ),
    )
    after = stored_deliveries(database)
    pure = expected(lives, lambda one: delivery.invoked(one, invocation_id="", time_us=LATER))
    assert {key: replace(one, caused="") for key, one in after.items()} == pure
    caused = [one.caused for key, one in after.items() if one != lives[key]]
    with database.reading() as connection:
        query = select(schema.invocations.c.id).where(schema.invocations.c.caused_by.is_not(None))
        assert sorted(caused) == sorted(connection.execute(query).scalars())


async def test_leases_expired(database: Database) -> None:
    lives = await store_records(database, records())
    assert set(run(database, dispatch.leased)) == {key for key, one in lives.items() if one.custody is Custody.LEASE}
    run(database, lambda connection: dispatch.expire_leases(connection, list(lives), now_us=LATER))
    assert stored_records(database) == expected(lives, lambda one: invocation.lease_expired(one, time_us=LATER))


async def test_calls_lost(database: Database) -> None:
    lives = await store_records(database, records())
    with database.reading() as connection:
        found = {call.id for call in sync_calls.under_way(connection)}
    assert found == {key for key, one in lives.items() if one.custody is Custody.CALLER}
    run(database, lambda connection: sync_calls.end_lost(connection, list(lives), now_us=LATER))
    after = expected(lives, lambda one: invocation.call_lost(one, time_us=LATER))
    assert stored_records(database) == after
    assert {key for key, one in after.items() if one != lives[key]} == found


async def test_stops_requested(database: Database) -> None:
    lives = await store_records(database, records())
    for key in lives:
        run(
            database,
            lambda connection: stops.request_stop(connection, key, caller="me", reason="", now_us=LATER),  # noqa: B023 at once
        )
    pure = expected(lives, lambda one: invocation.stop_requested(one, caller="me", reason="", time_us=LATER))
    assert stored_records(database) == pure
    with database.reading() as connection:
        tombstones = {row.invocation_id: row.generation for row in connection.execute(select(schema.tombstones))}
    asked = [key for key, one in pure.items() if one.state is State.STOPPING and one != lives[key]]
    assert tombstones == {key: lives[key].token.generation for key in asked}


async def test_what_waits_for_a_deleted_function_ends(database: Database) -> None:
    lives = await store_records(database, records())
    run(database, lambda connection: functions.invalidate_stored(connection, "resize", now_us=LATER))
    assert stored_records(database) == lives, "it is not deleted"
    run(database, lambda connection: functions.mark_deleted(connection, "resize"))
    run(database, lambda connection: functions.invalidate_stored(connection, "resize", now_us=LATER))
    waiting = {key: one for key, one in lives.items() if one.custody is Custody.STORE}
    pure = expected(waiting, lambda one: invocation.function_deleted(one, function="resize", time_us=LATER))
    assert stored_records(database) == lives | pure


async def test_redriven(database: Database) -> None:
    lives = await store_deliveries(database, deliveries(every=True))
    with database.writing() as connection:
        dead = [
            dead_letters.DeadDelivery(id=key, invocation_id=owner, function="resize")
            for key, owner in connection.execute(select(schema.deliveries.c.id, schema.deliveries.c.invocation_id))
        ]
        dead_letters.add_deliveries(connection, dead, now_us=NOW)
        count = dead_letters.redrive(connection, dict.fromkeys(lives, LATER))
        assert connection.execute(select(func.count()).select_from(schema.dead_letters)).scalar_one() == 0
    pure = expected(lives, lambda one: delivery.redriven(one, due_us=LATER))
    assert stored_deliveries(database) == pure
    assert count == sum(one != lives[key] for key, one in pure.items())
