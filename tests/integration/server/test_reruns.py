"""Ended invocations run again, one or many: as new ones, once for each request, and no faster than they may."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from homing.v1 import invocation_pb2 as api
from homing.v1 import invocation_service_pb2 as service
from homing.v1 import payload_pb2
from homing_core import limits
from homing_core.clock import now_us
from homing_core.lifecycle import ENDS, Custody, State
from homing_server.auth.identity import EVERYBODY, Identity
from homing_server.auth.scopes import ALL_SCOPES
from homing_server.cluster.presence import Presence
from homing_server.cluster.wait_reasons import WaitReasons
from homing_server.errors import ApiError, Code
from homing_server.functions.catalog import Catalog
from homing_server.invocations import reruns as reruns_module
from homing_server.invocations.admission import Admission
from homing_server.invocations.bulk_calls import BulkCalls
from homing_server.invocations.dispatcher import Dispatcher
from homing_server.invocations.queries import Queries
from homing_server.invocations.reruns import Reruns
from homing_server.metrics import Metrics
from homing_server.payloads.blobs import Blobs
from homing_server.payloads.signed_urls import SignedUrls
from homing_server.store.engine import Database, StoreUnavailableError
from homing_server.store.functions import mark_deleted
from homing_server.tasks import Tasks
from support.bulk import outcome
from support.reporter import Reporter
from support.scripted_broker import ScriptedBroker
from support.store import LOOPBACK_GUARD, accept_all, count, deploy, make_draft, make_spec, opened, read, record, row_of

FAILED = api.INVOCATION_STATE_FAILED
ME = Identity(name="me", scopes=ALL_SCOPES)


class Bench:
    """What runs again, on a store of its own and a broker that is away."""

    def __init__(self, database: Database, tasks: Tasks) -> None:
        self.database = database
        catalog = Catalog(database)
        dispatcher = Dispatcher(
            database, ScriptedBroker(up=False), catalog, urls=SignedUrls(), announce=lambda _: None, resend_after=600
        )
        self.admission = Admission(
            database, catalog, dispatcher, Metrics(), blobs=Blobs(database, Path("/nowhere")), guard=LOOPBACK_GUARD
        )
        self.reruns = Reruns(database, self.admission, BulkCalls(database, tasks))
        self.lists = Queries(database, WaitReasons(catalog, Presence()))

    async def ended(self, state: State = State.FAILED, spec: api.InvocationSpec | None = None) -> str:
        draft = make_draft(spec or make_spec(data=b"asked", labels={"job": "7"}), sent=True)
        await accept_all(self.database, draft)
        await record(self.database, Reporter(1, invocation_id=draft.id, time_us=now_us()).ended(state))
        return draft.id

    async def rerun(self, key: str, *, data: bytes | None = None, request_id: str = "") -> str:
        payload = None if data is None else payload_pb2.Payload(content_type="text/csv", data=data)
        request = service.RerunInvocationRequest(id=key, payload=payload, request_id=request_id)
        return (await self.reruns.rerun(request, caller=ME, traceparent="")).id

    async def rerun_all(self, selection: api.InvocationFilter, **fields: Any) -> service.BulkRerunResponse:
        request = service.BulkRerunRequest(filter=selection, **fields)
        return await outcome(self.reruns.rerun_all(request, caller=ME, traceparent=""))

    async def children(self, *keys: str) -> list[api.Invocation]:
        """Return what runs these again, in their order."""
        requests = [service.ListInvocationsRequest(filter=api.InvocationFilter(rerun_of=key)) for key in keys]
        return [one for request in requests for one in (await self.lists.list(request, caller=EVERYBODY)).invocations]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with opened(tmp_path) as database, Tasks() as tasks:
        bench = Bench(database, tasks)
        tasks.repeat(bench.admission.commit_group)
        yield bench


def counts(response: service.BulkRerunResponse) -> tuple[int, int, int]:
    return response.matched, response.accepted, response.refused


# --- One


@pytest.mark.parametrize("state", sorted(ENDS))
async def test_whatever_has_ended_runs_again_as_a_new_invocation(bench: Bench, state: State) -> None:
    spec = make_spec(data=b"asked", labels={"job": "7"}, callback="http://127.0.0.1/hook")
    spec.schedule_time.FromMicroseconds(now_us() + 1_000_000)
    spec.attempt_timeout.FromSeconds(7)
    old = await bench.ended(state, spec)
    new = await bench.rerun(old)
    assert new != old
    one, before = await read(bench.database, new, include_payload=True), await read(bench.database, old)
    assert (one.state, one.rerun_of, one.caller) == (api.INVOCATION_STATE_ENQUEUED, old, "me")
    spec.ClearField("schedule_time")
    assert one.spec == spec
    assert (before.state, before.rerun_of) == (int(state), "")
    assert [child.id for child in await bench.children(old)] == [new]


async def test_a_rerun_of_a_synchronous_call_is_asynchronous(bench: Bench) -> None:
    draft = make_draft(make_spec(data=b"asked"))
    worker = Reporter(1, invocation_id=draft.id, time_us=now_us())
    event = worker.ended(State.FAILED)
    call = type(event)(invocation_id=draft.id, token=event.token, time_us=event.time_us, worker="w1")
    call.sync_ended.request.spec.CopyFrom(draft.spec)
    call.sync_ended.request.create_us = now_us()
    call.sync_ended.ended.CopyFrom(event.ended)
    await record(bench.database, call)
    new = await row_of(bench.database, await bench.rerun(draft.id))
    assert (new.sync, new.custody, new.rerun_of) == (False, Custody.STORE, draft.id)


async def test_with_another_payload(bench: Bench) -> None:
    old = await bench.ended()
    new = await read(bench.database, await bench.rerun(old, data=b"edited"), include_payload=True)
    assert (new.spec.payload.data, new.spec.payload.content_type) == (b"edited", "text/csv")
    assert new.spec.labels == {"job": "7"}
    empty = await read(bench.database, await bench.rerun(old, data=b""), include_payload=True)
    assert empty.spec.payload.data == b"", "an empty payload is another one too"
    assert (await read(bench.database, old, include_payload=True)).spec.payload.data == b"asked"


async def test_a_request_id_stands_for_one_rerun(bench: Bench) -> None:
    """P7: also where the same is asked at the same time."""
    old, other = await bench.ended(), await bench.ended()
    same = await asyncio.gather(*(bench.rerun(old, request_id="r") for _ in range(5)))
    assert len(set(same)) == 1
    assert await bench.rerun(old) not in same
    for key, data in ((old, b"edited"), (other, None)):
        with pytest.raises(ApiError) as caught:
            await bench.rerun(key, data=data, request_id="r")
        assert (caught.value.code, caught.value.reason) == (Code.ALREADY_EXISTS, "REQUEST_ID_REUSED")
    assert await count(bench.database) == 4


async def test_what_cannot_run_again_is_refused(bench: Bench) -> None:
    waiting, old = make_draft(sent=True), await bench.ended()
    await accept_all(bench.database, waiting)
    with pytest.raises(ApiError, match="has not ended: it is ENQUEUED") as caught:
        await bench.rerun(waiting.id)
    assert (caught.value.code, caught.value.reason) == (Code.FAILED_PRECONDITION, "INVOCATION_NOT_ENDED")
    with pytest.raises(ApiError) as caught:
        await bench.rerun("none")
    assert (caught.value.code, caught.value.reason) == (Code.NOT_FOUND, "INVOCATION_NOT_FOUND")
    with pytest.raises(ApiError, match=r"^payload.data: must have at most 262144 bytes") as caught:
        await bench.rerun(old, data=bytes(limits.MAX_INLINE_PAYLOAD + 1))
    with pytest.raises(ApiError, match=r"^request_id: must have at most 128") as caught:
        await bench.rerun(old, request_id="x" * 129)
    with bench.database.writing() as connection:
        mark_deleted(connection, "resize")
    with pytest.raises(ApiError) as caught:
        await bench.rerun(old)
    assert (caught.value.code, caught.value.reason) == (Code.NOT_FOUND, "FUNCTION_NOT_FOUND")
    assert await count(bench.database) == 2


# --- Many


async def test_all_that_a_filter_selects_and_that_has_ended(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reruns_module, "_PAGE_SIZE", 3)
    await deploy(bench.database, "figlet")
    failed = [await bench.ended() for _ in range(7)]
    await bench.ended(State.SUCCEEDED)
    gone = await bench.ended(spec=make_spec("figlet"))
    waiting = make_draft(sent=True)
    await accept_all(bench.database, waiting)
    with bench.database.writing() as connection:
        mark_deleted(connection, "figlet")
    everything = await count(bench.database)
    selection = api.InvocationFilter(states=[FAILED, api.INVOCATION_STATE_ENQUEUED])

    assert counts(await bench.rerun_all(selection, dry_run=True)) == (8, 0, 0)
    assert await count(bench.database) == everything
    assert counts(await bench.rerun_all(selection)) == (8, 7, 1)
    assert len(await bench.children(*failed)) == 7
    assert not await bench.children(gone, waiting.id)
    only_live = api.InvocationFilter(states=[api.INVOCATION_STATE_ENQUEUED])
    assert counts(await bench.rerun_all(only_live)) == (0, 0, 0)
    labelled = api.InvocationFilter(labels={"job": "7"}, functions=["resize"], create_time=api.TimeRange())
    assert counts(await bench.rerun_all(labelled, dry_run=True)) == (1, 0, 0), "the others were run again"
    assert counts(await bench.rerun_all(labelled, dry_run=True, include_rerun=True)) == (8, 0, 0)


async def test_a_call_that_broke_off_goes_on_and_counts_all_it_did(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though some of what it made has failed again meanwhile, and other invocations too."""
    monkeypatch.setattr(reruns_module, "_PAGE_SIZE", 4)
    failed = [await bench.ended() for _ in range(10)]
    selection = api.InvocationFilter(states=[FAILED])
    commit, calls = bench.admission.commit, itertools.count()

    async def breaks_off(*arguments: Any) -> Any:
        if next(calls) == 2:
            raise StoreUnavailableError("its disk is full")
        return await commit(*arguments)

    monkeypatch.setattr(bench.admission, "commit", breaks_off)
    with pytest.raises(StoreUnavailableError):
        await bench.rerun_all(selection, request_id="again")
    made = await bench.children(*failed)
    assert len(made) == 8
    for one in made[:3]:
        await record(bench.database, Reporter(1, invocation_id=one.id, time_us=now_us()).ended(State.FAILED))
    late = await bench.ended()

    assert counts(await bench.rerun_all(selection, request_id="again")) == (10, 10, 0)
    assert counts(await bench.rerun_all(selection, request_id="again")) == (10, 10, 0)
    assert len(await bench.children(*failed)) == 10
    assert not await bench.children(late)
    assert counts(await bench.rerun_all(selection, request_id="another")) == (4, 4, 0)
    everything = await bench.rerun_all(selection, request_id="all", include_rerun=True)
    assert counts(everything) == (14, 14, 0)


async def test_a_cap_spreads_the_starts_and_a_call_that_goes_on_keeps_to_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reruns_module, "_PAGE_SIZE", 5)
    gap_us = 64_000_000
    failed = [await bench.ended() for _ in range(12)]
    request = service.BulkRerunRequest(
        filter=api.InvocationFilter(states=[FAILED]), max_per_second=1 / 64, request_id="slow"
    )
    before = now_us()
    first = bench.reruns.rerun_all(request, caller=ME, traceparent="")
    await anext(first)
    after = now_us()
    await first.aclose()
    assert counts(await outcome(bench.reruns.rerun_all(request, caller=ME, traceparent=""))) == (12, 12, 0)

    rows = [await row_of(bench.database, one.id) for one in await bench.children(*failed)]
    due = [row.due_us for row in rows]
    assert due == sorted(due)
    assert all(before + place * gap_us <= time_us <= after + place * gap_us for place, time_us in enumerate(due[1:], 1))
    assert [State(row.state) for row in rows[1:]] == [State.SCHEDULED] * 11
    assert not (await read(bench.database, rows[1].id)).spec.HasField("schedule_time")


async def test_a_bad_request_names_its_field(bench: Bench) -> None:
    await bench.ended()
    selection = api.InvocationFilter(states=[FAILED])
    for field, wrong in (
        ("filter", {"selection": api.InvocationFilter()}),
        ("filter.functions[0]", {"selection": api.InvocationFilter(functions=["NO"])}),
        ("max_per_second", {"max_per_second": -1.0}),
        ("max_per_second", {"max_per_second": float("nan")}),
        ("max_per_second", {"max_per_second": 10_001.0}),
        ("max_per_second", {"max_per_second": 1 / (31 * 86400)}),
        ("request_id", {"request_id": "x" * 129}),
        ("request_id", {"request_id": "größe"}),
        ("request_id", {"request_id": "two\nlines"}),
    ):
        with pytest.raises(ApiError) as caught:
            await bench.rerun_all(**({"selection": selection} | wrong))
        assert caught.value.code is Code.INVALID_ARGUMENT
        assert [violation.field for violation in caught.value.violations] == [field]
    assert await count(bench.database) == 1
