"""What the dispatcher asks of the store: which work is due, and who holds what."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, case, func, select, update

from homing.v1 import invocation_pb2 as api
from homing.v1 import payload_pb2
from homing_core import lifecycle
from homing_core.lifecycle import Custody, Record, State
from homing_core.wire.v1 import WorkMessage
from homing_server.store import schema, tombstones
from homing_server.store.effects import CommitEffects
from homing_server.store.invocation_rows import Change, record_of
from homing_server.store.record import select_invocations, store_changes

_invocations = schema.invocations
_deliveries = schema.deliveries


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """A work message with what its publisher must know."""

    message: WorkMessage
    size: int

    @property
    def key(self) -> tuple[str, int]:
        """Return what tells this dispatch from all others."""
        return self.message.invocation_id, self.message.generation


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """Work that was taken from the store to be published, and what the taking changed besides."""

    work: Sequence[Work]
    effects: CommitEffects


def work_of(
    invocation_id: str,
    record: Record,
    spec: api.InvocationSpec,
    *,
    create_us: int,
    start_by_us: int,
    traceparent: str,
    depth: int,
) -> WorkMessage:
    """Return the message that hands an invocation over."""
    message = WorkMessage(
        invocation_id=invocation_id,
        generation=record.token.generation,
        spec=spec,
        create_us=create_us,
        start_by_us=0 if record.start_us else start_by_us,
        prior_attempts=record.counted_attempts,
        prior_lost_starts=record.lost_starts,
        traceparent=traceparent,
        depth=depth,
    )
    for name in ("callback", "on_success", "on_failure"):
        message.spec.ClearField(name)
    return message


def next_due(connection: Connection) -> dict[str, int]:
    """Return by function when the earliest invocation in the store's custody is due."""
    earliest = (
        select(func.min(_invocations.c.due_us))
        .where(
            schema.live(_invocations),
            _invocations.c.custody == int(Custody.STORE),
            _invocations.c.function == schema.functions.c.name,
        )
        .scalar_subquery()
    )
    query = select(schema.functions.c.name, earliest)
    return {name: due_us for name, due_us in connection.execute(query) if due_us is not None}


def claim_work(connection: Connection, function: str, *, now_us: int, most: int, most_bytes: int) -> Claim:
    """Take work of a function that is due, the oldest first; end what has waited too long.

    :param most: How many at the most.
    :param most_bytes: How many bytes in all, about; one is always taken.
    """
    query = (
        select(_invocations, schema.payloads.c.request)
        .join(schema.payloads, schema.payloads.c.invocation_id == _invocations.c.id)
        .where(
            schema.live(_invocations),
            _invocations.c.custody == int(Custody.STORE),
            _invocations.c.function == function,
            _invocations.c.due_us <= now_us,
        )
        .order_by(_invocations.c.due_us)
        .limit(most)
    )
    changes: list[Change] = []
    work: list[Work] = []
    size = 0
    for row in connection.execute(query).all():
        before = record_of(row)
        if not before.start_us and now_us > row.start_by_us:
            failure = api.Failure(reason="MAX_AGE", message="max_age passed before it started")
            after = lifecycle.ended(before, state=State.EXPIRED, failure=failure, time_us=now_us)
        else:
            if work and size + row.size > most_bytes:
                break
            size += row.size
            after = lifecycle.handed_over(before, time_us=now_us)
            assert isinstance(after, Record), "what the store holds has not ended"
            spec = api.InvocationSpec.FromString(row.spec)
            spec.payload.CopyFrom(payload_pb2.Payload.FromString(row.request))
            message = work_of(
                row.id,
                after,
                spec,
                create_us=row.create_us,
                start_by_us=row.start_by_us,
                traceparent=row.traceparent,
                depth=row.depth,
            )
            work.append(Work(message=message, size=row.size))
        assert isinstance(after, Record), "what the store holds has not ended"
        changes.append(Change(row=row, before=before, after=after))
    effects = CommitEffects()
    store_changes(connection, changes, effects)
    if work:
        sent = update(_invocations).where(_invocations.c.id == bindparam("key")).values(sent_us=now_us)
        connection.execute(sent, [{"key": item.message.invocation_id} for item in work])
    return Claim(work=work, effects=effects)


def confirm_work(connection: Connection, keys: Collection[tuple[str, int]]) -> None:
    """Note that the broker has confirmed these dispatches, unless they have gone further since."""
    statement = (
        update(_invocations)
        .where(
            _invocations.c.id == bindparam("key"),
            _invocations.c.generation == bindparam("claimed"),
            _invocations.c.custody == int(Custody.SENT),
        )
        .values(custody=int(Custody.BROKER))
    )
    connection.execute(statement, [{"key": key, "claimed": generation} for key, generation in keys])


def take_back_work(connection: Connection, keys: Collection[tuple[str, int]], *, due_us: int) -> None:
    """Return dispatches that were not, or perhaps not, published to the store's custody.

    What is STOPPING is not published again: it stays with the broker until it is certain that nobody has it.
    """
    stopping = _invocations.c.state == int(State.STOPPING)
    statement = (
        update(_invocations)
        .where(
            _invocations.c.id == bindparam("key"),
            _invocations.c.generation == bindparam("claimed"),
            _invocations.c.custody == int(Custody.SENT),
        )
        .values(
            custody=case((stopping, int(Custody.BROKER)), else_=int(Custody.STORE)),
            due_us=case((stopping, 0), else_=due_us),
        )
    )
    connection.execute(statement, [{"key": key, "claimed": generation} for key, generation in keys])
    tombstones.note_gone(connection, keys, now_us=due_us)


def forgotten_work(connection: Connection, *, sent_before_us: int) -> list[tuple[str, int]]:
    """Return dispatches that were committed so long ago that their dispatcher should have seen them confirmed."""
    query = (
        select(_invocations.c.id, _invocations.c.generation)
        .where(
            schema.live(_invocations),
            _invocations.c.custody == int(Custody.SENT),
            _invocations.c.sent_us < sent_before_us,
        )
        .limit(1000)
    )
    return [(key, generation) for key, generation in connection.execute(query)]


def take_back_all(connection: Connection, *, due_us: int) -> int:
    """Return what was at a broker which kept nothing, or leased by its workers, to the store's custody; count it.

    What is STOPPING must have been stopped before.
    """
    gone = [int(Custody.SENT), int(Custody.BROKER), int(Custody.LEASE)]
    work = connection.execute(
        update(_invocations)
        .where(schema.live(_invocations), _invocations.c.custody.in_(gone))
        .values(custody=int(Custody.STORE), due_us=due_us)
    )
    deliveries = connection.execute(
        update(_deliveries)
        .where(schema.live(_deliveries), _deliveries.c.custody.in_(gone))
        .values(custody=int(Custody.STORE), due_us=due_us)
    )
    return work.rowcount + deliveries.rowcount


def leased(connection: Connection) -> list[str]:
    """Return the invocations that their workers answer for."""
    query = select(_invocations.c.id).where(schema.live(_invocations), _invocations.c.custody == int(Custody.LEASE))
    return list(connection.execute(query).scalars())


def end_leases(connection: Connection, ids: Collection[str], *, now_us: int) -> CommitEffects:
    """Take invocations back whose workers are lost, to hand them over again, unless they have gone further since."""
    changes = []
    for row in select_invocations(connection, ids):
        before = record_of(row)
        after = lifecycle.lease_ended(before, time_us=now_us)
        if isinstance(after, Record):
            changes.append(Change(row=row, before=before, after=after))
    effects = CommitEffects()
    store_changes(connection, changes, effects)
    return effects


def at_broker(connection: Connection) -> dict[str, tuple[int, int]]:
    """Return by function how many invocations, of how many bytes in all, the store believes to be at the broker."""
    query = (
        select(_invocations.c.function, func.count(), func.coalesce(func.sum(_invocations.c.size), 0))
        .where(schema.live(_invocations), _invocations.c.custody.in_([int(Custody.SENT), int(Custody.BROKER)]))
        .group_by(_invocations.c.function)
    )
    loads = {name: (count, size) for name, count, size in connection.execute(query)}
    for name, (count, size) in tombstones.at_broker(connection).items():
        others = loads.get(name, (0, 0))
        loads[name] = others[0] + count, others[1] + size
    return loads
