"""Batches, lists, maps and typed functions, with a real server and worker."""

from __future__ import annotations

import asyncio
import fcntl
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import TypedDict

import pydantic
import pytest

from homing import (
    AsyncClient,
    Client,
    FunctionError,
    InvalidRequestError,
    InvalidResultError,
    InvocationRequest,
    InvocationState,
    NotFoundError,
    RetryPolicy,
)
from support.processes import Cluster

PATIENCE = 120.0

FAIL_ON_BAD = "read line; case $line in *bad*) exit 1;; esac; echo $line"


@pytest.fixture(scope="module")
def target(shared_cluster: Cluster) -> str:
    """Return where a server answers that has the functions that these tests call."""
    functions = shared_cluster.client().functions
    functions.deploy(name="echo", command=["cat"], max_instances=8)
    functions.deploy(name="picky", command=["sh", "-c", FAIL_ON_BAD], retry_policy=RetryPolicy(max_attempts=1))
    return shared_cluster.target


@pytest.fixture
def running(target: str) -> Iterator[Client]:
    """Yield a client of that server."""
    with Client(target, timeout=PATIENCE) as client:
        yield client


def test_a_batch_is_accepted_and_refused_one_by_one(running: Client) -> None:
    requests = [InvocationRequest(function="echo", payload=f"number {n}", labels={"n": str(n)}) for n in range(1200)]
    requests[700] = InvocationRequest(function="nowhere", payload="x")
    requests[1100] = InvocationRequest(function="echo", payload="x", callback_url="nonsense")

    outcomes = running.invoke_batch(requests, timeout=PATIENCE)

    assert isinstance(outcomes[700], NotFoundError)
    assert isinstance(outcomes[1100], InvalidRequestError)
    assert outcomes[1100].violations[0].field.endswith("callback.url")
    handles = [outcome for outcome in outcomes if not isinstance(outcome, Exception)]
    assert len(handles) == 1198
    assert [handles[at].result(timeout=PATIENCE).text for at in (0, 699, 1197)] == [
        *("number 0", "number 699", "number 1199")
    ]


def test_a_batch_that_is_sent_again_is_the_same(running: Client) -> None:
    requests = [InvocationRequest(function="echo", payload=str(n), request_id=f"r{n}") for n in range(3)]

    first = running.invoke_batch(requests)
    again = running.invoke_batch([*requests, InvocationRequest(function="echo", payload="other", request_id="r0")])

    assert [outcome.id for outcome in again[:3] if not isinstance(outcome, Exception)] == [
        outcome.id for outcome in first if not isinstance(outcome, Exception)
    ]
    assert isinstance(again[3], Exception)


def test_a_list_is_stable_while_rows_arrive(running: Client) -> None:
    def more(count: int) -> list[str]:
        outcomes = running.invoke_batch("echo", [str(n) for n in range(count)], labels={"list": "yes"})
        return [outcome.id for outcome in outcomes if not isinstance(outcome, Exception)]

    there = more(90)
    newest = running.list_invocations(labels={"list": "yes"}, page_size=20)
    oldest = running.list_invocations(labels={"list": "yes"}, page_size=20, order="oldest_first")
    seen_newest, seen_oldest = [], []
    while newest.next_page_token is not None:
        seen_newest += [record.id for record in newest.fetch_next_page()]
        seen_oldest += [record.id for record in oldest.fetch_next_page()]
        there += more(10)

    assert len(seen_newest) == len(set(seen_newest)) == 90
    assert set(seen_newest) == set(there[:90])
    going_on = running.list_invocations(labels={"list": "yes"}, order="oldest_first", page_token=oldest.next_page_token)
    rest = [record.id for record in going_on]
    assert sorted(seen_oldest + rest) == sorted(there)
    assert seen_oldest + rest == sorted(seen_oldest + rest)


def test_a_list_is_filtered(running: Client) -> None:
    before = datetime.now(UTC) - timedelta(seconds=5)
    good = running.invoke_async("picky", "good\n", labels={"job": "7"})
    bad = running.invoke_async("picky", "bad\n", labels={"job": "7"})
    assert good.result(timeout=PATIENCE).text == "good\n"
    with pytest.raises(FunctionError):
        bad.result(timeout=PATIENCE)

    [failed] = running.list_invocations(labels={"job": "7"}, states=[InvocationState.FAILED])
    assert (failed.id, failed.function, failed.payload) == (bad.id, "picky", None)
    whole = list(
        running.list_invocations(
            function="picky",
            labels={"job": "7"},
            created_since=before,
            order="oldest_first",
            include_payload=True,
            include_result=True,
        )
    )
    assert [record.id for record in whole] == [good.id, bad.id]
    assert whole[0].payload is not None
    assert whole[0].payload.data == b"good\n"
    assert whole[0].result is not None
    assert whole[0].result.text == "good\n"
    assert list(running.list_invocations(function="picky", labels={"job": "7"}, created_until=before)) == []


def test_a_map_streams_in_order(running: Client) -> None:
    results = running.map("echo", (f"item {n}" for n in range(200)), concurrency=20, timeout=PATIENCE)

    assert [result.text for result in results] == [f"item {n}" for n in range(200)]


def test_a_map_stops_at_the_first_failure(running: Client) -> None:
    items = [f"item {n}\n" for n in range(500)]
    items[5] = "bad\n"
    results = running.map("picky", items, concurrency=4, timeout=PATIENCE, labels={"map": "yes"})

    assert [next(results).text for _ in range(5)] == items[:5]
    with pytest.raises(FunctionError):
        next(results)
    assert len(list(running.list_invocations(labels={"map": "yes"}))) <= 5 + 2 * 4 + 1


async def test_the_asynchronous_client_does_the_same(target: str) -> None:
    async with AsyncClient(target, timeout=PATIENCE) as client:
        mine = {"client": "asynchronous"}
        texts = [result.text async for result in client.map("echo", ["a", "b", "c"], timeout=PATIENCE, labels=mine)]
        assert texts == ["a", "b", "c"]
        outcomes = await client.invoke_batch("echo", ["x", "y"], labels=mine)
        handles = [outcome for outcome in outcomes if not isinstance(outcome, Exception)]
        results = await asyncio.gather(*(handle.result(timeout=PATIENCE) for handle in handles))
        assert [result.text for result in results] == ["x", "y"]
        assert len([record async for record in client.list_invocations(labels=mine, page_size=2)]) == 5


async def test_calls_that_wait_for_executions_hold_no_others_up(target: str, tmp_path: Path) -> None:
    async with AsyncClient(target, timeout=PATIENCE) as client:
        with (tmp_path / "lock").open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            # An answer comes once the lock is gone.
            await client.functions.deploy(name="held", command=["flock", "--shared", lock.name, "cat"])
            texts = [f"{number}" for number in range(100)]
            calls = [asyncio.create_task(client.invoke("held", text)) for text in texts]
            # More than a server takes over one connection are under way before this one.
            await asyncio.sleep(0)
            handle = await client.invoke_async("echo", "meanwhile", timeout=PATIENCE / 4)
            assert (await handle.result(timeout=PATIENCE)).text == "meanwhile"
            assert not any(call.done() for call in calls)
        assert [result.text for result in await asyncio.gather(*calls)] == texts


WATCHES = 70
"""More than a server takes over one connection."""
MEANWHILE = 10.0
"""Seconds for a call that takes some thousandths, and would not end at all behind the watches."""


async def test_watches_hold_no_other_calls_up(target: str) -> None:
    async with AsyncClient(target, timeout=PATIENCE) as client:
        watches = [client.watch_results(function="echo") for _ in range(WATCHES)]
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*watches)
        handle = await client.invoke_async("echo", "seen", timeout=MEANWHILE)
        async with asyncio.timeout(PATIENCE):
            assert {(await anext(watch)).invocation.id for watch in watches} == {handle.id}
        await asyncio.gather(*(watch.close() for watch in watches))


def test_watches_of_threads_hold_no_other_calls_up(running: Client) -> None:
    with ExitStack() as stack:
        watches = [stack.enter_context(running.watch_results(function="echo")) for _ in range(WATCHES)]
        handle = running.invoke_async("echo", "seen", timeout=MEANWHILE)
        assert {next(watch).invocation.id for watch in watches} == {handle.id}


class Color(Enum):
    RED = "red"


@dataclass(frozen=True, kw_only=True)
class Part:
    name: str
    tags: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Order:
    number: int
    due: datetime
    color: Color | None
    parts: dict[str, Part]


class Size(TypedDict):
    width: int
    height: int | None


class Model(pydantic.BaseModel):
    width: int = pydantic.Field(gt=0)
    due: datetime


NOW = datetime.now(UTC)
ORDER = Order(number=7, due=NOW, color=Color.RED, parts={"a": Part(name="bolt", tags=["x"]), "b": Part(name="nut")})


def test_a_dataclass_goes_there_and_back(running: Client) -> None:
    echo = running.function("echo", input=Order, output=Order)

    assert echo(ORDER, timeout=PATIENCE) == ORDER
    assert echo.invoke_async(ORDER).result(timeout=PATIENCE) == ORDER
    assert list(echo.map([ORDER] * 5, timeout=PATIENCE)) == [ORDER] * 5


def test_a_typed_dict_goes_there_and_back(running: Client) -> None:
    echo = running.function("echo", input=Size, output=Size)

    assert echo({"width": 5, "height": None}, timeout=PATIENCE) == {"width": 5, "height": None}


def test_a_pydantic_model_goes_there_and_back(running: Client) -> None:
    echo = running.function("echo", input=Model, output=Model)
    model = Model(width=5, due=NOW)

    assert echo(model, timeout=PATIENCE) == model
    assert list(running.map(echo, [model], timeout=PATIENCE)) == [model]


def test_a_wrong_value_never_leaves_and_a_wrong_answer_is_kept(running: Client) -> None:
    wrong = Size(width="5", height=None)  # type: ignore[typeddict-item]
    running.functions.deploy(name="strict", command=["cat"])

    with pytest.raises(InvalidRequestError, match=r"strict: input\.width: must be int, is str '5'"):
        running.function("strict", input=Size, output=Size)(wrong)
    assert list(running.list_invocations(function="strict")) == []
    with pytest.raises(InvalidResultError, match=r"result\.due: ") as caught:
        running.function("strict", input=Size, output=Model)({"width": 5, "height": 1}, timeout=PATIENCE)
    assert caught.value.result.json() == {"width": 5, "height": 1}
