"""A page of any list fits into a message of gRPC, however large its items are, and the next one goes on behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.message import Message

from homing.v1 import function_pb2, invocation_pb2, payload_pb2
from homing.v1.dead_letter_service_pb2 import ListDeadLettersRequest
from homing.v1.function_service_pb2 import ListFunctionsRequest
from homing.v1.invocation_service_pb2 import (
    INVOCATION_ORDER_NEWEST_FIRST,
    INVOCATION_ORDER_OLDEST_FIRST,
    InvocationOrder,
    ListInvocationsRequest,
)
from homing.v1.key_service_pb2 import Key, ListKeysRequest
from homing.v1.secret_service_pb2 import ListSecretsRequest
from homing_core import limits
from homing_core.broker.embedded import EmbeddedBroker, Exchange
from homing_core.clock import now_us
from homing_core.lifecycle import State
from homing_core.limits import MIB
from homing_server.admin.api_keys import ApiKeys
from homing_server.admin.secrets import Secrets
from homing_server.auth.identity import EVERYBODY
from homing_server.auth.key_cache import KeyCache
from homing_server.cluster.presence import Presence
from homing_server.cluster.registry import WorkerRegistry
from homing_server.cluster.wait_reasons import WaitReasons
from homing_server.control import ControlChannel
from homing_server.deliveries.dead_letters import DeadLetters
from homing_server.functions.catalog import Catalog
from homing_server.invocations.admission import Admission
from homing_server.invocations.bulk_calls import BulkCalls
from homing_server.invocations.dispatcher import Dispatcher
from homing_server.invocations.queries import Queries
from homing_server.metrics import Metrics
from homing_server.payloads.blobs import Blobs
from homing_server.payloads.signed_urls import SignedUrls
from homing_server.rules import paging
from homing_server.store import api_keys, secrets
from homing_server.store.engine import Database
from homing_server.store.functions import put_function
from homing_server.tasks import Tasks
from homing_server.vault.keyring import Keyring
from homing_server.watch.hub import WatchHub
from support.reporter import Reporter
from support.store import LOOPBACK_GUARD, accept_all, make_draft, make_spec, opened, record

LIMIT = 3 * MIB


class Bench:
    """All that lists, over one store."""

    def __init__(self, database: Database, tasks: Tasks) -> None:
        broker = EmbeddedBroker(Exchange())
        self.catalog = Catalog(database)
        presence, keyring = Presence(), Keyring(database)
        control = ControlChannel(
            "server",
            broker,
            catalog=self.catalog,
            hub=WatchHub(database),
            keyring=keyring,
            presence=presence,
            registry=WorkerRegistry(database),
            tasks=tasks,
        )
        dispatcher = Dispatcher(
            database, broker, self.catalog, urls=SignedUrls(), announce=lambda _: None, resend_after=600
        )
        admission = Admission(
            database, self.catalog, dispatcher, Metrics(), blobs=Blobs(database, Path("/nowhere")), guard=LOOPBACK_GUARD
        )
        self.invocations = Queries(database, WaitReasons(self.catalog, presence))
        self.dead_letters = DeadLetters(
            database, self.catalog, admission, BulkCalls(database, tasks), redelivered=lambda: None
        )
        self.keys = ApiKeys(database, KeyCache(database, root_key=""), control, keyring)
        self.secrets = Secrets(database, keyring, self.catalog, control)

    async def functions(self, request: ListFunctionsRequest, *, caller: Any) -> Message:
        return self.catalog.list(request, caller=caller)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with opened(tmp_path) as database:
        yield database


@pytest.fixture
async def bench(database: Database) -> AsyncIterator[Bench]:
    async with Tasks() as tasks:
        yield Bench(database, tasks)


async def pages(ask: Callable[..., Awaitable[Any]], request: Any) -> list[Any]:
    """Return all pages of a list, from the first one on."""
    found: list[Any] = []
    while True:
        found.append(await ask(request, caller=EVERYBODY))
        request.page_token = found[-1].next_page_token
        if not request.page_token:
            return found


def check(found: Sequence[Any], *, limit: int = LIMIT) -> None:
    """Check that pages are no larger than they may be, and no smaller than they need be."""
    assert len(found) > 1
    assert all(page.ByteSize() <= limit for page in found)
    assert all(page.ByteSize() > limit / 2 for page in found[:-1])


def numbers() -> Iterator[bytes]:
    """Yield bodies as large as they may be, each another one."""
    for number in range(20):
        yield number.to_bytes(4) + bytes(limits.MAX_INLINE_PAYLOAD - 4)


@pytest.mark.parametrize("order", [INVOCATION_ORDER_NEWEST_FIRST, INVOCATION_ORDER_OLDEST_FIRST])
async def test_invocations_with_their_bodies(
    bench: Bench, database: Database, order: InvocationOrder.ValueType
) -> None:
    drafts = [make_draft(make_spec(data=data), sent=True) for data in numbers()]
    await accept_all(database, *drafts)
    for draft in drafts:
        worker = Reporter(1, invocation_id=draft.id, time_us=now_us())
        worker.running()
        end = worker.ended(State.SUCCEEDED)
        end.ended.result.payload.CopyFrom(payload_pb2.Payload(data=draft.spec.payload.data))
        await record(database, end)
    request = ListInvocationsRequest(page_size=1000, order=order, include_payload=True, include_result=True)
    found = await pages(bench.invocations.list, request)
    check(found)
    invocations = [each for page in found for each in page.invocations]
    assert [each.id for each in invocations] == sorted(
        (draft.id for draft in drafts), reverse=order == INVOCATION_ORDER_NEWEST_FIRST
    )
    bodies = {draft.id: draft.spec.payload.data for draft in drafts}
    assert all(each.spec.payload.data == bodies[each.id] == each.result.payload.data for each in invocations)

    (light,) = await pages(bench.invocations.list, ListInvocationsRequest(page_size=1000, order=order))
    assert [each.id for each in light.invocations] == [each.id for each in invocations]


async def test_a_record_that_is_too_large_by_itself(bench: Bench, database: Database) -> None:
    spec = make_spec(labels={"a": "x" * LIMIT})
    drafts = [make_draft(spec), make_draft(spec), make_draft()]
    await accept_all(database, *drafts)
    request = ListInvocationsRequest(order=INVOCATION_ORDER_OLDEST_FIRST)
    found = await pages(bench.invocations.list, request)
    assert [[each.id for each in page.invocations] for page in found] == [[draft.id] for draft in drafts]


async def test_functions_with_large_environments(bench: Bench, database: Database) -> None:
    with database.writing() as connection:
        for number in range(60):
            function = function_pb2.Function(name=f"f{number:02}", image="f:1", env={"A": "x" * 100_000})
            put_function(connection, function, now_us=now_us())
    await bench.catalog.load()
    found = await pages(bench.functions, ListFunctionsRequest(page_size=1000))
    check(found)
    names = [each.name for page in found for each in page.functions]
    assert names == [*(f"f{number:02}" for number in range(60)), "resize"]


async def test_dead_letters_that_tell_a_lot(bench: Bench, database: Database) -> None:
    drafts = [make_draft(sent=True) for _ in range(60)]
    await accept_all(database, *drafts)
    for draft in drafts:
        worker = Reporter(1, invocation_id=draft.id, time_us=now_us())
        worker.running()
        end = worker.ended(State.FAILED)
        end.ended.failure.CopyFrom(invocation_pb2.Failure(reason="HTTP_STATUS", message="x" * 100_000))
        await record(database, end)
    found = await pages(bench.dead_letters.list, ListDeadLettersRequest(page_size=1000))
    check(found)
    ids = [each.id for page in found for each in page.dead_letters]
    assert ids == [draft.id for draft in reversed(drafts)]


async def test_keys_of_many_functions(bench: Bench, database: Database) -> None:
    functions = [f"f{number:02}" + "x" * 60 for number in range(limits.MAX_KEY_FUNCTIONS)]
    names = [f"key-{number:04}" for number in range(1200)]
    with database.writing() as connection:
        for name in names:
            assert api_keys.insert_key(connection, Key(id=name, name=name, functions=functions), b"")
    found = await pages(bench.keys.list, ListKeysRequest(page_size=1000))
    check(found)
    assert [each.name for page in found for each in page.keys] == names


async def test_secrets(bench: Bench, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand of them are not large enough, so that it is the limit that is small."""
    names = [f"secret-{number:03}" for number in range(100)]
    with database.writing() as connection:
        for name in names:
            assert secrets.create_secret(connection, name, b"", now_us=now_us())
    monkeypatch.setattr(paging, "MAX_PAGE_BYTES", 2000)
    found = await pages(bench.secrets.list, ListSecretsRequest(page_size=1000))
    check(found, limit=2000)
    assert [each.name for page in found for each in page.secrets] == names
