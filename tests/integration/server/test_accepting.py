"""Accepting into the store: whole, once for each request id, or not at all."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from homing.v1 import invocation_pb2 as api
from homing_server.store import schema
from homing_server.store.accept import Outcome, accept
from homing_server.store.engine import Database
from homing_server.store.functions import mark_deleted
from support.store import (
    accept_all,
    again,
    count,
    counters,
    life,
    make_draft,
    make_spec,
    opened,
    read,
    record,
)
from support.store_steps import die_after


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


@pytest.mark.parametrize("number", [1, 15, 16, 17, 40])
async def test_each_of_a_group_is_stored_as_itself(database: Database, number: int) -> None:
    labelled = [make_spec(data=b"%d" % each, labels={"a": str(each), "b": "x"}) for each in range(number)]
    drafts = [make_draft(spec, request_id=f"r{each}", caller=f"c{each}") for each, spec in enumerate(labelled)]
    await accept_all(database, *drafts)
    stored = [await read(database, draft.id, include_payload=True) for draft in drafts]
    assert [each.spec for each in stored] == labelled
    assert [each.caller for each in stored] == [f"c{each}" for each in range(number)]
    assert [each.outcome for each in await accept_all(database, *map(again, drafts))] == [Outcome.DUPLICATE] * number


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


async def test_accept_that_fails_leaves_nothing(database: Database) -> None:
    drafts = [make_draft(make_spec(labels={"a": "b"}), request_id="r")]
    with pytest.raises(RuntimeError, match="died"):
        await die_after(database, lambda connection: accept(connection, drafts))
    assert await count(database) == 0
    assert (await counters(database))[schema.ACCEPTED] == 0
    assert [verdict.outcome for verdict in await accept_all(database, *drafts)] == [Outcome.ACCEPTED]
