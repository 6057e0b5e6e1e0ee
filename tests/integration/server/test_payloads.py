"""Which bodies are referred to, and when they go: on a store and a folder of the test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import Connection

from homing.v1.payload_pb2 import Blob, Payload
from homing_core.clock import now_us
from homing_server.deliveries.large_envelopes import LargeEnvelopes
from homing_server.errors import ApiError, Code, ErrorReason
from homing_server.payloads import blobs as blobs_module
from homing_server.payloads import uploads as uploads_module
from homing_server.payloads.blobs import Blobs
from homing_server.payloads.uploads import Uploads
from homing_server.store import delivery_claims
from homing_server.store.accept import Outcome
from homing_server.store.delivery_claims import Claim
from homing_server.store.engine import Database
from homing_server.store.retention import remove
from support.store import accept_all, deploy, life, make_draft, make_spec, opened, read, record


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


async def written(blobs: Blobs, data: bytes, invocation_id: str = "", *, stored_by: str | None = None) -> Blob:
    async def parts() -> AsyncIterator[bytes]:
        yield data

    return await blobs.write(parts(), stored_by=stored_by, invocation_id=invocation_id)


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


async def chained(database: Database, blobs: Blobs) -> tuple[str, str, Blob]:
    """Have an outcome become an invocation whose envelope is stored apart; return the ids of both and the envelope."""
    await deploy(database, "next")
    draft = make_draft(make_spec(), sent=True)
    draft.spec.on_success.add(uri="function:next")
    await accept_all(database, draft)
    answer = await written(blobs, b"x" * 300_000, draft.id)
    events = life(draft.id)
    events[-1].ended.result.payload.CopyFrom(Payload(content_type="image/png", blob=answer))
    await record(database, *events)
    envelopes = LargeEnvelopes(blobs)

    def claim(connection: Connection) -> Claim:
        return delivery_claims.claim(
            connection, now_us=now_us(), most=10, head=lambda _: b"", check=lambda *_: None, envelopes=envelopes.stored
        )

    assert await envelopes.store((await database.write(claim)).chained.too_large)
    (payload,) = envelopes.stored.values()
    assert (await database.write(claim)).chained.caused == ["next"]
    (delivery,) = (await read(database, draft.id)).deliveries
    return draft.id, delivery.caused, payload.blob


async def test_an_envelope_goes_with_the_record_of_what_got_it(database: Database, blobs: Blobs) -> None:
    first, caused, envelope = await chained(database, blobs)
    await database.write(remove, [first])
    await blobs.sweep()
    assert there(blobs, envelope) == [True]
    await record(database, *life(caused))
    await database.write(remove, [caused])
    await blobs.sweep()
    assert there(blobs, envelope) == [False]


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


async def uploaded(uploads: Uploads, blobs: Blobs, data: bytes, caller: str = "alice") -> Blob:
    async with uploads.upload(caller, len(data)):
        return await written(blobs, data, stored_by=caller)


async def test_what_a_caller_stores_and_does_not_use_is_bounded_in_number(
    database: Database, blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads_module, "MAX_UPLOADS", 3)
    monkeypatch.setattr(uploads_module, "UNUSED_AFTER_SECONDS", 3600.0)
    uploads = Uploads(database)
    first, *_ = [await uploaded(uploads, blobs, b"x") for _ in range(3)]
    for asked in (uploads, Uploads(database)):  # as after a restart
        with pytest.raises(ApiError, match="3 bodies of 3 bytes were stored that no invocation refers to") as caught:
            await uploaded(asked, blobs, b"x")
        assert (caught.value.code, caught.value.reason) == (Code.RESOURCE_EXHAUSTED, ErrorReason.TOO_MANY_UPLOADS)
    await uploaded(uploads, blobs, b"x", "bob")

    draft = make_draft()
    draft.spec.payload.CopyFrom(Payload(blob=first))
    await accept_all(database, draft)
    await uploaded(uploads, blobs, b"x")
    with pytest.raises(ApiError):
        await uploaded(uploads, blobs, b"x")


async def test_what_a_caller_stores_is_bounded_in_bytes_and_what_is_under_way_counts(
    database: Database, blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads_module, "MAX_UPLOADS_SIZE", 100)
    monkeypatch.setattr(uploads_module, "UNUSED_AFTER_SECONDS", 3600.0)
    uploads = Uploads(database)
    async with uploads.upload("alice", 60):
        with pytest.raises(ApiError):
            await uploaded(uploads, blobs, b"x" * 41)
        await uploaded(uploads, blobs, b"x" * 40)
    # The first one stored nothing in the end.
    await uploaded(uploads, blobs, b"x" * 60)
    with pytest.raises(ApiError):
        await uploaded(uploads, blobs, b"x")


async def test_what_was_stored_long_ago_counts_no_more(
    database: Database, blobs: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads_module, "MAX_UPLOADS", 1)
    monkeypatch.setattr(uploads_module, "UNUSED_AFTER_SECONDS", -60.0)
    uploads = Uploads(database)
    for _ in range(3):
        await uploaded(uploads, blobs, b"x")
