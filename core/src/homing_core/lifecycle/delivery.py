"""The life of a delivery: of one outcome to one callback or destination, made with the end that it tells of.

Reports of workers are fenced as the events of invocations are, and may come twice and in any order. What the store
holds again, since it was let go, taken back or redriven, heeds but one report: that it has arrived after all.

Attempts are the wire's own messages. They are values here: nothing changes one after it was made.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from homing.v1 import invocation_pb2 as api
from homing.v1.function_pb2 import Function
from homing.v1.policy_pb2 import Callback, Destination
from homing_core.lifecycle import custody
from homing_core.lifecycle.custody import Custody, Held, Token
from homing_core.lifecycle.states import State
from homing_core.lifecycle.step import Effect, Refusal, Step
from homing_core.reasons import FailureReason
from homing_core.wire.v1 import DeliveryAttemptRecord, Event


class DeliveryState(enum.IntEnum):
    """A step in the life of a delivery; the numbers are those of ``homing.v1.DeliveryState``."""

    PENDING = api.DELIVERY_STATE_PENDING
    DELIVERING = api.DELIVERY_STATE_DELIVERING
    DELIVERED = api.DELIVERY_STATE_DELIVERED
    DEAD = api.DELIVERY_STATE_DEAD


ENDS: Final = frozenset({DeliveryState.DELIVERED, DeliveryState.DEAD})
"""The states that are final, but for a redrive of what is DEAD."""

TRANSITIONS: Final[dict[DeliveryState, frozenset[DeliveryState]]] = {
    DeliveryState.PENDING: frozenset({DeliveryState.DELIVERING, DeliveryState.DELIVERED, DeliveryState.DEAD}),
    DeliveryState.DELIVERING: frozenset({DeliveryState.PENDING, DeliveryState.DELIVERED, DeliveryState.DEAD}),
    DeliveryState.DELIVERED: frozenset(),
    DeliveryState.DEAD: frozenset({DeliveryState.PENDING}),
}
"""Which state may follow which."""

BEGUN_ANEW: Final = DeliveryState.PENDING
"""The state of what the store has back from a broker that lost it."""

_DISPATCHED: Final = frozenset({Effect.PUBLISH})
_GIVEN_UP: Final = frozenset({Effect.MAKE_DEAD_LETTER})
_ARRIVED: Final = frozenset[Effect]()


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivery(Held):
    """What the life cycle knows of a delivery. Times are microseconds since the epoch, 0 where unset."""

    state: DeliveryState
    since_us: int
    """When it was made, or last redriven."""
    end_us: int = 0
    attempts: tuple[DeliveryAttemptRecord, ...] = ()
    """By the time of their start. Of several in a row that were left out, since the receiver was taken for down, the
    last one stands for all."""
    before_redrive: int = 0
    """How many of them were made before it was last redriven."""
    caused: str = ""
    """The id of the invocation that it became, where it went to a function."""

    @property
    def ended(self) -> bool:
        """Whether nothing more is done about it, unless it is redriven."""
        return self.state in ENDS

    @property
    def counted_attempts(self) -> int:
        """How many attempts count against the schedule: those since the last redrive that were made for real."""
        return sum(not _left_out(attempt) for attempt in self.attempts[self.before_redrive :])

    @property
    def tried(self) -> bool:
        """Whether an attempt was made for real, and not left out because the receiver was taken for down."""
        return not all(map(_left_out, self.attempts))


def targets_of(
    spec: api.InvocationSpec, function: Function | None, *, state: State
) -> Iterator[tuple[api.DeliveryKind.ValueType, Callback | Destination]]:
    """Return where the outcome of an invocation goes: to its callback and its destinations, else its function's.

    :param function: None where nothing is known of it.
    :param state: How the invocation ended.
    """
    if spec.HasField("callback"):
        yield api.DELIVERY_KIND_CALLBACK, spec.callback
    if state is State.SUCCEEDED:
        kind, destinations = api.DELIVERY_KIND_ON_SUCCESS, spec.on_success or (function.on_success if function else ())
    else:
        kind, destinations = api.DELIVERY_KIND_ON_FAILURE, spec.on_failure or (function.on_failure if function else ())
    for destination in destinations:
        yield kind, destination


def made(*, time_us: int) -> Delivery:
    """Return a delivery that has just been made and is held by the store."""
    return Delivery(
        state=DeliveryState.PENDING,
        token=Token(generation=0, redelivery_count=0),
        custody=Custody.STORE,
        due_us=time_us,
        since_us=time_us,
    )


def dispatched(delivery: Delivery, *, time_us: int) -> Step[Delivery] | Refusal:
    """Return the delivery as it must be stored before its message is published under the new generation."""
    if refusal := custody.CLAIM.refuses(delivery):
        return refusal
    return Step(after=replace(delivery, **custody.CLAIM.changes(delivery, time_us=time_us)), effects=_DISPATCHED)


def taken_back(delivery: Delivery, *, generation: int, due_us: int) -> Step[Delivery] | Refusal:
    """Return the delivery after a dispatch whose message was not, or perhaps not, published."""
    if refusal := custody.TAKE_BACK.refuses(delivery, generation=generation):
        return refusal
    return Step(after=replace(delivery, **custody.TAKE_BACK.changes(delivery, time_us=due_us)))


def broker_lost(delivery: Delivery, *, due_us: int) -> Step[Delivery] | Refusal:
    """Return the delivery after its broker has lost all messages, and its worker what it did."""
    if refusal := custody.LOSE.refuses(delivery):
        return refusal
    return Step(after=replace(delivery, state=BEGUN_ANEW, **custody.LOSE.changes(delivery, time_us=due_us)))


def reported(delivery: Delivery, event: Event) -> Step[Delivery] | Refusal:
    """Return the delivery after what a worker reported of it."""
    token, state = Token.of(event.token), DeliveryState(event.delivery.state)
    if delivery.ended:
        return Refusal.ENDED
    if token < delivery.token:
        return Refusal.STALE
    if delivery.custody is Custody.STORE and state is not DeliveryState.DELIVERED:
        # The worker let it go: what it said before that comes too late to matter.
        return Refusal.DUPLICATE
    attempts = _merge(delivery, event.delivery.attempts)
    match state:
        case DeliveryState.PENDING:
            due_us = event.delivery.due_us
            returned = custody.RETURN.changes(delivery, time_us=due_us, token=token)
            return Step(after=replace(delivery, state=state, attempts=attempts, **returned))
        case DeliveryState.DELIVERING:
            received = custody.RECEIVE.changes(delivery, token=token)
            after = replace(delivery, state=state, attempts=attempts, **received)
            return Refusal.DUPLICATE if after == delivery else Step(after=after)
        case _:
            return _end(delivery, state, attempts, time_us=event.time_us, token=token)


def invoked(delivery: Delivery, *, invocation_id: str, time_us: int) -> Step[Delivery] | Refusal:
    """Return a delivery to a function, which has become an invocation in the same transaction."""
    return _carried_out(delivery, DeliveryState.DELIVERED, DeliveryAttemptRecord(start_us=time_us), invocation_id)


def not_invoked(delivery: Delivery, *, failure: api.Failure, time_us: int) -> Step[Delivery] | Refusal:
    """Return a delivery to a function that cannot become an invocation."""
    return _carried_out(delivery, DeliveryState.DEAD, DeliveryAttemptRecord(start_us=time_us, failure=failure))


def redriven(delivery: Delivery, *, due_us: int) -> Step[Delivery] | Refusal:
    """Return a delivery that was DEAD as one that is to be made again, by its whole schedule."""
    if delivery.state is not DeliveryState.DEAD:
        return Refusal.ENDED if delivery.ended else Refusal.DUPLICATE
    after = replace(
        delivery,
        state=DeliveryState.PENDING,
        end_us=0,
        since_us=due_us,
        before_redrive=len(delivery.attempts),
        **custody.REDRIVE.changes(delivery, time_us=due_us),
    )
    return Step(after=after)


def _carried_out(
    delivery: Delivery, state: DeliveryState, attempt: DeliveryAttemptRecord, caused: str = ""
) -> Step[Delivery] | Refusal:
    """Return a delivery that needs no worker: it is claimed and ends in the same transaction."""
    claimed = dispatched(delivery, time_us=attempt.start_us)
    if isinstance(claimed, Refusal):
        return claimed
    sent = replace(claimed.after, caused=caused)
    return _end(sent, state, (*delivery.attempts, attempt), time_us=attempt.start_us, token=sent.token)


def _end(
    delivery: Delivery,
    state: DeliveryState,
    attempts: tuple[DeliveryAttemptRecord, ...],
    *,
    time_us: int,
    token: Token,
) -> Step[Delivery]:
    ended = custody.END.changes(delivery, token=token)
    after = replace(delivery, state=state, end_us=time_us, attempts=attempts, **ended)
    return Step(after=after, effects=_GIVEN_UP if state is DeliveryState.DEAD else _ARRIVED)


def _merge(delivery: Delivery, reported: Sequence[DeliveryAttemptRecord]) -> tuple[DeliveryAttemptRecord, ...]:
    """Return all attempts by the time of their start; a report tells of those of one dispatch alone."""
    by_start = {attempt.start_us: attempt for attempt in (*delivery.attempts, *reported)}
    attempts = [by_start[start_us] for start_us in sorted(by_start)]
    before, since = attempts[: delivery.before_redrive], attempts[delivery.before_redrive :]
    kept: list[DeliveryAttemptRecord] = []
    for attempt in since:
        if kept and _left_out(attempt) and _left_out(kept[-1]):
            kept.pop()
        kept.append(attempt)
    return (*before, *kept)


def _left_out(attempt: DeliveryAttemptRecord) -> bool:
    """Return whether an attempt was not made, since the receiver was taken for down."""
    return attempt.failure.reason == FailureReason.RECEIVER_DOWN
