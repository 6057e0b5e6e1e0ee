"""What a delivery does while its receiver is taken for down."""

from __future__ import annotations

from random import Random
from typing import cast

import pytest

from homing_core.broker import Received
from homing_core.clock import now_us
from homing_core.reasons import FailureReason
from homing_core.wire.v1 import DeliveryMessage
from homing_worker.deliveries.deliverer import _Delivery
from homing_worker.deliveries.outcome import failed
from homing_worker.deliveries.schedule import JITTER, Schedule

SCHEDULE = Schedule(delays=(5.0, 30.0))
DOWN = failed(FailureReason.RECEIVER_DOWN, "left out")
SILENT = failed(FailureReason.TIMEOUT, "silent")


class Message:
    """A message that is delivered for the first time."""

    redelivery_count = 0


def delivery(*, waited: float = 0.0, prior_attempts: int = 0, tried: bool = False) -> _Delivery:
    message = DeliveryMessage(
        uri="http://hook.example/", since_us=now_us() - round(waited * 1e6), prior_attempts=prior_attempts, tried=tried
    )
    return _Delivery(message, cast(Received, Message()), SCHEDULE, Random(1))


def reasons(of: _Delivery) -> list[str]:
    return [attempt.failure.reason for attempt in of.attempts]


def test_what_is_put_off_has_all_its_attempts_left() -> None:
    made = delivery(prior_attempts=1)
    for _ in range(20):
        made.put_off(DOWN, min_delay=0.0)
        assert made.next_delay is not None
    assert reasons(made) == ["RECEIVER_DOWN"]

    made.note(SILENT, start_us=1, seconds=0.5)
    assert made.next_delay == pytest.approx(30.0, rel=JITTER)
    made.put_off(DOWN, min_delay=0.0)
    assert reasons(made) == ["RECEIVER_DOWN", "TIMEOUT", "RECEIVER_DOWN"]
    made.note(SILENT, start_us=2, seconds=0.5)
    assert made.next_delay is None


def test_what_is_put_off_is_not_looked_at_before_its_receiver_may_be_back() -> None:
    made = delivery()

    made.put_off(DOWN, min_delay=100.0)

    assert made.next_delay == 100.0


@pytest.mark.parametrize(("waited", "over"), [(41.0, False), (43.0, True)])
def test_what_is_put_off_when_its_schedule_would_be_over_is_given_up(waited: float, *, over: bool) -> None:
    made = delivery(waited=waited, tried=True)

    made.put_off(DOWN, min_delay=0.0)

    assert (made.next_delay is None) == over
    assert not made.insists


@pytest.mark.parametrize(("waited", "insists"), [(41.0, False), (43.0, True)])
def test_none_is_given_up_without_having_been_tried(waited: float, *, insists: bool) -> None:
    made = delivery(waited=waited)

    assert made.insists == insists
    made.started = True
    assert not made.insists
