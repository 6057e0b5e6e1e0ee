"""Functions as containers, through the whole of it: from zero to instances and back, callbacks, the CLI."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from homing import DeliveryState, InvocationState
from homing_core.signing import read_key
from support.confidential import confidential
from support.docker import FunctionImages, docker
from support.processes import Cluster
from support.receiver import receiver
from support.signatures import signature


def instances(function: str) -> list[str]:
    return docker("ps", "--quiet", "--no-trunc", f"--filter=label=dev.homing.function={function}").split()


@pytest.mark.timeout(180)
def test_an_image_that_only_answers_http_starts_from_zero_and_is_stopped_when_idle(
    docker_cluster: Cluster, function_images: FunctionImages
) -> None:
    docker_cluster.start_server()
    docker_cluster.start_worker()
    client = docker_cluster.client()
    name = f"plain-{function_images.run}"
    client.functions.deploy(name=name, image=function_images.plain, idle_timeout=1.0)
    assert instances(name) == []

    assert client.invoke(name, timeout=60).text == "plain\n"

    (instance,) = instances(name)
    docker("wait", instance)
    assert instances(name) == []
    assert client.invoke_async(name).result(timeout=60).text == "plain\n"


@pytest.mark.timeout(180)
def test_load_starts_instances_up_to_the_bound(docker_cluster: Cluster, function_images: FunctionImages) -> None:
    docker_cluster.start_server()
    docker_cluster.start_worker()
    client = docker_cluster.client()
    name = f"long-{function_images.run}"
    client.functions.deploy(name=name, image=function_images.long_task, max_instances=3)

    calls = [client.invoke_async(name) for _ in range(9)]
    for call in calls:
        call.result(timeout=120)

    seen = {attempt.instance for call in calls for attempt in call.describe().attempts}
    assert len(seen) == 3


@pytest.mark.timeout(180)
def test_a_result_arrives_at_its_callback(docker_cluster: Cluster, function_images: FunctionImages) -> None:
    docker_cluster.start_server()
    docker_cluster.start_worker()
    client = docker_cluster.client()
    client.functions.deploy(name="figlet", image=function_images.figlet)
    key = read_key(confidential(client.signing_keys.rotate().key))
    with receiver(statuses=[503, 200]) as (url, received):
        call = client.invoke_async("figlet", "Hi", callback_url=f"{url}/hook", callback_headers={"X-Mine": "yes"})
        art = call.result(timeout=60).text

        first, second = received.get(timeout=60), received.get(timeout=60)

    for _, told, said in (first, second):
        # Each attempt is signed by itself, with the key from now on and the one before.
        id_, timestamp = told["webhook-id"], int(told.pop("webhook-timestamp"))
        assert told.pop("webhook-signature").split()[0] == signature([key], id_=id_, timestamp=timestamp, body=said)
    assert first == second
    path, headers, body = second
    assert path == "/hook"
    assert body.decode() == art
    assert headers["x-call-id"] == call.id
    assert headers["x-function-name"] == "figlet"
    assert headers["x-function-status"] == "200"
    assert headers["x-mine"] == "yes"
    assert float(headers["x-duration-seconds"]) >= 0
    assert int(headers["x-start-time"]) > 0
    with client.watch_results() as results:
        # The delivery is recorded by events that are recorded in order: a later end comes after it.
        later = client.invoke_async("figlet", "later")
        assert next(event for event in results if event.invocation.id == later.id).invocation.state.ended
    (delivery,) = call.describe().deliveries
    assert delivery.state is DeliveryState.DELIVERED
    assert [attempt.status_code for attempt in delivery.attempts] == [503, 200]


@pytest.mark.timeout(180)
def test_the_same_from_the_command_line(docker_cluster: Cluster, function_images: FunctionImages) -> None:
    server = docker_cluster.start_server()
    docker_cluster.start_worker()

    def homing(*arguments: str, given: bytes = b"", code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-c", "from homing_cli.main import main; main()", *arguments],
            input=given,
            capture_output=True,
            env=os.environ | {"HOMING_TARGET": server.target},
            timeout=90,
            check=False,
        )
        assert done.returncode == code, done.stderr.decode()
        return done.stdout.decode()

    homing("deploy", "figlet", "--image", function_images.figlet)
    assert "figlet" in homing("functions")
    art = homing("invoke", "figlet", "Hi")
    assert len(art.splitlines()) > 3
    assert homing("invoke", "figlet", given=b"Hi") == art
    accepted = json.loads(homing("--json", "invoke", "figlet", "--async", "Hi"))
    invocation_id = accepted["id"]
    assert homing("invoke", "figlet", "--async", "--wait", "Hi") == art
    with_end = json.loads(homing("get", invocation_id, "--json"))
    assert with_end["id"] == invocation_id
    homing("remove", "figlet")
    assert "figlet" not in homing("functions")
    homing("invoke", "figlet", "Hi", code=4)


@pytest.mark.timeout(180)
def test_work_that_waits_for_a_deleted_function_ends_invalid(
    docker_cluster: Cluster, function_images: FunctionImages
) -> None:
    docker_cluster.start_server()
    client = docker_cluster.client()
    client.functions.deploy(name="figlet", image=function_images.figlet)
    calls = [client.invoke_async("figlet", str(number)) for number in range(20)]

    client.functions.delete("figlet")

    assert {call.wait(timeout=60).state for call in calls} == {InvocationState.INVALID}
    assert all(call.describe().attempts == () for call in calls)
