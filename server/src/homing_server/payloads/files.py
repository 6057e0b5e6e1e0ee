"""The folder of bodies that are too large for messages. All of this blocks: it is for threads."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import threading
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from homing_core.private import make_private_folder

_ID: Final = re.compile(r"[0-9a-f-]{36}")
_PART: Final = ".part"


class BlobFiles:
    """A folder with a file for each blob, spread over folders by the last digits of their ids, which are random."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, blob_id: str) -> Path:
        """Return where the file of a blob is.

        :raises ValueError: It is no id of a blob.
        """
        if not _ID.fullmatch(blob_id):
            raise ValueError("not an id of a blob")
        return self._folder / blob_id[-2:] / blob_id

    def create(self, blob_id: str) -> PartFile:
        """Begin to write the file of a new blob.

        :raises OSError: It cannot be written.
        """
        path = self.path(blob_id)
        make_private_folder(self._folder)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        return PartFile(path)

    def remove(self, blob_ids: Collection[str]) -> None:
        """Remove the files of blobs, as far as they are there.

        :raises OSError: One could not be removed.
        """
        for blob_id in blob_ids:
            self.path(blob_id).unlink(missing_ok=True)

    def stale(self, *, before: float) -> Iterator[tuple[str, Path]]:
        """Yield the files that nobody has written to since a time, in seconds since the epoch, each with its id."""
        for path in self._folder.glob("??/*"):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < before:
                    yield path.name.removesuffix(_PART), path


class PartFile:
    """The file of a blob while it is written: under another name, until it is whole and on the disk.

    Its calls exclude each other, so that it can be discarded while a thread still writes for a caller who is gone.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = path.with_name(path.name + _PART)
        self._digest = hashlib.sha256()
        self._lock = threading.Lock()
        self._file = os.fdopen(os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb", 0)
        self.size = 0

    @property
    def sha256(self) -> bytes:
        """The digest of what was written."""
        return self._digest.digest()

    def write(self, data: bytes) -> None:
        """Append bytes.

        :raises OSError: They could not be written.
        """
        with self._lock:
            rest = memoryview(data)
            while rest:
                rest = rest[self._file.write(rest) :]
            self._digest.update(data)
            self.size += len(data)

    def finish(self) -> None:
        """See the file safely on the disk and give it its name.

        :raises OSError: That failed.
        """
        with self._lock:
            os.fsync(self._file.fileno())
            self._file.close()
            self._part.rename(self._path)
            folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def discard(self) -> None:
        """Leave nothing of it, whether it was finished or not."""
        with self._lock, contextlib.suppress(OSError):
            self._file.close()
            self._part.unlink(missing_ok=True)
            self._path.unlink(missing_ok=True)
