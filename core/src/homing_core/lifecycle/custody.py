"""Custody: who holds an invocation or a delivery that has not ended, and under which fencing token it was dispatched.

There is no moment at which nobody holds it. Each transition of custody is data, a :class:`Transfer`: the functions of
the life cycle apply it to values, and the store makes the statements from it that change many rows at once.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import Final, TypedDict, TypeVar

from homing_core.lifecycle.step import Refusal, Step
from homing_core.wire.v1 import Token as WireToken


class Custody(enum.IntEnum):
    """Who holds an invocation or a delivery that has not ended."""

    NONE = 0
    """Nobody: it has ended."""
    STORE = 1
    """The store: it is to be dispatched when it is due."""
    SENT = 2
    """A dispatcher has published it, or is about to, and has not seen it confirmed."""
    BROKER = 3
    """The broker: waiting in a queue, or in flight with a worker."""
    LEASE = 4
    """Its worker, for as long as it renews its lease; the broker has no message of it any more. Only of invocations."""
    CALLER = 5
    """Its caller, who waits for it: it goes to the broker once. Only of synchronous invocations."""


LIVE: Final = frozenset(Custody) - {Custody.NONE}
"""Whoever holds what has not ended."""

AT_BROKER: Final = frozenset({Custody.SENT, Custody.BROKER})
"""While one of these holds it there is a message of it at the broker, or there may be."""


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Token:
    """The fencing token. It orders the dispatches of one invocation or delivery: the greater one wins."""

    generation: int
    """Raised by the store before every publish."""
    redelivery_count: int
    """Raised by the broker at every redelivery."""

    @classmethod
    def of(cls, token: WireToken) -> Token:
        """Read a token from a message."""
        return cls(generation=token.generation, redelivery_count=token.redelivery_count)


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """What is dispatched. Times are microseconds since the epoch."""

    token: Token
    custody: Custody
    due_us: int
    """When the next dispatch is due, while the store holds it; when it is lost, while its caller does; else 0."""
    sent_us: int = 0
    """When it was committed as sent, while it is SENT; else 0."""


H = TypeVar("H", bound=Held)


class Changes(TypedDict, total=False):
    """The fields that a transfer changes."""

    token: Token
    custody: Custody
    due_us: int
    sent_us: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Transfer:
    """A transition of custody."""

    sources: frozenset[Custody]
    """Only what one of these holds can go this way."""
    target: Custody
    raises_generation: bool = False
    fenced: bool = False
    """Whether it is said of the dispatch of one generation, and changes nothing once there is a later one."""

    def refuses(self, held: Held, *, generation: int | None = None) -> Refusal | None:
        """Return why it cannot go this way; None where it can.

        :param generation: The generation that it is said of, where it is fenced.
        """
        if held.custody not in self.sources:
            return Refusal.ENDED if held.custody is Custody.NONE else Refusal.ELSEWHERE
        if self.fenced and generation != held.token.generation:
            return Refusal.STALE
        return None

    def changes(self, held: Held, *, time_us: int = 0, token: Token | None = None) -> Changes:
        """Return what changes.

        :param time_us: When it is due, where the store holds it from now on; the time now, where it is SENT.
        :param token: The token that a worker speaks under, where this is said by one.
        """
        changes = Changes(
            custody=self.target,
            due_us=time_us if self.target is Custody.STORE else 0,
            sent_us=time_us if self.target is Custody.SENT else 0,
        )
        if self.raises_generation:
            token = Token(generation=held.token.generation + 1, redelivery_count=0)
        if token is not None:
            changes["token"] = token
        return changes


CLAIM: Final = Transfer(sources=frozenset({Custody.STORE}), target=Custody.SENT, raises_generation=True)
"""It is due: a dispatcher takes it from the store, to publish it once that is committed."""

CONFIRM: Final = Transfer(sources=frozenset({Custody.SENT}), target=Custody.BROKER, fenced=True)
"""The broker has confirmed its message."""

TAKE_BACK: Final = Transfer(sources=frozenset({Custody.SENT}), target=Custody.STORE, fenced=True)
"""Its message was not published, or perhaps not: it is to be published again, under the next generation."""

RECEIVE: Final = Transfer(sources=AT_BROKER, target=Custody.BROKER)
"""A worker speaks of it: so the broker had its message, whether that was seen confirmed or not."""

REDELIVER: Final = Transfer(sources=LIVE - {Custody.CALLER}, target=Custody.BROKER)
"""A worker speaks of it under a later token: the broker has redelivered its message."""

GRANT_LEASE: Final = Transfer(sources=AT_BROKER, target=Custody.LEASE)
"""Its worker answers for it from now on, and lets its message go."""

RETURN: Final = Transfer(sources=AT_BROKER | {Custody.LEASE}, target=Custody.STORE)
"""Its worker lets it go before it has ended."""

EXPIRE_LEASE: Final = Transfer(sources=frozenset({Custody.LEASE}), target=Custody.STORE)
"""Its worker has not renewed its lease."""

HOLD_BACK: Final = Transfer(sources=frozenset({Custody.STORE}), target=Custody.BROKER)
"""It is not to be dispatched any more, and the broker may have a message of an earlier dispatch."""

LOSE: Final = Transfer(sources=AT_BROKER | {Custody.LEASE}, target=Custody.STORE)
"""The broker has lost all its messages, and workers have lost what they ran."""

END: Final = Transfer(sources=LIVE, target=Custody.NONE)
"""It has ended."""

REDRIVE: Final = Transfer(sources=frozenset({Custody.NONE}), target=Custody.STORE)
"""It had come to nothing, and is tried again."""


def confirmed(held: H, *, generation: int) -> Step[H] | Refusal:
    """Return it after the broker has confirmed the message of a generation."""
    refusal = CONFIRM.refuses(held, generation=generation)
    return refusal or Step(after=replace(held, **CONFIRM.changes(held)))


def left_broker(before: Held, after: Held) -> bool:
    """Tell whether the broker held it before and does not any more."""
    return before.custody in AT_BROKER and after.custody not in AT_BROKER
