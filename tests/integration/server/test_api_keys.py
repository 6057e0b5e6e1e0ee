"""API keys in the store, and how servers know them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from homing.v1.key_service_pb2 import SCOPE_ADMIN, SCOPE_READ, Key
from homing_core.clock import now_us
from homing_server.auth import key_cache as module
from homing_server.auth.identity import ANONYMOUS, ROOT
from homing_server.auth.key_cache import KeyCache, NoAdminKeyError
from homing_server.auth.key_format import NewKey, digest_of, new_key
from homing_server.errors import ApiError
from homing_server.store import api_keys as stored
from homing_server.store.engine import Database

ROOT_KEY = "a root key of more than thirty-two characters".replace(" ", "-")


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    made = Database(f"sqlite:///{tmp_path / 'homing.db'}")
    await made.open()
    yield made
    await made.close()


async def add(database: Database, name: str, *, scope: int = SCOPE_READ, expire_us: int = 0) -> NewKey:
    made = new_key()
    key = Key(id=made.id, name=name, scopes=[scope])  # type: ignore[list-item]  # the values of an enum
    if expire_us:
        key.expire_time.FromMicroseconds(expire_us)
    assert await database.write(stored.insert_key, key, digest_of(made.text))
    return made


async def test_names_are_unique_among_keys_in_force(database: Database) -> None:
    first = await add(database, "ci")
    other = new_key()
    again = Key(id=other.id, name="ci")
    assert not await database.write(stored.insert_key, again, digest_of(other.text))
    revoked = await database.write(stored.revoke_key, "ci", now_us=1)
    assert revoked is not None
    assert revoked.id == first.id
    assert await database.write(stored.insert_key, again, digest_of(other.text))
    assert await database.write(stored.revoke_key, first.id, now_us=1) is None
    assert await database.write(stored.revoke_key, other.id, now_us=1) is not None


async def test_keys_are_listed_by_name(database: Database) -> None:
    for name in ("c", "a", "b"):
        await add(database, name)
    await database.write(stored.revoke_key, "b", now_us=1)
    keys, more = await database.read(stored.list_keys, after="", size=1)
    assert ([key.name for key in keys], more) == (["a"], True)
    keys, more = await database.read(stored.list_keys, after="a", size=1)
    assert ([key.name for key in keys], more) == (["c"], False)


async def test_callers_are_known_by_their_keys(database: Database) -> None:
    known = KeyCache(database, root_key=ROOT_KEY)
    await known.open()
    made = await add(database, "ci")
    with pytest.raises(ApiError):
        known.identify(f"Bearer {made.text}")
    await known.load()
    identity = known.identify(f"Bearer {made.text}")
    assert identity.name == "ci"
    assert known.identify(f"Bearer {ROOT_KEY}").name == ROOT
    assert known.identify(None) is ANONYMOUS
    for shown in ("Bearer", f"Bearer {made.text}x", f"Bearer hk_{made.id}_{'x' * 43}", made.text, b"Bearer x"):
        with pytest.raises(ApiError) as error:
            known.identify(shown)
        assert error.value.reason == "KEY_INVALID"
        assert made.id not in error.value.message

    assert repr(digest_of(made.text)) not in repr(vars(known))
    await known.load()
    assert known.identify(f"Bearer {made.text}") is identity, "nothing has changed"
    ended = await add(database, "ended", expire_us=now_us() - 1)
    await known.load()
    with pytest.raises(ApiError) as error:
        known.identify(f"Bearer {ended.text}")
    assert error.value.reason == "KEY_EXPIRED"

    # What it has used up outlasts that others are read; once it is revoked also what is under way ends.
    await add(database, "other")
    await known.load()
    assert known.identify(f"Bearer {made.text}").state is identity.state
    await database.write(stored.revoke_key, "ci", now_us=1)
    await known.load()
    with pytest.raises(ApiError, match="revoked"):
        identity.check_in_force()
    with pytest.raises(ApiError):
        known.identify(f"Bearer {made.text}")


async def test_it_looks_once_a_second_for_keys_of_other_servers(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = KeyCache(database, root_key="")
    made = await add(database, "ci")
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(module, "asyncio", SimpleNamespace(sleep=sleep))
    await known.follow()
    assert slept == [1.0]
    assert known.identify(f"Bearer {made.text}").name == "ci"


async def test_somebody_has_to_be_able_to_come_in(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    now = now_us()
    monkeypatch.setattr(module, "now_us", lambda: now)
    for name, scope, expire_us in (
        ("reader", SCOPE_READ, 0),
        ("was-admin", SCOPE_ADMIN, now),
        ("was-admin-long-ago", SCOPE_ADMIN, 1),
    ):
        await add(database, name, scope=scope, expire_us=expire_us)
        with pytest.raises(NoAdminKeyError, match="HOMING_ROOT_KEY"):
            await KeyCache(database, root_key="").open()
    await KeyCache(database, root_key=ROOT_KEY).open()
    await add(database, "admin-for-now", scope=SCOPE_ADMIN, expire_us=now + 1)
    await KeyCache(database, root_key="").open()
    await database.write(stored.revoke_key, "admin-for-now", now_us=now)
    await add(database, "admin", scope=SCOPE_ADMIN)
    await KeyCache(database, root_key="").open()
