"""The life of an invocation and of its deliveries: what holds of every history that can happen."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeAlias

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from homing.v1 import invocation_pb2 as api
from homing.v1.policy_pb2 import Callback, Destination
from homing_core import limits
from homing_core.lifecycle import (
    Custody,
    Delivery,
    DeliveryState,
    Effect,
    Record,
    Refusal,
    State,
    Step,
    Token,
    custody,
    delivery,
    invocation,
)
from homing_core.lifecycle.attempts import key_of
from homing_core.lifecycle.custody import AT_BROKER
from homing_core.lifecycle.delivery import TRANSITIONS as DELIVERY_TRANSITIONS
from homing_core.lifecycle.states import DEAD_STATES, TRANSITIONS
from homing_core.wire.v1 import AttemptRecord, Event
from support.lives import SECOND, accept, after, confirm, dispatch, report
from support.reporter import NOW, DeliveryReporter, Reporter

# The machine may be busy; slowness is no failure here.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


# --- Events of one dispatch in any order


@patient
@given(
    earlier=st.lists(st.booleans(), max_size=2),
    retries=st.integers(0, 4),
    end=st.sampled_from([State.SUCCEEDED, State.FAILED, State.TIMED_OUT]),
    noted=st.booleans(),
    data=st.data(),
)
def test_result_does_not_depend_on_the_order_of_events(
    earlier: list[bool], retries: int, end: State, *, noted: bool, data: st.DataObject
) -> None:
    """Once all events of the last dispatch are in, however often, the record is the same."""
    base = accept()
    for generation, ran in enumerate(earlier, 1):
        base = dispatch(base)
        if ran:
            base = report(base, Reporter(generation).running())
        base = after(invocation.broker_lost(base, due_us=NOW))
    base = dispatch(base)
    if noted:
        base = confirm(base)
    worker = Reporter(base.token.generation, data.draw(st.integers(0, 2)), time_us=NOW + SECOND)
    events = [worker.dequeued()]
    for _ in range(retries):
        events += [worker.running(), worker.attempt_ended()]
    events += [worker.running(), worker.ended(end)]
    expected = _apply(base, events)
    twice = data.draw(st.lists(st.sampled_from(events), max_size=4))
    shuffled = data.draw(st.permutations(events + twice))
    actual = _apply(base, shuffled)
    assert _essence(actual) == _essence(expected)
    assert expected.state is end
    kinds = {api.INVOCATION_EVENT_TYPE_RUNNING, api.INVOCATION_EVENT_TYPE_ATTEMPT_ENDED}
    assert _entries(actual, kinds) == _entries(expected, kinds)


def _apply(record: Record, events: Sequence[Event]) -> Record:
    for event in events:
        step = invocation.reported(record, event)
        record = record if isinstance(step, Refusal) else step.after
    return record


def _essence(record: Record) -> object:
    ended = [attempt for attempt in record.attempts if attempt.outcome != api.ATTEMPT_OUTCOME_LOST]
    lost = [attempt.token.SerializeToString() for attempt in record.attempts if attempt not in ended]
    return replace(record, attempts=tuple(ended), entries=()), lost


def _entries(record: Record, kinds: set[api.InvocationEventType.ValueType]) -> Counter[tuple[int, int, int]]:
    return Counter((entry.type, entry.attempt, entry.time_us) for entry in record.entries if entry.type in kinds)


# --- Every history that can happen

Key: TypeAlias = int
"""Which of the lives: 0 is the invocation, the others are its deliveries in the order in which they were made."""

INVOCATION: Final[Key] = 0
ENDS_WHILE_RUNNING: Final = ["SUCCEEDED", "FAILED", "TIMED_OUT"]
MOST_REDRIVES: Final = 2


@dataclass(kw_only=True, eq=False)
class Message:
    """A message of a dispatch, in a queue of the broker or in flight with a worker."""

    key: Key
    generation: int
    may_expire: bool = False
    lost_starts: int = 0
    redelivery_count: int = 0
    holder: Holder | None = None


@dataclass(kw_only=True, eq=False)
class Holder:
    """A worker with a message in flight. One that was cut off from the broker goes on, and holds nothing any more."""

    message: Message
    worker: Reporter | DeliveryReporter
    said: list[Event] = field(default_factory=list)
    obeys: bool = False
    """Whether it knows of the stop, or its gate is closed: it starts nothing that is stopped."""
    lease: Event | None = None
    """Confirmed where it was said, so that the message may go."""
    last: bool = False
    """Whether it has said its last, which is confirmed; only the acknowledgement is missing."""

    @property
    def holds(self) -> bool:
        return self.message.holder is self

    @property
    def begun(self) -> bool:
        return bool(self.worker.attempts)


class Lives(RuleBasedStateMachine):
    """A store, a broker and workers that do all that they may do, while events are late, repeated and out of order."""

    def __init__(self) -> None:
        super().__init__()
        self.time = itertools.count(NOW, SECOND)
        self.names = (f"w{number}" for number in itertools.count(1))
        self.spec = api.InvocationSpec()
        self.record = accept()
        self.deliveries: dict[Key, Delivery] = {}
        self.to_function: set[Key] = set()
        self.delivered_at_last = False
        """Whether the deliveries of the end were made."""
        self.dead_letters: Counter[Key] = Counter()
        self.redrives: Counter[Key] = Counter()
        self.tombstone: int | None = None
        """The generation up to which its dispatches must not start, once it was asked to stop."""
        self.counted_at_broker = False
        """Whether the message of the tombstone counts as one at the broker."""
        self.stop_is_certain = False
        """Whether STOPPED was answered: every worker obeys by now, and every one that comes."""
        self.messages: list[Message] = []
        self.dispatches: list[tuple[Key, int]] = []
        """Every dispatch that was committed."""
        self.published: set[tuple[Key, int]] = set()
        """Those of them that reached the broker."""
        self.holders: list[Holder] = []
        self.events: list[tuple[Key, Event]] = []
        """Published and confirmed: the recorder gets each of them at least once."""
        self.heard: list[Event] = []

    @initialize(scheduled=st.booleans(), callback=st.booleans(), uris=st.lists(st.booleans(), max_size=2))
    def accept(self, *, scheduled: bool, callback: bool, uris: list[bool]) -> None:
        self.record = accept(due_us=NOW + SECOND if scheduled else NOW)
        if callback:
            self.spec.callback.CopyFrom(Callback(url="https://a.example/"))
        for to_function in uris:
            destination = Destination(uri="function:f" if to_function else "https://b.example/")
            self.spec.on_success.append(destination)
            self.spec.on_failure.append(destination)

    # The store and the dispatchers

    @precondition(lambda self: self._held_by(Custody.STORE))
    @rule(fate=st.sampled_from(["confirmed", "unknown", "not sent"]), data=st.data())
    def dispatch(self, fate: str, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(self._held_by(Custody.STORE)))
        self._dispatch(key, fate)

    @precondition(lambda self: self._unconfirmed())
    @rule(data=st.data())
    def note_confirm(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(self._unconfirmed()))
        self._become(key, custody.confirmed(self._life(key), generation=self._life(key).token.generation))

    @precondition(lambda self: self._held_by(Custody.SENT))
    @rule(data=st.data())
    def take_back(self, data: st.DataObject) -> None:
        """As the sweeper does with what nobody saw confirmed; what is STOPPING is not published again."""
        self._take_back(data.draw(st.sampled_from(self._held_by(Custody.SENT))))

    @precondition(lambda self: self.dispatches)
    @rule(data=st.data())
    def hear_late_of_a_dispatch(self, data: st.DataObject) -> None:
        """A dispatcher that was away notes what became of a dispatch that others may have taken back."""
        key, generation = data.draw(st.sampled_from(self.dispatches))
        life = self._life(key)
        step = custody.confirmed(life, generation=generation)
        if (life.token.generation, life.custody) != (generation, Custody.SENT):
            assert isinstance(step, Refusal)
            assert isinstance(self._taken_back(key, generation), Refusal)

    @precondition(lambda self: self.record.token.generation and not self.record.ended)
    @rule()
    def ask_to_stop(self) -> None:
        before = self.record
        step = invocation.stop_requested(before, caller="", reason="", time_us=next(self.time))
        if before.state is State.STOPPING:
            assert step is Refusal.DUPLICATE
            return
        self._become(INVOCATION, step)
        assert self.record.custody is not Custody.STORE, "it is not to be dispatched"
        assert self.tombstone == before.token.generation

    @precondition(lambda self: not self.record.token.generation and not self.record.ended)
    @rule()
    def stop_before_it_was_ever_dispatched(self) -> None:
        step = invocation.stop_requested(self.record, caller="", reason="", time_us=next(self.time))
        self._become(INVOCATION, step)
        assert self.record.state is State.STOPPED
        self.stop_is_certain = True

    @precondition(lambda self: self.tombstone is not None)
    @rule(data=st.data())
    def tell_of_the_stop(self, data: st.DataObject) -> None:
        """A worker hears of the stop, or its gate closes since it hears no server: it starts nothing of that any more.

        One that has a message of it which has not begun reports it STOPPED.
        """
        holders = [each for each in self._busy(INVOCATION) if not each.obeys]
        if holders:
            self._obey(data.draw(st.sampled_from(holders)))

    @precondition(lambda self: self.record.state is State.STOPPING)
    @rule()
    def settle_stop(self) -> None:
        """All workers obey, or are lost; some that were may run it still."""
        if all(each.obeys or each.begun for each in self._busy(INVOCATION)):
            self._settle_stop()

    @precondition(lambda self: self.record.custody is Custody.STORE)
    @rule(deleted=st.booleans())
    def end_in_the_store(self, *, deleted: bool) -> None:
        """As the dispatcher does with what has waited too long, and the deletion of a function with the rest."""
        if deleted or self.record.attempts:
            step = invocation.function_deleted(self.record, function="f", time_us=next(self.time))
        else:
            step = invocation.expired(self.record, time_us=next(self.time))
        self._become(INVOCATION, step)

    @precondition(lambda self: self._held_by(Custody.SENT, Custody.BROKER, Custody.LEASE))
    @rule()
    def lose_everything(self) -> None:
        """The broker was one that keeps nothing, and everything starts anew: work and events are gone with it."""
        self.messages.clear()
        self.holders.clear()
        self.events.clear()
        if self.record.state is State.STOPPING:
            self._settle_stop()
        self.counted_at_broker = False
        for key in self._held_by(Custody.SENT, Custody.BROKER, Custody.LEASE):
            life = self._life(key)
            lost = invocation.broker_lost if isinstance(life, Record) else delivery.broker_lost
            self._become(key, lost(life, due_us=next(self.time)))  # type: ignore[arg-type]

    @precondition(lambda self: self._held_by(Custody.STORE, deliveries_only=True))
    @rule(obstacle=st.booleans(), data=st.data())
    def carry_out(self, *, obstacle: bool, data: st.DataObject) -> None:
        """A delivery to a function becomes an invocation, or cannot, in the transaction that claims it."""
        keys = [key for key in self._held_by(Custody.STORE, deliveries_only=True) if key in self.to_function]
        if not keys:
            return
        key = data.draw(st.sampled_from(keys))
        one, time_us = self.deliveries[key], next(self.time)
        if obstacle:
            self._become(key, delivery.not_invoked(one, failure=api.Failure(reason="GONE"), time_us=time_us))
        else:
            self._become(key, delivery.invoked(one, invocation_id="i", time_us=time_us))

    @precondition(lambda self: self._dead())
    @rule(data=st.data())
    def redrive(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(self._dead()))
        if self.redrives[key] < MOST_REDRIVES:
            self._redrive(key)

    @precondition(lambda self: self.record.ended)
    @rule()
    def end_again(self) -> None:
        time_us = next(self.time)
        record = self.record
        refused = [
            invocation.expired(record, time_us=time_us),
            invocation.function_deleted(record, function="f", time_us=time_us),
            invocation.dropped(
                record, generation=record.token.generation, why="expired", function="f", time_us=time_us
            ),
            invocation.dispatched(record, time_us=time_us),
            invocation.taken_back(record, generation=record.token.generation, due_us=time_us),
            invocation.broker_lost(record, due_us=time_us),
            invocation.lease_expired(record, time_us=time_us),
            invocation.stopped(record, time_us=time_us),
            invocation.stop_requested(record, caller="", reason="", time_us=time_us),
        ]
        assert refused == [Refusal.ENDED] * len(refused)

    # The broker and the workers

    @precondition(lambda self: self._queued())
    @rule(informed=st.booleans(), data=st.data())
    def take(self, *, informed: bool, data: st.DataObject) -> None:
        message = data.draw(st.sampled_from(self._queued()))
        holder = self._take(message)
        if message.key == INVOCATION and (self.stop_is_certain or (informed and self.tombstone is not None)):
            self._obey(holder)

    @precondition(lambda self: self._queued(INVOCATION))
    @rule(why=st.sampled_from(["expired", "", "delivery_limit"]), data=st.data())
    def drop(self, why: str, data: st.DataObject) -> None:
        """The broker drops a message that no worker has, and the server hears of it."""
        message = data.draw(st.sampled_from(self._queued(INVOCATION)))
        if why == "expired" and not message.may_expire:
            return
        before = self.record
        step = invocation.dropped(before, generation=message.generation, why=why, function="f", time_us=next(self.time))
        if isinstance(step, Step):
            assert message.generation == before.token.generation
            self._become(INVOCATION, step)
        self._message_is_gone(message.generation)
        self.messages.remove(message)

    @precondition(lambda self: self._busy(INVOCATION))
    @rule(data=st.data())
    def work(self, data: st.DataObject) -> None:
        """A worker goes one step on with the invocation."""
        holder = data.draw(st.sampled_from(self._busy(INVOCATION)))
        worker = holder.worker
        assert isinstance(worker, Reporter)
        if worker.attempts and not worker.attempts[-1].end_us:
            step = data.draw(st.sampled_from(["fail", "defer", "lease", "return", *ENDS_WHILE_RUNNING]))
        else:
            step = data.draw(st.sampled_from(self._steps_between_attempts(holder)))
        match step:
            case "dequeue":
                self._say(holder, worker.dequeued())
            case "run":
                assert holder.begun or not self.stop_is_certain, "what was answered STOPPED starts"
                self._say(holder, worker.running())
            case "fail":
                self._say(holder, worker.attempt_ended())
            case "defer":
                self._say(holder, worker.deferred(due_us=next(self.time)), last=True)
            case "requeue":
                self._say(holder, worker.requeued(), last=True)
            case "lease" if holder.holds or holder.lease:
                holder.lease = worker.leased()
                self._say(holder, holder.lease)
            case "return" if holder.lease and holder.message not in self.messages:
                self._say(holder, worker.leased(term_us=0), last=True)
            case "lease" | "return":
                pass
            case end:
                self._say(holder, worker.ended(State[end]), last=True)

    @precondition(lambda self: self._busy(deliveries_only=True))
    @rule(step=st.sampled_from(["begin", "fail", "defer", "deliver", "give up"]), data=st.data())
    def deliver(self, step: str, data: st.DataObject) -> None:
        """A worker goes one step on with a delivery."""
        holder = data.draw(st.sampled_from(self._busy(deliveries_only=True)))
        courier = holder.worker
        assert isinstance(courier, DeliveryReporter)
        match step:
            case "begin":
                self._say(holder, courier.delivering())
            case "fail":
                courier.fail()
            case "defer":
                courier.fail()
                self._say(holder, courier.pending(due_us=next(self.time)), last=True)
            case "deliver":
                self._say(holder, courier.delivered(), last=True)
            case "give up":
                courier.fail()
                self._say(holder, courier.dead(), last=True)

    @precondition(lambda self: self.tombstone is not None and self._busy(INVOCATION))
    @rule(data=st.data())
    def heed_stop(self, data: st.DataObject) -> None:
        """A worker hears of the stop, early or late, before it has finished."""
        holder = data.draw(st.sampled_from(self._busy(INVOCATION)))
        assert isinstance(holder.worker, Reporter)
        holder.obeys = True
        self._say(holder, holder.worker.ended(State.STOPPED), last=True)

    @precondition(lambda self: self._busy(INVOCATION))
    @rule(data=st.data())
    def tell_progress(self, data: st.DataObject) -> None:
        holder = data.draw(st.sampled_from(self._busy(INVOCATION)))
        assert isinstance(holder.worker, Reporter)
        self._say(holder, holder.worker.progress())

    @precondition(lambda self: any(holder.last for holder in self.holders))
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        """What a worker has said last is confirmed, so it lets the message go, where it still has it."""
        holder = data.draw(st.sampled_from([holder for holder in self.holders if holder.last]))
        if holder.holds:
            self.messages.remove(holder.message)
        self.holders.remove(holder)

    @precondition(lambda self: any(holder.lease and holder.holds for holder in self.holders))
    @rule(data=st.data())
    def acknowledge_lease(self, data: st.DataObject) -> None:
        """That a worker answers for its message is confirmed, so it lets it go."""
        holder = data.draw(st.sampled_from([each for each in self.holders if each.lease and each.holds]))
        self.messages.remove(holder.message)
        holder.message.holder = None
        holder.said.clear()

    @precondition(lambda self: self.record.custody is Custody.LEASE)
    @rule()
    def expire_lease(self) -> None:
        """The worker was not heard of for long, whether it lives or not."""
        self._become(INVOCATION, invocation.lease_expired(self.record, time_us=next(self.time)))

    @precondition(lambda self: self.holders)
    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        """A worker dies; of what it said some may never have been confirmed, and its message comes again."""
        holder = data.draw(st.sampled_from(self.holders))
        self.holders.remove(holder)
        if holder.holds:
            self._redeliver(holder.message)
        if not holder.last:
            for event in holder.said:
                published = holder.message.key, event
                if published in self.events and event not in self.heard and data.draw(st.booleans()):
                    self.events.remove(published)

    @precondition(lambda self: any(holder.holds for holder in self.holders))
    @rule(data=st.data())
    def cut(self, data: st.DataObject) -> None:
        """The connection of a worker breaks: its message comes again while it goes on with its run."""
        holder = data.draw(st.sampled_from([holder for holder in self.holders if holder.holds]))
        self._redeliver(holder.message)

    # The recorder

    @precondition(lambda self: self.events)
    @rule(data=st.data())
    def record_event(self, data: st.DataObject) -> None:
        """Any event that was published arrives next, and may arrive again."""
        key, event = data.draw(st.sampled_from(self.events))
        self.heard.append(event)
        if data.draw(st.booleans()):
            self.events.remove((key, event))
        before = self._life(key)
        step = self._record(key, event)
        if isinstance(step, Refusal):
            if before.custody is Custody.NONE:
                assert step is Refusal.ENDED
            elif Token.of(event.token) < before.token:
                assert step is Refusal.STALE
            else:
                assert step is Refusal.DUPLICATE
            return
        assert Token.of(event.token) >= before.token, "a stale event changed something"
        assert step.after.token >= Token.of(event.token)
        assert isinstance(self._reported(key, event), Refusal), "the same event twice is more than once"

    # What must hold

    @invariant()
    def an_invocation_makes_sense(self) -> None:
        record = self.record
        assert (record.custody is Custody.NONE) == record.ended
        assert bool(record.end_us) == record.ended
        assert bool(record.due_us) == (record.custody is Custody.STORE)
        assert bool(record.sent_us) == (record.custody is Custody.SENT)
        assert record.start_us == (record.attempts[0].start_us if record.attempts else 0)
        if record.custody is Custody.STORE:
            assert record.state in {State.SCHEDULED, State.ENQUEUED, State.RETRYING}
        if record.custody is Custody.SENT:
            assert record.state in {State.ENQUEUED, State.STOPPING}
        if record.state in {State.EXPIRED, State.INVALID, State.SCHEDULED}:
            assert not record.attempts
        if record.state in {State.STOPPING, State.STOPPED}:
            assert record.stop_request is not None
        if record.ended:
            assert all(attempt.end_us for attempt in record.attempts)
            assert (record.failure is None) == (record.state is State.SUCCEEDED)

    @invariant()
    def deliveries_make_sense(self) -> None:
        for one in self.deliveries.values():
            assert (one.custody is Custody.NONE) == one.ended == bool(one.end_us)
            assert bool(one.due_us) == (one.custody is Custody.STORE)
            assert bool(one.sent_us) == (one.custody is Custody.SENT)
            assert one.custody is not Custody.LEASE
            if one.custody in {Custody.STORE, Custody.SENT}:
                assert one.state is DeliveryState.PENDING
            starts = [attempt.start_us for attempt in one.attempts]
            assert starts == sorted(set(starts))
            assert 0 <= one.counted_attempts <= len(starts)

    @invariant()
    def p5_nothing_is_lost(self) -> None:
        """What the broker is said to hold is in a hand that will end it or give it on."""
        for key in self._held_by(Custody.BROKER):
            life = self._life(key)
            if life.state is State.STOPPING and key == INVOCATION:
                continue  # the servers see to it until all workers obey
            held = any((each.key, each.generation) == (key, life.token.generation) for each in self.messages)
            reported = any(
                to == key and _lets_go(event) and Token.of(event.token) >= life.token for to, event in self.events
            )
            assert held or reported, "nobody holds it"

    @invariant()
    def p5_nothing_has_two_owners(self) -> None:
        assert len(set(self.dispatches)) == len(self.dispatches), "a generation is dispatched once"
        tokens = [(each.message.key, *_token(each.worker)) for each in self.holders]
        assert len(set(tokens)) == len(tokens), "two workers speak under the same token"

    @invariant()
    def p6_every_end_has_its_deliveries_and_what_is_dead_its_dead_letter(self) -> None:
        assert self.delivered_at_last == self.record.ended
        expected = len(list(delivery.targets_of(self.spec, None, state=self.record.state)))
        assert len(self.deliveries) == (expected if self.record.ended else 0)
        dead = {key for key, one in self.deliveries.items() if one.state is DeliveryState.DEAD}
        if self.record.state in DEAD_STATES:
            dead.add(INVOCATION)
        assert self.dead_letters == Counter(dead)

    def teardown(self) -> None:
        """Whatever has happened: when all that was said is heard and one worker goes on, everything ends."""
        for _ in range(20):
            self._hear_all()
            if self.record.custody is Custody.LEASE:
                self.expire_lease()
            if self.record.state is State.STOPPING:
                for holder in self._busy(INVOCATION):
                    self._obey(holder)
                self._hear_all()
            if self.record.state is State.STOPPING:
                self._settle_stop()
            if self.record.ended and all(one.ended for one in self.deliveries.values()):
                break
            for key in [INVOCATION, *self.deliveries]:
                self._go_on(key)
        else:
            raise AssertionError("it never ends")
        # What lingers at the broker changes nothing when it is let go, and is counted no more.
        for message in list(self.messages):
            self._let_end(message)
        self._hear_all()
        # What was stopped after its dispatcher had died, and before it was published, is forgotten with its tombstone.
        if self.tombstone is None or (INVOCATION, self.tombstone) in self.published:
            assert not self._believed_at_broker(), "the store believes that a message is where none is"

    # Helpers

    def _life(self, key: Key) -> Record | Delivery:
        return self.record if key == INVOCATION else self.deliveries[key]

    def _held_by(self, *holders: Custody, deliveries_only: bool = False) -> list[Key]:
        keys = [*self.deliveries] if deliveries_only else [INVOCATION, *self.deliveries]
        return [key for key in keys if self._life(key).custody in holders]

    def _unconfirmed(self) -> list[Key]:
        """Return what is SENT and has reached the broker."""
        sent = self._held_by(Custody.SENT)
        return [key for key in sent if (key, self._life(key).token.generation) in self.published]

    def _dead(self) -> list[Key]:
        return [key for key, one in self.deliveries.items() if one.state is DeliveryState.DEAD]

    def _queued(self, key: Key | None = None) -> list[Message]:
        return [each for each in self.messages if each.holder is None and key in {None, each.key}]

    def _busy(self, key: Key | None = None, *, deliveries_only: bool = False) -> list[Holder]:
        keys = set(self.deliveries) if deliveries_only else {key}
        return [holder for holder in self.holders if not holder.last and holder.message.key in keys]

    def _steps_between_attempts(self, holder: Holder) -> list[str]:
        if holder.begun:
            return ["run", "INVALID"]
        first = ["dequeue", "run", "requeue", "INVALID"]
        return [*first, "EXPIRED"] if holder.message.may_expire else first

    def _dispatch(self, key: Key, fate: str) -> None:
        life = self._life(key)
        if isinstance(life, Record):
            self._become(key, invocation.dispatched(life, time_us=next(self.time)))
        else:
            self._become(key, delivery.dispatched(life, time_us=next(self.time)))
        life = self._life(key)
        generation = life.token.generation
        self.dispatches.append((key, generation))
        if fate == "not sent":
            return
        self.published.add((key, generation))
        message = Message(key=key, generation=generation)
        if isinstance(life, Record):
            message.may_expire, message.lost_starts = not life.start_us, life.lost_starts
        self.messages.append(message)
        if fate == "confirmed":
            self._become(key, custody.confirmed(life, generation=generation))

    def _taken_back(self, key: Key, generation: int) -> Step[Any] | Refusal:
        life, due_us = self._life(key), next(self.time)
        if isinstance(life, Record):
            return invocation.taken_back(life, generation=generation, due_us=due_us)
        return delivery.taken_back(life, generation=generation, due_us=due_us)

    def _take_back(self, key: Key) -> None:
        generation = self._life(key).token.generation
        self._become(key, self._taken_back(key, generation))
        if key == INVOCATION:
            self._message_is_gone(generation)

    def _redrive(self, key: Key) -> None:
        self._become(key, delivery.redriven(self.deliveries[key], due_us=next(self.time)))
        del self.dead_letters[key]
        self.redrives[key] += 1

    def _take(self, message: Message) -> Holder:
        kind: Callable[..., Reporter | DeliveryReporter] = Reporter if message.key == INVOCATION else DeliveryReporter
        worker = kind(message.generation, message.redelivery_count, worker=next(self.names), time_us=next(self.time))
        holder = message.holder = Holder(message=message, worker=worker)
        self.holders.append(holder)
        if isinstance(worker, Reporter) and message.lost_starts + message.redelivery_count >= limits.POISON_STARTS:
            self._say(holder, worker.requeued("REDELIVERED"), last=True)
        return holder

    def _obey(self, holder: Holder) -> None:
        holder.obeys = True
        assert isinstance(holder.worker, Reporter)
        stopped = self.tombstone is not None and holder.message.generation <= self.tombstone
        if stopped and not holder.begun and not holder.last:
            self._say(holder, holder.worker.ended(State.STOPPED), last=True)

    def _settle_stop(self) -> None:
        self._become(INVOCATION, invocation.stopped(self.record, time_us=next(self.time)))
        self.stop_is_certain = True

    def _say(self, holder: Holder, event: Event, *, last: bool = False) -> None:
        holder.said.append(event)
        holder.last = last
        self.events.append((holder.message.key, event))

    def _redeliver(self, message: Message) -> None:
        message.redelivery_count += 1
        message.holder = None

    def _reported(self, key: Key, event: Event) -> Step[Any] | Refusal:
        life = self._life(key)
        return invocation.reported(life, event) if isinstance(life, Record) else delivery.reported(life, event)

    def _record(self, key: Key, event: Event) -> Step[Any] | Refusal:
        if key == INVOCATION and invocation.lets_go(event):
            self._message_is_gone(event.token.generation)
        step = self._reported(key, event)
        if isinstance(step, Step):
            self._become(key, step)
        return step

    def _hear_all(self) -> None:
        while self.events:
            self._record(*self.events.pop(0))

    def _message_is_gone(self, generation: int) -> None:
        if self.tombstone == generation:
            self.counted_at_broker = False

    def _believed_at_broker(self) -> int:
        """Return of how many messages of the invocation the store believes that they are at the broker."""
        if self.record.stop_request is not None:
            return int(self.counted_at_broker)
        return int(self.record.custody in AT_BROKER)

    def _go_on(self, key: Key) -> None:
        """Let what has not ended be published and done by a worker that says what it should, if only for this once."""
        if self._life(key).custody is Custody.SENT:
            self._take_back(key)
        if self._life(key).custody is Custody.STORE:
            self._dispatch(key, "confirmed")
        life = self._life(key)
        if life.custody is Custody.BROKER and life.state is not State.STOPPING:
            current = [each for each in self.messages if (each.key, each.generation) == (key, life.token.generation)]
            self._let_end(next(iter(current)))

    def _let_end(self, message: Message) -> None:
        if message.holder is not None:
            self.holders.remove(message.holder)
            self._redeliver(message)
        holder = self._take(message)
        if not holder.last and isinstance(holder.worker, Reporter):
            if self.tombstone is not None:
                self._obey(holder)
            if not holder.last:
                self._say(holder, holder.worker.ended(State.SUCCEEDED), last=True)
        elif isinstance(holder.worker, DeliveryReporter):
            self._say(holder, holder.worker.delivered(), last=True)
        self.messages.remove(message)
        self.holders.remove(holder)

    def _become(self, key: Key, step: Step[Any] | Refusal) -> None:
        assert isinstance(step, Step), step
        before, after_ = self._life(key), step.after
        assert after_.token >= before.token
        assert (Effect.PUBLISH in step.effects) == (after_.token.generation > before.token.generation) or after_.ended
        if isinstance(before, Record):
            self.record = after_
            _check_record(before, after_)
        else:
            self.deliveries[key] = after_
            _check_delivery(before, after_)
        self._carry_out_effects(key, before, step)

    def _carry_out_effects(self, key: Key, before: Record | Delivery, step: Step[Any]) -> None:
        if Effect.WRITE_TOMBSTONE in step.effects:
            assert self.tombstone is None, "one request counts"
            self.tombstone = before.token.generation
            self.counted_at_broker = before.custody in AT_BROKER
        if Effect.MAKE_DELIVERIES in step.effects:
            assert not self.delivered_at_last, "its deliveries are made once"
            self.delivered_at_last = True
            for number, (_, target) in enumerate(delivery.targets_of(self.spec, None, state=step.after.state), 1):
                self.deliveries[number] = delivery.made(time_us=next(self.time))
                if isinstance(target, Destination) and target.uri.startswith("function:"):
                    self.to_function.add(number)
        if Effect.MAKE_DEAD_LETTER in step.effects:
            self.dead_letters[key] += 1


def _check_record(before: Record, after_: Record) -> None:
    assert not before.ended, "an end is final"
    assert after_.state is before.state or after_.state in TRANSITIONS[before.state]
    assert before.stop_request is None or after_.stop_request is before.stop_request, "the first request counts"
    assert after_.entries[: len(before.entries)] == before.entries
    keys = [key_of(attempt) for attempt in after_.attempts]
    assert keys == sorted(set(keys))
    known: dict[tuple[int, int, int], AttemptRecord] = dict(zip(keys, after_.attempts, strict=True))
    for attempt in before.attempts:
        assert key_of(attempt) in known, "an attempt vanished"
        assert not attempt.end_us or known[key_of(attempt)] == attempt, "an attempt that had ended changed"


def _check_delivery(before: Delivery, after_: Delivery) -> None:
    assert before.state is not DeliveryState.DELIVERED, "an end is final"
    assert after_.state is before.state or after_.state in DELIVERY_TRANSITIONS[before.state]
    known = {attempt.start_us for attempt in after_.attempts}
    assert known >= {attempt.start_us for attempt in before.attempts}, "an attempt vanished"
    assert after_.before_redrive >= before.before_redrive


def _token(worker: Reporter | DeliveryReporter) -> tuple[int, int]:
    return worker.token.generation, worker.token.redelivery_count


def _lets_go(event: Event) -> bool:
    """Tell whether an event takes what it speaks of from the broker."""
    if event.HasField("delivery"):
        return event.delivery.state != api.DELIVERY_STATE_DELIVERING
    return invocation.lets_go(event) or event.HasField("leased")


Lives.TestCase.settings = settings(
    patient, max_examples=200, stateful_step_count=50, suppress_health_check=list(HealthCheck)
)
TestLives = Lives.TestCase
