"""Bodies over the inline limit: written to files, read back, and removed when no invocation refers to them."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import time
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Collection, Iterable
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

import structlog

from homing.v1.payload_pb2 import Blob, Payload
from homing_core.clock import now_us
from homing_core.ids import new_id
from homing_core.limits import MAX_PART
from homing_server.errors import ApiError, ErrorReason, Violation, blob_not_found, invalid_request, unavailable
from homing_server.payloads.files import BlobFiles
from homing_server.store import blobs as stored
from homing_server.store.engine import Database

_log = structlog.get_logger(__name__)

UNUSED_AFTER_SECONDS: Final = 3600.0
"""A blob that no invocation refers to so many seconds after it was stored is removed."""
CALL_GONE_AFTER_SECONDS: Final = 24 * 3600.0
"""A synchronous invocation that has no record so many seconds after it was made is not going to have one."""
_SWEEP_SECONDS: Final = 600.0
_BATCH_SIZE: Final = 500

P = ParamSpec("P")
T = TypeVar("T")


class Blobs:
    """The blobs of this server; servers that share a store share the folder too."""

    def __init__(self, database: Database, folder: Path) -> None:
        """Prepare to serve blobs.

        :param folder: Where the files are; it is made when it is first needed.
        """
        self._database = database
        self._files = BlobFiles(folder)

    async def write(
        self, chunks: AsyncIterable[bytes], *, stored_by: str | None = None, invocation_id: str = ""
    ) -> Blob:
        """Store a body durably. Where that fails, or the chunks end with an exception, nothing is left of it.

        :param stored_by: The caller who stores it; None where it is no caller.
        :param invocation_id: The invocation whose result it is; empty for one that is yet to be referred to.
        :raises ApiError: UNAVAILABLE: it cannot be stored now.
        """
        blob_id = new_id()
        part = await _run(self._files.create, blob_id)
        try:
            async for chunk in chunks:
                await _run(part.write, chunk)
            await _run(part.finish)
            blob = Blob(id=blob_id, size=part.size, sha256=part.sha256)
            await self._database.write(
                stored.insert_blob, blob, now_us=now_us(), stored_by=stored_by, invocation_id=invocation_id
            )
        except BaseException:
            # Shielded: a call that fails and is cancelled at once would leave it undone.
            await asyncio.shield(asyncio.to_thread(part.discard))
            raise
        return blob

    async def find(self, blob_id: str) -> Blob:
        """Return what is known of a blob.

        :raises ApiError: NOT_FOUND; UNAVAILABLE: the store could not be read.
        """
        blob = await self._database.read(stored.find_blob, blob_id)
        if blob is None:
            raise blob_not_found(blob_id)
        return blob

    async def read(self, blob_id: str) -> AsyncGenerator[bytes, None]:
        """Yield the body of a blob in parts.

        :raises ApiError: NOT_FOUND; UNAVAILABLE: it could not be read.
        """
        await self.find(blob_id)
        async with contextlib.aclosing(self.parts(blob_id, MAX_PART)) as parts:
            async for part in parts:
                yield part

    async def parts(self, blob_id: str, size: int) -> AsyncGenerator[bytes, None]:
        """Yield the body of a blob in parts of one size, the last one apart.

        :raises ApiError: UNAVAILABLE: it could not be read.
        """
        file = await _run(self._files.path(blob_id).open, "rb")
        try:
            while data := await _run(file.read, size):
                yield data
        finally:
            await asyncio.to_thread(file.close)

    def path(self, blob_id: str) -> Path:
        """Return where the file of a blob is, or would be."""
        return self._files.path(blob_id)

    async def resolve(self, payload: Payload) -> None:
        """Complete a payload's reference to a blob by its size and digest.

        :raises ApiError: NOT_FOUND; INVALID_ARGUMENT: it was given another size or digest.
        """
        blob = await self.find(payload.blob.id)
        violations = []
        if payload.blob.size not in {0, blob.size}:
            violations.append(
                Violation(field="spec.payload.blob.size", description=f"must be the blob's size, {blob.size}, or unset")
            )
        if payload.blob.sha256 not in {b"", blob.sha256}:
            violations.append(
                Violation(field="spec.payload.blob.sha256", description="must be the blob's SHA-256 digest, or unset")
            )
        if violations:
            raise invalid_request(violations)
        payload.blob.CopyFrom(blob)

    async def hold(self, invocation_id: str, payload: Payload) -> None:
        """Complete a payload's reference to a blob, and keep the blob for a synchronous invocation.

        :raises ApiError: As :meth:`resolve`.
        """
        await self.resolve(payload)
        if not await self._database.write(stored.hold_blob, invocation_id, payload.blob.id, now_us=now_us()):
            raise blob_not_found(payload.blob.id)

    async def give(self, blob_id: str, caller: str) -> None:
        """Let the result of a synchronous invocation be its caller's.

        :raises ApiError: UNAVAILABLE.
        """
        await self._database.write(stored.give_blob, blob_id, caller)

    async def remove_files(self, blob_ids: Collection[str]) -> None:
        """Remove the files of blobs that were forgotten; what cannot be removed now the next sweep finds."""
        try:
            await asyncio.to_thread(self._files.remove, blob_ids)
        except OSError as error:
            _log.warning("blob_files_not_removed", error=str(error))

    async def sweep(self) -> None:
        """Remove the blobs that no invocation refers to, and the files that no blob has. One step of a loop."""
        now = time.time()
        while removed := await self._database.write(
            stored.remove_unused,
            uploaded_before_us=int((now - UNUSED_AFTER_SECONDS) * 1e6),
            called_before_us=int((now - CALL_GONE_AFTER_SECONDS) * 1e6),
        ):
            await self.remove_files(removed)
        # A crash may have left a file without a row, or a part of one. An upload under way writes again and again.
        stale = await _run(lambda: list(self._files.stale(before=now - UNUSED_AFTER_SECONDS)))
        for start in range(0, len(stale), _BATCH_SIZE):
            batch = stale[start : start + _BATCH_SIZE]
            known = await self._database.read(stored.known_blobs, [blob_id for blob_id, _ in batch])
            orphans = [path for blob_id, path in batch if blob_id not in known]
            await _run(_unlink, orphans)
        await asyncio.sleep(_SWEEP_SECONDS)


def _unlink(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


async def _run(work: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    """Do what blocks in a thread.

    :raises ApiError: UNAVAILABLE: the disk refused.
    """
    try:
        return await asyncio.to_thread(work, *arguments, **options)
    except OSError as error:
        raise _refused(error) from error


def _refused(error: OSError) -> ApiError:
    if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
        return unavailable(
            ErrorReason.DISK_FULL, "the server has no room for the body: its disk is full", retry_after=10.0
        )
    return unavailable(ErrorReason.BLOB_UNAVAILABLE, f"the server cannot reach the body: {error.strerror}")
