"""Which worker of a data folder lives: each holds a lock that the system frees when it dies, however it dies."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from homing_core.private import make_private_folder


class OwnerLock:
    """A lock named after a worker, in a data folder that workers of this host may share."""

    def __init__(self, data_dir: Path, name: str) -> None:
        self._path = _path(data_dir, name)
        self._file: int | None = None

    def take(self) -> None:
        """Take the lock of this worker.

        :raises OSError: The data folder cannot be written, or another process has the lock.
        """
        make_private_folder(self._path.parent)
        while self._file is None:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(file, self._path):
                self._file = file
            else:
                # Another worker took it for an orphan's and removed it before it was locked.
                os.close(file)

    def release(self) -> None:
        """Free the lock."""
        if self._file is not None:
            self._path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = None


def is_orphaned(data_dir: Path, name: str) -> bool:
    """Return whether no worker of this name lives."""
    path = _path(data_dir, name)
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        path.unlink(missing_ok=True)
        return True
    finally:
        os.close(file)


def _path(data_dir: Path, name: str) -> Path:
    return data_dir / "workers" / f"{name.replace('/', '_')}.lock"


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False
