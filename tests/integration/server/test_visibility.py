"""Who may have to do with an invocation, or a stored body, that they know the id of."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from homing.v1.key_service_pb2 import SCOPE_INVOKE, SCOPE_READ
from homing.v1.payload_pb2 import Blob
from homing_server.auth.identity import ANONYMOUS, EVERYBODY, Identity
from homing_server.auth.visibility import Visibility
from homing_server.errors import ApiError
from homing_server.store.blobs import insert_blob, use_blobs
from support.store import accept_all, make_draft, make_spec, opened

INVOKES, READS = frozenset({SCOPE_INVOKE}), frozenset({SCOPE_READ})

READER = Identity(name="reader", scopes=READS)
READER_OF_A = Identity(name="reader-of-a", scopes=READS, functions=frozenset({"a"}))
READER_OF_C = Identity(name="reader-of-c", scopes=READS, functions=frozenset({"c"}))
ALICE = Identity(name="alice", scopes=INVOKES)
BOB = Identity(name="bob", scopes=INVOKES)
CAROL = Identity(name="carol", scopes=INVOKES)
DAVE = Identity(name="dave", scopes=INVOKES)
ALICE_OF_A = Identity(name="alice", scopes=INVOKES, functions=frozenset({"a"}))


CALL = "01930000-0000-7000-8000-000000000000"
"""A synchronous call, of which there is no record."""


@dataclass(frozen=True, kw_only=True, slots=True)
class House:
    """What decides, and the ids of the invocations that it decides about."""

    visibility: Visibility
    ids: Mapping[str, str]


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with opened(tmp_path, functions=("a", "b", "c")) as database:
        drafts = {
            "alice's a": make_draft(make_spec("a"), caller="alice"),
            "bob's b": make_draft(make_spec("b"), caller="bob"),
            # An outcome of hers, which a function sent on.
            "caused b": replace(make_draft(make_spec("b"), caller="alice"), caused_by=CALL, depth=1),
        }
        await accept_all(database, *drafts.values())
        ids = {name: draft.id for name, draft in drafts.items()}
        with database.writing() as connection:
            for name, caller, uses in (
                ("alice's", "alice", []),
                ("nobody's", "", []),
                ("of two", "dave", [ids["alice's a"], ids["bob's b"]]),
                ("of a call", None, [CALL]),
            ):
                insert_blob(connection, Blob(id=name, size=1), now_us=1, stored_by=caller)
                for each in uses:
                    use_blobs(connection, [(each, name)], now_us=1)
        yield House(visibility=Visibility(database), ids=ids | {"unknown": CALL})


async def refusal(check: Awaitable[None]) -> str:
    """Return the reason why something is refused; empty where it is not."""
    try:
        await check
    except ApiError as error:
        return error.reason
    return ""


async def test_a_limited_key_has_to_do_with_invocations_of_its_functions(house: House) -> None:
    async def found(caller: Identity) -> list[str]:
        asked = ("alice's a", "bob's b", "unknown")
        return [await refusal(house.visibility.check_function_of(house.ids[name], caller)) for name in asked]

    # Whoever may have to do with all functions is told later that there is none.
    assert await found(EVERYBODY) == await found(READER) == ["", "", ""]
    assert await found(READER_OF_A) == ["", "FUNCTION_NOT_ALLOWED", "INVOCATION_NOT_FOUND"]


async def test_records_are_read_by_who_asked_for_them_and_by_readers(house: House) -> None:
    async def found(caller: Identity) -> list[str]:
        asked = ("alice's a", "bob's b", "caused b", "unknown")
        return [await refusal(house.visibility.check_read(house.ids[name], caller)) for name in asked]

    not_allowed, missing, gone = "FUNCTION_NOT_ALLOWED", "SCOPE_MISSING", "INVOCATION_NOT_FOUND"
    assert await found(EVERYBODY) == await found(READER) == ["", "", "", ""]
    assert await found(READER_OF_A) == ["", not_allowed, not_allowed, gone]
    assert await found(ALICE) == ["", missing, "", gone]
    assert await found(ALICE_OF_A) == ["", missing, not_allowed, gone]
    assert await found(BOB) == [missing, "", missing, gone]


async def test_a_body_is_read_by_who_stored_it_and_by_who_may_read_what_refers_to_it(house: House) -> None:
    async def found(caller: Identity) -> list[str]:
        asked = ("alice's", "nobody's", "of two", "of a call", "unknown")
        return [await refusal(house.visibility.check_read_blob(blob, caller)) for blob in asked]

    gone = "BLOB_NOT_FOUND"
    assert await found(ALICE) == ["", gone, "", gone, gone]
    assert await found(BOB) == [gone, gone, "", gone, gone]
    assert await found(DAVE) == [gone, gone, "", gone, gone]
    assert await found(CAROL) == [gone, gone, "SCOPE_MISSING", gone, gone]
    # Nobody else reads what no invocation refers to, whatever they may read.
    assert await found(READER) == [gone, gone, "", "", gone]
    assert await found(READER_OF_A) == [gone, gone, "", gone, gone]
    assert await found(READER_OF_C) == [gone, gone, "FUNCTION_NOT_ALLOWED", gone, gone]
    # Whoever shows no key has the name of those who needed none, and not their rights.
    assert await found(EVERYBODY) == [gone, "", "", "", gone]
    assert await found(ANONYMOUS) == [gone, gone, "SCOPE_MISSING", gone, gone]
