"""Free ports for programs that are to listen, and whether it is they who do."""

from __future__ import annotations

import random
import socket
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

_PORTS: Final = range(20_000, 32_768)
"""Below those that systems give to connections, which could take one between its choice and its use."""
_TABLES: Final = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_LISTENING: Final = "0A"


def free_port() -> int:
    """Return a port on which nobody listens now.

    :raises OSError: There is none.
    """
    for port in random.sample(_PORTS, 100):
        with socket.socket() as taken:
            try:
                taken.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no port of 127.0.0.1 is free for it")


def listens(session: int, port: int) -> bool:
    """Return whether a process of a session is among those that listen on a port; true where that cannot be told."""
    if sys.platform != "linux":
        return True
    sockets = {f"socket:[{inode}]" for inode in _listeners(port)}
    try:
        return any(not sockets.isdisjoint(_open_files(pid)) for pid in _members(session))
    except PermissionError:
        return True  # of another user, and this process may not look into it


def _listeners(port: int) -> list[str]:
    """Return the inodes of the sockets that listen on a port."""
    found = []
    for table in _TABLES:
        try:
            rows = table.read_text().splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            fields = row.split()
            if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                found.append(fields[9])
    return found


def _members(session: int) -> Iterator[int]:
    """Yield the processes of a session, its leader first."""
    yield session
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != session:
            with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
                stat = (entry / "stat").read_text(errors="replace")
                if int(stat.rpartition(")")[2].split()[3]) == session:
                    yield int(entry.name)


def _open_files(pid: int) -> Iterator[str]:
    """Yield what the descriptors of a process are."""
    with suppress(FileNotFoundError, ProcessLookupError):
        for file in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                yield str(file.readlink())
