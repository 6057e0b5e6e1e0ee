"""A store of a test's own, and short ways to fill and to look at it."""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, func, select

from homing.v1 import function_pb2, payload_pb2, policy_pb2
from homing.v1 import invocation_pb2 as api
from homing_core import lifecycle
from homing_core.clock import now_us
from homing_core.guard import Guard
from homing_core.ids import new_id
from homing_core.lifecycle import State, Step
from homing_core.wire.v1 import DeliveryMessage, Event
from homing_server.store import delivery_claims, schema
from homing_server.store.accept import Draft, Verdict, accept
from homing_server.store.effects import CommitEffects
from homing_server.store.engine import Database
from homing_server.store.functions import put_function
from homing_server.store.read import get_invocations
from homing_server.store.record import record_events
from homing_server.store.sequences import read_counters
from support.reporter import Reporter

HOUR = 3600 * 1_000_000
LOOPBACK_GUARD = Guard(networks=[ipaddress.ip_network("127.0.0.0/8")])
"""Lets outcomes be delivered to this host."""


@contextlib.asynccontextmanager
async def opened(folder: Path, *, functions: Iterable[str] = ("resize",)) -> AsyncIterator[Database]:
    """Open the store in a folder, with these functions in it."""
    database = Database(f"sqlite:///{folder / 'homing.db'}")
    await database.open()
    try:
        for name in functions:
            await deploy(database, name)
        yield database
    finally:
        await database.close()


async def deploy(database: Database, name: str) -> function_pb2.Function:
    """Make a function."""
    with database.writing() as connection:
        wanted = function_pb2.Function(name=name, image=f"{name}:1")
        function, _ = put_function(connection, wanted, now_us=now_us())
        return function


def make_spec(
    function: str = "resize",
    data: bytes = b"",
    *,
    callback: str = "",
    labels: dict[str, str] | None = None,
) -> api.InvocationSpec:
    """Return what a caller asks for."""
    return api.InvocationSpec(
        function=function,
        payload=payload_pb2.Payload(content_type="text/plain", data=data),
        callback=policy_pb2.Callback(url=callback) if callback else None,
        labels=labels,
    )


def make_draft(
    spec: api.InvocationSpec | None = None,
    *,
    request_id: str = "",
    caller: str = "",
    create_us: int = 0,
    due_us: int = 0,
    sent: bool = False,
) -> Draft:
    """Return a draft of what a caller asks for, to be kept in the store or, where it says so, to be sent at once."""
    spec = make_spec() if spec is None else spec
    create_us = create_us or now_us()
    record = lifecycle.invocation.accepted(time_us=create_us, due_us=due_us or create_us)
    if sent:
        step = lifecycle.invocation.dispatched(record, time_us=create_us)
        assert isinstance(step, Step)
        record = step.after
    return Draft(
        id=new_id(create_us),
        spec=spec,
        record=record,
        caller=caller,
        request_id=request_id,
        fingerprint=hashlib.sha256(spec.SerializeToString(deterministic=True)).digest() if request_id else b"",
        create_us=create_us,
        start_by_us=(due_us or create_us) + HOUR,
        traceparent="",
    )


def again(draft: Draft) -> Draft:
    """Return the same request as it arrives another time."""
    return replace(draft, id=new_id(draft.create_us + 1), create_us=draft.create_us + 1)


async def accept_all(database: Database, *drafts: Draft) -> list[Verdict]:
    """Accept drafts in one transaction."""
    with database.writing() as connection:
        return accept(connection, drafts)


async def accept_sent(database: Database, count: int, **fields: Any) -> list[str]:
    """Accept so many invocations that are at the broker; return their ids."""
    drafts = [make_draft(make_spec(**fields), sent=True) for _ in range(count)]
    await accept_all(database, *drafts)
    return [draft.id for draft in drafts]


async def record(database: Database, *events: Event) -> CommitEffects:
    """Record events in one transaction."""
    with database.writing() as connection:
        return record_events(connection, events)


def life(invocation_id: str, state: State = State.SUCCEEDED, generation: int = 1) -> list[Event]:
    """Return the events of an invocation that ends with its first attempt."""
    worker = Reporter(generation, invocation_id=invocation_id, time_us=now_us())
    return [worker.dequeued(), worker.running(), worker.ended(state)]


def claimed(connection: Connection, *, now_us: int, most: int = 10) -> list[DeliveryMessage]:
    """Take deliveries that are due to workers."""
    return delivery_claims.claim(
        connection, now_us=now_us, most=most, head=lambda _: b"", check=lambda *_: None
    ).messages


async def row_of(database: Database, invocation_id: str) -> Row[Any]:
    """Return the row of an invocation."""
    with database.reading() as connection:
        query = select(schema.invocations).where(schema.invocations.c.id == invocation_id)
        return (connection.execute(query)).one()


async def deliveries_of(database: Database, invocation_id: str) -> list[Row[Any]]:
    """Return the rows of an invocation's deliveries."""
    with database.reading() as connection:
        query = select(schema.deliveries).where(schema.deliveries.c.invocation_id == invocation_id)
        return list((connection.execute(query)).all())


async def read(database: Database, invocation_id: str, *, include_payload: bool = False) -> api.Invocation:
    """Return an invocation as the API shows it."""
    with database.reading() as connection:
        (found,) = get_invocations(connection, [invocation_id], include_payload=include_payload)
        return found


async def count(database: Database) -> int:
    """Return how many invocations there are."""
    with database.reading() as connection:
        return (connection.execute(select(func.count()).select_from(schema.invocations))).scalar_one()


async def counters(database: Database) -> dict[str, int]:
    """Return all counters."""
    with database.reading() as connection:
        return read_counters(connection)
