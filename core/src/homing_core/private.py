"""Files and folders that only the user of this process may read."""

from __future__ import annotations

import errno
import os
from pathlib import Path


class DataDirError(OSError):
    """The folder that a setting names cannot be used."""


def make_data_dir(folder: Path) -> None:
    """Make the folder of the setting ``data_dir`` where it is missing; one that is there is left as it is.

    :raises DataDirError: It cannot be made, or is no folder. It names the setting.
    """
    try:
        make_parents(folder / "within")
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    except OSError as error:
        raise DataDirError(f"data_dir: cannot use {folder}: {error.strerror}") from None


def make_private_folder(folder: Path) -> None:
    """Make a folder, and those above it that are missing, for this user alone; one that is there is closed to others.

    :raises OSError: It cannot be made.
    """
    make_parents(folder)
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_mode & 0o077:
        folder.chmod(0o700)


def make_private_file(path: Path) -> None:
    """Make an empty file for this user alone; one that is there stays, closed to others.

    Its folder is made as `make_private_folder` does, but one that is there is left as it is: it may hold other things.

    :raises OSError: It cannot be made.
    """
    make_parents(path)
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(file).st_mode & 0o077:
            os.fchmod(file, 0o600)
    finally:
        os.close(file)


def make_parents(path: Path) -> None:
    """Make the folders that are missing above a path, for this user alone.

    :raises OSError: One cannot be made.
    """
    for folder in [each for each in reversed(path.parents) if not each.exists()]:
        folder.mkdir(mode=0o700, exist_ok=True)
