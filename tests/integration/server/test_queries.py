"""A list and a watch understand a filter alike, and pages neither repeat nor miss a record."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from homing.v1 import invocation_pb2 as api
from homing.v1 import invocation_service_pb2 as service
from homing_core.clock import now_us
from homing_core.lifecycle import State
from homing_server.auth.identity import EVERYBODY
from homing_server.cluster.presence import Presence
from homing_server.cluster.wait_reasons import WaitReasons
from homing_server.errors import ApiError
from homing_server.functions.catalog import Catalog
from homing_server.invocations.queries import Queries
from homing_server.rules.filters import matcher
from homing_server.store.engine import Database
from support.reporter import Reporter
from support.store import accept_all, life, make_draft, make_spec, opened, record

OLDEST, NEWEST = service.INVOCATION_ORDER_OLDEST_FIRST, service.INVOCATION_ORDER_NEWEST_FIRST
START = now_us() - 600 * 1_000_000


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with opened(tmp_path, functions=["resize", "figlet"]) as database:
        yield database


async def fill(database: Database, random: Random) -> None:
    """Accept 80 invocations, several of them at one moment, and bring them into many states."""
    drafts = [
        make_draft(
            make_spec(
                random.choice(["resize", "figlet"]),
                data=b"asked",
                labels={key: random.choice(["1", "2"]) for key in ("job", "team") if random.random() < 0.6},
            ),
            create_us=START + random.randint(0, 12) * 1_000_000,
            sent=True,
        )
        for _ in range(80)
    ]
    await accept_all(database, *drafts)
    for draft in drafts:
        state = random.choice([State.SUCCEEDED, State.FAILED, State.EXPIRED, None, None])
        worker = Reporter(1, invocation_id=draft.id, time_us=draft.create_us)
        match state:
            case State.SUCCEEDED | State.FAILED:
                await record(database, *life(draft.id, state))
            case State.EXPIRED:
                await record(database, worker.ended(State.EXPIRED))
            case _ if random.random() < 0.5:
                await record(database, worker.running())


async def pages(database: Database, selection: api.InvocationFilter, *, size: int, order: int) -> list[api.Invocation]:
    lists = Queries(database, WaitReasons(Catalog(database), Presence()))
    found: list[api.Invocation] = []
    token = ""
    while True:
        response = await lists.list(
            service.ListInvocationsRequest(
                filter=selection,
                order=order,  # type: ignore[arg-type]
                page_size=size,
                page_token=token,
                include_result=True,
            ),
            caller=EVERYBODY,
        )
        assert len(response.invocations) <= size
        found += response.invocations
        token = response.next_page_token
        if not token:
            return found


def random_filter(random: Random, known: list[api.Invocation]) -> api.InvocationFilter:
    selection = api.InvocationFilter()
    if random.random() < 0.4:
        selection.functions.extend(random.sample(["resize", "figlet", "none"], random.randint(1, 2)))
    if random.random() < 0.4:
        selection.states.extend({random.choice(known).state for _ in range(2)})
    if random.random() < 0.4:
        selection.labels["job"] = random.choice(["1", "2"])
        if random.random() < 0.4:
            selection.labels["team"] = random.choice(["1", "2"])
    if random.random() < 0.2:
        selection.id_prefix = random.choice(known).id[: random.randint(8, 36)]
    for name in ("create_time", "start_time", "end_time"):
        if random.random() < 0.25:
            bounds = getattr(selection, name)
            bounds.SetInParent()
            times = [getattr(one, name) for one in random.sample(known, 4) if one.HasField(name)]
            times.sort(key=Timestamp.ToNanoseconds)
            if times and random.random() < 0.7:
                bounds.start_time.CopyFrom(times[0])
            if times and times[-1] != times[0] and random.random() < 0.7:
                bounds.end_time.CopyFrom(times[-1])
    return selection


async def test_list_selects_what_the_matcher_of_watches_selects(database: Database) -> None:
    random = Random(11)
    await fill(database, random)
    everything = await pages(database, api.InvocationFilter(), size=1000, order=OLDEST)
    assert len(everything) == 80
    order = [(one.create_time.ToNanoseconds(), one.id) for one in everything]
    assert order == sorted(order)
    sizes = set()
    for _ in range(80):
        selection = random_filter(random, everything)
        wanted = [one for one in everything if matcher(selection)(one)]
        assert await pages(database, selection, size=random.choice([3, 7, 100]), order=OLDEST) == wanted
        newest = await pages(database, selection, size=random.choice([3, 7, 100]), order=NEWEST)
        assert newest == wanted[::-1]
        sizes.add(len(wanted))
    assert len(sizes) > 10, "the filters select now little, now much"


async def test_pages_neither_repeat_nor_miss_while_others_arrive(database: Database) -> None:
    await fill(database, Random(3))
    before = [one.id for one in await pages(database, api.InvocationFilter(), size=1000, order=NEWEST)]
    lists = Queries(database, WaitReasons(Catalog(database), Presence()))
    seen: list[str] = []
    token = ""
    while True:
        response = await lists.list(service.ListInvocationsRequest(page_size=9, page_token=token), caller=EVERYBODY)
        seen += [one.id for one in response.invocations]
        token = response.next_page_token
        if not token:
            break
        await accept_all(database, *(make_draft() for _ in range(3)))
    assert seen == before


async def test_page_token_is_for_the_same_question(database: Database) -> None:
    await fill(database, Random(4))
    lists = Queries(database, WaitReasons(Catalog(database), Presence()))
    token = (await lists.list(service.ListInvocationsRequest(page_size=5), caller=EVERYBODY)).next_page_token
    await lists.list(service.ListInvocationsRequest(page_size=9, page_token=token), caller=EVERYBODY)
    with pytest.raises(ApiError, match="page_token: belongs to a request with another filter, order or content"):
        await lists.list(service.ListInvocationsRequest(order=OLDEST, page_token=token), caller=EVERYBODY)
    with pytest.raises(ApiError, match="page_token: is not a token that this server gave out"):
        await lists.list(service.ListInvocationsRequest(page_token="x"), caller=EVERYBODY)
    with pytest.raises(ApiError, match="page_size: must be from 0"):
        await lists.list(service.ListInvocationsRequest(page_size=-1), caller=EVERYBODY)


async def test_payloads_and_results_only_where_they_are_asked_for(database: Database) -> None:
    draft = make_draft(make_spec(data=b"asked"), sent=True)
    await accept_all(database, draft)
    await record(database, *life(draft.id))
    lists = Queries(database, WaitReasons(Catalog(database), Presence()))
    for payload in (False, True):
        for result in (False, True):
            response = await lists.list(
                service.ListInvocationsRequest(include_payload=payload, include_result=result), caller=EVERYBODY
            )
            (one,) = response.invocations
            assert bool(one.spec.payload.data) is payload
            assert one.HasField("result") is result
