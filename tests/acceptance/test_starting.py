"""How programs start, and what they say in one line where they cannot."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.processes import Cluster, fork_server

PATIENCE = 60
COMMANDS = {
    "homing-server": ["homing_server.app"],
    "homing-worker": ["homing_worker.app"],
    "homing dev": ["homing_cli.main", "dev"],
}
"""The module of each program, and its first argument."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """What came of a program."""

    returncode: int
    stderr: str


def run(program: str, *arguments: str, folder: Path, **environment: str) -> Ended:
    """Run a program that cannot start, or does something else."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HOMING_")}
    module, *first = COMMANDS[program]
    settings = clean | {"HOMING_DATA_DIR": str(folder)} | environment
    process = fork_server().fork(module, [*first, *arguments], settings)
    with process.stderr:
        stderr = process.stderr.read()
    return Ended(returncode=process.wait(PATIENCE), stderr=stderr)


@pytest.fixture
def taken() -> Iterator[str]:
    """An address that is in use."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


FREE = {"HOMING_GRPC_LISTEN": "127.0.0.1:0", "HOMING_HTTP_LISTEN": "127.0.0.1:0", "HOMING_RUNTIME": "process"}


@pytest.mark.parametrize(
    ("program", "setting"),
    [
        ("homing-server", "grpc_listen"),
        ("homing-server", "http_listen"),
        ("homing-worker", "metrics_listen"),
        ("homing-worker", "progress_listen"),
        ("homing dev", "grpc_listen"),
        ("homing dev", "http_listen"),
        ("homing dev", "metrics_listen"),
    ],
)
def test_an_address_in_use_is_told_with_its_setting(
    tmp_path: Path, broker_url: str, taken: str, program: str, setting: str
) -> None:
    done = run(program, folder=tmp_path, **FREE | {"HOMING_BROKER_URL": broker_url, f"HOMING_{setting.upper()}": taken})

    told = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert done.returncode != 0
    assert told == [f"{program.partition(' ')[0]}: {setting}: cannot listen on {taken}: Address already in use"]


@pytest.mark.parametrize("program", COMMANDS)
def test_a_folder_that_cannot_be_used_is_told_with_its_setting(tmp_path: Path, program: str) -> None:
    (tmp_path / "file").touch()

    for folder, why in ((tmp_path / "file", "Not a directory"), (tmp_path / "file" / "below", "Not a directory")):
        done = run(program, folder=folder, **FREE)

        assert done.returncode != 0
        assert done.stderr == f"{program.partition(' ')[0]}: data_dir: cannot use {folder}: {why}\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--grpc-listen", "57353"], "grpc_listen: must be HOST:PORT, as in 127.0.0.1:57353"),
        (["--http-listen", "localhost:99999"], "http_listen: must have a port from 0 to 65535, has 99999"),
    ],
)
@pytest.mark.parametrize("program", ["homing-server", "homing dev"])
def test_a_wrong_address_is_told(tmp_path: Path, program: str, arguments: list[str], told: str) -> None:
    done = run(program, *arguments, folder=tmp_path)

    assert done.returncode in {1, 2}
    assert done.stderr == f"{program.partition(' ')[0]}: {told}\n"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("tcp://127.0.0.1:1", "docker_url: must be unix://PATH or http://HOST:PORT, as in unix:///var/run/docker.sock"),
        (
            "unix:///nowhere/docker.sock",
            "docker_url: the Docker Engine at unix:///nowhere/docker.sock does not answer: ",
        ),
        ("http://127.0.0.1:1", "docker_url: the Docker Engine at http://127.0.0.1:1 does not answer: "),
    ],
)
@pytest.mark.parametrize("program", ["homing-worker", "homing dev"])
def test_a_wrong_engine_is_told(tmp_path: Path, broker_url: str, program: str, url: str, told: str) -> None:
    settings = FREE | {"HOMING_BROKER_URL": broker_url, "HOMING_RUNTIME": "docker", "HOMING_DOCKER_URL": url}
    done = run(program, folder=tmp_path, **settings)

    lines = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert done.returncode != 0
    assert len(lines) == 1, lines
    assert lines[0].startswith(f"{program.partition(' ')[0]}: {told}")


def test_a_misspelt_setting_is_told_by_all(tmp_path: Path, taken: str) -> None:
    for program, setting in (("homing-server", "grpc_listen"), ("homing dev", "grpc_listen")):
        done = run(program, folder=tmp_path, HOMING_GRPC_LISTN="x", **FREE | {f"HOMING_{setting.upper()}": taken})
        warning = done.stderr.splitlines()[0]
        assert warning.endswith("HOMING_GRPC_LISTN is no setting; is HOMING_GRPC_LISTEN meant?")


def test_children_are_spared_what_grpc_does_around_a_fork(cluster: Cluster) -> None:
    cluster.start_server()
    cluster.start_worker()
    client = cluster.client()
    client.functions.deploy(name="env", command=["env"])
    assert "GRPC_" not in client.invoke("env").text


@pytest.mark.parametrize("module", ["homing_cli.main", "homing_server.app", "homing_worker.app"])
def test_grpc_has_no_handlers_of_forks_in_our_processes(module: str) -> None:
    program = f"import {module}, os; print(os.environ['GRPC_ENABLE_FORK_SUPPORT'])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "0\n"


def test_the_sdk_leaves_the_environment_alone() -> None:
    program = "import os; before = dict(os.environ); import homing, homing.testing; print(before == dict(os.environ))"
    assert (
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "True\n"
    )


def test_dev_that_is_interrupted_at_its_start_ends_quietly(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from homing_cli.entry import main; main()", "dev"]
    settings = os.environ | FREE | {"HOMING_DATA_DIR": str(tmp_path)}
    with subprocess.Popen(command, env=settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"homing dev is ready")
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=PATIENCE)

    assert process.returncode == 0
    assert b"Traceback" not in stderr
