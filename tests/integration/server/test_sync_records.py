"""Records of synchronous calls in the store: made while they are under way, and ended once in every order."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from homing.v1 import invocation_pb2 as api
from homing_core.clock import now_us
from homing_core.lifecycle import Custody, State
from homing_core.wire.v1 import AttemptRecord, Ended, Event, SyncRequest
from homing_server.store import dispatch, schema, stops, sync_calls
from homing_server.store.effects import CommitEffects
from homing_server.store.engine import Database
from homing_server.store.invocation_rows import CALL_TOKEN, call_event
from homing_server.store.list_pages import list_invocations
from homing_server.store.read import changes_after
from homing_server.store.record import record_events
from homing_server.store.state_counts import count_states
from support.reporter import Reporter
from support.store import HOUR, counters, deliveries_of, make_spec, opened, read, row_of

KEY = "c1"
NOW = now_us()


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with opened(tmp_path) as database:
        yield database


def request(key: str = KEY, *, callback: str = "") -> SyncRequest:
    spec = make_spec(data=b"asked", labels={"job": "7"}, callback=callback)
    return SyncRequest(invocation_id=key, spec=spec, create_us=NOW, deadline_us=NOW + HOUR, caller="me")


def started(key: str = KEY) -> Event:
    attempt = AttemptRecord(token=CALL_TOKEN, ordinal=1, worker="w1", start_us=NOW)
    return call_event(key, time_us=NOW, worker="w1", running=attempt)


def end(state: State = State.SUCCEEDED) -> Ended:
    worker = Reporter(1, invocation_id=KEY, time_us=NOW)
    worker.running()
    return worker.ended(state).ended


def reported_end(state: State = State.SUCCEEDED) -> Event:
    """Return what the worker reports at the end."""
    event = Event(invocation_id=KEY, token=CALL_TOKEN, time_us=NOW, worker="w1")
    event.sync_ended.request.CopyFrom(request())
    event.sync_ended.ended.CopyFrom(end(state))
    return event


def write(database: Database, work: Callable[[Connection], Any]) -> Any:
    with database.writing() as connection:
        return work(connection)


def keep(database: Database, *events: Event, call: SyncRequest | None = None) -> CommitEffects:
    """Record a call, or what is told here of it."""
    calls = {KEY: call} if call is not None else {}
    effects = write(database, lambda connection: sync_calls.record_calls(connection, calls, events))
    assert isinstance(effects, CommitEffects)
    return effects


async def test_a_call_is_seen_while_it_waits_and_runs(database: Database) -> None:
    effects = keep(database, call=request())
    assert (effects.ended, effects.result_seq, effects.change_seq) == ({}, 0, 1)
    waiting = await read(database, KEY, include_payload=True)
    assert (waiting.state, waiting.sync, waiting.caller) == (api.INVOCATION_STATE_ENQUEUED, True, "me")
    assert waiting.spec.payload.data == b"asked"
    assert not waiting.attempts

    assert keep(database, started(), call=request()).change_seq == 2
    running = await read(database, KEY)
    assert (running.state, running.start_time.ToMicroseconds()) == (api.INVOCATION_STATE_RUNNING, NOW)
    assert [attempt.worker for attempt in running.attempts] == ["w1"]
    with database.reading() as connection:
        for selection in (
            api.InvocationFilter(states=[api.INVOCATION_STATE_RUNNING]),
            api.InvocationFilter(labels={"job": "7"}),
        ):
            options = {"after": None, "size": 9, "max_bytes": 9999, "include_payload": False, "include_result": False}
            found = list_invocations(connection, selection, oldest_first=True, **options)  # type: ignore[arg-type]
            assert [each.id for each in found.invocations] == [KEY]
        assert [each.invocation.id for each in changes_after(connection, 1, most=9)] == [KEY]
        assert count_states(connection) == {State.RUNNING: 1}

    assert write(database, lambda connection: record_events(connection, [reported_end()])).ended == {
        KEY: State.SUCCEEDED
    }
    ended = await read(database, KEY)
    assert (ended.state, ended.result.status_code, ended.attempt_count) == (api.INVOCATION_STATE_SUCCEEDED, 200, 1)
    assert [attempt.outcome for attempt in ended.attempts] == [api.ATTEMPT_OUTCOME_SUCCEEDED]
    counted = await counters(database)
    assert (counted[schema.ACCEPTED], counted[schema.RESULT_SEQ]) == (1, 1)


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.FAILED, State.STOPPED])
async def test_p2_there_is_one_end_in_every_order(database: Database, state: State) -> None:
    """What the server writes while it runs, its worker's event and the server's own word of the end, in any order."""
    writes: dict[str, Callable[[], Any]] = {
        "waits": lambda: keep(database, call=request()),
        "runs": lambda: keep(database, started(), call=request()),
        "reported": lambda: write(database, lambda connection: record_events(connection, [reported_end(state)])),
        "told": lambda: keep(database, call_event(KEY, time_us=NOW, ended=end(state))),
    }
    for number, order in enumerate(itertools.permutations(writes), 1):
        results = (await counters(database))[schema.RESULT_SEQ]
        for name in order:
            writes[name]()
        record = await read(database, KEY)
        assert (record.state, record.attempt_count) == (int(state), 1), order
        assert [each.type for each in record.events].count(api.INVOCATION_EVENT_TYPE_ENDED) == 1, order
        counted = await counters(database)
        assert (counted[schema.ACCEPTED], counted[schema.RESULT_SEQ]) == (number, results + 1), order
        write(database, lambda connection: connection.execute(schema.invocations.delete()))


async def test_what_is_told_of_a_call_without_a_record_makes_none(database: Database) -> None:
    effects = keep(database, call_event(KEY, time_us=NOW, ended=end()))
    assert (effects.ended, effects.change_seq) == ({}, 0)
    assert (await counters(database))[schema.ACCEPTED] == 0


async def test_nothing_of_it_is_ever_published(database: Database) -> None:
    keep(database, started(), call=request())

    def all_that_publishes(connection: Connection) -> tuple[int, dict[str, tuple[int, int]]]:
        taken = dispatch.take_back_all(connection, due_us=NOW)
        taken += dispatch.take_back_unstarted(connection, "resize", due_us=NOW)
        dispatch.take_back_work(connection, [(KEY, 1)], due_us=NOW)
        claim = dispatch.claim_work(connection, "resize", now_us=NOW + 2 * HOUR, most=9, most_bytes=999)
        return taken + len(claim.work), dispatch.at_broker(connection)

    def stop(connection: Connection) -> stops.Requested:
        return stops.request_stop(connection, KEY, caller="me", reason="enough", now_us=NOW)

    for work in (lambda _: None, stop):
        write(database, work)
        assert write(database, all_that_publishes) == (0, {})
        assert write(database, dispatch.leased) == []
        assert (await row_of(database, KEY)).custody == Custody.CALLER
    assert (await read(database, KEY)).state == api.INVOCATION_STATE_STOPPING


@pytest.mark.parametrize("runs", [True, False])
async def test_one_that_is_lost_ends_and_what_ended_stays(database: Database, runs: bool) -> None:  # noqa: FBT001
    keep(database, *[started()] if runs else [], call=request(callback="http://127.0.0.1/hook"))
    (call,) = write(database, sync_calls.under_way)
    assert (call.id, call.worker) == (KEY, "w1" if runs else "")
    assert NOW + HOUR < call.lost_us < NOW + HOUR + 60_000_000
    effects = write(database, lambda connection: sync_calls.end_lost(connection, [KEY, "none"], now_us=NOW))
    assert effects.ended == {KEY: State.FAILED if runs else State.EXPIRED}
    assert not await deliveries_of(database, KEY), "its caller has the outcome"
    with database.reading() as connection:
        assert connection.execute(schema.dead_letters.select()).all() == []
    for late in (
        lambda connection: sync_calls.end_lost(connection, [KEY], now_us=NOW),
        lambda connection: record_events(connection, [reported_end()]),
    ):
        assert write(database, late).ended == {}
    assert write(database, sync_calls.under_way) == []
    assert (await read(database, KEY)).failure.reason == ("WORKER_LOST" if runs else "EXPIRED")


async def test_with_a_broker_that_keeps_nothing_all_of_them_are_lost(database: Database) -> None:
    keep(database, call=request())
    keep(database, started(), call=request())
    assert write(database, lambda connection: sync_calls.end_all_lost(connection, now_us=NOW)) == 1
    assert write(database, lambda connection: sync_calls.end_all_lost(connection, now_us=NOW)) == 0
    assert (await read(database, KEY)).state == api.INVOCATION_STATE_FAILED
