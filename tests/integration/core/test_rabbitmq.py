"""What RabbitMQ and the network between may do to the broker seam."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pika
import pytest
import uvloop
from structlog.testing import capture_logs

from homing_core.broker import (
    BrokerError,
    BrokerUnavailableError,
    Depth,
    Outgoing,
    PublishRefusedError,
    PublishUnknownError,
    Received,
)
from homing_core.broker.rabbitmq import RabbitBroker, TopologyError, connection, publisher
from homing_core.broker.rabbitmq.consumer import InFlight
from homing_core.broker.rabbitmq.topology import Topology, work_queue
from support.inbox import Inbox, eventually, until
from support.proxy import TcpProxy
from support.rabbitmq import RabbitNode, vhost_of

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


@asynccontextmanager
async def started(url: str, name: str = "test") -> AsyncIterator[RabbitBroker]:
    broker = RabbitBroker(url, name=name)
    try:
        async with asyncio.timeout(30):
            await broker.start()
        yield broker
    finally:
        await broker.close()


@asynccontextmanager
async def proxied(url: str, node: RabbitNode) -> AsyncIterator[tuple[TcpProxy, str]]:
    async with TcpProxy("127.0.0.1", node.port) as proxy:
        yield proxy, url.replace(f":{node.port}/", f":{proxy.port}/")


async def cut_and_reconnect(proxy: TcpProxy, broker: RabbitBroker) -> None:
    """Cut both connections and wait until both are made anew."""
    before = proxy.accepted
    await proxy.cut()
    await until(lambda: proxy.accepted >= before + 2 and broker.connected)


def work(*bodies: bytes, function: str = "resize") -> list[Outgoing]:
    return [Outgoing(function=function, body=body) for body in bodies]


async def drain(url: str, function: str = "resize") -> Counter[bytes]:
    """Take all that waits in a function's work queue; tell how often each body was there."""
    inbox = Inbox()
    async with started(url) as broker:
        depth = (await broker.depth(function)).work
        await broker.consume_work(function, inbox, prefetch=500)
        bodies: Counter[bytes] = Counter()
        for _ in range(depth):
            message = await inbox.next()
            bodies[message.body] += 1
            message.ack()

        async def left() -> int:
            return (await broker.depth(function)).work

        await eventually(left, 0)
        assert inbox.count == depth
    return bodies


def check(sent: dict[bytes, BrokerError | None], there: Counter[bytes]) -> None:
    """Hold what publishers were told against what the broker has."""
    confirmed = {body for body, outcome in sent.items() if outcome is None}
    unknown = {body for body, outcome in sent.items() if isinstance(outcome, PublishUnknownError)}
    assert confirmed <= set(there)
    assert set(there) <= confirmed | unknown
    assert set(there.values()) <= {1}
    strange = set(map(type, sent.values())) - {type(None), PublishUnknownError, BrokerUnavailableError}
    assert not strange


# --- Event loops


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_both_event_loops(loop_factory: LoopFactory, broker_url: str, rabbit_node: RabbitNode) -> None:
    async def scenario() -> None:
        async with proxied(broker_url, rabbit_node) as (proxy, url), started(url) as broker:
            inbox, answers = Inbox(), Inbox()

            async def consume() -> None:
                await broker.consume_work("resize", inbox, prefetch=100)
                await broker.consume_replies(answers)

            await consume()
            broker.on_connected(consume)
            outcomes = await broker.publish_work(work(*([b"x" * 300] * 3000)))
            assert set(outcomes) == {None}
            for _ in range(3000):
                (await inbox.next()).ack()
            await cut_and_reconnect(proxy, broker)
            assert await broker.publish_work(work(b"y")) == [None]
            while (message := await inbox.next()).body != b"y":
                message.ack()
            await broker.events_depth()

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(scenario())


# --- The network


async def test_every_publish_is_accounted_for_while_connections_are_cut(
    broker_url: str, rabbit_node: RabbitNode
) -> None:
    sent: dict[bytes, BrokerError | None] = {}
    async with proxied(broker_url, rabbit_node) as (proxy, url), started(url) as broker:
        await broker.open_function("resize")

        async def publish(name: int) -> None:
            for batch in range(10):
                bodies = [f"{name}/{batch}/{number}".encode() for number in range(100)]
                outcomes = await broker.publish_work(work(*bodies))
                sent.update(zip(bodies, outcomes, strict=True))

        publishers = [asyncio.create_task(publish(name)) for name in range(12)]
        for cut in range(1, 7):
            await until(lambda cut=cut: len(sent) >= cut * 1500)  # type: ignore[misc]
            await proxy.cut()
        await asyncio.gather(*publishers)
        assert proxy.accepted >= 6
    assert len(sent) == 12_000
    assert Counter(map(type, sent.values()))[PublishUnknownError] > 0
    check(sent, await drain(broker_url))


async def test_what_was_in_flight_on_a_lost_connection_is_stale(broker_url: str, rabbit_node: RabbitNode) -> None:
    async with proxied(broker_url, rabbit_node) as (proxy, url), started(url) as broker:
        inbox = Inbox()
        lost = asyncio.Event()
        broker.on_lost(lost.set)

        async def consume() -> None:
            await broker.consume_work("resize", inbox, prefetch=10)

        await consume()
        broker.on_connected(consume)
        assert set(await broker.publish_work(work(b"1", b"2", b"3"))) == {None}
        held = await inbox.take(3)
        await proxy.cut()
        await lost.wait()
        held[0].ack()
        again = await inbox.take(3)
        assert sorted((message.body, message.redelivery_count) for message in again) == [
            (b"1", 1),
            (b"2", 1),
            (b"3", 1),
        ]
        # These carry the numbers of the messages that are in flight now, on a channel that is gone.
        held[0].ack()
        held[1].reject()
        held[2].requeue()
        for message in again:
            message.requeue()
        third = await inbox.take(3)
        assert {message.redelivery_count for message in third} == {2}
        assert {message.body for message in third} == {b"1", b"2", b"3"}


async def test_hooks_and_setups_run_at_each_loss(broker_url: str, rabbit_node: RabbitNode) -> None:
    calls: list[str] = []
    async with proxied(broker_url, rabbit_node) as (proxy, url):
        broker = RabbitBroker(url, name="test")

        async def setup() -> None:
            calls.append("connected")

        def fails() -> None:
            raise ValueError("a fault in a hook")

        broker.on_connected(setup)
        broker.on_lost(fails)
        broker.on_lost(lambda: calls.append("lost"))
        try:
            await broker.start()
            for _ in range(3):
                await cut_and_reconnect(proxy, broker)
        finally:
            await broker.close()
    assert calls == ["connected"] + ["lost", "connected"] * 3


async def test_a_connection_cut_in_its_setup_is_made_anew(broker_url: str, rabbit_node: RabbitNode) -> None:
    entered: asyncio.Queue[asyncio.Event] = asyncio.Queue()
    async with proxied(broker_url, rabbit_node) as (proxy, url):
        broker = RabbitBroker(url, name="test")

        async def setup() -> None:
            go_on = asyncio.Event()
            entered.put_nowait(go_on)
            await go_on.wait()

        broker.on_connected(setup)
        starting = asyncio.create_task(broker.start())
        try:
            await entered.get()
            await proxy.cut()
            async with asyncio.timeout(30):
                (await entered.get()).set()
                await starting
            await until(lambda: broker.connected)
        finally:
            await broker.close()


async def test_a_silent_connection_is_found_by_its_heartbeat(
    broker_url: str, rabbit_node: RabbitNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HEARTBEAT", 1)
    async with proxied(broker_url, rabbit_node) as (proxy, url), started(url) as broker:
        await broker.open_function("resize")
        lost = asyncio.Event()
        broker.on_lost(lost.set)
        proxy.pause()
        publishing = asyncio.create_task(broker.publish_work(work(b"x")))
        async with asyncio.timeout(60):
            (outcome,) = await publishing
            await lost.wait()
        assert isinstance(outcome, PublishUnknownError)
        await proxy.cut()
        proxy.resume()
        await until(lambda: broker.connected)
        assert await broker.publish_work(work(b"y")) == [None]


async def test_a_broker_that_does_not_answer_is_tried_again(
    broker_url: str, rabbit_node: RabbitNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "CONNECT_TIMEOUT", 0.5)
    async with proxied(broker_url, rabbit_node) as (proxy, url):
        proxy.pause()
        broker = RabbitBroker(url, name="test")
        starting = asyncio.create_task(broker.start())
        try:
            await until(lambda: proxy.accepted >= 3)
            assert not starting.done()
            proxy.resume()
            async with asyncio.timeout(30):
                await starting
            assert broker.connected
        finally:
            await broker.close()


async def test_start_can_be_given_up_and_closed(broker_url: str, rabbit_node: RabbitNode) -> None:
    async with proxied(broker_url, rabbit_node) as (proxy, url):
        proxy.pause()
        broker = RabbitBroker(url, name="test")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await broker.start()
        began = time.monotonic()
        await broker.close()
        assert time.monotonic() - began < 5


async def test_closing_ends_a_start_under_way(broker_url: str, rabbit_node: RabbitNode) -> None:
    async with proxied(broker_url, rabbit_node) as (proxy, url):
        proxy.pause()
        broker = RabbitBroker(url, name="test")
        starting = asyncio.create_task(broker.start())
        await until(lambda: proxy.accepted > 0)
        await broker.close()
        with pytest.raises(BrokerUnavailableError, match="closed"):
            await starting


async def test_closing_does_not_wait_for_a_silent_broker(broker_url: str, rabbit_node: RabbitNode) -> None:
    async with proxied(broker_url, rabbit_node) as (proxy, url), started(url) as broker:
        await broker.open_function("resize")
        proxy.pause()
        publishing = asyncio.create_task(broker.publish_work(work(b"x")))
        await asyncio.sleep(0)
        began = time.monotonic()
        await broker.close()
        assert time.monotonic() - began < 15
        (outcome,) = await publishing
        assert isinstance(outcome, PublishUnknownError)


async def test_publishing_waits_a_while_for_the_connection(broker_url: str, rabbit_node: RabbitNode) -> None:
    async with proxied(broker_url, rabbit_node) as (proxy, url), started(url) as broker:
        await broker.open_function("resize")
        address = await broker.consume_replies(Inbox())
        proxy.pause()
        await proxy.cut()
        await until(lambda: not broker.connected)

        async def resume() -> None:
            proxy.resume()

        outcomes, _, _, _ = await asyncio.gather(
            broker.publish_work(work(b"1", b"2")),
            broker.publish_event(b"x"),
            broker.publish_reply(address, b"x"),
            resume(),
        )
        assert outcomes == [None, None]


async def test_publishing_gives_up_when_the_broker_stays_away(
    broker_url: str, rabbit_node: RabbitNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "AVAILABILITY_TIMEOUT", 0.3)
    async with proxied(broker_url, rabbit_node) as (proxy, url), started(url) as broker:
        proxy.pause()
        await proxy.cut()
        await until(lambda: not broker.connected)
        began = time.monotonic()
        outcomes = await asyncio.gather(*(broker.publish_work(work(b"1", b"2")) for _ in range(50)))
        assert time.monotonic() - began < 3
        assert {type(outcome) for each in outcomes for outcome in each} == {BrokerUnavailableError}
        for attempt in (broker.publish_reply("nowhere", b"x"), broker.publish_status(b"x"), broker.depth("resize")):
            with pytest.raises(BrokerUnavailableError):
                await attempt
        proxy.resume()


# --- The node


async def test_confirmed_work_survives_the_death_of_the_node(broker_url: str, rabbit_node: RabbitNode) -> None:
    sent: dict[bytes, BrokerError | None] = {}
    inbox = Inbox()
    async with started(broker_url) as broker:
        await broker.open_function("resize")
        # A quorum queue is unknown to its node again if that dies in the half second after it was made:
        # the node writes the queue's registration only then (rabbitmq-server#15725).
        await asyncio.sleep(1)

        async def publish(name: int) -> None:
            for batch in range(20):
                bodies = [f"{name}/{batch}/{number}".encode() for number in range(100)]
                sent.update(zip(bodies, await broker.publish_work(work(*bodies)), strict=True))

        async def consume() -> None:
            await broker.consume_events(inbox, prefetch=10)

        await consume()
        broker.on_connected(consume)
        publishers = [asyncio.create_task(publish(name)) for name in range(3)]
        await until(lambda: len(sent) >= 2000)
        await asyncio.to_thread(rabbit_node.kill)
        await asyncio.to_thread(rabbit_node.start)
        await asyncio.gather(*publishers)
        await until(lambda: broker.connected)
        await broker.publish_event(b"x")
        assert (await inbox.next()).body == b"x"
    assert len(sent) == 6000
    assert list(sent.values()).count(None) >= 2000
    check(sent, await drain(broker_url))


async def test_messages_that_a_hanging_node_does_not_confirm_are_unknown(
    broker_url: str, rabbit_node: RabbitNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "CONFIRM_TIMEOUT", 1.0)
    sent: dict[bytes, BrokerError | None] = {}
    async with started(broker_url) as broker:
        await broker.open_function("resize")

        async def publish(start: int, count: int) -> None:
            bodies = [str(number).encode() for number in range(start, start + count)]
            sent.update(zip(bodies, await broker.publish_work(work(*bodies)), strict=True))

        await publish(0, 500)
        rabbit_node.suspend()
        try:
            await asyncio.gather(*(publish(start, 1000) for start in range(500, 3500, 1000)))
            assert list(map(type, sent.values())).count(PublishUnknownError) >= 3000
        finally:
            rabbit_node.resume()
        # The confirms that come now belong to nothing, and those of new messages to them alone.
        await publish(3500, 2500)
        assert [sent[str(number).encode()] for number in range(3500, 6000)] == [None] * 2500
        assert broker.connected
    check(sent, await drain(broker_url))


async def test_a_node_that_shuts_down_in_good_order(broker_url: str, rabbit_node: RabbitNode) -> None:
    async with started(broker_url) as broker:
        await broker.open_function("resize")
        assert await broker.publish_work(work(b"x")) == [None]
        await asyncio.to_thread(rabbit_node.stop)
        await until(lambda: not broker.connected)
        await asyncio.to_thread(rabbit_node.start)
        await until(lambda: broker.connected)
        assert await broker.depth("resize") == Depth(work=1, sync=0)


async def test_a_node_short_of_memory_blocks_publishers_only(
    broker_url: str, rabbit_node: RabbitNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "AVAILABILITY_TIMEOUT", 0.5)
    monkeypatch.setattr(publisher, "CONFIRM_TIMEOUT", 2.0)
    async with started(broker_url) as broker:
        inbox = Inbox()
        await broker.consume_work("resize", inbox, prefetch=10)
        await broker.publish_work(work(b"before"))
        held = await inbox.next()
        rabbit_node.ctl("set_vm_memory_high_watermark", "absolute", "1MB")
        try:

            async def blocked() -> bool:
                await broker.publish_work(work(b"perhaps"))
                return not broker.connected

            await eventually(blocked, wanted=True)
            (outcome,) = await broker.publish_work(work(b"refused"))
            assert isinstance(outcome, BrokerUnavailableError)
            assert "memory" in str(outcome)
            with pytest.raises(BrokerUnavailableError):
                await broker.publish_status(b"x")
            # The other connection goes on.
            held.requeue()
            while (message := await inbox.next()).body != b"before":
                message.ack()
            message.ack()
            assert await broker.depth("nobody") == Depth(work=0, sync=0)
        finally:
            rabbit_node.ctl("set_vm_memory_high_watermark", "0.4")
        await until(lambda: broker.connected)
        assert await broker.publish_work(work(b"after")) == [None]
        while (message := await inbox.next()).body != b"after":
            assert message.body == b"perhaps"


async def test_what_is_not_confirmed_when_the_node_blocks_is_unknown(
    broker_url: str, rabbit_node: RabbitNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "AVAILABILITY_TIMEOUT", 0.5)
    monkeypatch.setattr(publisher, "CONFIRM_TIMEOUT", 2.0)
    sent: dict[bytes, BrokerError | None] = {}
    async with started(broker_url) as broker:
        await broker.open_function("resize")
        rabbit_node.ctl("set_vm_memory_high_watermark", "absolute", "1MB")
        try:
            bodies = [str(number).encode() for number in range(3000)]
            async with asyncio.timeout(30):
                sent.update(zip(bodies, await broker.publish_work(work(*bodies)), strict=True))
            assert set(map(type, sent.values())) >= {PublishUnknownError, BrokerUnavailableError}
        finally:
            rabbit_node.ctl("set_vm_memory_high_watermark", "0.4")
        await until(lambda: broker.connected)
        assert await broker.publish_work(work(b"after")) == [None]
        sent[b"after"] = None
    check(sent, await drain(broker_url))


async def test_a_full_queue_refuses(broker_url: str, rabbit_node: RabbitNode) -> None:
    async with started(broker_url) as broker:
        await broker.open_function("resize")
        rabbit_node.ctl("set_policy", "-p", vhost_of(broker_url), "small", work_queue("resize"), '{"max-length":10}')
        outcomes: list[BrokerError | None] = []

        async def refused() -> bool:
            outcomes.extend(await broker.publish_work(work(*([b"x"] * 10))))
            return any(isinstance(outcome, PublishRefusedError) for outcome in outcomes)

        await eventually(refused, wanted=True)
        assert (await broker.depth("resize")).work == outcomes.count(None)


async def test_an_expiry_beyond_what_rabbitmq_counts_is_none(broker_url: str) -> None:
    async with started(broker_url) as broker:
        await broker.open_function("resize")
        message = Outgoing(function="resize", body=b"x", expires_in=1e9)
        assert await broker.publish_work([message, message]) == [None, None]
        assert await broker.depth("resize") == Depth(work=2, sync=0)


async def test_work_that_comes_back_without_end_goes_to_the_dead_letters(broker_url: str) -> None:
    async with started(broker_url) as broker:
        dead = Inbox()
        counts: list[int] = []

        def handler(message: Received) -> None:
            counts.append(message.redelivery_count)
            message.requeue()

        await broker.consume_dead_work(dead, prefetch=1)
        await broker.consume_work("resize", handler, prefetch=1)
        await broker.publish_work(work(b"x"))
        message = await dead.next()
        assert (message.body, message.dead_reason) == (b"x", "delivery_limit")
        assert counts == list(range(101))


async def test_a_deleted_queue_is_made_and_consumed_again(broker_url: str, rabbit_node: RabbitNode) -> None:
    async with started(broker_url) as broker:
        inbox, other = Inbox(), Inbox()
        consumer = await broker.consume_work("resize", inbox, prefetch=10)
        await broker.consume_work("rotate", other, prefetch=10)
        await broker.publish_work(work(b"1"))
        held = await inbox.next()
        rabbit_node.ctl("delete_queue", "-p", vhost_of(broker_url), work_queue("resize"))
        held.ack()

        async def published() -> bool:
            return await broker.publish_work(work(b"2")) == [None]

        await eventually(published, wanted=True)
        assert (await inbox.next()).body == b"2"
        assert await broker.publish_work(work(b"3", function="rotate")) == [None]
        assert (await other.next()).body == b"3"
        # It is the same consumer still.
        await consumer.cancel()
        assert await broker.publish_work(work(b"4")) == [None]
        assert (await broker.depth("resize")).work == 1


async def test_a_deleted_own_queue_keeps_its_address(broker_url: str, rabbit_node: RabbitNode) -> None:
    async with started(broker_url) as broker:
        inbox = Inbox()
        address = await broker.consume_control(inbox)
        rabbit_node.ctl("delete_queue", "-p", vhost_of(broker_url), address)

        async def told() -> bool:
            await broker.publish_control_to(address, b"you")
            await broker.publish_control(b"all")
            return inbox.count > 0

        await eventually(told, wanted=True)
        bodies = {(await inbox.next()).body}
        while bodies != {b"you", b"all"}:
            bodies.add((await inbox.next()).body)


async def test_a_message_held_for_too_long_hurts_its_own_queue_only(broker_url: str, rabbit_node: RabbitNode) -> None:
    rabbit_node.ctl("eval", "[application:set_env(rabbit, K, 1000) || K <- [consumer_timeout, channel_tick_interval]].")
    try:
        async with started(broker_url) as broker:
            slow, quick = Inbox(), Inbox()
            await broker.consume_work("slow", slow, prefetch=1)
            await broker.consume_work("quick", quick, prefetch=1)
            await broker.publish_work([*work(b"x", function="slow")])
            held = await slow.next()
            again = await slow.next()  # the broker took it back
            assert (again.body, again.redelivery_count) == (b"x", 1)
            held.ack()
            again.ack()
            await broker.publish_work(work(b"y", function="quick"))
            (await quick.next()).ack()
            assert broker.connected

            async def left() -> Depth:
                return await broker.depth("slow")

            await eventually(left, Depth(work=0, sync=0))
    finally:
        rabbit_node.ctl(
            "eval",
            "application:set_env(rabbit, consumer_timeout, 1800000), "
            "application:set_env(rabbit, channel_tick_interval, 60000).",
        )


async def test_a_publishing_channel_that_the_broker_closes_is_opened_again(
    broker_url: str, rabbit_node: RabbitNode
) -> None:
    async with started(broker_url) as broker:
        inbox = Inbox()
        await broker.open_function("resize")
        confirmed = broker._publisher._confirmed
        assert confirmed is not None
        sending = asyncio.create_task(broker.publish_work(work(*([b"x"] * 100))))
        await asyncio.sleep(0)
        confirmed.raw.basic_publish("no such exchange", "", b"x")
        outcomes = await sending
        assert set(map(type, outcomes)) <= {type(None), PublishUnknownError}
        assert await broker.publish_work(work(b"y")) == [None]
        assert broker.connected

        # A shared exchange that somebody deleted is made again too.
        name = vhost_of(broker_url)
        rabbit_node.ctl(
            "eval",
            f'rabbit_exchange:delete(rabbit_misc:r(<<"{name}">>, exchange, <<"homing.control.v1">>), false, <<"x">>).',
        )
        await broker.publish_control(b"lost")
        await broker.consume_control(inbox)

        async def told() -> bool:
            with contextlib.suppress(BrokerUnavailableError):
                await broker.publish_control(b"x")
            return inbox.count > 0

        await eventually(told, wanted=True)
        assert (await inbox.next()).body == b"x"


# --- Queues that are not as they should be


@asynccontextmanager
async def raw_channel(url: str) -> AsyncIterator[pika.adapters.blocking_connection.BlockingChannel]:
    raw = await asyncio.to_thread(pika.BlockingConnection, pika.URLParameters(url))
    try:
        yield raw.channel()
    finally:
        raw.close()


async def test_a_function_queue_with_other_arguments_is_explained(broker_url: str) -> None:
    async with raw_channel(broker_url) as channel:
        channel.queue_declare(work_queue("resize"), durable=True)
    async with started(broker_url) as broker:
        for attempt in (
            broker.open_function("resize"),
            broker.consume_work("resize", Inbox(), prefetch=1),
            broker.consume_sync("resize", Inbox(), prefetch=1),
        ):
            with pytest.raises(TopologyError, match=r"queue 'homing\.work\.v1\.resize'.*inequivalent arg.*delete it"):
                await attempt
        await broker.open_function("rotate")
        assert broker.connected


async def test_a_shared_queue_with_other_arguments_ends_the_start(broker_url: str) -> None:
    async with raw_channel(broker_url) as channel:
        channel.queue_declare("homing.events.v1", durable=True)
    broker = RabbitBroker(broker_url, name="test")
    async with asyncio.timeout(30):
        with pytest.raises(TopologyError, match=r"queue 'homing\.events\.v1'"):
            await broker.start()
    assert not broker.connected


def test_options_follow_the_version_of_the_broker() -> None:
    old, new = Topology.of({"version": "3.10.8"}), Topology.of({"version": b"4.1.0-rc.1"})
    for queue in (old.events(), old.deliveries(), old.dead()):
        assert "x-delivery-limit" not in queue.arguments
    for queue in (new.events(), new.deliveries(), new.dead()):
        assert queue.arguments["x-delivery-limit"] == -1
    assert Topology.work("resize").arguments["x-delivery-limit"] == 100


# --- What is shown and told


async def test_connections_bear_the_name(broker_url: str, rabbit_node: RabbitNode) -> None:
    async with started(broker_url, name="worker 7"):
        table = rabbit_node.ctl("list_connections", "client_properties")
    assert "worker 7 publishes" in table
    assert "worker 7 consumes" in table


async def test_the_password_is_never_logged(
    broker_url: str, rabbit_node: RabbitNode, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    url = broker_url.replace("guest:guest@", "guest:opensesame@")
    with capture_logs() as logs:
        broker = RabbitBroker(url, name="test")
        starting = asyncio.create_task(broker.start())
        await until(lambda: len(logs) >= 2)
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        await broker.close()
    assert "refused" in str(logs).lower()
    assert "opensesame" not in str(logs)
    assert "opensesame" not in caplog.text


@pytest.mark.parametrize(
    "url", ["http://u:opensesame@h", "amqp://u:opensesame@h:port/", "amqp://opensesame@h", "nonsense", ""]
)
def test_a_url_that_cannot_be_read_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"not of the form amqp\[s\]://") as caught:
        RabbitBroker(url, name="test")
    assert "opensesame" not in str(caught.getrepr(chain=True, style="value"))


# --- The parts


async def test_outstanding_publishes_are_bounded(broker_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher, "WINDOW_MESSAGES", 50)
    monkeypatch.setattr(publisher, "WINDOW_BYTES", 4000)
    async with started(broker_url) as broker:
        await broker.open_function("resize")
        most: list[tuple[int, int]] = []
        write = publisher.Publisher._write

        def observed(self: publisher.Publisher, *arguments: Any) -> int:
            index = write(self, *arguments)
            most.append((len(self._pending), self._pending_bytes))
            return index

        monkeypatch.setattr(publisher.Publisher, "_write", observed)
        outcomes = await asyncio.gather(*(broker.publish_work(work(*([b"x" * 100] * 333))) for _ in range(5)))
        assert [set(each) for each in outcomes] == [{None}] * 5
        assert max(messages for messages, _ in most) == 40
        assert max(size for _, size in most) == 4000
        # What is larger than the window goes alone.
        assert await broker.publish_work(work(b"x" * 10_000, b"y")) == [None, None]


async def test_acknowledgements_go_together_only_where_they_follow_on_each_other() -> None:
    class Recorder:
        is_open = True

        def __init__(self) -> None:
            self.calls: list[tuple[str, int, bool]] = []

        def basic_ack(self, tag: int, multiple: bool = False) -> None:  # noqa: FBT001, FBT002
            self.calls.append(("ack", tag, multiple))

        def basic_nack(self, tag: int, requeue: bool = True) -> None:  # noqa: FBT001, FBT002
            self.calls.append(("nack", tag, requeue))

        def close(self) -> None:
            self.is_open = False

    channel = Recorder()
    in_flight = InFlight(channel)  # type: ignore[arg-type]
    for tag in range(1, 11):
        in_flight.add(tag)
    for tag in (3, 1, 2, 5):
        in_flight.ack(tag)
    in_flight.ack(3)
    await asyncio.sleep(0)
    assert channel.calls == [("ack", 3, True), ("ack", 5, False)]
    channel.calls.clear()
    in_flight.nack(7, requeue=True)
    in_flight.ack(4)
    await asyncio.sleep(0)
    in_flight.ack(6)
    in_flight.ack(8)
    await asyncio.sleep(0)
    # 5 and 7 are settled already, so 8 stands for 6 too.
    assert channel.calls == [("nack", 7, True), ("ack", 4, False), ("ack", 8, True)]
    channel.calls.clear()
    in_flight.close_when_empty()
    in_flight.nack(9, requeue=False)
    assert channel.is_open
    in_flight.ack(10)
    await asyncio.sleep(0)
    assert channel.calls == [("nack", 9, False), ("ack", 10, False)]
    assert not channel.is_open
