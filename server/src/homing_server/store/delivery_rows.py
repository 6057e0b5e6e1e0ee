"""Deliveries in the store: how they are laid out in rows, and how they are made with the end that they tell of."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

from sqlalchemy import Connection, bindparam, func, insert, select, update

from homing.v1 import invocation_pb2 as api
from homing.v1.function_pb2 import Function
from homing.v1.policy_pb2 import Callback
from homing_core import lifecycle
from homing_core.clock import now_us
from homing_core.destinations import receiver_of
from homing_core.ids import new_id
from homing_core.lifecycle import Custody, Delivery, DeliveryState, Token
from homing_core.wire.v1 import DeliveryHistory
from homing_server.store import schema
from homing_server.store.effects import CommitEffects
from homing_server.store.invocation_rows import Change, Values

_deliveries = schema.deliveries

LIFE: Final = tuple(
    _deliveries.c[name]
    for name in ("state", "generation", "redelivery_count", "custody", "due_us", "sent_us", "end_us", "history")
)
"""The columns that hold the life cycle's delivery."""

# Making a statement costs more than running it: those that run often are made once.
_insert = insert(_deliveries)
_select_functions = select(schema.functions.c.name, schema.functions.c.definition).where(
    schema.functions.c.name.in_(bindparam("names", expanding=True))
)
_update = (
    update(_deliveries)
    .where(_deliveries.c.id == bindparam("key"))
    .values({column.name: bindparam(column.name) for column in LIFE})
)
_update_dispatched = (
    update(_deliveries)
    .where(_deliveries.c.id == bindparam("key"))
    .values({name: bindparam(name) for name in ("generation", "redelivery_count", "custody", "due_us", "sent_us")})
)


def read_delivery(values: Sequence[Any]) -> Delivery:
    """Read the life cycle's delivery from the values of :data:`LIFE`."""
    state, generation, redelivery_count, custody, due_us, sent_us, end_us, kept = values
    history = DeliveryHistory.FromString(kept)
    return Delivery(
        state=DeliveryState(state),
        token=Token(generation=generation, redelivery_count=redelivery_count),
        custody=Custody(custody),
        due_us=due_us,
        sent_us=sent_us,
        end_us=end_us,
        since_us=history.since_us,
        attempts=tuple(history.attempts),
        before_redrive=history.before_redrive,
        caused=history.caused,
    )


def columns_of(delivery: Delivery) -> Values:
    """Return the columns that hold the life cycle's delivery."""
    history = DeliveryHistory(
        attempts=delivery.attempts,
        before_redrive=delivery.before_redrive,
        caused=delivery.caused,
        since_us=delivery.since_us,
    )
    return {
        "state": int(delivery.state),
        "generation": delivery.token.generation,
        "redelivery_count": delivery.token.redelivery_count,
        "custody": int(delivery.custody),
        "due_us": delivery.due_us,
        "sent_us": delivery.sent_us,
        "end_us": delivery.end_us,
        "history": history.SerializeToString(),
    }


def store_dispatched(connection: Connection, sent: dict[str, Delivery]) -> None:
    """Write deliveries that were dispatched, by id: of what else is known of them nothing changes."""
    rows = [
        {
            "key": key,
            "generation": delivery.token.generation,
            "redelivery_count": delivery.token.redelivery_count,
            "custody": int(delivery.custody),
            "due_us": delivery.due_us,
            "sent_us": delivery.sent_us,
        }
        for key, delivery in sent.items()
    ]
    if rows:
        connection.execute(_update_dispatched, rows)


def store_deliveries(connection: Connection, changed: dict[str, Delivery]) -> None:
    """Write changed deliveries, by id."""
    if changed:
        connection.execute(_update, [{"key": key, **columns_of(delivery)} for key, delivery in changed.items()])


def make(connection: Connection, ends: Sequence[Change], effects: CommitEffects) -> None:
    """Make the deliveries of invocations that end."""
    functions = _functions(connection, {change.row.function for change in ends})
    now = now_us()
    made = columns_of(lifecycle.delivery.made(time_us=now))
    rows = [
        made
        | {
            "id": new_id(),
            "invocation_id": change.row.id,
            "kind": kind,
            "target": target.SerializeToString(),
            "receiver": receiver_of(target.url if isinstance(target, Callback) else target.uri),
            "create_us": now,
        }
        for change in ends
        for kind, target in lifecycle.delivery.targets_of(
            api.InvocationSpec.FromString(change.row.spec),
            functions.get(change.row.function),
            state=change.after.state,
        )
    ]
    if rows:
        connection.execute(_insert, rows)
        effects.deliveries += len(rows)


def _functions(connection: Connection, names: Collection[str]) -> dict[str, Function]:
    rows = connection.execute(_select_functions, {"names": list(names)})
    return {name: Function.FromString(definition) for name, definition in rows}


def count_waiting(connection: Connection) -> dict[Custody, int]:
    """Return how many deliveries are not over, by who holds them."""
    query = select(_deliveries.c.custody, func.count()).where(schema.live(_deliveries)).group_by(_deliveries.c.custody)
    return {Custody(custody): count for custody, count in connection.execute(query)}
