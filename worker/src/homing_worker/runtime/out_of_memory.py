"""Whether the system has killed commands since it had no memory left for them, as Linux counts it for their cgroup."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

_CGROUPS: Final = Path("/proc/self/cgroup")
_MOUNTED: Final = Path("/sys/fs/cgroup")
_COUNT: Final = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


class OutOfMemoryKills:
    """Counts the processes of this one's cgroup that were killed for want of memory."""

    def __init__(self, *, cgroups: Path = _CGROUPS, mounted: Path = _MOUNTED) -> None:
        """Find where the count is; where there is none it stays 0.

        :param cgroups: Tells the cgroups of this process.
        :param mounted: Where cgroups are mounted.
        """
        self._file = next((path for path in _candidates(cgroups, mounted) if path.is_file()), None)

    def count(self) -> int:
        """Return how many there were since the cgroup was made."""
        if self._file is None:
            return 0
        try:
            found = _COUNT.search(self._file.read_text())
        except OSError:
            return 0
        return int(found[1]) if found else 0


def _candidates(cgroups: Path, mounted: Path) -> list[Path]:
    try:
        lines = cgroups.read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        # In a container the path may be the host's, while what is mounted begins with its own cgroup.
        for below in (path.removeprefix("/"), ""):
            if "memory" in controllers.split(","):
                found.append(mounted / "memory" / below / "memory.oom_control")
            elif not controllers:
                found.append(mounted / below / "memory.events")
    return found
