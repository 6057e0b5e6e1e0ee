"""Deliveries in a store: made by ends, taken as workers do; with a dispatcher, and dead letters."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from homing.v1 import invocation_pb2 as api
from homing.v1.dead_letter_pb2 import DeadLetterFilter
from homing.v1.dead_letter_service_pb2 import (
    PurgeDeadLettersRequest,
    PurgeDeadLettersResponse,
    RedriveDeadLettersRequest,
    RedriveDeadLettersResponse,
)
from homing.v1.policy_pb2 import Destination
from homing_core.clock import now_us
from homing_core.lifecycle import State
from homing_core.wire.v1 import DeliveryAttemptRecord, DeliveryMessage, DeliveryReport, Event
from homing_core.wire.v1 import Token as WireToken
from homing_server.auth.authority import Authority
from homing_server.auth.identity import EVERYBODY, Identity
from homing_server.auth.scopes import ALL_SCOPES
from homing_server.deliveries.dead_letters import DeadLetters
from homing_server.deliveries.dispatcher import DeliveryDispatcher
from homing_server.functions.catalog import Catalog
from homing_server.invocations.admission import Admission
from homing_server.invocations.bulk_calls import BulkCalls
from homing_server.invocations.dispatcher import Dispatcher
from homing_server.metrics import Metrics
from homing_server.payloads.blobs import Blobs
from homing_server.payloads.signed_urls import SignedUrls
from homing_server.store.engine import Database
from homing_server.tasks import Tasks
from support.bulk import outcome
from support.scripted_broker import ScriptedBroker
from support.store import (
    LOOPBACK_GUARD,
    accept_all,
    claimed,
    life,
    make_draft,
    make_spec,
    record,
)

OPEN = Authority(authentication=False, has_root=False)


SECOND = 1_000_000


HOOK = "https://example.org/hook"


ME = Identity(name="me", scopes=ALL_SCOPES)


ENDS = [State.FAILED, State.TIMED_OUT]


async def end_with(
    database: Database, state: State, *, on_success: Sequence[str] = (), on_failure: Sequence[str] = (), **spec: Any
) -> str:
    """Have an invocation end that says where its outcome goes; return its id."""
    draft = make_draft(spec_to(on_success=on_success, on_failure=on_failure, **spec), sent=True)
    await accept_all(database, draft)
    await record(database, *life(draft.id, state))
    return draft.id


def spec_to(*, on_success: Sequence[str] = (), on_failure: Sequence[str] = (), **fields: Any) -> api.InvocationSpec:
    spec = make_spec(**fields)
    spec.on_success.extend(Destination(uri=uri) for uri in on_success)
    spec.on_failure.extend(Destination(uri=uri) for uri in on_failure)
    return spec


def report(
    message: DeliveryMessage,
    state: api.DeliveryState.ValueType,
    *,
    reasons: Sequence[str] = (),
    due_us: int = 0,
    count: int = 0,
) -> Event:
    start_us = now_us()
    return Event(
        invocation_id=message.invocation_id,
        token=WireToken(generation=message.generation, redelivery_count=count),
        time_us=now_us(),
        delivery=DeliveryReport(
            delivery_id=message.delivery_id,
            state=state,
            due_us=due_us,
            attempts=[
                DeliveryAttemptRecord(
                    start_us=start_us + place, failure=api.Failure(reason=reason, message="why", retryable=True)
                )
                for place, reason in enumerate(reasons)
            ],
        ),
    )


async def take(database: Database, *, at_us: int = 0, most: int = 100) -> list[DeliveryMessage]:
    with database.writing() as connection:
        return claimed(connection, now_us=at_us or now_us(), most=most)


class Bench:
    """A dispatcher of deliveries, dead letters, and what they need."""

    def __init__(self, database: Database, broker: ScriptedBroker, tasks: Tasks) -> None:
        self.database = database
        catalog = Catalog(database)
        self.caused: list[str] = []
        self.metrics = Metrics()
        blobs = Blobs(database, Path("/nowhere"))
        dispatcher = Dispatcher(database, broker, catalog, urls=SignedUrls(), announce=lambda _: None, resend_after=600)
        self.admission = Admission(database, catalog, dispatcher, self.metrics, blobs=blobs, guard=LOOPBACK_GUARD)
        self.deliveries = DeliveryDispatcher(
            database,
            broker,
            blobs=blobs,
            urls=SignedUrls(),
            authority=OPEN,
            metrics=self.metrics,
            caused=lambda function, _: self.caused.append(function),
            resend_after=600,
        )
        self.dead_letters = DeadLetters(
            database, catalog, self.admission, BulkCalls(database, tasks), redelivered=self.deliveries.wake
        )

    def run(self, tasks: Tasks) -> None:
        tasks.repeat(self.deliveries.feed, pause=0.05)
        tasks.repeat(self.admission.commit_group, pause=0.05)

    async def redrive(self, selection: DeadLetterFilter, **fields: Any) -> RedriveDeadLettersResponse:
        request = RedriveDeadLettersRequest(filter=selection, **fields)
        return await outcome(self.dead_letters.redrive(request, caller=ME, traceparent=""))

    async def purge(self, selection: DeadLetterFilter, **fields: Any) -> PurgeDeadLettersResponse:
        request = PurgeDeadLettersRequest(filter=selection, **fields)
        return await outcome(self.dead_letters.purge(request, caller=EVERYBODY))


@pytest.fixture
def broker() -> ScriptedBroker:
    return ScriptedBroker()


@pytest.fixture
async def bench(database: Database, broker: ScriptedBroker) -> AsyncIterator[Bench]:
    async with Tasks() as tasks:
        bench = Bench(database, broker, tasks)
        bench.run(tasks)
        yield bench


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 nobody tells of it
            await asyncio.sleep(0.01)
