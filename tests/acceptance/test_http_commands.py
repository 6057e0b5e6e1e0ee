"""Commands that serve HTTP, as callers see them: on `homing dev`, and on RabbitMQ with two workers."""

from __future__ import annotations

import contextlib
import http.client
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from homing import Client, InvocationState, NotFoundError
from support import served
from support.docker import ROOT
from support.fixtures import running_cluster
from support.processes import Cluster, Dev, Server

CALLS = 40
COUNTDOWN = [sys.executable, "-m", "homing_function", str(ROOT / "examples" / "countdown" / "app.py")]


@pytest.fixture(scope="module", params=["dev", "rabbitmq"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("system")
    if request.param == "dev":
        dev = Dev(folder)
        dev.start()
        yield dev
        assert dev.terminate() == 0
        return
    node = request.getfixturevalue("rabbit_node")
    url = node.new_vhost()
    with running_cluster(request, Cluster(url, folder)) as cluster:
        cluster.start_server()
        cluster.start_worker()
        cluster.start_worker()
        yield cluster.server
    node.leave_vhost(url)


@pytest.fixture(scope="module")
def system(server: Server) -> Iterator[Client]:
    with Client(server.target, timeout=60) as client:
        client.functions.deploy(name="site", http_command=[sys.executable, served.__file__], max_instances=2)
        client.functions.deploy(name="countdown", http_command=COUNTDOWN, concurrency=50)
        yield client


def test_calls_now_and_later_are_served_by_a_few_processes(system: Client, request: pytest.FixtureRequest) -> None:
    assert system.invoke("site", "now").text == "now"
    calls = [system.invoke_async("site", str(number), path="/pid") for number in range(CALLS)]
    records = [call.wait(timeout=60) for call in calls]

    assert {record.state for record in records} == {InvocationState.SUCCEEDED}
    attempts = [record.attempts[-1] for record in records]
    assert len({attempt.instance for attempt in attempts}) <= 4
    assert system.functions.get("site").http_command == (sys.executable, served.__file__)


def test_one_that_is_stopped_ends_and_others_go_on(system: Client) -> None:
    held = system.invoke_async("site", path="/hang")
    with system.watch_results(function="site") as results:
        while held.describe().state != InvocationState.RUNNING:
            pass
        held.stop(reason="enough")
        assert (
            next(each for each in results if each.invocation.id == held.id).invocation.state == InvocationState.STOPPED
        )
    assert system.invoke("site", "next").text == "next"


def test_what_it_says_of_its_progress_and_writes_is_on_the_record(system: Client) -> None:
    call = system.invoke_async("countdown", {"start": 3, "seconds": 0.01})
    record = call.wait(timeout=60)

    assert record.result is not None
    assert record.result.text == "3\n2\n1\nlift-off\n"
    assert record.progress is not None
    assert (record.progress.percent, record.progress.text) == (100.0, "0 to go")


def test_what_a_generator_yields_reaches_a_caller_by_http_as_it_comes(system: Client, server: Server) -> None:
    connection = http.client.HTTPConnection(server.http, timeout=60)
    with contextlib.closing(connection):
        # The next item is ten minutes away.
        connection.request("POST", "/function/countdown", b'{"start": 2, "seconds": 600}')
        answer = connection.getresponse()
        assert (answer.status, answer.readline()) == (200, b"2\n")


def test_a_field_that_does_not_fit_is_refused_once(system: Client) -> None:
    record = system.invoke_async("countdown", {"start": "many"}).wait(timeout=60)

    assert (record.state, len(record.attempts)) == (InvocationState.FAILED, 1)
    assert record.result is not None
    assert record.result.text == "order.start: must be int, is str 'many'\n"


TALK = """
import asyncio
from homing_function import function

@function(concurrency=8)
async def talk(name: str) -> None:
    await asyncio.sleep(0.1)
    print("I am", name)
    await asyncio.sleep(0.1)
"""


def test_what_calls_write_that_are_served_at_a_time_is_told_apart(system: Client, tmp_path: Path) -> None:
    (tmp_path / "talk.py").write_text(TALK)
    program = [sys.executable, "-m", "homing_function", str(tmp_path / "talk.py")]
    system.functions.deploy(name="talk", http_command=program, concurrency=8, max_instances=1)
    calls = {name: system.invoke_async("talk", name, call_id=f"talk-{name}") for name in map(str, range(8))}

    for name, call in calls.items():
        assert [(line.text, line.shared) for line in call.logs(follow=True)] == [(f"I am {name}", False)]


def test_one_that_is_removed_is_gone(system: Client) -> None:
    system.functions.deploy(name="gone", http_command=[sys.executable, served.__file__])
    assert system.invoke("gone", "here").text == "here"
    system.functions.delete("gone")
    with pytest.raises(NotFoundError):
        system.invoke("gone")
