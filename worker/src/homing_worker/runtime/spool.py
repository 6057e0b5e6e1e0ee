"""Bodies that are too large to be held in memory: each is kept in a file without a name."""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

from homing_core.limits import MAX_PART
from homing_core.private import make_private_folder

P = ParamSpec("P")
T = TypeVar("T")


class SpoolError(Exception):
    """A body could not be kept on this worker's disk."""


class Spool:
    """A body in a file. Nothing is left of it when it is closed, or when the worker dies.

    What its threads do excludes each other, so that it can be closed while one still writes for a caller who is gone.
    """

    def __init__(self, folder: Path) -> None:
        make_private_folder(folder)
        self._file = tempfile.TemporaryFile(buffering=0, dir=folder)  # noqa: SIM115 closed with the attempt
        self._lock = threading.Lock()
        self._digest = hashlib.sha256()
        self._size = 0

    def __len__(self) -> int:
        """Return the size in bytes."""
        return self._size

    @property
    def sha256(self) -> bytes:
        """The digest of the body."""
        return self._digest.digest()

    async def write(self, data: bytes) -> None:
        """Append bytes.

        :raises SpoolError: They could not be written.
        """
        await _run(self._write, data)

    async def parts(self) -> AsyncIterator[bytes]:
        """Yield the body in parts.

        :raises SpoolError: It could not be read.
        """
        position = 0
        while data := await _run(self._read, position):
            position += len(data)
            yield data

    def rewind(self) -> int:
        """Return the descriptor of the file, for a process that is to read it from its beginning."""
        self._file.seek(0)
        return self._file.fileno()

    def close(self) -> None:
        """Remove the file. Waits for a thread that reads or writes."""
        with self._lock:
            self._file.close()

    def _write(self, data: bytes) -> None:
        with self._lock:
            rest = memoryview(data)
            while rest:
                rest = rest[self._file.write(rest) :]
            self._digest.update(data)
            self._size += len(data)

    def _read(self, position: int) -> bytes:
        with self._lock:
            return os.pread(self._file.fileno(), MAX_PART, position)


class Spools:
    """The spools that are opened within its context; they are closed at its end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._opening: set[asyncio.Future[Spool]] = set()
        """Those that threads make: who asked for one may have been cancelled since."""
        self._open: list[Spool] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._opening or self._open:
            await asyncio.shield(self._close())

    async def open(self) -> Spool:
        """Return a new spool.

        :raises SpoolError: The file could not be made.
        """
        opening = asyncio.ensure_future(_run(Spool, self._folder))
        self._opening.add(opening)
        opening.add_done_callback(self._opened)
        return await asyncio.shield(opening)

    def _opened(self, opening: asyncio.Future[Spool]) -> None:
        self._opening.discard(opening)
        if not opening.cancelled() and opening.exception() is None:
            self._open.append(opening.result())

    async def _close(self) -> None:
        if self._opening:
            await asyncio.wait(self._opening)
        for spool in self._open:
            await asyncio.to_thread(spool.close)


async def _run(work: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    try:
        return await asyncio.to_thread(work, *arguments, **options)
    except OSError as error:
        raise SpoolError(f"the worker cannot keep the body: {error.strerror}") from error
    except ValueError as error:
        raise SpoolError("the body was closed") from error
