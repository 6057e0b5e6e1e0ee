"""What callers may do by their names, while they show no key."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from homing.v1.function_pb2 import Function
from homing.v1.key_service_pb2 import SCOPE_INVOKE, SCOPE_OPERATE, SCOPE_READ, Key
from homing_core.clock import now_us
from homing_server.auth.authority import Authority
from homing_server.errors import ApiError
from homing_server.store.api_keys import insert_key, revoke_key
from homing_server.store.engine import Database

NEXT = Function(name="next")
DOOR = Function(name="door", public=True)
KEYS = Authority(authentication=True, has_root=True)


def key(name: str, scope: int, *functions: str, expire_us: int = 0) -> Key:
    made = Key(id=name, name=name, scopes=[scope], functions=functions)  # type: ignore[list-item]
    if expire_us:
        made.expire_time.FromMicroseconds(expire_us)
    return made


@pytest.fixture
async def keys(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database(f"sqlite:///{tmp_path / 'homing.db'}")
    await database.open()
    with database.writing() as connection:
        for each in (
            key("invokes", SCOPE_INVOKE),
            key("operates", SCOPE_OPERATE),
            key("reads", SCOPE_READ),
            key("of-next", SCOPE_INVOKE, "next"),
            key("of-other", SCOPE_INVOKE, "other"),
            key("ended", SCOPE_INVOKE, expire_us=now_us() - 1),
            key("ends", SCOPE_INVOKE, expire_us=now_us() + 3_600_000_000),
            key("revoked", SCOPE_INVOKE),
        ):
            assert insert_key(connection, each, each.name.encode())
        assert revoke_key(connection, "revoked", now_us=now_us())
    yield database
    await database.close()


def refusal(database: Database, caller: str, function: Function, authority: Authority = KEYS) -> str:
    """Return the reason why a function may not be invoked for a caller; empty where it may."""
    with database.reading() as connection:
        try:
            authority.check_passing_on(connection, caller, function)
        except ApiError as error:
            return error.reason
    return ""


@pytest.mark.parametrize(
    ("caller", "next_", "door"),
    [
        ("root", "", ""),
        ("invokes", "", ""),
        ("operates", "", ""),
        ("of-next", "", ""),
        ("ends", "", ""),
        ("of-other", "FUNCTION_NOT_ALLOWED", ""),
        ("reads", "SCOPE_MISSING", "SCOPE_MISSING"),
        ("ended", "KEY_EXPIRED", "KEY_EXPIRED"),
        ("revoked", "KEY_INVALID", "KEY_INVALID"),
        ("unknown", "KEY_INVALID", "KEY_INVALID"),
        ("", "KEY_MISSING", ""),
    ],
)
async def test_a_name_may_do_what_its_key_allows(keys: Database, caller: str, next_: str, door: str) -> None:
    assert (refusal(keys, caller, NEXT), refusal(keys, caller, DOOR)) == (next_, door)


async def test_the_scopes_that_would_do_are_named(keys: Database) -> None:
    with (
        keys.reading() as connection,
        pytest.raises(ApiError, match=r"^invoking needs a key with the scope invoke or operate$"),
    ):
        KEYS.check_passing_on(connection, "reads", NEXT)


async def test_root_is_nobody_without_a_root_key(keys: Database) -> None:
    assert refusal(keys, "root", NEXT, Authority(authentication=True, has_root=False)) == "KEY_INVALID"


@pytest.mark.parametrize("caller", ["", "root", "revoked", "unknown"])
async def test_everybody_may_do_everything_where_no_keys_are_needed(keys: Database, caller: str) -> None:
    assert not refusal(keys, caller, NEXT, Authority(authentication=False, has_root=False))
