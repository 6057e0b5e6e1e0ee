"""Stops in the store: what is stopped at once, what waits for workers, and what counts at the broker meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
from sqlalchemy import Connection, select

from homing.v1 import invocation_pb2 as api
from homing_core import limits
from homing_core.clock import now_us
from homing_core.lifecycle import Custody, State
from homing_core.wire.v1 import FunctionLoad, WorkerStatus
from homing_server.cluster.registry import WorkerRegistry
from homing_server.store import dispatch, schema, stops, tombstones
from homing_server.store.engine import Database
from homing_server.store.list_pages import Place
from support.reporter import Reporter
from support.store import accept_all, accept_sent, make_draft, make_spec, opened, record, row_of

T = TypeVar("T")


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with opened(tmp_path, functions=("resize", "other")) as made:
        yield made


def write(database: Database, work: Callable[[Connection], T]) -> T:
    with database.writing() as connection:
        return work(connection)


def ask(database: Database, key: str) -> stops.Requested:
    return write(
        database, lambda connection: stops.request_stop(connection, key, caller="", reason="", now_us=now_us())
    )


def at_broker(database: Database) -> int:
    return write(database, dispatch.at_broker).get("resize", (0, 0))[0]


def remembered(database: Database) -> set[str]:
    return write(database, lambda connection: {stop.invocation_id for stop in tombstones.all_stops(connection)})


async def state_of(database: Database, key: str) -> tuple[State, Custody]:
    row = await row_of(database, key)
    return State(row.state), Custody(row.custody)


async def test_what_waits_in_the_store_is_stopped_and_the_rest_has_a_tombstone(database: Database) -> None:
    stored = make_draft()
    await accept_all(database, stored)
    (sent,) = await accept_sent(database, 1)

    requested = ask(database, stored.id)
    assert requested.effects.ended == {stored.id: State.STOPPED}
    assert not requested.stops
    requested = ask(database, sent)
    assert not requested.effects.ended
    assert [(stop.invocation_id, stop.generation) for stop in requested.stops] == [(sent, 1)]
    assert await state_of(database, sent) == (State.STOPPING, Custody.SENT)
    # Asked again it is the same, and told no more than once.
    assert (ask(database, sent).states, ask(database, sent).stops) == ({sent: State.STOPPING}, [])
    assert ask(database, "unknown").states == {}
    assert remembered(database) == {sent}


async def test_a_stopped_invocations_message_counts_until_a_worker_lets_it_go(database: Database) -> None:
    keys = await accept_sent(database, 3)
    for key in keys[:2]:
        ask(database, key)
    assert at_broker(database) == 3
    write(database, lambda connection: stops.stop_all(connection, keys, now_us=now_us()))
    assert [(await state_of(database, key))[0] for key in keys] == [State.STOPPED, State.STOPPED, State.ENQUEUED]
    # The records have ended; their messages are still there.
    assert at_broker(database) == 3
    effects = await record(database, Reporter(1, invocation_id=keys[0]).ended(State.STOPPED))
    assert effects.refused == 1
    assert at_broker(database) == 2
    # The message of an earlier dispatch is not the one that counts.
    await record(database, Reporter(0, invocation_id=keys[1]).ended(State.STOPPED))
    assert at_broker(database) == 2
    # Its tombstone outlives the message for a while.
    later = now_us() + 1
    for before, left in ((0, set(keys[:2])), (later, set())):
        write(database, partial(tombstones.forget, function="resize", before_us=before))
        assert remembered(database) == left


async def test_what_is_stopping_is_never_published_again(database: Database) -> None:
    back, lost = await accept_sent(database, 2)
    write(database, lambda connection: dispatch.take_back_work(connection, [(back, 1)], due_us=now_us()))
    assert await state_of(database, back) == (State.ENQUEUED, Custody.STORE)

    # It was published, perhaps: a message may linger, and somebody may be about to start it.
    assert not ask(database, back).effects.ended
    ask(database, lost)
    write(
        database,
        lambda connection: dispatch.take_back_work(connection, [(back, 1), (lost, 1)], due_us=now_us()),
    )
    claim = write(
        database,
        lambda connection: dispatch.claim_work(connection, "resize", now_us=now_us() + 1, most=10, most_bytes=2**30),
    )
    assert not claim.work
    assert [await state_of(database, key) for key in (back, lost)] == [(State.STOPPING, Custody.BROKER)] * 2
    assert at_broker(database) == 0
    # STOPPING ones are remembered however old they are.
    write(database, lambda connection: tombstones.forget(connection, "resize", before_us=now_us() + 10**9))
    assert remembered(database) == {back, lost}
    # A broker that keeps nothing has lost their messages, and its workers.
    assert write(database, lambda connection: stops.stop_all_lost(connection, now_us=now_us())) == 2
    assert [(await state_of(database, key))[0] for key in (back, lost)] == [State.STOPPED] * 2
    assert remembered(database) == set()


async def test_many_are_stopped_page_by_page_and_none_that_came_later(database: Database) -> None:
    stored = [make_draft(make_spec(labels={"batch": "a"})) for _ in range(1100)]
    await accept_all(database, *stored)
    sent = await accept_sent(database, 20, labels={"batch": "a"})
    others = [make_draft(make_spec("other")), make_draft(make_spec(labels={"batch": "b"}))]
    await accept_all(database, *others)
    began = now_us()
    late = make_draft(make_spec(labels={"batch": "a"}), create_us=began + 10)
    await accept_all(database, late)
    selection = api.InvocationFilter(functions=["resize"], labels={"batch": "a"})
    selection.states.extend([api.INVOCATION_STATE_ENQUEUED, api.INVOCATION_STATE_SUCCEEDED])

    (part,) = stops.split(selection, stops.STOPPABLE)
    counted = write(database, lambda connection: stops.count(connection, part, accepted_by_us=began))
    place: Place | None = None
    stopped: list[str] = []
    stopping: list[str] = []
    pages = 0
    while pages == 0 or place is not None:
        page = partial(stops.request_page, selection=part, after=place, accepted_by_us=began)
        requested, place = write(database, partial(page, caller="", reason="", now_us=now_us()))
        stopped += requested.effects.ended
        stopping += [stop.invocation_id for stop in requested.stops]
        pages += 1

    assert counted == 1120
    assert pages == 3
    assert (sorted(stopped), sorted(stopping)) == (sorted(draft.id for draft in stored), sorted(sent))
    for draft in (*others, late):
        assert (await state_of(database, draft.id))[0] is State.ENQUEUED


async def test_workers_are_waited_for_until_they_have_obeyed_left_or_are_lost(database: Database) -> None:
    now = 1000.0
    registry = WorkerRegistry(database, clock=lambda: now)

    def say(worker: str, *, obeyed: tuple[str, ...] = (), last: bool = False) -> None:
        functions = [] if last else [FunctionLoad(function="resize")]
        registry.on_status(
            WorkerStatus(worker=worker, leaving=last, functions=functions, tombstones_acknowledged=obeyed)
        )

    async def waited_for() -> set[str]:
        return set(await registry.strike_off(write(database, _enrolled)))

    registry.connected()
    for name in ("a", "b", "c"):
        assert await registry.enroll(name) == []
    (key,) = await accept_sent(database, 1)
    ask(database, key)
    # Who comes later is told of it by the transaction that enters it.
    assert [stop.invocation_id for stop in await registry.enroll("d")] == [key]
    say("a", obeyed=(key,))
    say("b", last=True)
    assert await waited_for() == {"a", "c", "d"}
    assert not registry.has_acknowledged(key, {"a", "c"})
    assert registry.has_acknowledged(key, {"a"})

    # The silence of a worker counts only while this server listens, and was not frozen itself.
    now += limits.WORKER_LOST + 1
    assert await waited_for() == {"a", "c", "d"}
    for _ in range(round(limits.WORKER_LOST)):
        now += 1
        say("a")
        say("d")
        assert await waited_for() == {"a", "c", "d"}
    # Silent for long enough, but it has greeted anew, at another server.
    now += 1
    assert await waited_for() == {"a", "c", "d"}
    _age(database)
    assert await waited_for() == {"a", "d"}
    registry.lost()
    now += 1000
    assert await waited_for() == {"a", "d"}
    assert not registry.is_unknown(WorkerStatus(worker="a"))
    assert registry.is_unknown(WorkerStatus(worker="c"))


def _enrolled(connection: Connection) -> frozenset[str]:
    return frozenset(connection.execute(select(schema.workers.c.name)).scalars())


def _age(database: Database) -> None:
    """Have it that all greetings were long ago."""
    write(database, lambda connection: connection.execute(schema.workers.update().values(hello_us=0)))
