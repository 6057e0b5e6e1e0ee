"""What homing keeps is inside its data folder, whatever that is called, and for its user alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from homing import Client
from support.processes import Cluster, Dev

PATIENCE = 60.0
ODD = "data? 100%25 #1&x=y"
LARGE = b"x" * 300_000


@pytest.fixture(autouse=True)
def open_umask() -> Iterator[None]:
    """Let what the processes make be open to all, unless they say otherwise."""
    before = os.umask(0)
    yield
    os.umask(before)


def use(client: Client) -> None:
    client.functions.deploy(name="cat", command=["cat"])
    assert client.invoke_async("cat", LARGE).result(timeout=PATIENCE).data == LARGE


def check_private(folder: Path) -> None:
    """Check the modes of all that was made in a folder, and of the folder."""
    for path in (folder, *folder.rglob("*")):
        expected = 0o700 if path.is_dir() else 0o600
        assert path.stat().st_mode & 0o777 == expected, path


def test_homing_dev_keeps_everything_in_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / ODD
    dev = Dev(folder)
    dev.start()
    try:
        with Client(dev.target) as client:
            use(client)
        check_private(folder)
    finally:
        dev.terminate()
    assert (folder / "homing.db").stat().st_size > 0
    assert [path.name for path in tmp_path.iterdir()] == [ODD]
    assert (folder / "blobs").is_dir()
    assert (folder / "spool").is_dir()


def test_servers_and_workers_keep_everything_in_their_folders(cluster: Cluster, tmp_path: Path) -> None:
    server, worker = tmp_path / f"server {ODD}", tmp_path / f"worker {ODD}"
    cluster.start_server(HOMING_DATA_DIR=str(server), HOMING_STORE_URL="")
    cluster.start_worker(HOMING_DATA_DIR=str(worker))
    cluster.start_worker(HOMING_DATA_DIR=str(worker))
    use(cluster.client())
    assert {path.name for path in server.iterdir()} >= {"homing.db", "homing.db-wal", "blobs"}
    assert {path.name for path in tmp_path.iterdir()} == {server.name, worker.name}
    check_private(server)
    check_private(worker)
