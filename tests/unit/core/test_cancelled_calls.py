from __future__ import annotations

from homing_core.cancelled_calls import CancelledCalls
from homing_core.wire.v1 import CancelledCall


def calls(*deadlines: int) -> list[CancelledCall]:
    return [CancelledCall(invocation_id=f"i{deadline}", deadline_us=deadline) for deadline in deadlines]


def test_calls_are_remembered_by_their_ids() -> None:
    cancelled = CancelledCalls(clock=lambda: 0)
    cancelled.add(calls(5, 6))

    assert cancelled.get("i5") == calls(5)[0]
    assert cancelled.get("i7") is None
    assert list(cancelled) == calls(5, 6)


def test_those_that_could_not_be_started_any_more_are_not_told() -> None:
    now = 0
    cancelled = CancelledCalls(clock=lambda: now)
    cancelled.add(calls(5, 6))
    now = 5

    assert list(cancelled) == calls(6)


def test_the_memory_is_bounded() -> None:
    cancelled = CancelledCalls(most=10, clock=lambda: 3)
    for deadline in range(100, 110):
        cancelled.add(calls(deadline))
    assert len(cancelled) == 10

    cancelled.add(calls(1))
    # What has passed goes, and as one more is too many then, the oldest does.
    assert list(cancelled) == calls(*range(101, 110))
    assert cancelled.get("i1") is None

    for deadline in range(200, 1200):
        cancelled.add(calls(deadline))
        assert len(cancelled) <= 10
    assert cancelled.get("i1199") is not None
