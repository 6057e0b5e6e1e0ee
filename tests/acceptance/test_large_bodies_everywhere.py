"""Bodies over the inline limit through the SDK, the CLI, containers, commands and callbacks, and across failures."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue

import pytest

from homing import AsyncClient, Client, FunctionError, RetryPolicy
from support.docker import FunctionImages
from support.processes import Cluster, Dev

LARGE = bytes(range(256)) * (3 * 4096)
ONCE = RetryPolicy(max_attempts=1)
SOON = RetryPolicy(max_attempts=2, initial_backoff=0.1)

# Reads all of its input first, so that what it fails on is the whole body.
FAILS_FIRST = 'body=$(wc -c); [ "$Http_X_Homing_Attempt" = 1 ] && exit 1; echo $body'


def digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


@contextmanager
def receiver() -> Iterator[tuple[str, Queue[tuple[str, str]]]]:
    """Yield the URL of a receiver of callbacks, and what it got: the id of the call and the digest of the body."""
    received: Queue[tuple[str, str]] = Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.put((self.headers["X-Call-Id"], digest(body)))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", received
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.timeout(180)
def test_clients_commands_callbacks_and_the_cli_move_them_unseen(cluster: Cluster, tmp_path: Path) -> None:
    cluster.start_server()
    cluster.start_worker()
    client = cluster.client(timeout=60)
    client.functions.deploy(name="echo", command=["cat"])
    client.functions.deploy(name="second", command=["sh", "-c", FAILS_FIRST], retry_policy=SOON)
    client.functions.deploy(name="broken", command=["sh", "-c", "cat; exit 1"], retry_policy=ONCE)
    client.functions.deploy(name="flood", command=["head", "-c", str(64 * 2**20 + 1), "/dev/zero"], retry_policy=ONCE)

    assert client.invoke("echo", LARGE).data == LARGE
    with receiver() as (url, received):
        call = client.invoke_async("echo", LARGE, callback_url=url)
        assert call.result(timeout=60).data == LARGE
        assert received.get(timeout=60) == (call.id, digest(LARGE))
    assert call.rerun().result(timeout=60).data == LARGE
    assert [result.data for result in client.map("echo", [LARGE, b"small"])] == [LARGE, b"small"]
    assert client.invoke("second", LARGE).text == f"{len(LARGE)}\n"
    with pytest.raises(FunctionError) as broken:
        client.invoke("broken", LARGE)
    assert broken.value.result is not None
    assert broken.value.result.data == LARGE
    with pytest.raises(FunctionError) as flood:
        client.invoke("flood")
    assert flood.value.failure is not None
    assert flood.value.failure.reason == "RESULT_TOO_LARGE"

    file = tmp_path / "large.bin"
    file.write_bytes(LARGE)
    invoked = subprocess.run(
        [sys.executable, "-c", "from homing_cli.main import main; main()", "invoke", "echo", "-d", f"@{file}"],
        capture_output=True,
        env=os.environ | {"HOMING_TARGET": cluster.target},
        timeout=90,
        check=True,
    )
    assert invoked.stdout == LARGE
    assert not list((Path(cluster.worker.environment["HOMING_DATA_DIR"]) / "spool").iterdir())


async def _both_ways(target: str) -> None:
    async with AsyncClient(target, timeout=60) as client:
        handles = await client.invoke_batch("echo", [LARGE, b"small"])
        assert [(await handle.result(60)).data for handle in handles] == [LARGE, b"small"]  # type: ignore[union-attr]
        assert (await client.invoke("echo", LARGE)).data == LARGE


def test_without_rabbitmq_too(tmp_path: Path) -> None:
    dev = Dev(tmp_path)
    dev.start()
    try:
        with Client(dev.target) as client:
            client.functions.deploy(name="echo", command=["cat"])
        asyncio.run(_both_ways(dev.target))
    finally:
        assert dev.terminate() == 0


@pytest.mark.timeout(180)
def test_a_container_gets_and_gives_them_at_every_attempt(
    docker_cluster: Cluster, function_images: FunctionImages
) -> None:
    docker_cluster.start_server()
    docker_cluster.start_worker()
    client = docker_cluster.client(timeout=60)
    client.functions.deploy(name="flaky", image=function_images.flaky, retry_policy=SOON)

    # It answers with what it was asked, at the attempt that fails too.
    answer = client.invoke("flaky", {"key": "k" * 2**20, "fail": 1}).json()

    assert (answer["attempt"], len(answer["order"]["key"])) == (2, 2**20)


@pytest.mark.timeout(180)
def test_a_result_waits_for_a_server_that_is_away(cluster: Cluster, tmp_path: Path) -> None:
    cluster.start_server()
    cluster.start_worker()
    go, ready = tmp_path / "go", tmp_path / "ready"
    wait = f"touch {ready}; while [ ! -e {go} ]; do sleep 0.05; done; head -c 1000000 /dev/zero; touch {ready}.2"
    with Client(cluster.target, timeout=60) as client:
        client.functions.deploy(name="late", command=["sh", "-c", wait])
        call = client.invoke_async("late")
        deadline = threading.Event()
        while not ready.exists():
            deadline.wait(0.02)
        cluster.server.kill()
        go.touch()
        while not ready.with_suffix(".2").exists():
            deadline.wait(0.02)
        cluster.server.start()

        assert len(call.result(timeout=60).data) == 1_000_000
        assert len(call.describe().attempts) == 1
