"""Records what workers report of deliveries, many reports in one transaction."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, bindparam, select

from homing_core import lifecycle
from homing_core.clock import now_us
from homing_core.lifecycle import Delivery, DeliveryState, Effect, Refusal
from homing_core.wire.v1 import Event
from homing_server.store import dead_letters, schema
from homing_server.store.dead_letters import DeadDelivery
from homing_server.store.delivery_rows import LIFE, read_delivery, store_deliveries
from homing_server.store.effects import CommitEffects

_deliveries = schema.deliveries

# Making a statement costs more than running it: those that run often are made once.
_select = (
    select(*LIFE, _deliveries.c.id, _deliveries.c.invocation_id, schema.invocations.c.function)
    .join(schema.invocations, schema.invocations.c.id == _deliveries.c.invocation_id)
    .where(_deliveries.c.id.in_(bindparam("ids", expanding=True)))
)


def record_reports(connection: Connection, reports: Sequence[Event], effects: CommitEffects) -> None:
    """Record what workers report of deliveries, in order."""
    if not reports:
        return
    asked = {"ids": list({report.delivery.delivery_id for report in reports})}
    rows = {row.id: row for row in connection.execute(_select, asked)}
    deliveries = {key: read_delivery(row[: len(LIFE)]) for key, row in rows.items()}
    changed: dict[str, Delivery] = {}
    dead: list[DeadDelivery] = []
    for event in reports:
        key = event.delivery.delivery_id
        step = lifecycle.delivery.reported(deliveries[key], event) if key in deliveries else Refusal.ENDED
        if isinstance(step, Refusal):
            effects.refused += 1
            continue
        deliveries[key] = changed[key] = step.after
        if Effect.MAKE_DEAD_LETTER in step.effects:
            dead.append(DeadDelivery(id=key, invocation_id=rows[key].invocation_id, function=rows[key].function))
        effects.delivery_reports += step.after.state is not DeliveryState.DELIVERING
        effects.put_off += step.after.state is DeliveryState.PENDING
        effects.delivered += step.after.state is DeliveryState.DELIVERED
    effects.given_up += len(dead)
    store_deliveries(connection, changed)
    dead_letters.add_deliveries(connection, dead, now_us=now_us())
