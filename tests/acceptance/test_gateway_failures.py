"""What HTTP clients are answered where a call cannot be made now: 503, 429 and 504, and when to come again."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from homing import Client, Scope
from support.confidential import confidential
from support.http_client import Reply, ask
from support.processes import Cluster, Dev, Server
from support.proxy import TcpProxy
from support.rabbitmq import RabbitNode
from support.web_function import PATIENCE, FunctionServer, function_server

ROOT_KEY = confidential("the-root-key-of-the-tests-of-refusals")
SYNC_TIMEOUT = "1"
EVERYWHERE = ("/function/web", "/async-function/web", "/system/functions", "/v1/invocations")


@dataclass(frozen=True, kw_only=True, slots=True)
class House:
    """A narrow server whose key is asked for, and a function ``web``."""

    client: Client
    server: Server
    function: FunctionServer

    def ask(self, target: str, *headers: tuple[str, str], key: str = ROOT_KEY) -> Reply:
        method = "GET" if target in {"/system/functions", "/v1/invocations"} else "POST"
        return ask(self.server.http, method, target, [("Authorization", f"Bearer {key}"), *headers], b"")

    def next_is(self, path: str) -> None:
        """Wait until the function is asked for a path."""
        while self.function.seen.get(timeout=PATIENCE).path != path:
            pass

    @contextlib.contextmanager
    def under_way(self) -> Iterator[http.client.HTTPResponse]:
        """Yield an answer of which the first part has come; where this ends, its caller goes away."""
        with contextlib.closing(http.client.HTTPConnection(self.server.http, timeout=PATIENCE)) as connection:
            while True:
                connection.request("POST", "/function/web/drip", b"", {"Authorization": f"Bearer {ROOT_KEY}"})
                response = connection.getresponse()
                if response.status != 429:
                    break
                # A call counts for a moment after its last byte.
                response.read()
            with contextlib.closing(response):
                assert response.read1() == b"one"
                yield response


@contextlib.contextmanager
def house_of(server: Server) -> Iterator[House]:
    with function_server() as function, Client(server.target, api_key=ROOT_KEY, timeout=PATIENCE) as client:
        client.functions.deploy(name="web", url=f"http://127.0.0.1:{function.server_port}", concurrency=10)
        yield House(client=client, server=server, function=function)


@pytest.fixture(scope="module", params=["dev", "rabbitmq"])
def house(
    request: pytest.FixtureRequest, rabbit_node: RabbitNode, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    """A narrow `homing dev`, and a narrow server on RabbitMQ with two workers."""
    folder = tmp_path_factory.mktemp("narrow")
    settings = {"HOMING_ROOT_KEY": ROOT_KEY, "HOMING_SYNC_TIMEOUT": SYNC_TIMEOUT}
    if request.param == "dev":
        dev = Dev(folder, HOMING_FUNCTION_NETWORKS="127.0.0.0/8", **settings)
        dev.module = "support.narrow"
        dev.start()
        with house_of(dev) as made:
            yield made
        dev.terminate()
        return
    url = rabbit_node.new_vhost()
    with Cluster(url, folder) as cluster:
        server = narrow_server(cluster, **settings)
        cluster.start_worker()
        cluster.start_worker()
        with house_of(server) as made:
            yield made
    rabbit_node.leave_vhost(url)


def narrow_server(cluster: Cluster, **settings: str) -> Server:
    server = cluster.new_server(**settings)
    server.module = "support.narrow"
    server.start()
    return server


def come_again(reply: Reply) -> int:
    """Return after how many seconds a client is to come again, as it is told in a line of text."""
    assert reply.get("content-type").startswith("text/plain")
    assert reply.text.endswith("\n")
    return int(reply.get("retry-after"))


# --- 503


def test_a_function_that_does_not_start_is_not_available(house: House) -> None:
    house.client.functions.deploy(name="missing", http_command=["/nowhere/program"])

    reply = house.ask("/function/missing")

    assert (reply.status, reply.get("x-openfaas-internal")) == (503, "proxy")
    assert reply.text.startswith("START_FAILED: ")
    assert come_again(reply) >= 1


async def test_without_worker_or_broker_a_call_is_not_available(cluster: Cluster, rabbit_node: RabbitNode) -> None:
    async with TcpProxy("127.0.0.1", rabbit_node.port) as proxy:
        through = cluster.broker_url.replace(f":{rabbit_node.port}/", f":{proxy.port}/")
        server = await asyncio.to_thread(narrow_server, cluster, HOMING_BROKER_URL=through, HOMING_ROOT_KEY=ROOT_KEY)
        with contextlib.ExitStack() as stack:
            # In a thread, as the proxy goes on meanwhile.
            house = await asyncio.to_thread(stack.enter_context, house_of(server))

            async def post(target: str) -> Reply:
                return await asyncio.to_thread(house.ask, target)

            no_worker = await post("/function/web")
            await asyncio.gather(*(asyncio.to_thread(cluster.start_worker) for _ in range(2)))
            answered = await post("/function/web")
            held = asyncio.create_task(post("/function/web/hold"))
            await asyncio.to_thread(house.next_is, "/hold")
            await proxy.close()
            lost, no_broker = await held, await post("/function/web")
            accepted, paused = await post("/async-function/web"), await post("/v1/functions/web:pause")

    assert [reply.status for reply in (no_worker, answered, lost, no_broker)] == [503, 200, 503, 503]
    assert [reply.text for reply in (no_worker, lost, no_broker)] == [
        "there is no worker\n",
        "the connection to the broker was lost; the outcome is unknown\n",
        "there is no connection to the broker\n",
    ]
    assert min(come_again(reply) for reply in (no_worker, lost, no_broker)) >= 1
    # What needs no broker goes on.
    assert (accepted.status, paused.status) == (202, 200)


# --- 429


@pytest.mark.parametrize("target", EVERYWHERE)
def test_there_is_room_for_so_many_calls(house: House, target: str) -> None:
    house.function.go_on.clear()
    with contextlib.ExitStack() as under_way:
        answers = [under_way.enter_context(house.under_way()) for _ in range(4)]
        reply = house.ask(target)
        # Operators get in all the same, and so does who asks for health.
        operators = house.ask("/v1/functions/web:resume").status, ask(house.server.http, "GET", "/healthz").status
        house.function.go_on.set()
        assert [answer.read() for answer in answers] == [b"two"] * 4
    house.function.go_on.clear()
    with house.under_way() as answer:
        house.function.go_on.set()
        assert answer.read() == b"two"

    assert (reply.status, operators) == (429, (200, 200))
    assert "too many calls are under way" in reply.text
    assert int(reply.get("retry-after")) >= 1


@pytest.mark.parametrize("target", EVERYWHERE)
def test_a_key_has_its_rate(house: House, target: str) -> None:
    name = f"rated{target.replace('/', '-')}"
    key = confidential(house.client.keys.create(name, scopes=[Scope.INVOKE, Scope.READ], max_per_second=0.02).secret)
    first, again = house.ask(target, key=key), house.ask(target, key=key)

    assert (first.status, again.status) == (202 if "async" in target else 200, 429)
    assert name in again.text
    assert 1 <= int(again.get("retry-after")) <= 50


# --- 504


def test_who_has_waited_for_too_long_is_told(house: House) -> None:
    house.function.go_on.clear()
    reply = house.ask("/function/web/hold")
    house.function.go_on.set()

    assert (reply.status, reply.get_all("retry-after")) == (504, [])
    assert reply.text == "the deadline passed while the invocation ran; it may still end\n"


def test_a_function_that_takes_too_long_is_a_time_out(house: House) -> None:
    house.function.go_on.clear()
    reply = house.ask("/function/web/hold", ("X-Homing-Attempt-Timeout", "100ms"))
    house.function.go_on.set()

    assert (reply.status, reply.get_all("retry-after")) == (504, [])
    assert reply.text.startswith("TIMEOUT: ")


# --- A server that stops. The last test: it is gone then.


def test_a_server_that_stops_takes_no_more_calls_and_ends_those_that_are_under_way(house: House) -> None:
    house.function.go_on.clear()
    with house.under_way() as answer:
        os.kill(house.server.pid, signal.SIGTERM)
        # The worker of a `homing dev` leaves before its server stops: that is when its last call has ended.
        replies = [] if isinstance(house.server, Dev) else [refused(house, target) for target in EVERYWHERE]
        house.function.go_on.set()
        assert answer.read() == b"two"
    assert house.server.wait() == 0

    assert all(reply.get("connection") == "close" for reply in replies)
    assert all("the server stops" in reply.text and int(reply.get("retry-after")) >= 1 for reply in replies)


def refused(house: House, target: str) -> Reply:
    """Return the answer once it is 503: the server says that it stops a moment before it does."""
    while True:
        reply = house.ask(target)
        if reply.status == 503:
            return reply
