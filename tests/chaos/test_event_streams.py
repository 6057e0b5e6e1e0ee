"""Server-sent events of REST are resumed as browsers do it, whatever has ended them, and nothing is missed or repeated.

On a `homing dev`, and on RabbitMQ with two workers.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from homing import Client
from support.gauges import gauges_when
from support.processes import Cluster, Dev, Server
from support.rabbitmq import RabbitNode

PATIENCE = 60.0
RESULT = 200_000
"""Bytes of a result: forty are far more than what is under way to a reader that does not read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class House:
    """A server that cuts off readers after a second."""

    server: Server
    client: Client


@pytest.fixture(scope="module", params=["dev", "rabbitmq"])
def house(
    request: pytest.FixtureRequest, rabbit_node: RabbitNode, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("events")
    if request.param == "dev":
        dev = Dev(folder)
        dev.module = "support.impatient"
        dev.start()
        with Client(dev.target, timeout=PATIENCE) as client:
            yield House(server=dev, client=client)
        dev.terminate()
        return
    url = rabbit_node.new_vhost()
    with Cluster(url, folder) as cluster:
        server = cluster.new_server()
        server.module = "support.impatient"
        server.start()
        cluster.start_worker()
        cluster.start_worker()
        with Client(server.target, timeout=PATIENCE) as client:
            yield House(server=server, client=client)
    rabbit_node.leave_vhost(url)


class EventSource:
    """What a browser's EventSource does: it connects again when it is cut off, and says where it was."""

    def __init__(self, server: Server, target: str) -> None:
        self._address = server.http
        self._target = target
        self._last = ""

    def events(self) -> Iterator[tuple[str, dict[str, object]]]:
        """Yield kinds and data, without end but that which the stream itself says."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            connection = http.client.HTTPConnection(self._address, timeout=PATIENCE)
            with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
                for kind, data in self.events_of(connection):
                    yield kind, data
                    if kind == "end":
                        return
            time.sleep(0.05)
        pytest.fail("nobody answers")

    def events_of(self, connection: http.client.HTTPConnection) -> Iterator[tuple[str, dict[str, object]]]:
        """Yield what comes over one connection."""
        connection.request("GET", self._target, headers={"Last-Event-ID": self._last} if self._last else {})
        response = connection.getresponse()
        assert response.status == 200
        fields: dict[str, str] = {}
        for line in response:
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name:
                fields[name] = value
                continue
            if "data" in fields:
                self._last = fields.get("id", self._last)
                yield fields["event"], json.loads(fields["data"])
            fields = {}


def ids(events: Iterator[tuple[str, dict[str, object]]]) -> Iterator[str]:
    """Yield the ids of the invocations that a watch tells of."""
    for kind, data in events:
        if kind == "invocation":
            invocation = data["invocation"]
            assert isinstance(invocation, dict)
            yield invocation["id"]


def test_a_watch_goes_on_where_a_killed_server_has_left_it(house: House) -> None:
    house.client.functions.deploy(name="echo", command=["cat"])
    events = EventSource(house.server, "/v1/results:watch?filter.functions=echo").events()
    assert next(events)[0] == "bookmark"
    results = ids(events)
    accepted: list[str] = []
    seen: list[str] = []
    for _ in range(2):
        calls = house.client.invoke_batch("echo", ["x"] * 20)
        accepted += [call.id for call in calls if not isinstance(call, Exception)]
        seen += [next(results) for _ in range(10)]
        house.server.kill()
        house.server.start()
    seen += [next(results) for _ in range(len(accepted) - len(seen))]

    assert len(seen) == len(set(seen)) == 40
    assert set(seen) == set(accepted)


def test_a_log_goes_on_where_a_killed_server_has_left_it(house: House, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    says = f"echo one >&2; until [ -e {gate} ]; do sleep 0.05; done; echo two >&2; echo three >&2"
    house.client.functions.deploy(name="says", command=["sh", "-c", says])
    call = house.client.invoke_async("says")
    events = EventSource(house.server, f"/v1/invocations/{call.id}/logs?follow=true").events()
    assert next(events)[1]["text"] == "one"
    house.server.kill()
    house.server.start()
    gate.touch()
    rest = [data.get("text") for _, data in events]

    # The worker of a `homing dev` has died too: another attempt writes all of it again.
    again = ["one"] if isinstance(house.server, Dev) else []
    assert rest == [*again, "two", "three", None]


async def test_who_does_not_read_is_cut_off_and_may_go_on(house: House) -> None:
    house.client.functions.deploy(name="large", command=["head", "-c", str(RESULT), "/dev/zero"])
    source = EventSource(house.server, "/v1/results:watch?filter.functions=large")
    connection = http.client.HTTPConnection(house.server.http, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.sock = socket.socket()
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        host, port = house.server.http.rsplit(":", 1)
        connection.sock.connect((host, int(port)))
        slow = source.events_of(connection)
        assert next(slow)[0] == "bookmark"
        calls = house.client.invoke_batch("large", [""] * 40)
        accepted = [call.wait(timeout=PATIENCE).id for call in calls if not isinstance(call, Exception)]
        await gauges_when(house.server, lambda gauges: gauges.value("homing_watchers") == 0)
        seen: list[str] = []
        with contextlib.suppress(OSError, http.client.HTTPException):
            seen.extend(ids(slow))
    assert len(seen) < 40
    results = ids(source.events())
    seen += [next(results) for _ in range(40 - len(seen))]

    assert len(seen) == len(set(seen))
    assert set(seen) == set(accepted)
