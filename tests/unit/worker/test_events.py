from __future__ import annotations

import asyncio
from typing import cast

import pytest

from homing_core.broker import Broker, BrokerUnavailableError, PublishUnknownError
from homing_core.limits import KIB
from homing_core.wire.v1 import Ended, Event, EventBatch
from homing_worker.metrics import Metrics
from homing_worker.reporting import events
from homing_worker.reporting.events import EventPublisher


class FakeBroker:
    """Confirms, or fails, when told."""

    def __init__(self) -> None:
        self.published: list[list[str]] = []
        self._waiting: list[asyncio.Future[None]] = []

    async def publish_event(self, body: bytes) -> None:
        self.published.append([event.invocation_id for event in EventBatch.FromString(body).events])
        confirm: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(confirm)
        await confirm

    @property
    def outstanding(self) -> int:
        return len(self._waiting)

    def confirm(self, index: int = 0) -> None:
        self._waiting.pop(index).set_result(None)

    def fail(self, index: int = 0, error: Exception | None = None) -> None:
        self._waiting.pop(index).set_exception(error or PublishUnknownError("lost"))


async def no_sleep(_: float) -> None:
    await asyncio.sleep(0)


@pytest.fixture
async def broker() -> FakeBroker:
    return FakeBroker()


@pytest.fixture
async def publisher(broker: FakeBroker) -> EventPublisher:
    return EventPublisher(cast(Broker, broker), Metrics(), sleep=no_sleep)


def event(name: object, size: int = 0) -> Event:
    made = Event(invocation_id=str(name))
    if size:
        made.ended.CopyFrom(Ended())
        made.ended.result.payload.data = b"x" * size
    return made


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_the_events_of_one_turn_travel_together(broker: FakeBroker, publisher: EventPublisher) -> None:
    confirms = [publisher.publish(event(number)) for number in range(3)]
    await turns()

    assert broker.published == [["0", "1", "2"]]
    assert not any(confirm.done() for confirm in confirms)
    broker.confirm()
    await turns()
    assert all(confirm.done() for confirm in confirms)


async def test_events_gather_while_a_batch_is_outstanding(broker: FakeBroker, publisher: EventPublisher) -> None:
    publisher.post(event("a"))
    await turns()
    for name in "bcd":
        publisher.post(event(name))
        await turns()
    assert broker.published == [["a"]]

    broker.confirm()
    await turns()
    assert broker.published == [["a"], ["b", "c", "d"]]


async def test_batches_and_what_is_outstanding_are_bounded(broker: FakeBroker, publisher: EventPublisher) -> None:
    for number in range(10 * events.MAX_BATCH_EVENTS):
        publisher.post(event(number))
    await turns()

    assert [len(batch) for batch in broker.published] == [events.MAX_BATCH_EVENTS] * events.MAX_UNCONFIRMED
    for _ in range(10):
        broker.confirm()
        await turns()
    assert [int(name) for batch in broker.published for name in batch] == list(range(10 * events.MAX_BATCH_EVENTS))
    async with asyncio.timeout(5):
        await publisher.flush()


async def test_large_events_make_small_batches(broker: FakeBroker, publisher: EventPublisher) -> None:
    for number in range(4):
        publisher.post(event(number, size=200 * KIB))
    await turns()

    assert broker.published == [["0", "1"]]
    broker.confirm()
    await turns()
    assert broker.published == [["0", "1"], ["2", "3"]]


async def test_what_was_not_confirmed_is_published_again_in_order(
    broker: FakeBroker, publisher: EventPublisher
) -> None:
    confirms = [publisher.publish(event(number)) for number in range(3 * events.MAX_BATCH_EVENTS)]
    await turns()
    assert broker.outstanding == 3
    first, second, third = broker.published
    # The connection is lost: all three fail. Then each goes again, after the one before it.
    broker.fail()
    broker.fail()
    broker.fail(error=BrokerUnavailableError("away"))
    await turns()
    assert broker.published[3:] == [first]
    broker.fail()
    await turns()
    assert broker.published[4:] == [first]
    broker.confirm()
    await turns()
    assert broker.published[5:] == [second]
    broker.confirm()
    await turns()
    assert broker.published[6:] == [third]
    assert not confirms[-1].done()
    broker.confirm()
    await turns()

    assert all(confirm.done() for confirm in confirms)


async def test_new_events_wait_for_those_that_are_published_again(
    broker: FakeBroker, publisher: EventPublisher
) -> None:
    for number in range(events.MAX_BATCH_EVENTS):
        publisher.post(event(number))
    await turns()
    broker.fail()
    await turns()
    for number in range(events.MAX_BATCH_EVENTS):
        publisher.post(event(1000 + number))
    await turns()

    assert broker.outstanding == 1
    broker.confirm()
    await turns()
    assert broker.published[-1][0] == "1000"


async def test_a_waiter_that_is_cancelled_disturbs_nobody(broker: FakeBroker, publisher: EventPublisher) -> None:
    gone, stays = publisher.publish(event("a")), publisher.publish(event("b"))
    await turns()
    gone.cancel()
    broker.confirm()
    await turns()

    assert stays.done()
    async with asyncio.timeout(5):
        await publisher.flush()
