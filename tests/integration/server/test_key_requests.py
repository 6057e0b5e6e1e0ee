"""API keys under request ids: the same call is given the same key, of which the store has nothing but digests."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from homing.v1 import key_service_pb2 as api
from homing_core.broker.embedded import EmbeddedBroker, Exchange
from homing_core.clock import now_us
from homing_core.sealing import Vault, new_key
from homing_server.admin import api_keys as module
from homing_server.admin.api_keys import ApiKeys
from homing_server.auth.identity import EVERYBODY
from homing_server.auth.key_cache import KeyCache
from homing_server.cluster.presence import Presence
from homing_server.cluster.registry import WorkerRegistry
from homing_server.control import ControlChannel
from homing_server.errors import ApiError, Code
from homing_server.functions.catalog import Catalog
from homing_server.store import schema
from homing_server.store.engine import Database
from homing_server.tasks import Tasks
from homing_server.vault.keyring import Keyring
from homing_server.watch.hub import WatchHub
from support.store import opened

DAY_US = 24 * 3600 * 1_000_000
SECRET_KEY = new_key()
"""The servers' own, which is not in the store."""
ROOT = replace(EVERYBODY, name="root")
OPS = replace(EVERYBODY, name="ops")


class Server:
    """The part of a server that makes keys, and knows them."""

    def __init__(self, database: Database, tasks: Tasks, secret_key: bytes) -> None:
        keyring = Keyring(database)
        keyring.open(Vault(secret_key))
        control = ControlChannel(
            "server",
            EmbeddedBroker(Exchange()),
            catalog=Catalog(database),
            hub=WatchHub(database),
            keyring=keyring,
            presence=Presence(),
            registry=WorkerRegistry(database),
            tasks=tasks,
        )
        self.cache = KeyCache(database, root_key="")
        self.keys = ApiKeys(database, self.cache, control, keyring)

    async def create(
        self, request_id: str = "once", *, name: str = "shop", caller: Any = ROOT, **fields: Any
    ) -> api.CreateKeyResponse:
        key = api.Key(**{"name": name, "scopes": [api.SCOPE_INVOKE, api.SCOPE_READ]} | fields)
        return await self.keys.create(api.CreateKeyRequest(key=key, request_id=request_id), caller=caller)


@asynccontextmanager
async def server_in(folder: Path, secret_key: bytes = SECRET_KEY) -> AsyncIterator[Server]:
    async with opened(folder, functions=()) as database, Tasks() as tasks:
        yield Server(database, tasks, secret_key)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with server_in(tmp_path) as made:
        yield made


def in_store(folder: Path, value: bytes) -> bool:
    return any(value in file.read_bytes() for file in folder.glob("homing.db*"))


async def test_the_same_call_is_given_the_same_key_also_by_another_server(server: Server, tmp_path: Path) -> None:
    first = await server.create(functions=["f", "g"], max_per_second=2.5)
    again = await server.create(functions=["g", "f", "f"], max_per_second=2.5)
    async with server_in(tmp_path) as other:
        elsewhere = await other.create(functions=["f", "g"], max_per_second=2.5)
        assert other.cache.identify(f"Bearer {first.secret}").name == "shop", "it knows the key that it returns"

    assert not first.duplicate
    assert again.duplicate and elsewhere.duplicate  # noqa: PT018
    assert first.secret == again.secret == elsewhere.secret
    assert first.key == again.key == elsewhere.key
    assert server.cache.identify(f"Bearer {first.secret}").functions == {"f", "g"}


async def test_nothing_in_the_store_leads_to_the_key_or_to_the_request_id(server: Server, tmp_path: Path) -> None:
    made = await server.create("the-id-of-the-request")
    secret = made.secret.split("_", 2)[2]  # which may have an underscore itself

    for value in (made.secret.encode(), secret.encode(), base64.urlsafe_b64decode(secret + "=")):
        assert not in_store(tmp_path, value)
    assert not in_store(tmp_path, b"the-id-of-the-request")
    assert in_store(tmp_path, made.key.id.encode()), "else this test would look in the wrong place"


async def test_who_has_the_store_but_not_the_secret_key_makes_another_key(server: Server, tmp_path: Path) -> None:
    made = await server.create()
    async with server_in(tmp_path, new_key()) as thief:
        with pytest.raises(ApiError) as refused:
            await thief.create()
        assert refused.value.reason == "KEY_EXISTS", "it does not even know the call"
        other = await thief.create(name="stolen")
    assert made.secret.partition("_")[2] not in other.secret


@pytest.mark.parametrize(
    "other",
    [
        {"name": "shop2"},
        {"scopes": [api.SCOPE_INVOKE]},
        {"functions": ["f"]},
        {"max_per_second": 1.0},
        {"expire_time": {"seconds": 4_000_000_000}},
    ],
    ids=str,
)
async def test_with_other_content_the_request_id_is_refused(server: Server, other: dict[str, Any]) -> None:
    made = await server.create()

    with pytest.raises(ApiError) as refused:
        await server.create(**other)

    assert (refused.value.code, refused.value.reason) == (Code.ALREADY_EXISTS, "REQUEST_ID_REUSED")
    assert refused.value.metadata == {"request_id": "once"}
    assert (await server.create()).secret == made.secret


async def test_request_ids_are_each_callers_own_and_none_is_none(server: Server) -> None:
    mine = await server.create()
    theirs = await server.create(name="shop2", caller=OPS)
    assert not theirs.duplicate
    assert mine.secret != theirs.secret
    for caller in (OPS, ROOT):
        with pytest.raises(ApiError) as refused:
            await server.create("", caller=caller)
        assert refused.value.reason == "KEY_EXISTS", "without an id it is another call"


async def test_a_call_that_was_refused_leaves_its_id_free(server: Server) -> None:
    await server.create("other")
    with pytest.raises(ApiError) as refused:
        await server.create("once")
    assert refused.value.reason == "KEY_EXISTS"
    assert not (await server.create("once", name="shop2")).duplicate


async def test_a_key_that_was_revoked_is_not_given_again(server: Server) -> None:
    made = await server.create()
    await server.keys.revoke("shop", caller=ROOT)

    with pytest.raises(ApiError, match="'shop' that request_id 'once' stands for was revoked") as refused:
        await server.create()

    assert (refused.value.code, refused.value.reason) == (Code.FAILED_PRECONDITION, "KEY_REVOKED")
    another = await server.create("twice")
    assert not another.duplicate
    assert another.secret != made.secret


async def test_after_a_day_the_id_is_forgotten(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin_us = now_us()
    made = await server.create()
    monkeypatch.setattr(module, "now_us", lambda: begin_us + DAY_US - 1_000_000)
    assert (await server.create()).secret == made.secret
    monkeypatch.setattr(module, "now_us", lambda: begin_us + DAY_US + 60_000_000)
    with pytest.raises(ApiError) as refused:
        await server.create()
    assert refused.value.reason == "KEY_EXISTS"

    # As another call it makes another key, although everything that a key follows from is the same, but the time.
    await server.keys.revoke("shop", caller=ROOT)
    another = await server.create()
    assert not another.duplicate
    assert another.key.id != made.key.id
    assert another.secret.partition("_")[2] != made.secret.partition("_")[2]
    async with opened(tmp_path, functions=()) as database:
        assert (
            await database.read(lambda c: c.execute(select(func.count()).select_from(schema.key_requests)).scalar())
            == 1
        )


async def test_of_two_that_come_at_once_one_makes_the_key(server: Server, tmp_path: Path) -> None:
    async with server_in(tmp_path) as other:
        answers = await asyncio.gather(*(each.create() for each in (server, other) * 5))
    assert sorted(answer.duplicate for answer in answers) == [False] + [True] * 9
    assert len({answer.secret for answer in answers}) == 1


async def test_a_limited_key_has_nothing_to_do_with_keys(server: Server) -> None:
    """None that is limited is made with the scope admin; one that came into the store all the same can do no more."""
    limited = replace(ROOT, functions=frozenset({"f"}))
    for call in (
        server.create(caller=limited),
        server.keys.list(api.ListKeysRequest(), caller=limited),
        server.keys.revoke("shop", caller=limited),
    ):
        with pytest.raises(ApiError) as refused:
            await call
        assert refused.value.reason == "KEY_LIMITED"


async def test_a_key_that_would_allow_what_none_may_is_refused(server: Server) -> None:
    admin, now = [api.SCOPE_ADMIN], {"seconds": now_us() // 1_000_000}
    bad: list[tuple[dict[str, Any], list[str]]] = [
        ({"name": "root"}, ["key.name"]),  # it would be taken for who shows the root key
        ({"name": ""}, ["key.name"]),
        ({"name": "Shop"}, ["key.name"]),
        ({"scopes": []}, ["key.scopes"]),
        ({"scopes": [api.SCOPE_INVOKE, 0, 99]}, ["key.scopes[1]", "key.scopes[2]"]),
        ({"scopes": admin, "functions": ["f"]}, ["key.functions"]),
        ({"scopes": [api.SCOPE_READ, *admin], "functions": ["f"]}, ["key.functions"]),
        ({"functions": ["f", "F"]}, ["key.functions[1]"]),
        ({"max_per_second": -1.0}, ["key.max_per_second"]),
        ({"max_per_second": 0.0009}, ["key.max_per_second"]),
        ({"max_per_second": 1_000_001.0}, ["key.max_per_second"]),
        ({"max_per_second": float("nan")}, ["key.max_per_second"]),
        ({"max_per_second": float("inf")}, ["key.max_per_second"]),
        ({"expire_time": now}, ["key.expire_time"]),
        ({"expire_time": {"seconds": 2**62}}, ["key.expire_time"]),
        ({"request_id": "x" * 129}, ["request_id"]),
    ]
    for fields, places in bad:
        with pytest.raises(ApiError) as refused:
            await server.create(**fields)
        assert [violation.field for violation in refused.value.violations] == places, fields
    with pytest.raises(ApiError) as refused:
        await server.keys.revoke("", caller=ROOT)
    assert [violation.field for violation in refused.value.violations] == ["key"]

    good: list[dict[str, Any]] = [
        {"scopes": admin},
        {"scopes": [api.SCOPE_READ, api.SCOPE_OPERATE, api.SCOPE_DEPLOY], "functions": ["f"]},
        {"max_per_second": 0.001},
        {"max_per_second": 1_000_000.0, "expire_time": {"seconds": now["seconds"] + 60}},
    ]
    for number, fields in enumerate(good):
        made = await server.create("", name=f"good-{number}", **fields)
        assert server.cache.identify(f"Bearer {made.secret}").scopes == set(made.key.scopes)
