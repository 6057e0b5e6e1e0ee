"""What the dispatcher asks of the store: which work is due, and who holds what."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from homing.v1 import invocation_pb2 as api
from homing.v1 import payload_pb2
from homing_core import lifecycle
from homing_core.lifecycle import Record, Step
from homing_core.lifecycle.custody import AT_BROKER, CLAIM, EXPIRE_LEASE
from homing_core.wire.v1 import WorkMessage
from homing_server.store import functions, outbox, schema, tombstones
from homing_server.store.effects import CommitEffects
from homing_server.store.invocation_rows import Change, record_of
from homing_server.store.outbox import Dispatch, held_by
from homing_server.store.record import select_invocations, store_changes

_invocations = schema.invocations


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """A work message with what its publisher must know."""

    message: WorkMessage
    size: int

    @property
    def key(self) -> Dispatch:
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
    function_revision: int,
    create_us: int,
    start_by_us: int,
    traceparent: str,
    depth: int,
) -> WorkMessage:
    """Return the message that dispatches an invocation."""
    message = WorkMessage(
        invocation_id=invocation_id,
        generation=record.token.generation,
        spec=spec,
        function_revision=function_revision,
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
            held_by(_invocations, CLAIM.sources),
            _invocations.c.function == schema.functions.c.name,
        )
        .scalar_subquery()
    )
    query = select(schema.functions.c.name, earliest)
    return {name: due_us for name, due_us in connection.execute(query) if due_us is not None}


def claim_work(connection: Connection, function: str, *, now_us: int, most: int, most_bytes: int) -> Claim:
    """Take work of a function that is due, the oldest first; end what has waited too long, or for one that is gone.

    :param most: How many at the most.
    :param most_bytes: How many bytes in all, about; one is always taken.
    """
    query = (
        select(_invocations, schema.payloads.c.request)
        .join(schema.payloads, schema.payloads.c.invocation_id == _invocations.c.id)
        .where(
            schema.live(_invocations),
            held_by(_invocations, CLAIM.sources),
            _invocations.c.function == function,
            _invocations.c.due_us <= now_us,
        )
        .order_by(_invocations.c.due_us)
        .limit(most)
    )
    changes: list[Change] = []
    work: list[Work] = []
    size = 0
    deleted_revision = functions.deleted_revision(connection, function)
    for row in connection.execute(query).all():
        before = record_of(row)
        if row.function_revision < deleted_revision:
            step = lifecycle.invocation.function_deleted(before, function=function, time_us=now_us)
        elif not before.start_us and now_us > row.start_by_us:
            step = lifecycle.invocation.expired(before, time_us=now_us)
        else:
            if work and size + row.size > most_bytes:
                break
            size += row.size
            step = lifecycle.invocation.dispatched(before, time_us=now_us)
            assert isinstance(step, Step), "what the store holds can be claimed"
            spec = api.InvocationSpec.FromString(row.spec)
            spec.payload.CopyFrom(payload_pb2.Payload.FromString(row.request))
            message = work_of(
                row.id,
                step.after,
                spec,
                function_revision=row.function_revision,
                create_us=row.create_us,
                start_by_us=row.start_by_us,
                traceparent=row.traceparent,
                depth=row.depth,
            )
            work.append(Work(message=message, size=row.size))
        assert isinstance(step, Step), "what the store holds has not ended"
        changes.append(Change.of(row, before, step))
    effects = CommitEffects()
    store_changes(connection, changes, effects)
    return Claim(work=work, effects=effects)


def take_back_work(connection: Connection, dispatches: Collection[Dispatch], *, due_us: int) -> None:
    """Return dispatches that were not, or perhaps not, published to the store's custody.

    What is STOPPING is not published again: it stays with the broker until it is certain that nobody has it.
    """
    outbox.INVOCATIONS.take_back(connection, dispatches, due_us=due_us)
    # That concerns the message, whatever has become of the record.
    tombstones.note_gone(connection, dispatches, now_us=due_us)


def take_back_all(connection: Connection, *, due_us: int) -> int:
    """Return what was at a broker which kept nothing, or with its workers, to the store's custody; count it.

    What is STOPPING is left to be stopped.
    """
    return sum(each.take_back_all(connection, due_us=due_us) for each in (outbox.INVOCATIONS, outbox.DELIVERIES))


def leased(connection: Connection) -> list[str]:
    """Return the invocations that their workers answer for."""
    query = select(_invocations.c.id).where(schema.live(_invocations), held_by(_invocations, EXPIRE_LEASE.sources))
    return list(connection.execute(query).scalars())


def expire_leases(connection: Connection, ids: Collection[str], *, now_us: int) -> CommitEffects:
    """Take invocations back whose workers are lost, to dispatch them again, unless they have gone further since."""
    changes = []
    for row in select_invocations(connection, ids):
        before = record_of(row)
        step = lifecycle.invocation.lease_expired(before, time_us=now_us)
        if isinstance(step, Step):
            changes.append(Change.of(row, before, step))
    effects = CommitEffects()
    store_changes(connection, changes, effects)
    return effects


def take_back_unstarted(connection: Connection, function: str, *, due_us: int) -> int:
    """Return what a function has at the broker and no worker has spoken of to the store; count it.

    For a queue that may have been removed with messages in it. A message that is still there becomes stale.
    """
    return outbox.INVOCATIONS.take_back_unstarted(connection, function, due_us=due_us)


def at_broker(connection: Connection) -> dict[str, tuple[int, int]]:
    """Return by function how many invocations, of how many bytes in all, the store believes to be at the broker."""
    query = (
        select(_invocations.c.function, func.count(), func.coalesce(func.sum(_invocations.c.size), 0))
        .where(schema.live(_invocations), held_by(_invocations, AT_BROKER))
        .group_by(_invocations.c.function)
    )
    loads = {name: (count, size) for name, count, size in connection.execute(query)}
    for name, (count, size) in tombstones.at_broker(connection).items():
        others = loads.get(name, (0, 0))
        loads[name] = others[0] + count, others[1] + size
    return loads
