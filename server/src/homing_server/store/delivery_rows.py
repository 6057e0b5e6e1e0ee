"""Deliveries in the store: made with the end that they tell of, and kept as far as workers report."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, Row, bindparam, func, insert, select, update

from homing.v1 import invocation_pb2 as api
from homing.v1.function_pb2 import Function
from homing.v1.policy_pb2 import Callback, Destination
from homing_core.clock import now_us
from homing_core.destinations import receiver_of
from homing_core.ids import new_id
from homing_core.lifecycle import Custody, State, Token
from homing_core.wire.v1 import DeliveryAttemptRecord, DeliveryHistory, Event
from homing_server.store import dead_letters, schema
from homing_server.store.dead_letters import GivenUp
from homing_server.store.effects import CommitEffects
from homing_server.store.invocation_rows import Change, Values

_deliveries = schema.deliveries

# Making a statement costs more than running it: those that run often are made once.
_insert = insert(_deliveries)
_select = (
    select(_deliveries, schema.invocations.c.function)
    .join(schema.invocations, schema.invocations.c.id == _deliveries.c.invocation_id)
    .where(_deliveries.c.id.in_(bindparam("ids", expanding=True)))
)
_select_functions = select(schema.functions.c.name, schema.functions.c.definition).where(
    schema.functions.c.name.in_(bindparam("names", expanding=True))
)
_update = (
    update(_deliveries)
    .where(_deliveries.c.id == bindparam("key"))
    .values(
        {
            name: bindparam(name)
            for name in ("state", "generation", "delivery", "custody", "due_us", "end_us", "history")
        }
    )
)
_OVER = frozenset({api.DELIVERY_STATE_DELIVERED, api.DELIVERY_STATE_DEAD})


def make(connection: Connection, ends: Sequence[Change], effects: CommitEffects) -> None:
    """Make the deliveries of invocations that end: of their callbacks and destinations, else their functions'."""
    functions = _functions(connection, {change.row.function for change in ends})
    now = now_us()
    rows = [
        {
            "id": new_id(),
            "invocation_id": change.row.id,
            "kind": kind,
            "target": target.SerializeToString(),
            "receiver": receiver_of(target.url if isinstance(target, Callback) else target.uri),
            "state": api.DELIVERY_STATE_PENDING,
            "generation": 0,
            "delivery": 0,
            "custody": int(Custody.STORE),
            "due_us": now,
            "sent_us": 0,
            "create_us": now,
            "end_us": 0,
            "history": b"",
        }
        for change in ends
        for kind, target in _targets(change, functions.get(change.row.function))
    ]
    if rows:
        connection.execute(_insert, rows)
        effects.deliveries += len(rows)


def _functions(connection: Connection, names: Collection[str]) -> dict[str, Function]:
    rows = connection.execute(_select_functions, {"names": list(names)})
    return {name: Function.FromString(definition) for name, definition in rows}


def _targets(change: Change, function: Function | None) -> Iterator[tuple[int, Callback | Destination]]:
    spec = api.InvocationSpec.FromString(change.row.spec)
    if spec.HasField("callback"):
        yield api.DELIVERY_KIND_CALLBACK, spec.callback
    if change.after.state is State.SUCCEEDED:
        kind, destinations = api.DELIVERY_KIND_ON_SUCCESS, spec.on_success or (function.on_success if function else ())
    else:
        kind, destinations = api.DELIVERY_KIND_ON_FAILURE, spec.on_failure or (function.on_failure if function else ())
    for destination in destinations:
        yield kind, destination


def record_reports(connection: Connection, reports: Sequence[Event], effects: CommitEffects) -> None:
    """Record what workers report of deliveries, in order."""
    if not reports:
        return
    asked = {"ids": list({report.delivery.delivery_id for report in reports})}
    rows = {row.id: row for row in connection.execute(_select, asked)}
    changes: dict[str, Values] = {}
    tokens = {row.id: Token(generation=row.generation, delivery=row.delivery) for row in rows.values()}
    histories = {row.id: DeliveryHistory.FromString(row.history) for row in rows.values()}
    for event in reports:
        report, token = event.delivery, Token.of(event.token)
        row = rows.get(report.delivery_id)
        known = changes.get(report.delivery_id)
        if row is None or token < tokens[row.id] or _settled(row, known, event):
            effects.refused += 1
            continue
        tokens[row.id] = token
        history = histories[row.id]
        attempts = _merge_attempts(history.attempts, report.attempts)
        del history.attempts[:]
        history.attempts.extend(attempts)
        changes[row.id] = _values(row.id, event, token, history)
        effects.delivery_reports += report.state != api.DELIVERY_STATE_DELIVERING
        effects.put_off += report.state == api.DELIVERY_STATE_PENDING
    if changes:
        connection.execute(_update, list(changes.values()))
        dead = [
            GivenUp(id=key, invocation_id=rows[key].invocation_id, function=rows[key].function)
            for key, change in changes.items()
            if change["state"] == api.DELIVERY_STATE_DEAD
        ]
        effects.given_up += len(dead)
        effects.delivered += sum(change["state"] == api.DELIVERY_STATE_DELIVERED for change in changes.values())
        dead_letters.bury_deliveries(connection, dead, now_us=now_us())


def _settled(row: Row[Any], known: Values | None, event: Event) -> bool:
    """Tell whether a report comes too late: the delivery is over, or back in the store and was not made after all."""
    custody, end_us = (row.custody, row.end_us) if known is None else (known["custody"], known["end_us"])
    if end_us:
        return True
    back = custody == int(Custody.STORE) and event.token.generation <= row.generation
    return back and event.delivery.state != api.DELIVERY_STATE_DELIVERED


def _values(key: str, event: Event, token: Token, history: DeliveryHistory) -> Values:
    report = event.delivery
    custody = Custody.BROKER
    if report.state in _OVER:
        custody = Custody.NONE
    elif report.state == api.DELIVERY_STATE_PENDING:
        custody = Custody.STORE
    return {
        "key": key,
        "state": report.state,
        "generation": token.generation,
        "delivery": token.delivery,
        "custody": int(custody),
        "due_us": report.due_us if custody is Custody.STORE else 0,
        "end_us": event.time_us if custody is Custody.NONE else 0,
        "history": history.SerializeToString(),
    }


def _merge_attempts(
    known: Sequence[DeliveryAttemptRecord], told: Sequence[DeliveryAttemptRecord]
) -> list[DeliveryAttemptRecord]:
    """Return all attempts of a delivery by the time of their start; a report tells of those of one dispatch alone."""
    attempts = {attempt.start_us: attempt for attempt in (*known, *told)}
    return [attempts[start_us] for start_us in sorted(attempts)]


def confirm(connection: Connection, keys: Collection[tuple[str, int]], *, now_us: int) -> None:
    """Note that the broker has confirmed deliveries, unless they have gone further since."""
    _settle(connection, keys, custody=Custody.BROKER, sent_us=now_us, due_us=0)


def take_back(connection: Connection, keys: Collection[tuple[str, int]], *, due_us: int) -> None:
    """Return deliveries that were not, or perhaps not, published to the store, unless they have gone further since."""
    _settle(connection, keys, custody=Custody.STORE, sent_us=0, due_us=due_us)


def _settle(
    connection: Connection, keys: Collection[tuple[str, int]], *, custody: Custody, sent_us: int, due_us: int
) -> None:
    statement = (
        update(_deliveries)
        .where(
            _deliveries.c.id == bindparam("key"),
            _deliveries.c.generation == bindparam("claimed"),
            _deliveries.c.custody == int(Custody.SENT),
        )
        .values(custody=int(custody), sent_us=sent_us, due_us=due_us)
    )
    connection.execute(statement, [{"key": key, "claimed": generation} for key, generation in keys])


def forgotten(connection: Connection, *, sent_before_us: int) -> list[tuple[str, int]]:
    """Return deliveries that were committed so long ago that their dispatcher should have seen them confirmed."""
    query = (
        select(_deliveries.c.id, _deliveries.c.generation)
        .where(
            schema.live(_deliveries), _deliveries.c.custody == int(Custody.SENT), _deliveries.c.sent_us < sent_before_us
        )
        .limit(1000)
    )
    return [(key, generation) for key, generation in connection.execute(query)]


def count_waiting(connection: Connection) -> dict[Custody, int]:
    """Return how many deliveries are not over, by who holds them."""
    query = select(_deliveries.c.custody, func.count()).where(schema.live(_deliveries)).group_by(_deliveries.c.custody)
    return {Custody(custody): count for custody, count in connection.execute(query)}
