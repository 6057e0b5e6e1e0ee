"""Work that requires what a worker does not know: it goes back, and a worker that knows it does it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from homing.v1 import invocation_pb2 as api
from homing.v1.function_pb2 import Command, Function
from homing.v1.invocation_pb2 import InvocationSpec
from homing.v1.policy_pb2 import Callback
from homing_core.clock import now_us
from homing_core.ids import new_id
from homing_core.wire.v1 import DeliveryMessage
from homing_worker.execution import features
from support.fake_server import FakeServer
from support.ledger import until
from support.receivers import receiving, take
from support.workers import running_worker

SPEC = InvocationSpec(function="echo")


@pytest.fixture(autouse=True)
async def echo(server: FakeServer) -> None:
    await server.deploy(Function(name="echo", command=Command(args=["cat"]), max_instances=1))


def set_delay(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setattr(features, "RETURN_DELAY_SECONDS", seconds)


def test_what_is_not_known_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "KNOWN", frozenset({"x"}))

    assert features.unknown([]) == []
    assert features.unknown(["x"]) == []
    assert features.unknown(["z", "x", "y"]) == ["y", "z"]


async def test_an_invocation_goes_back_to_the_store_and_is_done_by_a_worker_that_knows_what_it_takes(
    server: FakeServer, broker_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_delay(monkeypatch, 0.3)
    with capture_logs() as logs:
        async with running_worker(server, broker_url, tmp_path):
            id_ = await server.send(SPEC, requires=["y", "x"])
            given_back = await server.event(id_, "requeued")
            await server.drained("echo")
            # What needs nothing of the kind is done here meanwhile.
            assert (await server.end(await server.send(SPEC))).state == api.INVOCATION_STATE_SUCCEEDED

    assert (given_back.requeued.reason, len(given_back.requeued.attempts)) == ("UNSUPPORTED", 0)
    assert (given_back.token.generation, given_back.token.redelivery_count) == (1, 0)
    (told,) = [line for line in logs if line["event"] == "work_not_supported"]
    assert (told["invocation_id"], told["missing"]) == (id_, ["x", "y"])

    monkeypatch.setattr(features, "KNOWN", frozenset({"x", "y"}))
    async with running_worker(server, broker_url, tmp_path):
        await server.dispatch_again(id_, SPEC, generation=2, requires=["y", "x"])
        assert (await server.end(id_)).state == api.INVOCATION_STATE_SUCCEEDED


async def test_one_that_is_held_neither_keeps_a_worker_from_leaving_nor_is_it_lost(
    server: FakeServer, broker_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_worker(server, broker_url, tmp_path):
        id_ = await server.send(SPEC, requires=["x"])
        await server.status(lambda status: [load.in_flight for load in status.functions] == [1])
        assert (await server.end(await server.send(SPEC))).state == api.INVOCATION_STATE_SUCCEEDED
        leaving = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - leaving < 5.0
    assert not server.of(id_)

    monkeypatch.setattr(features, "KNOWN", frozenset({"x"}))
    async with running_worker(server, broker_url, tmp_path):
        assert (await server.end(id_)).state == api.INVOCATION_STATE_SUCCEEDED


async def test_one_that_is_held_is_stopped_at_once(server: FakeServer, broker_url: str, tmp_path: Path) -> None:
    async with running_worker(server, broker_url, tmp_path):
        id_ = await server.send(SPEC, requires=["x"])
        await server.status(lambda status: [load.in_flight for load in status.functions] == [1])
        await server.stop(id_)
        async with asyncio.timeout(2.0):
            end = await server.end(id_)
        await server.drained("echo")

    assert (end.state, len(end.attempts)) == (api.INVOCATION_STATE_STOPPED, 0)


async def test_a_call_goes_to_another_worker_until_its_deadline(
    server: FakeServer, broker_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "SYNC_RETURN_DELAY_SECONDS", 0.1)
    with capture_logs() as logs:
        async with running_worker(server, broker_url, tmp_path):
            late = await server.call(SPEC, seconds=1.0, requires=["x"])
            id_ = await server.call(SPEC, requires=["x"])
            await until(lambda: sum(line.get("invocation_id") == id_ for line in logs) > 3)
            # Calls that need nothing of the kind are served between its rounds.
            assert (await server.reply(await server.call(SPEC))).ended.state == api.INVOCATION_STATE_SUCCEEDED

    monkeypatch.setattr(features, "KNOWN", frozenset({"x"}))
    async with running_worker(server, broker_url, tmp_path):
        assert (await server.reply(id_)).ended.state == api.INVOCATION_STATE_SUCCEEDED
    assert not server.replies(late)


async def test_a_delivery_goes_back_to_the_store_without_an_attempt(
    server: FakeServer, broker_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with receiving(take) as receiver:
        message = DeliveryMessage(
            delivery_id=new_id(),
            generation=1,
            kind=api.DELIVERY_KIND_CALLBACK,
            uri=receiver.url,
            callback=Callback(url=receiver.url),
            invocation_id=new_id(),
            function="echo",
            state=api.INVOCATION_STATE_SUCCEEDED,
            requires=["x"],
        )
        async with running_worker(server, broker_url, tmp_path):
            await server.deliver(message)
            put_off = (await server.event(message.invocation_id, "delivery")).delivery
        assert (put_off.state, len(put_off.attempts)) == (api.DELIVERY_STATE_PENDING, 0)
        assert abs(put_off.due_us - now_us() - 30_000_000) < 10_000_000
        assert not receiver.requests

        monkeypatch.setattr(features, "KNOWN", frozenset({"x"}))
        message.generation = 2
        async with running_worker(server, broker_url, tmp_path):
            await server.deliver(message)
            await receiver.until(lambda it: len(it.requests) == 1)
            await server.event(message.invocation_id, "delivery", number=3)

    assert [event.delivery.state for event in server.distinct(message.invocation_id, "delivery")] == [
        api.DELIVERY_STATE_PENDING, api.DELIVERY_STATE_DELIVERING, api.DELIVERY_STATE_DELIVERED
    ]  # fmt: skip
