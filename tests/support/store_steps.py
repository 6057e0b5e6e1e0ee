"""Steps of invocations and deliveries in a store, as servers and workers make them."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Connection

from homing.v1 import invocation_pb2 as api
from homing_core.clock import now_us
from homing_core.lifecycle import State
from homing_core.wire.v1 import (
    DeliveryAttemptRecord,
    DeliveryReport,
    Ended,
    Event,
    SyncEnded,
    SyncRequest,
)
from homing_core.wire.v1 import Token as WireToken
from homing_server.store import dispatch
from homing_server.store.engine import Database
from support.reporter import Reporter
from support.store import (
    make_spec,
)

MINUTE = 60 * 1_000_000


async def die_after(database: Database, work: Callable[[Connection], object]) -> None:
    def die(connection: Connection) -> None:
        work(connection)
        raise RuntimeError("died")

    await database.write(die)


def sync_end(key: str, *, state: State = State.SUCCEEDED, callback: str = "") -> Event:
    worker = Reporter(1, invocation_id=key, time_us=now_us())
    worker.running()
    end = worker.ended(state).ended
    request = SyncRequest(
        invocation_id=key,
        spec=make_spec(data=b"asked", labels={"job": "7"}, callback=callback),
        create_us=now_us() - MINUTE,
        caller="me",
    )
    event = Event(invocation_id=key, token=WireToken(generation=1), time_us=now_us(), worker="w1")
    event.sync_ended.CopyFrom(SyncEnded(request=request, ended=Ended.FromString(end.SerializeToString())))
    return event


def delivery_report(
    delivery_id: str,
    state: api.DeliveryState.ValueType,
    *attempts: int,
    generation: int = 1,
    count: int = 0,
) -> Event:
    return Event(
        token=WireToken(generation=generation, redelivery_count=count),
        time_us=now_us(),
        delivery=DeliveryReport(
            delivery_id=delivery_id,
            state=state,
            attempts=[DeliveryAttemptRecord(start_us=start_us, status_code=500) for start_us in attempts],
        ),
    )


async def claim(
    database: Database, function: str = "resize", *, at_us: int = 0, most: int = 500, most_bytes: int = 1 << 30
) -> list[dispatch.Work]:
    with database.writing() as connection:
        claim = dispatch.claim_work(connection, function, now_us=at_us or now_us(), most=most, most_bytes=most_bytes)
    return list(claim.work)


async def take_back(database: Database, *keys: tuple[str, int]) -> None:
    with database.writing() as connection:
        dispatch.take_back_work(connection, keys, due_us=now_us())
