"""Calls about many: each batch is counted with what it did, so what breaks off goes on by its request id, exactly."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from homing.v1 import invocation_pb2 as api
from homing.v1 import invocation_service_pb2 as service
from homing_core import limits
from homing_core.broker.embedded import EmbeddedBroker, Exchange
from homing_core.clock import now_us
from homing_core.lifecycle import State
from homing_server.auth.identity import Identity
from homing_server.auth.scopes import ALL_SCOPES
from homing_server.cluster.presence import Presence
from homing_server.cluster.registry import WorkerRegistry
from homing_server.control import ControlChannel
from homing_server.errors import ApiError, Code
from homing_server.functions.catalog import Catalog
from homing_server.invocations import bulk_calls as bulk_calls_module
from homing_server.invocations import reruns as reruns_module
from homing_server.invocations.admission import Admission
from homing_server.invocations.bulk_calls import BulkCalls
from homing_server.invocations.dispatcher import Dispatcher
from homing_server.invocations.reruns import Reruns
from homing_server.invocations.stops import Stops
from homing_server.metrics import Metrics
from homing_server.payloads.blobs import Blobs
from homing_server.payloads.signed_urls import SignedUrls
from homing_server.store import bulk_calls as stored
from homing_server.store import schema
from homing_server.store import stops as stored_stops
from homing_server.store.bulk_calls import BulkCall
from homing_server.store.engine import Database
from homing_server.tasks import Tasks
from homing_server.vault.keyring import Keyring
from homing_server.watch.hub import WatchHub
from support.bulk import outcome
from support.inbox import until
from support.reporter import Reporter
from support.store import LOOPBACK_GUARD, accept_all, make_draft, make_spec, opened, record

FAILED = api.INVOCATION_STATE_FAILED
ME = Identity(name="me", scopes=ALL_SCOPES)
DAY = 24 * 3600 * 1_000_000


class Bench:
    """What stops and runs again, over one store."""

    def __init__(self, database: Database, tasks: Tasks, broker: EmbeddedBroker) -> None:
        self.database = database
        self.calls = BulkCalls(database, tasks)
        catalog, registry = Catalog(database), WorkerRegistry(database)
        control = ControlChannel(
            "server",
            broker,
            catalog=catalog,
            hub=WatchHub(database),
            keyring=Keyring(database),
            presence=Presence(),
            registry=registry,
            tasks=tasks,
        )
        dispatcher = Dispatcher(database, broker, catalog, urls=SignedUrls(), announce=lambda _: None, resend_after=600)
        self.admission = Admission(
            database, catalog, dispatcher, Metrics(), blobs=Blobs(database, Path("/nowhere")), guard=LOOPBACK_GUARD
        )
        self.reruns = Reruns(database, self.admission, self.calls)
        self.stops = Stops(database, broker, control, registry, calls=self.calls, announce=lambda _: None)

    async def ended(self, number: int) -> list[str]:
        drafts = [make_draft(make_spec(), sent=True) for _ in range(number)]
        await accept_all(self.database, *drafts)
        events = [Reporter(1, invocation_id=draft.id, time_us=now_us()).ended(State.FAILED) for draft in drafts]
        await record(self.database, *events)
        return [draft.id for draft in drafts]

    def rerun_all(self, *, caller: Identity = ME, **fields: Any) -> AsyncGenerator[service.BulkRerunResponse, None]:
        request = service.BulkRerunRequest(filter=api.InvocationFilter(states=[FAILED]), **fields)
        return self.reruns.rerun_all(request, caller=caller, traceparent="")

    def stop_all(self, **fields: Any) -> AsyncGenerator[service.BulkStopResponse, None]:
        request = service.BulkStopRequest(filter=api.InvocationFilter(functions=["resize"]), **fields)
        return self.stops.stop_selected(request, caller=ME)

    def rerun_of(self) -> list[str]:
        """Return what has run again, once for each time."""
        with self.database.reading() as connection:
            query = select(schema.invocations.c.rerun_of).where(schema.invocations.c.rerun_of.is_not(None))
            return [str(key) for key in connection.execute(query).scalars()]

    def states(self) -> dict[str, State]:
        with self.database.reading() as connection:
            rows = connection.execute(select(schema.invocations.c.id, schema.invocations.c.state))
            return {key: State(state) for key, state in rows}

    def noted(self, request_id: str) -> BulkCall:
        """Return how far the store says that a call is."""
        with self.database.reading() as connection:
            row = connection.execute(
                select(schema.bulk_calls).where(schema.bulk_calls.c.request_id == request_id)
            ).one()
            call = BulkCall(
                caller=row.caller, request_id=row.request_id, method=row.method, fingerprint=row.fingerprint, begin_us=0
            )
            found = stored.find(connection, call)
        assert found is not None
        return found


@pytest.fixture
async def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(reruns_module, "_PAGE_SIZE", 5)
    monkeypatch.setattr(stored_stops, "_BATCH_SIZE", 5)
    broker = EmbeddedBroker(Exchange())
    await broker.start()
    async with opened(tmp_path) as database, Tasks() as tasks:
        yield Bench(database, tasks, broker)
    await broker.close()


@pytest.fixture
def unpaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a message come after each batch."""
    monkeypatch.setattr(bulk_calls_module, "_PACE_SECONDS", 0.0)


def counts(response: service.BulkRerunResponse) -> tuple[int, int, bool]:
    return response.matched, response.accepted, response.done


# --- Messages


async def test_a_message_follows_each_batch_but_not_too_soon(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await bench.ended(20)
    monkeypatch.setattr(bulk_calls_module, "_PACE_SECONDS", 3600.0)
    assert [counts(each) async for each in bench.rerun_all()] == [(20, 0, False), (20, 20, True)]
    monkeypatch.setattr(bulk_calls_module, "_PACE_SECONDS", 0.0)
    progress = [counts(each) async for each in bench.rerun_all(include_rerun=True)]
    assert progress == [(20, 0, False), *((20, done, False) for done in (5, 10, 15, 20)), (20, 20, True)]


async def test_a_dry_run_is_one_message_and_is_not_remembered(bench: Bench) -> None:
    await bench.ended(3)
    assert [counts(each) async for each in bench.rerun_all(dry_run=True, request_id="r")] == [(3, 0, True)]
    assert not bench.rerun_of()
    assert counts(await outcome(bench.rerun_all(request_id="r"))) == (3, 3, True)


# --- Going on


@pytest.mark.usefixtures("unpaced")
async def test_what_broke_off_goes_on_and_what_is_done_is_told_at_once(bench: Bench) -> None:
    keys = await bench.ended(20)
    first = bench.rerun_all(request_id="r")
    async for message in first:
        if message.accepted == 10:
            break
    await first.aclose()
    late = await bench.ended(3)
    assert len(bench.rerun_of()) == 10

    progress = [counts(each) async for each in bench.rerun_all(request_id="r")]
    assert progress == [(20, 10, False), (20, 15, False), (20, 20, False), (20, 20, True)]
    assert sorted(bench.rerun_of()) == sorted(keys)
    assert not {*late} & {*bench.rerun_of()}
    assert [counts(each) async for each in bench.rerun_all(request_id="r")] == [(20, 20, True)]
    assert len(bench.rerun_of()) == 20


async def test_without_a_request_id_nothing_is_remembered(bench: Bench) -> None:
    await bench.ended(3)
    for _ in range(2):
        assert counts(await outcome(bench.rerun_all(include_rerun=True))) == (3, 3, True)
    assert len(bench.rerun_of()) == 6
    with bench.database.reading() as connection:
        assert not connection.execute(select(schema.bulk_calls)).all()


async def test_a_request_id_stands_for_one_content_of_one_caller(bench: Bench) -> None:
    await bench.ended(3)
    await outcome(bench.rerun_all(request_id="r"))
    for other in (
        bench.rerun_all(request_id="r", max_per_second=5),
        bench.stop_all(request_id="r"),
    ):
        with pytest.raises(ApiError) as caught:
            await anext(other)
        assert (caught.value.code, caught.value.reason) == (Code.ALREADY_EXISTS, "REQUEST_ID_REUSED")
    somebody = Identity(name="somebody", scopes=ALL_SCOPES)
    theirs = bench.rerun_all(request_id="r", caller=somebody, include_rerun=True)
    assert counts(await outcome(theirs)) == (3, 3, True)


async def test_a_request_id_is_remembered_for_seven_days_after_it_was_last_used(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_calls_module, "_FORGET_INTERVAL_SECONDS", 0.0)
    await bench.ended(2)
    for name in ("old", "new"):
        await outcome(bench.rerun_all(request_id=name))

    def age(name: str, days: float) -> None:
        with bench.database.writing() as connection:
            table = schema.bulk_calls
            connection.execute(
                update(table).where(table.c.request_id == name).values(update_us=now_us() - round(days * DAY))
            )

    assert limits.BULK_CALL_KEPT == 7 * 24 * 3600
    age("old", 7.01)
    age("new", 6.99)
    await bench.calls.forget()
    with bench.database.reading() as connection:
        assert connection.execute(select(schema.bulk_calls.c.request_id)).scalars().all() == ["new"]


# --- At the same time, and ends


@pytest.mark.usefixtures("unpaced")
async def test_the_later_of_two_calls_takes_over_and_nothing_is_counted_twice(bench: Bench) -> None:
    keys = await bench.ended(20)
    first = bench.rerun_all(request_id="r")
    async for message in first:
        if message.accepted == 5:
            break
    second = bench.rerun_all(request_id="r")
    assert counts(await anext(second)) == (20, 5, False)
    with pytest.raises(ApiError) as caught:
        await anext(first)
    assert (caught.value.code, caught.value.reason) == (Code.ABORTED, "BULK_CALL_TAKEN_OVER")
    assert counts(await outcome(second)) == (20, 20, True)
    assert sorted(bench.rerun_of()) == sorted(keys)


async def test_many_calls_at_once_do_all_once(bench: Bench) -> None:
    keys = await bench.ended(40)

    async def one() -> service.BulkRerunResponse | ApiError:
        try:
            return await outcome(bench.rerun_all(request_id="r"))
        except ApiError as error:
            return error

    ends = await asyncio.gather(*(one() for _ in range(6)))
    assert {error.code for error in ends if isinstance(error, ApiError)} <= {Code.ABORTED}
    assert {counts(end) for end in ends if not isinstance(end, ApiError)} == {(40, 40, True)}
    assert sorted(bench.rerun_of()) == sorted(keys)


async def test_who_goes_away_ends_it_after_the_present_batch(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await bench.ended(20)
    commit = bench.admission.commit
    committing, go_on, committed = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow(*arguments: Any) -> Any:
        committing.set()
        await go_on.wait()
        try:
            return await commit(*arguments)
        finally:
            committed.set()

    monkeypatch.setattr(bench.admission, "commit", slow)
    call = asyncio.create_task(outcome(bench.rerun_all(request_id="r")))
    await committing.wait()
    call.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await call
    go_on.set()
    async with asyncio.timeout(60):
        await committed.wait()
    assert (bench.noted("r").counts, len(bench.rerun_of())) == ({"matched": 20, "accepted": 5, "refused": 0}, 5)
    assert counts(await outcome(bench.rerun_all(request_id="r"))) == (20, 20, True)
    assert len(bench.rerun_of()) == 20


@pytest.mark.usefixtures("unpaced")
async def test_a_server_that_stops_lets_it_go_on_at_another(bench: Bench) -> None:
    await bench.ended(20)
    call = bench.rerun_all(request_id="r")
    await anext(call)
    bench.calls.close()
    with pytest.raises(ApiError) as caught:
        await outcome(call)
    assert (caught.value.code, caught.value.reason) == (Code.UNAVAILABLE, "SERVER_STOPPING")
    assert len(bench.rerun_of()) == 5


@pytest.mark.usefixtures("unpaced")
async def test_each_record_counts_for_the_rate_of_the_key(bench: Bench) -> None:
    await bench.ended(20)
    slow = Identity(name="slow", scopes=ALL_SCOPES, max_per_second=10.0)
    begun = asyncio.get_running_loop().time()
    assert [message async for message in bench.rerun_all(caller=slow)][-1].accepted == 20
    # Ten of them fit into the first second, which passes at once.
    assert asyncio.get_running_loop().time() - begun >= 0.9
    assert slow.take_or_wait(1) > 0
    assert not ME.take_or_wait(1)


async def test_a_server_that_stops_does_not_wait_for_a_rate(bench: Bench) -> None:
    await bench.ended(20)
    slow = Identity(name="slow", scopes=ALL_SCOPES, max_per_second=0.01)
    calls = bench.rerun_all(caller=slow)
    await anext(calls)
    going_on = asyncio.ensure_future(anext(calls))
    await until(lambda: bool(bench.rerun_of()))
    bench.calls.close()
    with pytest.raises(ApiError) as caught:
        async with asyncio.timeout(30):
            await going_on
    assert caught.value.code is Code.UNAVAILABLE


async def test_a_revoked_key_ends_it(bench: Bench) -> None:
    await bench.ended(20)
    identity = Identity(name="me", scopes=ALL_SCOPES)
    call = bench.rerun_all(request_id="r", caller=identity)
    await anext(call)
    identity.state.revoked = True
    with pytest.raises(ApiError) as caught:
        await outcome(call)
    assert caught.value.code is Code.UNAUTHENTICATED
    assert len(bench.rerun_of()) == 5


# --- Stops


@pytest.mark.usefixtures("unpaced")
async def test_a_stop_that_broke_off_goes_on_and_counts_once(bench: Bench) -> None:
    stored_ones = [make_draft(make_spec()) for _ in range(12)]
    sent = [make_draft(make_spec(), sent=True) for _ in range(11)]
    await accept_all(bench.database, *stored_ones, *sent)
    first = bench.stop_all(request_id="r", reason="enough")
    message = await anext(first)
    assert (message.matched, message.stopped, message.stopping, message.done) == (23, 0, 0, False)
    async for message in first:
        if message.stopped + message.stopping >= 10:
            break
    await first.aclose()
    late = make_draft(make_spec())
    await accept_all(bench.database, late)

    done = await outcome(bench.stop_all(request_id="r", reason="enough"))
    assert (done.matched, done.stopped, done.stopping) == (23, 12, 11)
    assert await outcome(bench.stop_all(request_id="r", reason="enough")) == done
    states = bench.states()
    assert {states[draft.id] for draft in stored_ones} == {State.STOPPED}
    assert {states[draft.id] for draft in sent} == {State.STOPPING}
    assert states[late.id] is State.ENQUEUED


async def test_what_ends_before_its_turn_is_matched_and_not_stopped(bench: Bench) -> None:
    drafts = [make_draft(make_spec(), sent=True) for _ in range(4)]
    await accept_all(bench.database, *drafts)
    call = bench.stop_all()
    assert (await anext(call)).matched == 4
    await record(bench.database, Reporter(1, invocation_id=drafts[2].id, time_us=now_us()).ended(State.SUCCEEDED))
    done = await outcome(call)
    assert (done.matched, done.stopped, done.stopping) == (4, 0, 3)
    asked_again = await outcome(bench.stop_all())
    assert (asked_again.matched, asked_again.stopped, asked_again.stopping) == (3, 0, 3)
