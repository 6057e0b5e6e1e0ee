"""P6: every delivery ends DELIVERED or DEAD, whatever receivers do and whatever is killed."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack

import pytest

from homing import AsyncClient
from homing.v1 import invocation_pb2 as api
from support.deliveries import outcomes, spec_to
from support.gauges import Gauges, gauges_when, settled_gauges
from support.processes import Cluster
from support.rabbitmq import RabbitNode
from support.receivers import Behaviour, Peer, Request, always, never, receiving, take

DAY = "0.2,0.4,0.8,1.6,3,3,3,3"
"""A day of retries, in fifteen seconds."""
ATTEMPTS = 9
EACH = 12
"""Invocations for each receiver; each has a callback and a destination."""

GIB = 1024**3


def flapping() -> Behaviour:
    """Return what fails each delivery in two ways before it takes it."""
    seen: Counter[str] = Counter()

    async def behaviour(request: Request, peer: Peer) -> None:
        seen[request.id] += 1
        match seen[request.id]:
            case 1:
                await peer.answer(500)
            case 2:
                peer.drop()
            case _:
                await peer.answer(200)

    return behaviour


def failing_until(over: asyncio.Event) -> Behaviour:
    async def behaviour(_: Request, peer: Peer) -> None:
        await peer.answer(204 if over.is_set() else 503)

    return behaviour


async def slow(_: Request, peer: Peer) -> None:
    await asyncio.sleep(1)
    await peer.answer(200)


async def drop(_: Request, peer: Peer) -> None:
    peer.drop()


async def flood(_: Request, peer: Peer) -> None:
    await peer.flood(5 * GIB)


@pytest.mark.timeout(300)
async def test_p6_every_delivery_ends_though_receivers_fail_and_everything_is_killed(
    cluster: Cluster, rabbit_node: RabbitNode
) -> None:
    server = cluster.start_server(HOMING_RESEND_AFTER="2")
    worker = cluster.start_worker(HOMING_DELIVERY_DELAYS=DAY)
    evening = asyncio.Event()
    async with AsyncExitStack() as stack:
        elsewhere = await stack.enter_async_context(receiving(take))
        behaviours: dict[str, Behaviour] = {
            "fails for a day": failing_until(evening),
            "flaps": flapping(),
            "is slow": slow,
            "redirects": always(302, Location=elsewhere.url),
            "answers 5 GB": flood,
            "drops connections": drop,
            "is gone": always(410),
            "asks for patience": always(429, Retry_After="1"),
        }
        receivers = {
            name: await stack.enter_async_context(receiving(behaviour)) for name, behaviour in behaviours.items()
        }
        client = await stack.enter_async_context(AsyncClient(cluster.target, timeout=60))
        await client.functions.deploy(name="echo", command=["cat"], max_instances=4)
        to = await stack.enter_async_context(outcomes(cluster.target))
        ids = {
            name: await to.invoke(
                *[spec_to("echo", callback=receiver.url, on_success=[receiver.url], data=b"{}")] * EACH
            )
            for name, receiver in receivers.items()
        }

        async def came(count: int) -> None:
            await receivers["fails for a day"].until(lambda receiver: receiver.seen.total() >= count)

        await came(EACH)
        await asyncio.to_thread(worker.kill)
        await asyncio.to_thread(worker.start)
        await came(2 * EACH)
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        await came(3 * EACH)
        await asyncio.to_thread(rabbit_node.sync)
        await asyncio.to_thread(rabbit_node.kill)
        await asyncio.to_thread(rabbit_node.start)
        await came(4 * EACH)
        evening.set()

        over = {name: await to.delivered(ids[name], count=2) for name in receivers}

    states = {name: Counter(delivery.state for delivery in deliveries) for name, deliveries in over.items()}
    delivered, dead = api.DELIVERY_STATE_DELIVERED, api.DELIVERY_STATE_DEAD
    for name in ("is slow", "answers 5 GB"):
        assert states[name] == {delivered: 2 * EACH}, name
    for name in ("redirects", "drops connections", "is gone", "asks for patience"):
        assert states[name] == {dead: 2 * EACH}, name
    for name in ("fails for a day", "flaps"):
        # Those whose attempts were used up before it was well again are dead.
        assert states[name].keys() <= {delivered, dead}
        assert states[name][delivered] > 0
    for name, deliveries in over.items():
        for delivery in deliveries:
            assert receivers[name].seen[delivery.id] >= 1, f"{delivery.id} never came to who {name}"
            assert delivery.attempts
            assert [attempt.number for attempt in delivery.attempts] == [*range(1, len(delivery.attempts) + 1)]
            assert delivery.attempts[-1].HasField("failure") is (delivery.state == dead)
    assert {len(delivery.attempts) for delivery in over["is gone"]} == {1}
    # An attempt that a killed worker made and did not report is made again, and not counted.
    assert {len(delivery.attempts) for delivery in over["redirects"]} == {ATTEMPTS}
    assert {attempt.status_code for delivery in over["redirects"] for attempt in delivery.attempts} == {302}
    assert not elsewhere.requests
    # Most of what was offered was never read.
    assert receivers["answers 5 GB"].flooded < GIB

    def all_over(gauges: Gauges) -> bool:
        return not gauges.all("homing_deliveries")

    gauges = await gauges_when(server, all_over)
    assert gauges.value("homing_dead_letters", "delivery") >= 4 * 2 * EACH
    settled = await settled_gauges(server)
    assert (settled.record_drift, settled.broker_drift) == (0, {})


@pytest.mark.timeout(120)
async def test_p6_a_receiver_that_hangs_holds_up_no_other(cluster: Cluster) -> None:
    """It has half of all deliveries, and the others have arrived before the first of its attempts ends."""
    cluster.start_server()
    cluster.start_worker()
    async with AsyncExitStack() as stack:
        hung = await stack.enter_async_context(receiving(never))
        others = [await stack.enter_async_context(receiving(take)) for _ in range(4)]
        client = await stack.enter_async_context(AsyncClient(cluster.target, timeout=60))
        await client.functions.deploy(name="echo", command=["cat"], max_instances=8)
        await client.functions.pause("echo")
        to = await stack.enter_async_context(outcomes(cluster.target))
        specs = [
            spec_to("echo", callback=hung.url if number % 2 else others[number // 2 % 4].url) for number in range(400)
        ]
        ids = await to.invoke(*specs)
        await client.functions.resume("echo")
        await asyncio.gather(*(receiver.until(lambda each: len(each.seen) == 50) for receiver in others))

        invocations = [await to.get(invocation_id) for invocation_id in ids[1::2]]
    states = {delivery.state for invocation in invocations for delivery in invocation.deliveries}
    assert api.DELIVERY_STATE_DELIVERED not in states
    assert api.DELIVERY_STATE_DEAD not in states
    assert all(seen == 1 for receiver in others for seen in receiver.seen.values())
