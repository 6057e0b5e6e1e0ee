"""The version before this one, to be run beside it."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

from support.docker import ROOT
from support.processes import HomingProcess

EARLIER = "757d2819161707bdb20da262c88cfeb58de99bf3"
"""The last commit before the messages between servers and workers got their present form."""

_SOURCES = ("sdk/src", "core/src", "server/src", "worker/src")


def unpack(folder: Path) -> Path:
    """Put the earlier version into a folder, and return that."""
    try:
        archive = subprocess.run(["git", "archive", EARLIER, *_SOURCES], cwd=ROOT, capture_output=True, check=True)
    except subprocess.CalledProcessError as error:
        told = error.stderr.decode(errors="replace").strip()
        raise AssertionError(f"this test needs the history of the repository, a clone with depth: {told}") from error
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(folder, filter="data")
    return folder


def run_earlier(process: HomingProcess, folder: Path) -> None:
    """Let a process be of the earlier version from its next start on."""
    process.environment["PYTHONPATH"] = os.pathsep.join(str(folder / source) for source in _SOURCES)


def run_present(process: HomingProcess) -> None:
    """Let a process be of the present version from its next start on."""
    process.environment.pop("PYTHONPATH", None)
