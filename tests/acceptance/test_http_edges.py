"""What HTTP allows and few do, in requests to functions and receivers and in their answers: none of it fails a call."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Queue
from typing import ClassVar

import pytest

from homing import Client, DeliveryState, InvalidRequestError, InvocationState, RetryPolicy
from support.ledger import until
from support.processes import Cluster, Dev
from support.rabbitmq import RabbitNode

PATIENCE = 60.0
ONCE = RetryPolicy(max_attempts=1)


@pytest.fixture(scope="module", params=["dev", "rabbitmq"])
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Yield a client of a homing dev, and of a server with two workers on RabbitMQ."""
    folder = tmp_path_factory.mktemp("edges")
    if request.param == "dev":
        dev = Dev(folder)
        dev.start()
        with Client(dev.target, timeout=PATIENCE) as made:
            yield made
        assert dev.terminate() == 0
        return
    node: RabbitNode = request.getfixturevalue("rabbit_node")
    url = node.new_vhost()
    with Cluster(url, folder) as cluster:
        cluster.start_server()
        cluster.start_worker()
        cluster.start_worker()
        yield cluster.client(timeout=PATIENCE)
    node.leave_vhost(url)


class Answering(BaseHTTPRequestHandler):
    """Answers with a path, and with the headers that it names."""

    protocol_version = "HTTP/1.1"
    headers_of: ClassVar[dict[str, list[tuple[str, str]]]] = {
        "/long": [("Content-Security-Policy", "x" * 9000), ("X-Longer", "x" * 40_000)],
        "/many": [(f"X-{number}", "v") for number in range(300)],
    }
    seen: Queue[str]

    def do_POST(self) -> None:
        """Answer."""
        self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.put(self.path)
        # Not `path`, which has lost slashes at its beginning.
        body = self.requestline.split()[1].encode()
        self.send_response(200)
        for name, value in self.headers_of.get(self.path, []):
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def answering(host: str = "127.0.0.1") -> Iterator[tuple[int, Queue[str]]]:
    """Serve a function or a receiver; yield its port, and the paths that were asked for."""
    seen: Queue[str] = Queue()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    server_class = type("Server", (ThreadingHTTPServer,), {"address_family": family})
    with server_class((host, 0), type("Handler", (Answering,), {"seen": seen})) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port, seen
        finally:
            server.shutdown()
            thread.join()


async def outcome_of_delivery(client: Client, url: str) -> DeliveryState:
    """Return what has come of the first attempt to deliver a callback."""
    call = client.invoke_async("cat", "x", callback_url=url)
    await until(lambda: any(delivery.attempts for delivery in call.describe().deliveries))
    return call.describe().deliveries[0].state


@pytest.fixture(autouse=True)
def cat(client: Client) -> None:
    client.functions.deploy(name="cat", command=["cat"])


@pytest.mark.parametrize("path", ["/long", "/many"])
async def test_however_long_the_head_of_a_good_answer_is_it_is_a_good_one(client: Client, path: str) -> None:
    with answering() as (port, seen):
        client.functions.deploy(name="wordy", url=f"http://127.0.0.1:{port}")
        call = client.invoke_async("wordy", path=path).wait(timeout=PATIENCE)
        state = await outcome_of_delivery(client, f"http://127.0.0.1:{port}{path}")

    assert (call.state, call.attempt_count) == (InvocationState.SUCCEEDED, 1)
    assert state is DeliveryState.DELIVERED
    assert seen.qsize() == 2


def test_headers_that_programs_take_for_their_own_are_refused_or_no_variables(client: Client) -> None:
    client.functions.deploy(name="variables", command=["env"])
    for name in ("Proxy", "PROXY", "proxy-authorization", "Expect", "Transfer-Encoding"):
        with pytest.raises(InvalidRequestError, match=name):
            client.invoke("variables", headers={name: "100-continue"})

    headers = {"Proxy-Mine": "x", "X_Call_Id": "forged", "X-Call_Id": "forged", "X-Mine": "mine"}
    answer = client.invoke("variables", headers=headers)

    variables = dict(line.partition("=")[::2] for line in answer.text.splitlines())
    assert [name for name in variables if name.lower().startswith("http_proxy")] == []
    assert variables["Http_X_Mine"] == "mine"
    named = {name: value for name, value in variables.items() if name.lower().replace("_", "-") == "http-x-call-id"}
    assert named == {"Http_X_Call_Id": answer.invocation.id}


@pytest.mark.parametrize("held", ["</dev/null >/dev/null 2>&1", ""], ids=["detached", "holds-the-output"])
def test_a_command_has_ended_when_its_program_has(client: Client, held: str) -> None:
    client.functions.deploy(name="kick", command=["sh", "-c", f"echo started; setsid sleep 20 {held} &"])
    call = client.invoke_async("kick", attempt_timeout=10.0, retry_policy=ONCE)

    assert call.result(timeout=PATIENCE).text == "started\n"
    (attempt,) = call.describe().attempts
    assert attempt.start_time is not None
    assert attempt.end_time is not None
    assert (attempt.end_time - attempt.start_time).total_seconds() < 5


def test_a_command_inherits_three_descriptors(client: Client) -> None:
    client.functions.deploy(name="descriptors", command=["sh", "-c", "ls /proc/$$/fd"])
    large = b"x" * 300_000  # in a file of the worker's

    assert client.invoke("descriptors", "x").text.split() == ["0", "1", "2"]
    assert client.invoke("descriptors", large).text.split() == ["0", "1", "2"]


@pytest.mark.parametrize("size", [0, 1, 200_000, 300_000])
def test_what_a_command_reads_and_writes_is_whole(client: Client, size: int) -> None:
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    client.functions.deploy(name="deaf", command=["true"])

    assert client.invoke("cat", body).data == body
    assert client.invoke("deaf", body).data == b""


@contextmanager
def closing_soon() -> Iterator[tuple[int, Counter[str]]]:
    """Serve a function that closes each connection 3 ms after an answer, without a word; yield port and calls."""
    calls: Counter[str] = Counter()
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)

    def serve(connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream:
            length = 0
            while (line := stream.readline()) not in {b"\r\n", b""}:
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
                if name.lower() == b"x-call-id":
                    calls[value.decode().strip()] += 1
            stream.read(length)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            time.sleep(0.003)
            connection.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield listener.getsockname()[1], calls
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        accepting.join()


def test_no_call_is_lost_to_a_function_that_closes_kept_connections(client: Client) -> None:
    with closing_soon() as (port, calls):
        client.functions.deploy(name="closes", url=f"http://127.0.0.1:{port}")
        made = [client.invoke_async("closes", "x", retry_policy=ONCE) for _ in range(100)]
        states = Counter(call.wait(timeout=PATIENCE).state for call in made)

    assert states == {InvocationState.SUCCEEDED: 100}
    assert calls == {call.id: 1 for call in made}


async def test_an_address_may_be_spelled_as_one_likes(client: Client) -> None:
    with answering("::1") as (port, seen):
        for host in ("[::1]", "[0:0:0:0:0:0:0:1]", "[0:0::0001]"):
            assert await outcome_of_delivery(client, f"http://{host}:{port}/{host}") is DeliveryState.DELIVERED
            client.functions.deploy(name="six", url=f"http://{host}:{port}")
            assert client.invoke("six", path="/a").text == "/a"
    assert seen.qsize() == 6


def test_a_path_arrives_as_it_was_given(client: Client) -> None:
    client.functions.deploy(name="path", command=["sh", "-c", 'printf %s "$Http_Path"'])
    with answering() as (port, _):
        client.functions.deploy(name="path-of-url", url=f"http://127.0.0.1:{port}")
        for path in ("/a/b", "//a/b", "///", "/a//", "/a/../b", "/?", "/a:b@c"):
            sent = path.replace("?", "%3F")
            assert client.invoke("path", path=path).text == sent
            assert client.invoke("path-of-url", path=path).text == sent


def test_a_path_does_not_leave_the_base_of_a_url(client: Client) -> None:
    with answering() as (port, _):
        client.functions.deploy(name="based", url=f"http://127.0.0.1:{port}/base/of")
        for path in ("/../a", "/a/../../../a", "/%2e%2E/a", "/..%2f..%2fa", "/..;/a", "/%252e%252e/a"):
            got = client.invoke("based", path=path).text
            assert got.startswith("/base/of/"), path
            assert ".." not in got.replace("%25", "%").replace("%25", "%").replace("%2e", ".").replace("%2E", "."), path
        assert client.invoke("based", path="/a/./b..c", query="x=/../y").text == "/base/of/a/./b..c?x=/../y"


def test_a_command_that_is_killed_says_by_what(client: Client) -> None:
    client.functions.deploy(name="killed", command=[sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"])
    call = client.invoke_async("killed", retry_policy=ONCE).wait(timeout=PATIENCE)

    assert call.failure is not None
    assert (call.failure.reason, call.failure.message) == ("EXIT_STATUS", "killed by SIGKILL")
