"""Secrets through the whole of it: functions read them, nobody else does."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pika
import pytest
from standardwebhooks import Webhook, WebhookVerificationError

import homing
from homing import Client
from homing_core.signing import read_key
from support.docker import docker
from support.processes import Cluster, Dev, HomingProcess, ProcessError
from support.rabbitmq import RabbitNode, vhost_of
from support.receiver import receiver

PATIENCE = 60.0
OLD, NEW = "correct horse battery", "staple of the horse"
READ = [
    "sh",
    "-c",
    'cd "$HOMING_SECRETS_DIR"; sha256sum <password | cut -c1-64; echo "$HOMING_SECRETS_DIR"; stat -c %a password',
]
"""A command that answers with a digest of its secret: whoever sees the secret itself has it from elsewhere."""


def until(true: Callable[[], bool], what: str) -> None:
    """Wait until something is so."""
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def digest(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()


class Tap:
    """A copy of every message that goes through a virtual host."""

    def __init__(self, url: str) -> None:
        self.bodies: list[bytes] = []
        self._connection = pika.BlockingConnection(pika.URLParameters(url))
        channel = self._connection.channel()
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(queue, "amq.rabbitmq.trace", "#")
        channel.basic_consume(queue, lambda *message: self.bodies.append(message[3]), auto_ack=True)
        self._thread = threading.Thread(target=channel.start_consuming)
        self._thread.start()

    def close(self) -> None:
        """Take no more."""
        self._connection.add_callback_threadsafe(self._connection.close)
        self._thread.join(PATIENCE)


@contextmanager
def tapped(node: RabbitNode, url: str) -> Iterator[list[bytes]]:
    """Yield the bodies of all messages that come by until the end of the block."""
    node.ctl("trace_on", "-p", vhost_of(url))
    tap = Tap(url)
    try:
        yield tap.bodies
    finally:
        tap.close()
        node.ctl("trace_off", "-p", vhost_of(url))


def leaks(process: HomingProcess, *values: str) -> list[str]:
    """Return the log lines of a process in which one of these values is."""
    return [line for line in map(json.dumps, process.lines) if any(value in line for value in values)]


def test_a_command_reads_its_secrets_and_nobody_else_does(
    rabbit_node: RabbitNode, broker_url: str, tmp_path: Path
) -> None:
    with tapped(rabbit_node, broker_url) as messages, Cluster(broker_url, tmp_path, log_level="debug") as cluster:
        cluster.start_server()
        cluster.start_server()
        cluster.start_worker()
        client = cluster.client()
        client.secrets.create("password", OLD)
        client.functions.deploy(name="show", command=READ, secrets=["password"])

        value, folder, mode = client.invoke("show", timeout=PATIENCE).text.splitlines()

        assert (value, mode) == (digest(OLD), "600")
        assert not Path(folder).exists(), "it goes with the call"
        revision = client.functions.get("show").revision
        client.secrets.update("password", NEW)
        until(lambda: client.invoke("show", timeout=PATIENCE).text.startswith(digest(NEW)), "it does not come")
        assert client.functions.get("show").revision == revision
        call = client.invoke_async("show")
        assert call.result(timeout=PATIENCE).text.startswith(digest(NEW))
        rotated = client.signing_keys.rotate()
        with pytest.raises(homing.FailedPreconditionError, match="is seen by show"):
            client.secrets.delete("password")
        listed = [
            *(secret.message for secret in client.secrets.list()),
            client.functions.get("show").message,
            *(key.message for key in client.signing_keys.list()),
        ]
        processes = [*cluster.servers, *cluster.workers]

    key = read_key(rotated.key)
    assert any(b"password" in body for body in messages), "the tap saw the function"
    assert not any(value in body for body in messages for value in (OLD.encode(), NEW.encode(), key))
    assert not any(value in str(message) for message in listed for value in (OLD, NEW, rotated.key))
    for process in processes:
        assert leaks(process, OLD, NEW, rotated.key) == []


def test_values_are_nowhere_on_disk(cluster: Cluster) -> None:
    cluster.start_server()
    cluster.start_worker()
    client = cluster.client()
    client.secrets.create("password", OLD)
    made = client.signing_keys.rotate()
    client.functions.deploy(
        name="length", command=["sh", "-c", 'wc -c <"$HOMING_SECRETS_DIR/password"'], secrets=["password"]
    )
    assert client.invoke("length", timeout=PATIENCE).text.strip() == str(len(OLD))
    client.secrets.update("password", NEW)

    cluster.close()

    files = [path for path in cluster.folder.rglob("*") if path.is_file()]
    assert cluster.folder / "homing.sqlite3" in files
    for file in files:
        content = file.read_bytes()
        assert not any(value in content for value in (OLD.encode(), NEW.encode(), read_key(made.key))), file


def test_a_worker_that_missed_an_update_hears_of_it(cluster: Cluster) -> None:
    """The word of the change is lost with the worker's connection; the snapshot has it."""
    cluster.start_server()
    worker = cluster.start_worker()
    client = cluster.client()
    client.secrets.create("password", OLD)
    client.functions.deploy(name="show", command=READ, secrets=["password"])
    assert client.invoke("show", timeout=PATIENCE).text.startswith(digest(OLD))
    worker.suspend()
    try:
        client.secrets.update("password", NEW)
        cluster.server.kill()
    finally:
        worker.resume()
    cluster.server.restart()
    client = cluster.client()

    until(lambda: client.invoke("show", timeout=PATIENCE).text.startswith(digest(NEW)), "it does not come")


def test_a_killed_worker_leaves_no_secret_after_the_next_start(cluster: Cluster, tmp_path: Path) -> None:
    cluster.start_server()
    worker = cluster.start_worker()
    client = cluster.client()
    client.secrets.create("password", OLD)
    said = tmp_path / "said"
    script = f'echo "$$ $HOMING_SECRETS_DIR" >{said}.new; mv {said}.new {said}; exec sleep 3600'
    client.functions.deploy(name="hang", command=["sh", "-c", script], secrets=["password"], attempt_timeout=2)
    call = client.invoke_async("hang", retry_policy=homing.RetryPolicy(max_attempts=1))
    until(said.exists, "it does not start")
    process, _, path = said.read_text().strip().partition(" ")
    folder = Path(path)
    assert (folder / "password").read_text() == OLD

    worker.kill()
    # It would outlive its worker, and the test.
    os.kill(int(process), signal.SIGKILL)
    assert (folder / "password").exists()
    call.stop()
    worker.restart()

    assert not folder.parent.exists()


@pytest.mark.timeout(180)
def test_a_container_reads_its_secrets_and_nobody_else_does(
    rabbit_node: RabbitNode, broker_url: str, tmp_path: Path, odd_image: str
) -> None:
    with Cluster(broker_url, tmp_path, runtime="docker", log_level="debug") as cluster:
        cluster.start_server()
        worker = cluster.start_worker()
        client = cluster.client()
        client.secrets.create("password", OLD)
        client.secrets.create("tls.key", b"key")
        client.functions.deploy(name="odd", image=odd_image, secrets=["password", "tls.key"])
        seen = client.invoke("odd", path="/secrets", timeout=PATIENCE).json()

        (first,) = instances(worker.worker)
        assert seen == {"password": [digest(OLD), "0o444"], "tls.key": [digest("key"), "0o444"]}
        assert OLD not in docker("inspect", first)
        assert OLD not in docker("inspect", odd_image) + docker("history", "--no-trunc", odd_image)
        assert OLD not in client.invoke("odd", path="/echo", timeout=PATIENCE).text, "its environment is not the place"
        with pytest.raises(homing.FunctionError, match="status 403"):
            client.invoke("odd", path="/write/var/openfaas/secrets/password", timeout=PATIENCE)
        (folder,) = [mount["Source"] for mount in json.loads(docker("inspect", first))[0]["Mounts"]]

        client.secrets.update("password", NEW)
        until(
            lambda: client.invoke("odd", path="/secrets", timeout=PATIENCE).json()["password"][0] == digest(NEW),
            "it does not come",
        )
        until(lambda: first not in instances(worker.worker), "the instance with the old one stays")
        assert not Path(folder).exists()

        (left,) = instances(worker.worker)
        (folder,) = [mount["Source"] for mount in json.loads(docker("inspect", left))[0]["Mounts"]]
        worker.kill()
        assert (Path(folder) / "password").read_text() == NEW
        worker.restart()
        assert not Path(folder).exists()
        assert left not in docker("ps", "--all", "--quiet", "--no-trunc").split()
        assert leaks(worker, OLD, NEW) == []


def instances(worker: str) -> list[str]:
    return docker("ps", "--all", "--quiet", "--no-trunc", f"--filter=label=dev.homing.owner={worker}").split()


def test_homing_dev_keeps_secrets_over_a_restart(tmp_path: Path) -> None:
    dev = Dev(tmp_path)
    dev.start()
    try:
        with Client(dev.target) as client:
            client.secrets.create("password", OLD)
            client.functions.deploy(name="show", command=READ, secrets=["password"])
            assert client.invoke("show", timeout=PATIENCE).text.startswith(digest(OLD))
            (key,) = client.signing_keys.list()
        dev.restart()
        with Client(dev.target) as client:
            assert client.invoke("show", timeout=PATIENCE).text.startswith(digest(OLD))
            assert [other.id for other in client.signing_keys.list()] == [key.id]
        dev.terminate()

        (tmp_path / "secret.key").unlink()
        with pytest.raises(ProcessError, match="encrypted with a key that is not here: set HOMING_SECRET_KEY"):
            dev.start()
    finally:
        if dev.running:
            dev.terminate()


def test_callbacks_are_signed_with_the_keys_that_are_active(cluster: Cluster) -> None:
    cluster.start_server()
    cluster.start_worker()
    client = cluster.client()
    client.functions.deploy(name="say", command=["echo", "{}"])
    with receiver(statuses=[200]) as (url, received):

        def signers(*keys: homing.NewSigningKey) -> list[bool]:
            """Have a callback made; tell of each key whether it is signed with it, and whether with one more."""
            client.invoke_async("say", callback_url=f"{url}/hook")
            _, headers, body = received.get(timeout=PATIENCE)
            given = {name: headers[name] for name in ("webhook-id", "webhook-timestamp", "webhook-signature")}
            verified = [_verifies(key.key, body, given) for key in keys]
            return [*verified, sum(verified) < len(given["webhook-signature"].split())]

        assert signers() == [True], "the server has made a key by itself"
        first = client.signing_keys.rotate()
        assert signers(first) == [True, True]
        second, third = client.signing_keys.rotate(), client.signing_keys.rotate()
        assert signers(third, second, first) == [True, True, False, False]
        client.signing_keys.revoke(second.signing_key.id)
        assert signers(third, second) == [True, False, False]
        own = client.signing_keys.rotate(function="say")
        assert signers(own, third) == [True, False, False]
        client.signing_keys.revoke(own.signing_key.id)
        assert signers(third, own) == [True, False, False]


def _verifies(key: str, body: bytes, headers: dict[str, str]) -> bool:
    try:
        Webhook(key).verify(body, headers)
    except WebhookVerificationError:
        return False
    return True
