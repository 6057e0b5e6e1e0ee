"""Lays out secrets as files for an instance, in memory where the system has a place for that, and takes them away."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import structlog

from homing_core.private import make_parents

_log = structlog.get_logger(__name__)

_MEMORY: Final = Path("/dev/shm")  # noqa: S108 what is made here is checked to be this user's own
_PREFIX: Final = "worker-"
_CONTAINERS: Final = "containers"
"""The folder of what users of containers may read: none but this process's own user can enter it."""


class SecretFiles:
    """Folders with secrets, in a folder of this worker that nobody but its user can enter.

    The worker holds a lock on that folder, which the system frees when it dies, however it dies: so the next worker of
    the same data folder knows what was left behind.
    """

    def __init__(self, data_dir: Path, *, memory: Path = _MEMORY) -> None:
        """Choose the place.

        :param data_dir: The worker's folder for data; others of this host may share it.
        :param memory: A folder in memory; where it cannot be written the data folder is used.
        """
        data_dir = data_dir.resolve()
        # What was in memory before this start may be on disk after it, or the other way round.
        digest = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
        self._in_memory = memory / f"homing-{os.getuid()}-{digest}"
        self._on_disk = data_dir / "secrets"
        self._base = self._in_memory if os.access(memory, os.W_OK | os.X_OK) else self._on_disk
        self._own: Path | None = None
        self._lock: int | None = None

    def sweep(self) -> None:
        """Remove what workers left behind that died."""
        for base in (self._in_memory, self._on_disk):
            try:
                if not _is_private(base):
                    continue
            except FileNotFoundError:
                continue
            for folder in base.glob(f"{_PREFIX}*"):
                lock = _lock(folder)
                if lock is not None:
                    _log.info("orphaned_secret_files_found", folder=str(folder))
                    shutil.rmtree(folder, ignore_errors=True)
                    os.close(lock)
            _remove_empty(base)

    def lay_out(self, secrets: Mapping[str, bytes], *, for_all: bool = False, owner: int | None = None) -> Path:
        """Write each secret to a file of its name, in a new folder; return the folder.

        :param for_all: Whether other users may read them who are shown the folder, as users of a container are; they
            cannot come to it from outside.
        :param owner: The UID of the only other user that may read them; None for this process's own.
        :raises OSError: They cannot be written.
        """
        if owner is not None and self._base == self._on_disk:
            # The folder for data is for the worker's user alone.
            raise PermissionError(errno.EACCES, "users of HOMING_COMMAND_USERS need a place in memory, /dev/shm")
        parent = self._open()
        if for_all:
            parent = parent / _CONTAINERS
            parent.mkdir(mode=0o700, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix="", dir=parent))
        try:
            for name, value in secrets.items():
                file = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                with os.fdopen(file, "wb") as stream:
                    stream.write(value)
                    if for_all:
                        os.fchmod(stream.fileno(), 0o444)
                    if owner is not None:
                        os.fchown(stream.fileno(), owner, -1)
            if for_all:
                folder.chmod(0o755)
            if owner is not None:
                os.chown(folder, owner, -1)
                for above in (folder.parent, self._base):
                    above.chmod(0o711)
        except BaseException:
            self.remove(folder)
            raise
        return folder

    @staticmethod
    def remove(folder: Path) -> None:
        """Remove a folder that was laid out, unless it is gone."""
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:
            pass
        except OSError as error:
            _log.warning("secret_files_not_removed", folder=str(folder), error=str(error))

    def close(self) -> None:
        """Remove all that is left of this worker."""
        if self._own is not None and self._lock is not None:
            self.remove(self._own)
            os.close(self._lock)
            self._own = self._lock = None
            _remove_empty(self._base)

    def _open(self) -> Path:
        """Return the folder of this worker, made when it is first needed."""
        while self._own is None:
            try:
                make_parents(self._base)
                self._base.mkdir(mode=0o700, exist_ok=True)
                if not _is_private(self._base):
                    raise PermissionError(f"{self._base} is not a folder of this user alone")
                made = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=self._base))
            except FileNotFoundError:
                continue  # another worker has just removed the folder, as it was empty
            # Another worker may take it for one that was left behind, before it is locked; then another one is made.
            self._lock = _lock(made)
            if self._lock is not None:
                self._own = made
        return self._own


def _lock(folder: Path) -> int | None:
    """Lock a folder; None where it is locked, or gone."""
    try:
        file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(file), folder.stat()):
            return file
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(file)
    return None


def _is_private(folder: Path) -> bool:
    """Return whether nobody but this user can list a folder or change it: in /dev/shm anybody may make one.

    :raises FileNotFoundError: It is gone.
    """
    found = folder.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not stat.S_IMODE(found.st_mode) & 0o066


def _remove_empty(folder: Path) -> None:
    """Remove a folder that no worker uses."""
    with contextlib.suppress(OSError):
        folder.rmdir()
