"""How much processor time groups of processes use."""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping, Sequence
from pathlib import Path

_TICK = 1 / os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


class CpuMeter:
    """Reads the processor time of processes with all their descendants, by the roles that they play."""

    def __init__(self, roles: Mapping[str, Sequence[int]]) -> None:
        """Begin to measure.

        :param roles: The process ids by role. The role `load` is added: it is what runs and ends in between.
        """
        self._roles = roles
        self._before = self._read()

    def per_operation(self, operations: int) -> dict[str, float]:
        """Return the microseconds of processor time that each role used for one of so many operations."""
        after = self._read()
        return {role: max(0.0, after[role] - self._before[role]) * 1e6 / operations for role in after}

    def _read(self) -> dict[str, float]:
        parents = _parents()
        seconds = {
            role: sum(_seconds(pid) for pid in _with_descendants(pids, parents)) for role, pids in self._roles.items()
        }
        own = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return seconds | {"load": sum(usage.ru_utime + usage.ru_stime for usage in own)}


def _stat(pid: int) -> list[str]:
    """Return the fields of a process from its state on; none where it is gone."""
    try:
        text = (_PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    # The name before may hold spaces and parentheses.
    return text.rpartition(")")[2].split()


def _seconds(pid: int) -> float:
    fields = _stat(pid)
    # utime, stime, and those of children that have ended.
    return sum(int(field) for field in fields[11:15]) * _TICK


def _parents() -> dict[int, int]:
    parents = {}
    for entry in _PROC.iterdir():
        if entry.name.isdecimal() and (fields := _stat(int(entry.name))):
            parents[int(entry.name)] = int(fields[1])
    return parents


def _with_descendants(pids: Sequence[int], parents: Mapping[int, int]) -> set[int]:
    found = set(pids)
    while more := {pid for pid, parent in parents.items() if parent in found and pid not in found}:
        found |= more
    return found
