"""A program that never ends, and starts another one that does not either; what runs of them."""

from __future__ import annotations

import sys
from pathlib import Path


def sleeper(marker: Path) -> list[str]:
    """Return the program, which writes its process and its child's to a file once both run."""
    code = (
        "import os, subprocess, time\n"
        "child = subprocess.Popen(['sleep', '3600'])\n"
        f"open({str(marker)!r} + '.new', 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
        f"os.rename({str(marker)!r} + '.new', {str(marker)!r})\n"
        "time.sleep(3600)\n"
    )
    return [sys.executable, "-c", code]


def sleepers(marker: Path) -> list[int]:
    """Return the processes that it wrote."""
    return [int(pid) for pid in marker.read_text(encoding="utf-8").split()]


def runs(pid: int) -> bool:
    """Tell whether a process is there, and no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False  # it ended before it was looked up, or while its line was read
    return state != "Z"
