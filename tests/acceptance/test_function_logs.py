"""What a function writes, whatever invocations it serves, by every way there is to read it.

On a `homing dev`, and on RabbitMQ with two workers.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import closing

import pytest

from homing import AsyncClient, Client, InvalidRequestError, LogStream, NotFoundError
from support.cli import homing, objects
from support.http_client import ask
from support.processes import Cluster, Dev, Server
from support.rabbitmq import RabbitNode

PATIENCE = 60.0


@pytest.fixture(scope="module", params=["dev", "rabbitmq"])
def server(
    request: pytest.FixtureRequest, rabbit_node: RabbitNode, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("logs")
    if request.param == "dev":
        dev = Dev(folder)
        dev.start()
        yield dev
        dev.terminate()
        return
    url = rabbit_node.new_vhost()
    with Cluster(url, folder) as cluster:
        cluster.start_server()
        cluster.start_worker()
        cluster.start_worker()
        yield cluster.server
    rabbit_node.leave_vhost(url)


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Client]:
    with Client(server.target, timeout=PATIENCE) as made:
        yield made


@pytest.fixture(scope="module")
def said(client: Client) -> list[tuple[str, str]]:
    """What the function ``says`` has written: the ids of its invocations with their lines."""
    client.functions.deploy(name="says", command=["sh", "-c", "tee /dev/stderr"])
    client.functions.deploy(name="other", command=["sh", "-c", "echo other >&2"])
    expected = []
    for text in ("one", "two", "three"):
        call = client.invoke_async("says", f"{text} a\n{text} b\n")
        call.result(timeout=PATIENCE)
        with call.logs(follow=True) as lines:
            assert len(list(lines)) == 2
        expected += [(call.id, f"{text} a"), (call.id, f"{text} b")]
    client.invoke("other")
    return expected


def test_a_client_reads_all_or_the_last_lines(client: Client, said: list[tuple[str, str]]) -> None:
    whole = list(client.functions.logs("says"))

    assert [(line.invocation_id, line.text) for line in whole] == said
    assert {line.stream for line in whole} == {LogStream.STDERR}
    assert [line.text for line in client.functions.logs("says", tail=3)] == [text for _, text in said[-3:]]
    since = whole[2].time
    later = [line.text for line in whole if line.time and since and line.time >= since]
    assert [line.text for line in client.functions.logs("says", since=since)] == later
    with pytest.raises(NotFoundError):
        list(client.functions.logs("nothing"))
    with pytest.raises(InvalidRequestError, match="tail"):
        list(client.functions.logs("says", tail=10_001))


async def test_who_follows_sees_what_comes(server: Server, client: Client, said: list[tuple[str, str]]) -> None:
    client.functions.deploy(name="says-more", command=["sh", "-c", "tee /dev/stderr"])
    assert said
    async with (
        AsyncClient(server.target, timeout=PATIENCE) as other,
        other.functions.logs("says-more", follow=True, tail=5) as lines,
    ):
        for text in ("x", "y"):
            call = await other.invoke_async("says-more", text)
            line = await anext(lines)
            assert (line.text, line.invocation_id) == (text, call.id)


def test_a_browser_goes_on_after_the_last_line(server: Server, said: list[tuple[str, str]]) -> None:
    def events(target: str, last: str = "") -> list[tuple[str, str, object]]:
        with closing(http.client.HTTPConnection(server.http, timeout=PATIENCE)) as connection:
            connection.request("GET", target, headers={"Last-Event-ID": last} if last else {})
            parts = connection.getresponse().read().decode().split("\n\n")
        found = [dict(line.split(": ", 1) for line in part.splitlines()) for part in parts if "data: " in part]
        return [(each["id"], each["event"], json.loads(each["data"]).get("text")) for each in found]

    whole = events("/v1/functions/says/logs")
    assert [text for _, _, text in whole] == [*(text for _, text in said), None]
    for place, (last, _, _) in enumerate(whole[:-1]):
        assert [text for *_, text in events("/v1/functions/says/logs", last)] == [
            text for *_, text in whole[place + 1 :]
        ]
    tail = events("/v1/functions/says/logs?tail=2")
    assert [text for *_, text in tail] == ["three a", "three b", None]
    assert [text for *_, text in events("/v1/functions/says/logs?tail=2", tail[0][0])] == ["three b", None]
    assert ask(server.http, "GET", "/v1/functions/says/logs", [("Last-Event-ID", whole[-1][0])]).status == 204
    assert ask(server.http, "GET", "/v1/functions/other/logs", [("Last-Event-ID", whole[0][0])]).status == 400
    assert ask(server.http, "GET", "/v1/functions/nothing/logs").status == 404


def test_the_command_shows_them(server: Server, said: list[tuple[str, str]]) -> None:
    told = homing("logs", "--function", "says", "--tail", "2", "--target", server.target)
    assert told.stdout.splitlines() == ["three a", "three b"]
    lines = homing("logs", "--function", "says", "--since", "1h", "--json", "--target", server.target).stdout
    assert [(each["invocation_id"], each["text"]) for each in objects(lines)] == said
