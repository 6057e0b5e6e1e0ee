"""Dead letters: what came to nothing, found, redriven, purged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, func, select

from homing.v1 import invocation_pb2 as api
from homing.v1.dead_letter_pb2 import DEAD_LETTER_KIND_DELIVERY, DEAD_LETTER_KIND_INVOCATION, DeadLetterFilter
from homing.v1.dead_letter_service_pb2 import (
    ListDeadLettersRequest,
)
from homing_core.clock import now_us
from homing_core.envelope import condition_of
from homing_core.lifecycle import Custody, State
from homing_server.auth.identity import EVERYBODY
from homing_server.errors import ApiError
from homing_server.store import dead_letters, schema, stops
from homing_server.store.engine import Database, StoreUnavailableError
from homing_server.store.functions import mark_deleted
from homing_server.store.read import get_invocations
from homing_server.store.retention import remove
from support.delivery_bench import ENDS, HOOK, SECOND, Bench, end_with, report, spec_to, take, until
from support.scripted_broker import ScriptedBroker
from support.store import (
    accept_all,
    count,
    make_draft,
    opened,
    read,
    record,
)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with opened(tmp_path, functions=["resize", "next"]) as database:
        yield database


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
