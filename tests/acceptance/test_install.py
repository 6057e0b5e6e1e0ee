"""What an application gets when it installs the SDK."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.docker import ROOT

LIGHT = {"typing-extensions"}
"""Small ones that the dependencies bring themselves."""


@pytest.mark.timeout(300)
def test_the_sdk_brings_grpcio_protobuf_and_tenacity_and_nothing_else(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "empty"], check=True)
    python = tmp_path / "empty" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", ROOT / "sdk"], check=True)

    listed = subprocess.run([python, "-m", "pip", "list", "--format=json"], check=True, capture_output=True)
    names = {item["name"].lower().replace("_", "-") for item in json.loads(listed.stdout)}

    assert names - {"pip", "setuptools"} - LIGHT == {"homing", "grpcio", "protobuf", "tenacity"}
    subprocess.run([python, "-W", "error", "-c", "import homing; homing.Client('localhost:1').close()"], check=True)
