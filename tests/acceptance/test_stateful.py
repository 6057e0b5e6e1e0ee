"""A function that takes its time: seen while it runs, stopped, failing, run again; in processes and containers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from homing import (
    Attempt,
    AttemptOutcome,
    Client,
    DeliveryState,
    InvocationEndedError,
    InvocationHandle,
    InvocationNotEndedError,
    InvocationState,
    RetryPolicy,
)
from support.docker import ROOT, docker
from support.processes import Cluster
from support.rabbitmq import RabbitNode
from support.receiver import Request, receiver

PATIENCE = 60.0
GONE_WITHIN = 2.0

SUCCESS = {"failure": False, "seconds": 1.0, "interval": 0.25}
FAILURE = {"failure": True, "seconds": 0.5, "interval": 0.25}
LONG = {"failure": False, "seconds": 600, "interval": 0.25}
TICKS = ["started", *(f"tick {number} of 4" for number in range(1, 5))]
FAILED_TICKS = ["started", "tick 1 of 2", "tick 2 of 2", "failed, as it was told"]

TWICE = RetryPolicy(max_attempts=2, initial_backoff=0.1)

# Each in containers of its own, so that no line may be of another one that has just ended in the same container.
SUCCEEDING, FAILING, LASTING = NAMES = ("ticker", "ticker-failing", "ticker-lasting")

pytestmark = pytest.mark.usefixtures("shared_cluster")


@dataclass(frozen=True, kw_only=True)
class System:
    """A server and a worker with the ticker."""

    cluster: Cluster
    runs: Callable[[str, Attempt], bool]
    """Tells whether what executes an attempt of an invocation is there."""


def command_runs(invocation_id: str, _: Attempt) -> bool:
    mark = f"Http_X_Call_Id={invocation_id}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes().split(b"\0"):
                return True
        except OSError:
            continue  # it has just ended
    return False


def container_runs(_: str, attempt: Attempt) -> bool:
    return docker("ps", "--quiet", f"--filter=name=^{attempt.instance}$") != ""


@pytest.fixture(scope="module", params=["process", "docker"])
def system(
    request: pytest.FixtureRequest, rabbit_node: RabbitNode, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[System]:
    source: dict[str, Any]
    runs: Callable[[str, Attempt], bool]
    if request.param == "process":
        source, runs = {"command": [sys.executable, str(ROOT / "examples" / "ticker" / "ticker.py")]}, command_runs
    else:
        source, runs = {"image": request.getfixturevalue("function_images").ticker}, container_runs
    url = rabbit_node.new_vhost()
    with Cluster(url, tmp_path_factory.mktemp("stateful"), runtime=request.param) as cluster:
        cluster.start_server()
        cluster.start_worker()
        for name in NAMES:
            cluster.client().functions.deploy(name=name, retry_policy=TWICE, max_instances=4, **source)
        yield System(cluster=cluster, runs=runs)
    rabbit_node.leave_vhost(url)


@pytest.fixture
def shared_cluster(system: System) -> Cluster:
    """Have the logs of the cluster shown where a test fails."""
    return system.cluster


def texts(call: InvocationHandle[Any], *, follow: bool = False) -> Iterator[str]:
    with call.logs(follow=follow) as lines:
        for line in lines:
            yield line.text


def until_gone(system: System, invocation_id: str, attempt: Attempt) -> None:
    deadline = time.monotonic() + GONE_WITHIN
    while system.runs(invocation_id, attempt):
        assert time.monotonic() < deadline, "it still runs"
        time.sleep(0.05)


@pytest.mark.timeout(180)
def test_a_long_task_is_seen_stopped_and_run_again(system: System) -> None:
    client = system.cluster.client(timeout=PATIENCE)
    with receiver(statuses=[200]) as (url, received):
        success = client.invoke_async(SUCCEEDING, SUCCESS, callback_url=f"{url}/success")
        failure = client.invoke_async(FAILING, FAILURE, callback_url=f"{url}/failure")
        stopped = client.invoke_async(LASTING, LONG, callback_url=f"{url}/stopped")

        # It is seen how far it is, and stopped in the middle.
        assert next(text for text in texts(stopped, follow=True) if text == "tick 2 of 2400")
        with client.watch_results(id_prefix=stopped.id, include_transitions=True) as changes:
            progress = next(change.invocation.progress for change in changes if change.invocation.progress is not None)
        assert 0 < progress.percent < 100
        assert progress.text.endswith(" of 2400")
        record = stopped.describe()
        (attempt,) = record.attempts
        assert record.state is InvocationState.RUNNING
        assert system.runs(stopped.id, attempt)
        with pytest.raises(InvocationNotEndedError):
            stopped.rerun()
        stopped.stop(reason="seen enough")
        until_gone(system, stopped.id, attempt)
        record = stopped.wait(PATIENCE)
        assert record.state is InvocationState.STOPPED
        assert record.stop_request is not None
        assert record.stop_request.reason == "seen enough"
        assert [attempt.outcome for attempt in record.attempts] == [AttemptOutcome.STOPPED]
        with pytest.raises(InvocationEndedError):
            stopped.stop()

        # A success, and a failure with one retry.
        assert success.result(PATIENCE).json() == {"ticks": 4, "order": SUCCESS}
        done = success.describe().progress
        assert done is not None
        assert (done.percent, done.text) == (100, "tick 4 of 4")
        record = failure.wait(PATIENCE)
        assert record.state is InvocationState.FAILED
        assert [attempt.outcome for attempt in record.attempts] == [AttemptOutcome.FAILED] * 2
        assert record.result is not None
        assert record.result.text == "it was told to fail\n"

        told: dict[str, Request] = {}
        while len(told) < 3:
            path, headers, body = received.get(timeout=PATIENCE)
            told[path] = path, headers, body
    assert {path: headers["x-homing-state"] for path, headers, _ in told.values()} == {
        "/success": "SUCCEEDED",
        "/failure": "FAILED",
        "/stopped": "STOPPED",
    }
    assert json.loads(told["/success"][2])["ticks"] == 4
    assert told["/failure"][2] == b"it was told to fail\n"
    # A callback may be quicker than the last lines; who follows gets them.
    assert list(texts(success, follow=True)) == TICKS
    assert list(texts(failure, follow=True)) == FAILED_TICKS * 2
    assert list(islice(texts(stopped), 3)) == ["started", "tick 1 of 2400", "tick 2 of 2400"]

    # Each of them again: the same, and the stopped one with less to do.
    again = success.rerun()
    failing = failure.rerun()
    shorter = stopped.rerun(payload=SUCCESS)
    assert again.result(PATIENCE).json() == shorter.result(PATIENCE).json() == {"ticks": 4, "order": SUCCESS}
    assert len(failing.wait(PATIENCE).attempts) == 2
    for origin, rerun in ((success, again), (failure, failing), (stopped, shorter)):
        assert rerun.describe().rerun_of == origin.id
        assert [each.id for each in client.list_invocations(rerun_of=origin.id)] == [rerun.id]
    until_delivered(client, success.id)


def until_delivered(client: Client, invocation_id: str) -> None:
    with client.watch_results() as results:
        # The delivery is recorded by events that are recorded in order: a later end comes after it.
        later = client.invoke_async(SUCCEEDING, {"seconds": 0.1})
        assert next(event for event in results if event.invocation.id == later.id)
    (delivery,) = client.get(invocation_id).deliveries
    assert delivery.state is DeliveryState.DELIVERED


@pytest.mark.timeout(180)
def test_the_same_from_the_command_line(system: System) -> None:
    def homing(*arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-c", "from homing_cli.main import main; main()", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=os.environ | {"HOMING_TARGET": system.cluster.target},
            timeout=90,
            check=False,
        )
        assert done.returncode == code, done.stderr
        return done.stdout

    def get(invocation_id: str) -> Any:
        return json.loads(homing("get", "--json", invocation_id))

    client = system.cluster.client(timeout=PATIENCE)
    success, failure, stopped = (
        homing("invoke", name, "--async", json.dumps(order)).strip()
        for name, order in zip(NAMES, (SUCCESS, FAILURE, LONG), strict=True)
    )
    handle = client.handle(stopped)
    assert next(text for text in texts(handle, follow=True) if text == "tick 2 of 2400")
    (attempt,) = handle.describe().attempts
    homing("stop", stopped, "--reason", "seen enough")
    until_gone(system, stopped, attempt)
    for invocation_id, ticks in ((success, TICKS), (failure, FAILED_TICKS * 2)):
        assert homing("logs", "--follow", invocation_id).splitlines() == ticks
    assert client.handle(stopped).wait(PATIENCE).state is InvocationState.STOPPED
    assert get(stopped)["stopRequest"]["reason"] == "seen enough"
    assert [each["outcome"] for each in get(failure)["attempts"]] == ["ATTEMPT_OUTCOME_FAILED"] * 2
    assert "seen enough" in homing("get", "--events", stopped)
    assert "tick 4 of 4" in homing("get", success)

    assert json.loads(homing("rerun", success, "--wait")) == {"ticks": 4, "order": SUCCESS}
    assert json.loads(homing("rerun", stopped, "--data", json.dumps(SUCCESS), "--wait"))["ticks"] == 4
    homing("rerun", failure, "--wait", code=1)
    assert len(homing("list", "--rerun-of", failure, "--json").splitlines()) == 1
