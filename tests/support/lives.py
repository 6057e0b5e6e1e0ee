"""Short ways to go through the life cycle, where each transition is expected to change something."""

from __future__ import annotations

from typing import TypeVar

from homing.v1 import invocation_pb2 as api
from homing_core.lifecycle import Delivery, Effect, Held, Record, Refusal, Step, custody, delivery, invocation
from homing_core.wire.v1 import Event
from support.reporter import NOW

SECOND = 1_000_000

H = TypeVar("H", bound=Held)


def after(step: Step[H] | Refusal) -> H:
    """Return the next value of a transition that is not refused."""
    assert isinstance(step, Step), step
    return step.after


def effects(step: Step[H] | Refusal) -> set[Effect]:
    """Return what a transition that is not refused asks for."""
    assert isinstance(step, Step), step
    return set(step.effects)


def accept(*, due_us: int = NOW) -> Record:
    """Return an invocation that was accepted."""
    return invocation.accepted(time_us=NOW, due_us=due_us)


def dispatch(record: Record, *, time_us: int = NOW) -> Record:
    """Return an invocation that is dispatched once more."""
    return after(invocation.dispatched(record, time_us=time_us))


def confirm(held: H) -> H:
    """Return what the broker has confirmed."""
    return after(custody.confirmed(held, generation=held.token.generation))


def take_back(record: Record, *, due_us: int = NOW) -> Record:
    """Return an invocation whose dispatch was not confirmed."""
    return after(invocation.taken_back(record, generation=record.token.generation, due_us=due_us))


def report(record: Record, *events: Event) -> Record:
    """Return an invocation after events that all tell something new."""
    for event in events:
        record = after(invocation.reported(record, event))
    return record


def ask_to_stop(record: Record, *, reason: str = "enough") -> Record:
    """Return an invocation that somebody has asked to stop."""
    return after(invocation.stop_requested(record, caller="me", reason=reason, time_us=NOW + SECOND))


def report_delivery(one: Delivery, *events: Event) -> Delivery:
    """Return a delivery after reports that all tell something new."""
    for event in events:
        one = after(delivery.reported(one, event))
    return one


def history(record: Record) -> list[tuple[str, int]]:
    """Return what the history of an invocation tells, with the number of the attempt that each entry is of."""
    prefix = "INVOCATION_EVENT_TYPE_"
    return [(api.InvocationEventType.Name(entry.type).removeprefix(prefix), entry.attempt) for entry in record.entries]


def outcomes(record: Record) -> list[str]:
    """Return how the attempts of an invocation ended."""
    prefix = "ATTEMPT_OUTCOME_"
    return [api.AttemptOutcome.Name(attempt.outcome).removeprefix(prefix) for attempt in record.attempts]
