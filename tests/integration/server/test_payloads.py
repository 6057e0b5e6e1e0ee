"""Which bodies are referred to, and when they go: on a store and a folder of the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from homing.v1.payload_pb2 import Blob, Payload
from homing_server.payloads import blobs as blobs_module
from homing_server.payloads.blobs import Blobs
from homing_server.store.accept import Outcome
from homing_server.store.engine import Database
from homing_server.store.retention import remove
from support.store import accept_all, life, make_draft, make_spec, opened, record


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with opened(tmp_path) as database:
        yield database


@pytest.fixture
def blobs(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Blobs:
    # As if an hour, or a day, were over already.
    monkeypatch.setattr(blobs_module, "UNUSED_AFTER_SECONDS", -60.0)
    monkeypatch.setattr(blobs_module, "CALL_GONE_AFTER_SECONDS", -60.0)
    monkeypatch.setattr(blobs_module, "_SWEEP_SECONDS", 0)
    return Blobs(database, tmp_path / "blobs")


async def written(blobs: Blobs, data: bytes, invocation_id: str = "") -> Blob:
    async def parts() -> AsyncIterator[bytes]:
        yield data

    return await blobs.write(parts(), invocation_id=invocation_id)


def there(blobs: Blobs, *asked: Blob) -> list[bool]:
    return [blobs.path(blob.id).exists() for blob in asked]


async def test_a_body_goes_with_the_last_record_that_refers_to_it(database: Database, blobs: Blobs) -> None:
    payload, unused = await written(blobs, b"payload"), await written(blobs, b"unused")
    drafts = [make_draft(make_spec(), sent=True) for _ in range(2)]
    for draft in drafts:
        draft.spec.payload.CopyFrom(Payload(blob=payload))
    await accept_all(database, *drafts)
    first, second = (draft.id for draft in drafts)
    result = await written(blobs, b"result", first)
    await record(database, *life(first), *life(second))

    await blobs.sweep()
    assert there(blobs, payload, result, unused) == [True, True, False]
    await database.write(remove, [first])
    await blobs.sweep()
    assert there(blobs, payload, result) == [True, False]
    await database.write(remove, [second])
    await blobs.sweep()
    assert there(blobs, payload) == [False]


async def test_a_synchronous_call_without_a_record_keeps_nothing_for_ever(blobs: Blobs) -> None:
    payload = await written(blobs, b"payload")
    await blobs.hold("call", Payload(blob=payload))
    result = await written(blobs, b"result", "call")

    await blobs.sweep()

    assert there(blobs, payload, result) == [False, False]


async def test_an_accept_that_comes_after_the_removal_is_refused_alone(database: Database, blobs: Blobs) -> None:
    payload = await written(blobs, b"payload")
    late, fine = make_draft(), make_draft()
    late.spec.payload.CopyFrom(Payload(blob=payload))
    await blobs.sweep()

    verdicts = await accept_all(database, late, fine)

    assert [verdict.outcome for verdict in verdicts] == [Outcome.NO_BLOB, Outcome.ACCEPTED]


async def test_files_that_no_row_knows_are_removed_and_the_others_stay(blobs: Blobs, database: Database) -> None:
    draft = make_draft()
    draft.spec.payload.CopyFrom(Payload(blob=await written(blobs, b"kept")))
    await accept_all(database, draft)
    path = blobs.path(draft.blob_id)
    orphan, part = path.with_name("0" * 36), path.with_name("1" * 36 + ".part")
    orphan.touch()
    part.touch()

    await blobs.sweep()

    assert [one.exists() for one in (path, orphan, part)] == [True, False, False]
