"""Deliveries in the store and on their way: made, claimed, reported, chained, dead and redriven."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, func, insert, select, update

from homing.v1 import function_pb2
from homing.v1 import invocation_pb2 as api
from homing.v1.dead_letter_pb2 import DEAD_LETTER_KIND_DELIVERY, DEAD_LETTER_KIND_INVOCATION, DeadLetterFilter
from homing.v1.dead_letter_service_pb2 import (
    ListDeadLettersRequest,
    PurgeDeadLettersRequest,
    PurgeDeadLettersResponse,
    RedriveDeadLettersRequest,
    RedriveDeadLettersResponse,
)
from homing.v1.payload_pb2 import Payload
from homing.v1.policy_pb2 import Callback, Destination
from homing_core import limits
from homing_core.broker import BrokerError, PublishRefusedError, PublishUnknownError
from homing_core.clock import now_us
from homing_core.envelope import condition_of
from homing_core.ids import new_id
from homing_core.lifecycle import Custody, State
from homing_core.wire.v1 import DeliveryAttemptRecord, DeliveryMessage, DeliveryReport, Event
from homing_core.wire.v1 import Token as WireToken
from homing_server.auth.authority import Authority
from homing_server.auth.identity import EVERYBODY, Identity
from homing_server.auth.scopes import ALL_SCOPES
from homing_server.deliveries.dead_letters import DeadLetters
from homing_server.deliveries.dispatcher import DeliveryDispatcher
from homing_server.errors import ApiError
from homing_server.functions.catalog import Catalog
from homing_server.invocations.admission import Admission
from homing_server.invocations.bulk_calls import BulkCalls
from homing_server.invocations.dispatcher import Dispatcher
from homing_server.metrics import Metrics
from homing_server.payloads.blobs import Blobs
from homing_server.payloads.signed_urls import SignedUrls
from homing_server.store import dead_letters, delivery_claims, dispatch, outbox, schema, stops
from homing_server.store.delivery_claims import MAX_OUTSTANDING_DELIVERIES
from homing_server.store.engine import Database, StoreUnavailableError
from homing_server.store.functions import invalidate_stored, mark_deleted, put_function
from homing_server.store.read import get_invocations
from homing_server.store.retention import remove
from homing_server.tasks import Tasks
from support.bulk import outcome
from support.scripted_broker import ScriptedBroker
from support.store import (
    LOOPBACK_GUARD,
    accept_all,
    accept_sent,
    claimed,
    count,
    deliveries_of,
    life,
    make_draft,
    make_spec,
    opened,
    read,
    record,
    row_of,
)

OPEN = Authority(authentication=False, has_root=False)
SECOND = 1_000_000
HOOK = "https://example.org/hook"
ME = Identity(name="me", scopes=ALL_SCOPES)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with opened(tmp_path, functions=["resize", "next"]) as database:
        yield database


async def end_with(
    database: Database, state: State, *, on_success: Sequence[str] = (), on_failure: Sequence[str] = (), **spec: Any
) -> str:
    """Have an invocation end that says where its outcome goes; return its id."""
    draft = make_draft(spec_to(on_success=on_success, on_failure=on_failure, **spec), sent=True)
    await accept_all(database, draft)
    await record(database, *life(draft.id, state))
    return draft.id


def spec_to(*, on_success: Sequence[str] = (), on_failure: Sequence[str] = (), **fields: Any) -> api.InvocationSpec:
    spec = make_spec(**fields)
    spec.on_success.extend(Destination(uri=uri) for uri in on_success)
    spec.on_failure.extend(Destination(uri=uri) for uri in on_failure)
    return spec


def report(
    message: DeliveryMessage,
    state: api.DeliveryState.ValueType,
    *,
    reasons: Sequence[str] = (),
    due_us: int = 0,
    count: int = 0,
) -> Event:
    start_us = now_us()
    return Event(
        invocation_id=message.invocation_id,
        token=WireToken(generation=message.generation, redelivery_count=count),
        time_us=now_us(),
        delivery=DeliveryReport(
            delivery_id=message.delivery_id,
            state=state,
            due_us=due_us,
            attempts=[
                DeliveryAttemptRecord(
                    start_us=start_us + place, failure=api.Failure(reason=reason, message="why", retryable=True)
                )
                for place, reason in enumerate(reasons)
            ],
        ),
    )


async def take(database: Database, *, at_us: int = 0, most: int = 100) -> list[DeliveryMessage]:
    with database.writing() as connection:
        return claimed(connection, now_us=at_us or now_us(), most=most)


# --- What is made


ENDS = [State.FAILED, State.TIMED_OUT]
"""Those that a worker may report; of the others tell tests of their own."""


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


# --- What is due


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


# --- What workers are told


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


# --- Deliveries to functions


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


# --- The dispatcher


class Bench:
    """A dispatcher of deliveries, dead letters, and what they need."""

    def __init__(self, database: Database, broker: ScriptedBroker, tasks: Tasks) -> None:
        self.database = database
        catalog = Catalog(database)
        self.caused: list[str] = []
        self.metrics = Metrics()
        blobs = Blobs(database, Path("/nowhere"))
        dispatcher = Dispatcher(database, broker, catalog, urls=SignedUrls(), announce=lambda _: None, resend_after=600)
        self.admission = Admission(database, catalog, dispatcher, self.metrics, blobs=blobs, guard=LOOPBACK_GUARD)
        self.deliveries = DeliveryDispatcher(
            database,
            broker,
            blobs=blobs,
            urls=SignedUrls(),
            authority=OPEN,
            metrics=self.metrics,
            caused=lambda function, _: self.caused.append(function),
            resend_after=600,
        )
        self.dead_letters = DeadLetters(
            database, catalog, self.admission, BulkCalls(database, tasks), redelivered=self.deliveries.wake
        )

    def run(self, tasks: Tasks) -> None:
        tasks.repeat(self.deliveries.feed, pause=0.05)
        tasks.repeat(self.admission.commit_group, pause=0.05)

    async def redrive(self, selection: DeadLetterFilter, **fields: Any) -> RedriveDeadLettersResponse:
        request = RedriveDeadLettersRequest(filter=selection, **fields)
        return await outcome(self.dead_letters.redrive(request, caller=ME, traceparent=""))

    async def purge(self, selection: DeadLetterFilter, **fields: Any) -> PurgeDeadLettersResponse:
        request = PurgeDeadLettersRequest(filter=selection, **fields)
        return await outcome(self.dead_letters.purge(request, caller=EVERYBODY))


@pytest.fixture
def broker() -> ScriptedBroker:
    return ScriptedBroker()


@pytest.fixture
async def bench(database: Database, broker: ScriptedBroker) -> AsyncIterator[Bench]:
    async with Tasks() as tasks:
        bench = Bench(database, broker, tasks)
        bench.run(tasks)
        yield bench


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 nobody tells of it
            await asyncio.sleep(0.01)


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


# --- Dead letters


async def dead_delivery(database: Database) -> tuple[str, str]:
    """Have a delivery be given up; return the ids of the invocation and of the delivery."""
    key = await end_with(database, State.SUCCEEDED, callback=HOOK)
    (message,) = await take(database)
    await record(database, report(message, api.DELIVERY_STATE_DEAD, reasons=["TIMEOUT", "HTTP_STATUS"]))
    return key, message.delivery_id


async def test_what_came_to_nothing_is_a_dead_letter(database: Database, bench: Bench) -> None:
    ends = {state: await end_with(database, state) for state in [State.SUCCEEDED, *ENDS]}
    key, delivery_id = await dead_delivery(database)

    listed = (await bench.dead_letters.list(ListDeadLettersRequest(), caller=EVERYBODY)).dead_letters
    assert {each.id for each in listed} == {delivery_id, *(ends[state] for state in ENDS)}
    assert (listed[0].id, listed[0].invocation_id, listed[0].kind) == (delivery_id, key, DEAD_LETTER_KIND_DELIVERY)
    assert listed[0].failure.reason == "HTTP_STATUS"
    assert len(listed[0].delivery.attempts) == 2
    assert [each.time.ToMicroseconds() for each in listed] == sorted(
        (each.time.ToMicroseconds() for each in listed), reverse=True
    )


async def test_pages_of_dead_letters_neither_repeat_nor_miss_one(database: Database, bench: Bench) -> None:
    keys = [await end_with(database, State.FAILED) for _ in range(7)]
    request = ListDeadLettersRequest(page_size=3)
    seen: list[str] = []
    while True:
        page = await bench.dead_letters.list(request, caller=EVERYBODY)
        seen += [each.id for each in page.dead_letters]
        await end_with(database, State.FAILED)
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token
    assert sorted(seen) == sorted(keys)
    with pytest.raises(ApiError, match="page_token: belongs to a request with another filter"):
        await bench.dead_letters.list(
            ListDeadLettersRequest(filter=DeadLetterFilter(functions=["next"]), page_token=request.page_token),
            caller=EVERYBODY,
        )


async def test_dead_letters_are_found_by_what_they_are(database: Database, bench: Bench) -> None:
    one, two = await end_with(database, State.FAILED), await end_with(database, State.FAILED, function="next")
    _, delivery_id = await dead_delivery(database)

    async def found(**fields: Any) -> set[str]:
        request = ListDeadLettersRequest(filter=DeadLetterFilter(**fields))
        return {each.id for each in (await bench.dead_letters.list(request, caller=EVERYBODY)).dead_letters}

    assert await found(ids=[one]) == {one}
    assert await found(functions=["next"]) == {two}
    assert await found(kind=DEAD_LETTER_KIND_INVOCATION) == {one, two}
    assert await found(kind=DEAD_LETTER_KIND_DELIVERY, functions=["resize", "next"]) == {delivery_id}
    later = DeadLetterFilter()
    later.time.start_time.FromMicroseconds(now_us() + SECOND)
    assert not (await bench.dead_letters.list(ListDeadLettersRequest(filter=later), caller=EVERYBODY)).dead_letters


async def test_redriven_invocations_run_again_and_deliveries_are_made_again(
    database: Database, bench: Bench, broker: ScriptedBroker
) -> None:
    failed = await end_with(database, State.FAILED, data=b"asked")
    key, delivery_id = await dead_delivery(database)

    counted = await bench.redrive(DeadLetterFilter(functions=["resize"]), dry_run=True)
    assert (counted.matched, counted.rerun, counted.redelivered) == (2, 0, 0)
    done = await bench.redrive(DeadLetterFilter(functions=["resize"]))
    assert (done.matched, done.rerun, done.redelivered, done.refused) == (2, 1, 1, 0)
    assert not (await bench.dead_letters.list(ListDeadLettersRequest(), caller=EVERYBODY)).dead_letters

    with database.reading() as connection:
        query = select(schema.invocations.c.id).where(schema.invocations.c.rerun_of == failed)
        (again,) = get_invocations(connection, connection.execute(query).scalars().all(), include_payload=True)
    assert (again.spec.payload.data, again.caller) == (b"asked", "me")
    await until(lambda: bool(broker.deliveries))
    (message,) = broker.deliveries
    assert (message.delivery_id, message.generation, message.prior_attempts) == (delivery_id, 2, 0)
    await record(database, report(message, api.DELIVERY_STATE_DELIVERED))
    (delivery,) = (await read(database, key)).deliveries
    assert (delivery.state, len(delivery.attempts)) == (api.DELIVERY_STATE_DELIVERED, 2)


async def test_what_is_redriven_at_the_same_time_runs_again_once(
    database: Database, bench: Bench, broker: ScriptedBroker
) -> None:
    keys = {await end_with(database, State.FAILED) for _ in range(150)}
    _, delivery_id = await dead_delivery(database)
    done = await asyncio.gather(
        bench.redrive(DeadLetterFilter(functions=["resize"])),
        bench.redrive(DeadLetterFilter(functions=["resize"]), request_id="r"),
        bench.purge(DeadLetterFilter(ids=sorted(keys)[:20])),
    )
    reruns = [each.rerun for each in done[:2]]
    assert sum(reruns) + done[2].purged == 150
    assert sum(each.redelivered for each in done[:2]) == 1
    with database.reading() as connection:
        again = connection.execute(
            select(schema.invocations.c.rerun_of).where(schema.invocations.c.rerun_of.is_not(None))
        ).scalars()
        assert len(made := list(again)) == len(set(made)) == sum(reruns)
    await until(lambda: bool(broker.deliveries))
    assert [message.delivery_id for message in broker.deliveries] == [delivery_id]


async def test_a_dead_letter_goes_with_the_acceptance_of_its_rerun_or_stays(
    database: Database, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await end_with(database, State.FAILED)
    remove_letters = dead_letters.remove

    def fails(connection: Connection, ids: Collection[str]) -> int:
        remove_letters(connection, ids)
        raise StoreUnavailableError("its disk is full")

    monkeypatch.setattr(dead_letters, "remove", fails)
    with pytest.raises(StoreUnavailableError):
        await bench.redrive(DeadLetterFilter(ids=[key]))
    assert await count(database) == 1
    monkeypatch.undo()
    assert (await bench.redrive(DeadLetterFilter(ids=[key]))).rerun == 1
    assert await count(database) == 2


async def test_a_cap_on_the_rate_spreads_what_is_redriven(database: Database, bench: Bench) -> None:
    for _ in range(2):
        await end_with(database, State.FAILED)
    await dead_delivery(database)
    begin_us = now_us()
    await bench.redrive(DeadLetterFilter(functions=["resize"]), max_per_second=0.1)
    with database.reading() as connection:
        dues = sorted(
            [
                *connection.execute(
                    select(schema.invocations.c.due_us).where(schema.invocations.c.rerun_of.is_not(None))
                ).scalars(),
                *connection.execute(
                    select(schema.deliveries.c.due_us).where(schema.deliveries.c.custody == int(Custody.STORE))
                ).scalars(),
            ]
        )
    assert len(dues) >= 2
    assert max(dues) >= begin_us + 20 * SECOND


async def test_what_cannot_run_again_stays_a_dead_letter(database: Database, bench: Bench) -> None:
    key = await end_with(database, State.FAILED, function="next")
    with database.writing() as connection:
        mark_deleted(connection, "next")
    done = await bench.redrive(DeadLetterFilter(ids=[key]))
    assert (done.matched, done.rerun, done.refused) == (1, 0, 1)
    assert len((await bench.dead_letters.list(ListDeadLettersRequest(), caller=EVERYBODY)).dead_letters) == 1


async def test_purged_dead_letters_are_forgotten_and_their_records_stay(database: Database, bench: Bench) -> None:
    key = await end_with(database, State.FAILED)
    other = await end_with(database, State.FAILED, function="next")
    selection = DeadLetterFilter(functions=["resize"])
    assert (await bench.purge(selection, dry_run=True)).matched == 1
    purged = await bench.purge(selection)
    assert (purged.matched, purged.purged) == (1, 1)
    listed = (await bench.dead_letters.list(ListDeadLettersRequest(), caller=EVERYBODY)).dead_letters
    assert [each.id for each in listed] == [other]
    assert (await read(database, key)).state == api.INVOCATION_STATE_FAILED


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "filter: must have at least one field set"),
        ({"functions": ["A B"]}, r"filter.functions\[0\]: 'A B' is not the name of a function"),
        ({"kind": 7}, "filter.kind: 7 is not a kind"),
    ],
)
async def test_bad_filters_are_refused(bench: Bench, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ApiError, match=message):
        await bench.redrive(DeadLetterFilter(**fields))
    with pytest.raises(ApiError, match=message):
        await bench.purge(DeadLetterFilter(**fields))


async def test_a_record_that_is_removed_takes_its_dead_letters_along(database: Database) -> None:
    key, _ = await dead_delivery(database)
    with database.writing() as connection:
        remove(connection, [key])
        assert connection.execute(select(func.count()).select_from(schema.dead_letters)).scalar_one() == 0


async def test_p6_what_is_stopped_is_delivered_as_such_and_is_no_dead_letter(database: Database, bench: Bench) -> None:
    draft = make_draft(spec_to(on_success=["https://a.example/"], on_failure=["https://b.example/"]))
    await accept_all(database, draft)
    with database.writing() as connection:
        stops.request_stop(connection, draft.id, caller="", reason="enough", now_us=now_us())
    assert (await read(database, draft.id)).state == api.INVOCATION_STATE_STOPPED
    (message,) = await take(database)
    assert (message.uri, condition_of(message)) == ("https://b.example/", "Stopped")
    assert not (await bench.dead_letters.list(ListDeadLettersRequest(), caller=EVERYBODY)).dead_letters
