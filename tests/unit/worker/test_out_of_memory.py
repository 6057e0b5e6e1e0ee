"""How often the system had to kill for want of memory, by either kind of cgroups."""

from __future__ import annotations

from pathlib import Path

import pytest

from homing_worker.runtime.out_of_memory import OutOfMemoryKills


@pytest.mark.parametrize(
    ("cgroup", "file"),
    [
        ("0::/homing/worker", "homing/worker/memory.events"),
        ("0::/../host/path", "memory.events"),
        ("4:cpu,memory:/docker/abc\n0::/", "memory/docker/abc/memory.oom_control"),
        ("4:memory:/docker/abc\n0::/", "memory/memory.oom_control"),
    ],
)
def test_the_count_is_that_of_the_own_cgroup(tmp_path: Path, cgroup: str, file: str) -> None:
    counted = tmp_path / "mounted" / file
    counted.parent.mkdir(parents=True)
    (tmp_path / "cgroup").write_text(f"9:name=systemd:/\n{cgroup}\n")
    counted.write_text("low 0\noom 7\noom_kill 2\noom_group_kill 0\n")
    kills = OutOfMemoryKills(cgroups=tmp_path / "cgroup", mounted=tmp_path / "mounted")

    assert kills.count() == 2
    counted.write_text("oom_kill 3\n")
    assert kills.count() == 3
    counted.unlink()
    assert kills.count() == 0


def test_where_nothing_counts_there_are_none(tmp_path: Path) -> None:
    assert OutOfMemoryKills(cgroups=tmp_path / "none", mounted=tmp_path).count() == 0
    (tmp_path / "cgroup").write_text("0::/\n")
    assert OutOfMemoryKills(cgroups=tmp_path / "cgroup", mounted=tmp_path).count() == 0
