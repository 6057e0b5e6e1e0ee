"""The demo shows what it says and leaves nothing."""

import os
import re
import subprocess
import sys

import pytest

from support.docker import ROOT, docker


@pytest.mark.timeout(240)
def test_the_demo_holds_and_leaves_nothing(base_image: str) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "demo.py"],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env=os.environ | {"HOMING_BASE_IMAGE": base_image},
        check=False,
    )

    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert len(re.findall(r"[0-9a-f-]{36}  SUCCEEDED  status 200", done.stdout)) == 10
    assert "x-function-status: 200" in done.stdout.lower()
    assert "Everything held" in done.stdout
    (tag,) = set(re.findall(r"homing-demo-[a-z-]+:([0-9a-f]{8})", done.stdout))
    assert docker("ps", "--all", "--quiet", f"--filter=label=homing.demo={tag}") == ""
    assert docker("images", "--quiet", f"--filter=label=homing.demo={tag}") == ""
