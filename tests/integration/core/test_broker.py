"""What every broker promises, told in terms of the seam alone."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest

from homing_core.broker import (
    Broker,
    BrokerUnavailableError,
    Depth,
    MessageTooLargeError,
    Outgoing,
    Received,
    UnroutableError,
)
from homing_core.broker.embedded import EmbeddedBroker, Exchange
from homing_core.broker.rabbitmq import RabbitBroker
from homing_core.limits import MAX_BROKER_LOGS, MAX_MESSAGE, MIB
from support.inbox import Inbox, eventually

BrokerFactory = Callable[[], Broker]
"""Makes one process's broker, not started; all that it makes in one test see each other. Closed after the test."""


@pytest.fixture(params=["rabbitmq", "embedded"])
async def broker_factory(request: pytest.FixtureRequest) -> AsyncIterator[BrokerFactory]:
    exchange = Exchange()
    url = request.getfixturevalue("broker_url") if request.param == "rabbitmq" else ""
    made: list[Broker] = []

    def make() -> Broker:
        broker = RabbitBroker(url, name=f"test {len(made)}") if url else EmbeddedBroker(exchange)
        made.append(broker)
        return broker

    yield make
    async with AsyncExitStack() as stack:
        for broker in made:
            stack.push_async_callback(broker.close)


@pytest.fixture
async def broker(broker_factory: BrokerFactory) -> Broker:
    broker = broker_factory()
    await broker.start()
    await broker.open_function("resize")
    return broker


async def publish(broker: Broker, *bodies: bytes, function: str = "resize", expires_in: float | None = None) -> None:
    outcomes = await broker.publish_work(
        [Outgoing(function=function, body=body, expires_in=expires_in) for body in bodies]
    )
    assert list(outcomes) == [None] * len(bodies)


def has_depth(broker: Broker, work: int, sync: int = 0, function: str = "resize") -> asyncio.Future[None]:
    async def ask() -> Depth:
        return await broker.depth(function)

    return asyncio.ensure_future(eventually(ask, Depth(work=work, sync=sync)))


# --- Connections


async def test_connected_only_between_start_and_close(broker_factory: BrokerFactory) -> None:
    broker = broker_factory()
    assert not broker.connected
    await broker.start()
    assert broker.connected
    await broker.close()
    assert not broker.connected


async def test_nothing_can_be_done_without_a_connection(broker_factory: BrokerFactory) -> None:
    broker = broker_factory()
    await broker.start()
    await broker.close()
    (outcome,) = await broker.publish_work([Outgoing(function="resize", body=b"x")])
    assert isinstance(outcome, BrokerUnavailableError)
    (outcome,) = await broker.publish_deliveries([b"x"])
    assert isinstance(outcome, BrokerUnavailableError)
    for attempt in (
        broker.publish_sync("resize", b"x", expires_in=1),
        broker.publish_event(b"x"),
        broker.publish_logs(b"x"),
        broker.publish_reply("somewhere", b"x"),
        broker.publish_control(b"x"),
        broker.publish_control_to("somewhere", b"x"),
        broker.publish_status(b"x"),
        broker.open_function("resize"),
        broker.close_function("resize"),
        broker.depth("resize"),
        broker.events_depth(),
    ):
        with pytest.raises(BrokerUnavailableError):
            await attempt


async def test_setups_run_in_order_before_start_returns(broker_factory: BrokerFactory) -> None:
    broker = broker_factory()
    calls: list[str] = []
    inbox = Inbox()

    async def first() -> None:
        await broker.consume_work("resize", inbox, prefetch=1)
        calls.append("first")

    async def second() -> None:
        calls.append("second")

    broker.on_connected(first)
    broker.on_connected(second)
    await broker.start()
    assert calls == ["first", "second"]
    await publish(broker, b"x")
    assert (await inbox.next()).body == b"x"


async def test_a_setup_that_fails_is_tried_again_on_a_new_connection(broker_factory: BrokerFactory) -> None:
    broker = broker_factory()
    calls: list[str] = []

    async def first() -> None:
        calls.append("first")

    async def second() -> None:
        calls.append("second")
        if calls.count("second") == 1:
            raise ValueError("not yet")

    broker.on_connected(first)
    broker.on_connected(second)
    await broker.start()
    assert calls == ["first", "second", "first", "second"]
    assert broker.connected


async def test_closing_is_no_loss(broker_factory: BrokerFactory) -> None:
    broker = broker_factory()
    losses: list[str] = []
    broker.on_lost(lambda: losses.append("lost"))
    await broker.start()
    await broker.close()
    assert losses == []


# --- Work


async def test_work_arrives_as_it_was_published(broker: Broker) -> None:
    inbox = Inbox()
    await broker.consume_work("resize", inbox, prefetch=10)
    bodies = [b"", b"\x00\xff", os.urandom(256 * 1024), os.urandom(1024 * 1024)]
    await publish(broker, *bodies)
    messages = await inbox.take(4)
    assert [message.body for message in messages] == bodies
    assert [message.redelivery_count for message in messages] == [0] * 4
    assert [message.dead_reason for message in messages] == [""] * 4


async def test_acknowledged_work_is_gone(broker: Broker, broker_factory: BrokerFactory) -> None:
    inbox = Inbox()
    await broker.consume_work("resize", inbox, prefetch=10)
    await publish(broker, b"1", b"2")
    for message in await inbox.take(2):
        message.ack()
    await broker.close()
    other = broker_factory()
    await other.start()
    assert await other.close_function("resize")


async def test_acknowledgements_in_any_order_settle_all(broker: Broker, broker_factory: BrokerFactory) -> None:
    count = 300
    inbox = Inbox()
    await broker.consume_work("resize", inbox, prefetch=count)
    await publish(broker, *(str(number).encode() for number in range(count)))
    messages = await inbox.take(count)
    shuffled = random.Random(7).sample(messages, count)
    kept = {message.body for message in shuffled[-20:]}
    for index, message in enumerate(shuffled[:-20]):
        message.ack()
        if index % 9 == 0:
            await asyncio.sleep(0)
    await broker.close()

    other = broker_factory()
    await other.start()
    again = Inbox()
    await other.consume_work("resize", again, prefetch=count)
    redelivered = await again.take(20)
    assert {message.body for message in redelivered} == kept
    for message in redelivered:
        message.ack()
    await has_depth(other, work=0)
    assert again.count == 20


async def test_nothing_to_publish(broker: Broker) -> None:
    assert list(await broker.publish_work([])) == []
    assert list(await broker.publish_deliveries([])) == []


async def test_work_for_a_function_without_queues_is_told_apart(broker: Broker) -> None:
    outcomes = await broker.publish_work(
        [
            Outgoing(function="resize", body=b"1"),
            Outgoing(function="nobody", body=b"2"),
            Outgoing(function="resize", body=b"3"),
        ]
    )
    assert [type(outcome) for outcome in outcomes] == [type(None), UnroutableError, type(None)]
    assert "nobody" in str(outcomes[1])
    await has_depth(broker, work=2)


async def test_what_is_too_large_for_any_broker_is_refused_alone(broker: Broker) -> None:
    inbox = Inbox()
    await broker.consume_work("resize", inbox, prefetch=10)
    large = bytes(MAX_MESSAGE + 1)
    outcomes = await broker.publish_work([Outgoing(function="resize", body=body) for body in (b"1", large, b"2")])
    assert [type(outcome) for outcome in outcomes] == [type(None), MessageTooLargeError, type(None)]
    (outcome,) = await broker.publish_work([Outgoing(function="resize", body=large)])
    assert isinstance(outcome, MessageTooLargeError)
    (outcome,) = await broker.publish_deliveries([large])
    assert isinstance(outcome, MessageTooLargeError)
    for attempt in (
        broker.publish_sync("resize", large, expires_in=1),
        broker.publish_event(large),
        broker.publish_logs(large),
        broker.publish_reply("somewhere", large),
        broker.publish_control(large),
        broker.publish_control_to("somewhere", large),
        broker.publish_status(large),
    ):
        with pytest.raises(MessageTooLargeError, match=f"at most {MAX_MESSAGE} bytes, has {MAX_MESSAGE + 1}"):
            await attempt
    assert broker.connected
    # One more after these: nothing that is under way is lost, and nobody waits for what was not sent.
    await publish(broker, b"3")
    assert sorted(message.body for message in await inbox.take(3)) == [b"1", b"2", b"3"]


async def test_many_publishers_at_once(broker: Broker) -> None:
    sizes = [1, 999, 1000, 1, 1500, 1] * 2
    await asyncio.gather(*(publish(broker, *([b"x"] * size)) for size in sizes))
    await has_depth(broker, work=sum(sizes))


async def test_a_publisher_that_is_cancelled_harms_no_other(broker: Broker) -> None:
    publishers = [asyncio.create_task(publish(broker, *([b"x"] * 700))) for _ in range(8)]
    await asyncio.sleep(0)
    publishers[0].cancel()
    publishers[5].cancel()
    outcomes = await asyncio.gather(*publishers, return_exceptions=True)
    # A broker that confirms at once has nothing to cancel.
    others = [outcome for number, outcome in enumerate(outcomes) if number not in {0, 5}]
    assert others == [None] * 6
    await publish(broker, b"x")


async def test_work_that_is_given_back_comes_again_and_is_counted(broker: Broker) -> None:
    inbox = Inbox()
    await broker.consume_work("resize", inbox, prefetch=1)
    await publish(broker, b"x")
    for count in range(3):
        message = await inbox.next()
        assert (message.body, message.redelivery_count, message.dead_reason) == (b"x", count, "")
        message.requeue()
    (await inbox.next()).ack()
    await has_depth(broker, work=0)


async def test_work_in_flight_is_redelivered_when_its_process_goes(
    broker: Broker, broker_factory: BrokerFactory
) -> None:
    inbox = Inbox()
    await broker.consume_work("resize", inbox, prefetch=2)
    await publish(broker, b"1", b"2", b"3")
    held = await inbox.take(2)
    await broker.close()

    other = broker_factory()
    await other.start()
    again = Inbox()
    await other.consume_work("resize", again, prefetch=10)
    counts = {message.body: message.redelivery_count for message in await again.take(3)}
    assert counts == {b"1": 1, b"2": 1, b"3": 0}
    # What belonged to the connection that is gone does nothing now.
    for message in held:
        message.ack()
        message.requeue()
        message.reject()


async def test_no_more_than_the_prefetch_is_in_flight(broker: Broker) -> None:
    inbox = Inbox()
    await broker.consume_work("resize", inbox, prefetch=3)
    await publish(broker, *([b"x"] * 10))
    held = await inbox.take(3)
    await has_depth(broker, work=7)
    assert inbox.count == 3
    for message in held[:2]:
        message.ack()
    await inbox.take(2)
    await has_depth(broker, work=5)


async def test_consumers_share_the_work(broker: Broker, broker_factory: BrokerFactory) -> None:
    other = broker_factory()
    await other.start()
    one, two = Inbox(), Inbox()
    await broker.consume_work("resize", one, prefetch=5)
    await other.consume_work("resize", two, prefetch=5)
    await publish(broker, *(bytes([number]) for number in range(10)))
    seen = [message.body for message in [*await one.take(5), *await two.take(5)]]
    assert sorted(seen) == [bytes([number]) for number in range(10)]


async def test_functions_do_not_mix(broker: Broker) -> None:
    one, two = Inbox(), Inbox()
    await broker.consume_work("resize", one, prefetch=5)
    await broker.consume_work("rotate", two, prefetch=5)
    await publish(broker, b"to resize")
    await publish(broker, b"to rotate", function="rotate")
    assert (await one.next()).body == b"to resize"
    assert (await two.next()).body == b"to rotate"
    assert (one.count, two.count) == (1, 1)


async def test_work_whose_handler_fails_comes_again(broker: Broker) -> None:
    inbox = Inbox()

    def handler(message: Received) -> None:
        if not message.redelivery_count:
            raise ValueError("a fault in the handler")
        inbox(message)

    await broker.consume_work("resize", handler, prefetch=1)
    await publish(broker, b"1", b"2")
    assert [(await inbox.next()).body] == [b"1"]


async def test_a_cancelled_consumer_gets_no_more_and_keeps_what_it_has(broker: Broker) -> None:
    inbox = Inbox()
    consumer = await broker.consume_work("resize", inbox, prefetch=2)
    await publish(broker, b"1", b"2")
    held = await inbox.take(2)
    await consumer.cancel()
    await consumer.cancel()
    await publish(broker, b"3")
    held[0].ack()
    held[1].requeue()
    await has_depth(broker, work=2)
    assert inbox.count == 2

    again = Inbox()
    await broker.consume_work("resize", again, prefetch=2)
    assert {message.body for message in await again.take(2)} == {b"2", b"3"}


# --- Dead letters


async def test_refused_work_goes_to_the_dead_letters(broker: Broker) -> None:
    inbox, dead = Inbox(), Inbox()
    await broker.consume_work("resize", inbox, prefetch=1)
    await broker.consume_dead_work(dead, prefetch=10)
    await publish(broker, b"x")
    (await inbox.next()).reject()
    message = await dead.next()
    assert (message.body, message.dead_reason) == (b"x", "rejected")
    message.ack()
    await has_depth(broker, work=0)
    assert (inbox.count, dead.count) == (1, 1)


async def test_work_that_waits_too_long_goes_to_the_dead_letters(broker: Broker) -> None:
    dead = Inbox()
    await broker.consume_dead_work(dead, prefetch=10)
    await publish(broker, b"late", expires_in=0.2)
    await publish(broker, b"patient", expires_in=3600)
    await publish(broker, b"for ever")
    message = await dead.next()
    assert (message.body, message.dead_reason) == (b"late", "expired")
    message.ack()
    await has_depth(broker, work=2)


async def test_expired_work_is_never_handed_out(broker: Broker) -> None:
    inbox, dead = Inbox(), Inbox()
    # What is behind something that waits longer is looked at only when it comes to the front.
    await publish(broker, b"patient", expires_in=3600)
    await publish(broker, b"late", expires_in=0.1)
    await publish(broker, b"last")
    await broker.consume_dead_work(dead, prefetch=10)
    await asyncio.sleep(0.3)
    await broker.consume_work("resize", inbox, prefetch=10)
    assert [message.body for message in await inbox.take(2)] == [b"patient", b"last"]
    assert (await dead.next()).body == b"late"


async def test_dead_letters_wait_for_their_consumer(broker: Broker, broker_factory: BrokerFactory) -> None:
    inbox = Inbox()
    await broker.consume_work("resize", inbox, prefetch=1)
    await publish(broker, b"x")
    (await inbox.next()).reject()
    await broker.close()
    other = broker_factory()
    await other.start()
    dead = Inbox()
    await other.consume_dead_work(dead, prefetch=10)
    assert (await dead.next()).body == b"x"


# --- Functions opened and closed


async def test_a_function_can_be_opened_again(broker: Broker) -> None:
    await publish(broker, b"x")
    await broker.open_function("resize")
    await has_depth(broker, work=1)


async def test_depth_of_what_does_not_exist_is_zero(broker: Broker) -> None:
    assert await broker.depth("nobody") == Depth(work=0, sync=0)


async def test_an_empty_function_is_closed(broker: Broker) -> None:
    assert await broker.close_function("resize")
    assert await broker.close_function("resize")
    assert await broker.depth("resize") == Depth(work=0, sync=0)
    (outcome,) = await broker.publish_work([Outgoing(function="resize", body=b"x")])
    assert isinstance(outcome, UnroutableError)
    with pytest.raises(UnroutableError):
        await broker.publish_sync("resize", b"x", expires_in=1)
    await broker.open_function("resize")
    await publish(broker, b"x")


async def test_a_function_with_waiting_work_stays(broker: Broker) -> None:
    await publish(broker, b"x")
    assert not await broker.close_function("resize")
    await has_depth(broker, work=1)


async def test_a_function_with_waiting_sync_calls_stays(broker: Broker) -> None:
    await broker.publish_sync("resize", b"x", expires_in=3600)
    assert not await broker.close_function("resize")
    assert await broker.depth("resize") == Depth(work=0, sync=1)
    await publish(broker, b"x")


async def test_a_function_with_a_consumer_stays(broker: Broker) -> None:
    inbox = Inbox()
    work = await broker.consume_work("resize", inbox, prefetch=1)
    assert not await broker.close_function("resize")
    await work.cancel()
    sync = await broker.consume_sync("resize", inbox, prefetch=1)
    assert not await broker.close_function("resize")
    await sync.cancel()
    assert await broker.close_function("resize")


async def test_a_function_with_work_in_flight_stays(broker: Broker) -> None:
    inbox = Inbox()
    consumer = await broker.consume_work("resize", inbox, prefetch=1)
    await publish(broker, b"x")
    message = await inbox.next()
    await consumer.cancel()
    assert not await broker.close_function("resize")
    message.ack()

    async def close() -> bool:
        return await broker.close_function("resize")

    await eventually(close, wanted=True)


# --- Sync calls


async def test_a_sync_call_and_its_answer(broker: Broker, broker_factory: BrokerFactory) -> None:
    worker = broker_factory()
    await worker.start()
    calls, answers, others = Inbox(), Inbox(), Inbox()
    address = await broker.consume_replies(answers)
    assert await worker.consume_replies(others) != address
    await worker.consume_sync("resize", calls, prefetch=10)
    await broker.publish_sync("resize", b"question", expires_in=30)
    call = await calls.next()
    assert (call.body, call.redelivery_count) == (b"question", 0)
    call.ack()
    await worker.publish_reply(address, b"answer")
    answer = await answers.next()
    assert answer.body == b"answer"
    answer.ack()
    assert others.count == 0


async def test_a_sync_call_that_nobody_takes_vanishes(broker: Broker) -> None:
    dead = Inbox()
    await broker.consume_dead_work(dead, prefetch=1)
    await broker.publish_sync("resize", b"x", expires_in=0.2)
    await has_depth(broker, work=0, sync=0)
    # Work that is refused later overtakes nothing: it is the first dead letter.
    inbox = Inbox()
    await broker.consume_work("resize", inbox, prefetch=1)
    await publish(broker, b"marker")
    (await inbox.next()).reject()
    assert (await dead.next()).body == b"marker"


async def test_a_sync_call_given_back_is_known_as_such(broker: Broker) -> None:
    calls = Inbox()
    await broker.consume_sync("resize", calls, prefetch=1)
    await broker.publish_sync("resize", b"x", expires_in=30)
    (await calls.next()).requeue()
    again = await calls.next()
    assert again.redelivery_count == 1
    again.ack()
    await has_depth(broker, work=0, sync=0)


async def test_sync_calls_do_not_wait_behind_work(broker: Broker) -> None:
    work, calls = Inbox(), Inbox()
    await publish(broker, *([b"x"] * 100))
    await broker.publish_sync("resize", b"now", expires_in=30)
    assert await broker.depth("resize") == Depth(work=100, sync=1)
    await broker.consume_work("resize", work, prefetch=1)
    await broker.consume_sync("resize", calls, prefetch=1)
    assert (await calls.next()).body == b"now"


async def test_an_answer_to_nobody_is_lost_without_a_word(broker: Broker, broker_factory: BrokerFactory) -> None:
    caller = broker_factory()
    await caller.start()
    address = await caller.consume_replies(Inbox())
    await caller.close()
    await broker.publish_reply(address, b"x")
    await broker.publish_control_to(address, b"x")
    await publish(broker, b"the connection is as good as before")


# --- Events


async def test_events_arrive_in_order(broker: Broker) -> None:
    inbox = Inbox()
    for number in range(20):
        await broker.publish_event(str(number).encode())
    assert await broker.events_depth() == 20
    await broker.consume_events(inbox, prefetch=100)
    messages = await inbox.take(20)
    assert [int(message.body) for message in messages] == list(range(20))
    assert await broker.events_depth() == 0
    for message in messages:
        message.ack()


async def test_one_consumer_of_events_is_active_and_another_takes_over(
    broker: Broker, broker_factory: BrokerFactory
) -> None:
    standby = broker_factory()
    await standby.start()
    active, waiting = Inbox(), Inbox()
    await broker.consume_events(active, prefetch=10)
    await standby.consume_events(waiting, prefetch=10)
    for number in range(30):
        await broker.publish_event(str(number).encode())
    first = await active.take(10)
    for message in first[:5]:
        message.ack()
    await active.take(5)
    assert waiting.count == 0
    await broker.close()
    counts: dict[int, int] = {}
    for _ in range(25):
        message = await waiting.next()
        counts[int(message.body)] = message.redelivery_count
        message.ack()
    # The new one may begin before it is given what the old one had in flight, so the order is not kept.
    assert counts == {number: int(number < 15) for number in range(5, 30)}


async def test_events_survive_any_number_of_redeliveries(broker: Broker) -> None:
    inbox = Inbox()
    await broker.consume_events(inbox, prefetch=1)
    await broker.publish_event(b"x")
    for count in range(130):
        message = await inbox.next()
        assert message.redelivery_count == count
        message.requeue()
    (await inbox.next()).ack()


async def test_refused_events_are_gone(broker: Broker) -> None:
    inbox = Inbox()
    await broker.consume_events(inbox, prefetch=1)
    await broker.publish_event(b"1")
    await broker.publish_event(b"2")
    (await inbox.next()).reject()
    assert (await inbox.next()).body == b"2"


# --- Logs


async def test_one_consumer_of_logs_is_active_and_gets_them_in_order(
    broker: Broker, broker_factory: BrokerFactory
) -> None:
    standby = broker_factory()
    await standby.start()
    active, waiting = Inbox(), Inbox()
    consumer = await broker.consume_logs(active, prefetch=10)
    await standby.consume_logs(waiting, prefetch=10)
    for number in range(20):
        await standby.publish_logs(str(number).encode())
    for number in range(20):
        message = await active.next()
        assert message.body == str(number).encode()
        message.ack()
    assert waiting.count == 0
    await consumer.cancel()
    await broker.publish_logs(b"next")
    (await waiting.next()).ack()


async def test_where_many_logs_wait_the_oldest_go(broker: Broker) -> None:
    size = MIB
    for number in range(MAX_BROKER_LOGS // size + 5):
        await broker.publish_logs(str(number).encode().ljust(size))
    inbox = Inbox()
    await broker.consume_logs(inbox, prefetch=100)
    kept = [int(message.body) for message in await inbox.take(MAX_BROKER_LOGS // size)]
    assert kept == list(range(5, MAX_BROKER_LOGS // size + 5))


# --- Deliveries


async def test_deliveries_are_shared_and_kept(broker: Broker, broker_factory: BrokerFactory) -> None:
    assert list(await broker.publish_deliveries([b"1", b"2", b"3"])) == [None] * 3
    inbox = Inbox()
    await broker.consume_deliveries(inbox, prefetch=2)
    held = await inbox.take(2)
    held[0].ack()
    held[1].requeue()
    assert {message.body for message in await inbox.take(2)} == {b"2", b"3"}
    await broker.close()
    other = broker_factory()
    await other.start()
    again = Inbox()
    await other.consume_deliveries(again, prefetch=10)
    assert {message.body for message in await again.take(2)} == {b"2", b"3"}


# --- Control and status


async def test_control_reaches_all_and_the_one(broker: Broker, broker_factory: BrokerFactory) -> None:
    other = broker_factory()
    await other.start()
    mine, theirs = Inbox(), Inbox()
    my_address = await broker.consume_control(mine)
    their_address = await other.consume_control(theirs)
    assert my_address != their_address
    await broker.publish_control(b"all")
    await broker.publish_control_to(their_address, b"you")
    await broker.publish_control_to(my_address, b"me")
    assert {message.body for message in await mine.take(2)} == {b"all", b"me"}
    assert {message.body for message in await theirs.take(2)} == {b"all", b"you"}


async def test_status_reaches_all_servers(broker: Broker, broker_factory: BrokerFactory) -> None:
    worker, other = broker_factory(), broker_factory()
    await worker.start()
    await other.start()
    one, two, control = Inbox(), Inbox(), Inbox()
    await broker.consume_status(one)
    await other.consume_status(two)
    await worker.consume_control(control)
    await worker.publish_status(b"well")
    for inbox in (one, two):
        message = await inbox.next()
        assert message.body == b"well"
        message.ack()
    assert control.count == 0


async def test_control_without_listeners_is_lost_without_a_word(broker: Broker) -> None:
    await broker.publish_control(b"x")
    await broker.publish_status(b"x")
    inbox = Inbox()
    await broker.consume_control(inbox)
    await broker.publish_control(b"y")
    assert (await inbox.next()).body == b"y"


async def test_closing_waits_for_what_is_not_confirmed_yet(broker: Broker, broker_factory: BrokerFactory) -> None:
    publishing = asyncio.create_task(broker.publish_work([Outgoing(function="resize", body=b"x")] * 1000))
    await asyncio.sleep(0)  # it begins
    await broker.close()
    outcomes = await publishing
    confirmed = list(outcomes).count(None)
    assert confirmed > 0
    assert all(isinstance(outcome, BrokerUnavailableError) for outcome in outcomes[confirmed:])
    other = broker_factory()
    await other.start()
    assert await other.depth("resize") == Depth(work=confirmed, sync=0)
