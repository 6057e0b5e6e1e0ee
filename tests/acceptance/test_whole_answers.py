"""Functions that others' outcomes go to get the whole of an answer, however large it is."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest

import homing
from homing import Client, Invocation
from support.processes import Cluster, Dev
from support.rabbitmq import RabbitNode

PATIENCE = 60.0
BINARY = bytes(range(256)) * 4096
READS = (
    "import base64, hashlib, json, sys\n"
    "read = json.load(sys.stdin)\n"
    "body, info = read['responsePayload'], read['responsePayloadInfo']\n"
    "readers = {'base64': base64.b64decode, 'text': str.encode, 'json': lambda value: json.dumps(value).encode()}\n"
    "data = readers[info['encoding']](body)\n"
    "digest = hashlib.sha256(data).hexdigest()\n"
    "asked = read['requestPayloadInfo']\n"
    "json.dump({'digest': digest, 'info': info, 'asked': asked}, sys.stdout)\n"
)
"""Says what it was told of an answer, and the digest of it."""


@pytest.fixture(scope="module", params=["dev", "rabbitmq"])
def client(
    request: pytest.FixtureRequest, rabbit_node: RabbitNode, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("answers")
    if request.param == "dev":
        dev = Dev(folder)
        dev.start()
        with Client(dev.target, timeout=PATIENCE) as made:
            yield made
        dev.terminate()
        return
    url = rabbit_node.new_vhost()
    with Cluster(url, folder) as cluster:
        cluster.start_server()
        for _ in range(2):
            cluster.start_worker()
        yield cluster.client(timeout=PATIENCE)
    rabbit_node.leave_vhost(url)


def passed_on(client: Client, call: homing.InvocationHandle[Any]) -> Invocation:
    """Return the invocation that an outcome became, once it has ended."""
    call.wait()
    with client.watch_results() as results:
        (delivery,) = call.describe().deliveries
        while delivery.caused is None:
            next(results)
            (delivery,) = call.describe().deliveries
    return client.handle(delivery.caused).wait()


@pytest.mark.parametrize(
    ("data", "content_type", "encoding"),
    [
        (b"x" * 70_000, "text/plain", "text"),
        (json.dumps(["x" * 100_000]).encode(), "application/json", "json"),
        (BINARY[:200_000], "image/png", "base64"),  # its envelope is too large for a message
        (BINARY, "image/png", "base64"),
        (b"x" * 300_000, "text/plain", "base64"),
    ],
    ids=["text", "json", "small image", "large image", "large text"],
)
def test_a_function_is_told_the_whole_answer(client: Client, data: bytes, content_type: str, encoding: str) -> None:
    client.functions.deploy(name="cat", command=["cat"])
    client.functions.deploy(name="reads", command=[sys.executable, "-c", READS])
    call = client.invoke_async("cat", data, content_type=content_type, on_success="function:reads")
    end = passed_on(client, call)
    assert end.result is not None
    told = json.loads(end.result.data)
    assert told["digest"] == hashlib.sha256(data).hexdigest()
    assert told["info"]["size"] == len(data)
    assert told["info"]["truncated"] is False
    assert told["asked"]["truncated"] is True
    assert end.depth == 1
    assert (end.caused_by, told["info"]["encoding"]) == (call.id, encoding)


@pytest.mark.timeout(180)
def test_a_chain_of_containers_passes_an_image_on(docker_cluster: Cluster, odd_image: str) -> None:
    docker_cluster.start_server()
    docker_cluster.start_worker()
    client = docker_cluster.client(timeout=PATIENCE)
    for name in ("first", "second"):
        client.functions.deploy(name=name, image=odd_image)
    call = client.invoke_async("first", BINARY, on_success="function:second")
    end = passed_on(client, call)
    envelope = homing.parse_envelope(client.handle(end.id).result().data)
    assert envelope.response.value == BINARY
    assert envelope.response.truncated is False
