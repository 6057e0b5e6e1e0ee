"""Headers that come more than once, from clients to functions, back, and on to callbacks: each stays one of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from queue import Queue
from threading import Thread

import pytest

from homing import AsyncClient, Client
from support.cli import program
from support.processes import Cluster

Pairs = list[tuple[str, str]]

PATIENCE = 60.0
ASKED = {"X-A": ["1", "2, 3", ""], "X-B": "4"}
COOKIES = ("a=1; Expires=Wed, 21 Oct 2026 07:28:00 GMT", "b=2")


@contextmanager
def cookie_server() -> Iterator[tuple[str, Queue[Pairs]]]:
    """Serve what sets two cookies, as a function or a receiver; yield its URL, and the headers of each request."""
    seen: Queue[Pairs] = Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            seen.put([(name.lower(), value) for name, value in self.headers.items()])
            self.send_response(200)
            for cookie in COOKIES:
                self.send_header("Set-Cookie", cookie)
                self.send_header("X-Between", "yes")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", seen
        finally:
            server.shutdown()
            thread.join()


def named(headers: Pairs, *names: str) -> Pairs:
    return [(name, value) for name, value in headers if name in names]


def check_asked(headers: Pairs) -> None:
    assert named(headers, "x-a", "x-b") == [("x-a", "1"), ("x-a", "2, 3"), ("x-a", ""), ("x-b", "4")]


@pytest.fixture
def client(shared_cluster: Cluster) -> Client:
    return shared_cluster.client(timeout=PATIENCE)


async def test_a_url_gets_each_header_and_each_of_its_own_comes_back(shared_cluster: Cluster, client: Client) -> None:
    with cookie_server() as (url, seen):
        client.functions.deploy(name="cookies", url=url)
        answers = [client.invoke("cookies", headers=ASKED), client.invoke_async("cookies", headers=ASKED).result()]
        async with AsyncClient(shared_cluster.target) as async_client:
            answers.append(await async_client.invoke("cookies", headers=ASKED))
        requests = [seen.get(timeout=PATIENCE) for _ in answers]

    for headers in requests:
        check_asked(headers)
    for answer in answers:
        assert answer.headers.get_all("Set-Cookie") == COOKIES
        assert [name for name, _ in answer.headers.pairs if name in {"set-cookie", "x-between"}] == [
            "set-cookie", "x-between", "set-cookie", "x-between"
        ]  # fmt: skip
        kept = client.get(answer.invocation.id).result
        assert kept is not None
        assert kept.headers.pairs == answer.headers.pairs


def test_a_callback_gets_each_header_of_the_function_and_each_that_was_asked_for(client: Client) -> None:
    with cookie_server() as (url, _), cookie_server() as (hook, received):
        client.functions.deploy(name="called-back", url=url)
        client.invoke_async("called-back", callback_url=hook, callback_headers=ASKED)
        plain = received.get(timeout=PATIENCE)
        client.invoke_async("called-back", callback_url=hook, callback_headers={"X-BETWEEN": ["5", "6"]})
        replaced = received.get(timeout=PATIENCE)

    check_asked(plain)
    cookies = [("set-cookie", cookie) for cookie in COOKIES]
    assert named(plain, "set-cookie") == named(replaced, "set-cookie") == cookies
    assert named(plain, "x-between") == [("x-between", "yes")] * 2
    assert named(replaced, "x-between") == [("x-between", "5"), ("x-between", "6")]


def test_a_command_finds_the_values_of_a_name_joined_in_one_variable(client: Client) -> None:
    client.functions.deploy(name="variable", command=["sh", "-c", 'printf %s "$Http_X_A"'])

    assert client.invoke("variable", headers=ASKED).text == "1, 2, 3, "


def test_the_command_line_sends_each_and_shows_each(shared_cluster: Cluster, client: Client) -> None:
    with cookie_server() as (url, seen):
        client.functions.deploy(name="shown", url=url)
        headers = ["-H", "X-A=1", "--header", "X-A=2, 3", "-H", "X-A=", "-H", "X-B=4"]
        done = program("invoke", "shown", "--json", *headers, target=shared_cluster.target)
        assert done.returncode == 0, done.stderr
        check_asked(seen.get(timeout=PATIENCE))

    id_ = json.loads(done.stdout)["id"]
    shown = program("get", id_, target=shared_cluster.target).stdout.decode().splitlines()
    as_json = json.loads(program("get", "--json", id_, target=shared_cluster.target).stdout)
    assert [line.split(maxsplit=1) for line in shown if line.startswith("set-cookie")] == [
        ["set-cookie", cookie] for cookie in COOKIES
    ]
    assert [each["value"] for each in as_json["result"]["headers"] if each["name"] == "set-cookie"] == list(COOKIES)


@pytest.mark.timeout(180)
def test_a_container_gets_each_header_and_each_of_its_own_comes_back(docker_cluster: Cluster, odd_image: str) -> None:
    docker_cluster.start_server()
    docker_cluster.start_worker()
    client = docker_cluster.client(timeout=PATIENCE)
    client.functions.deploy(name="odd", image=odd_image, max_instances=1)

    for asked in (client.invoke("odd", path="/echo", headers=ASKED),
                  client.invoke_async("odd", path="/echo", headers=ASKED).result(timeout=PATIENCE)):  # fmt: skip
        check_asked([(name, value) for name, value in asked.json()["pairs"]])
    path = "/".join(["/status/200", *(f"Set-Cookie: {cookie}" for cookie in COOKIES)])
    for answer in (client.invoke("odd", path=path), client.invoke_async("odd", path=path).result(timeout=PATIENCE)):
        assert answer.headers.get_all("set-cookie") == COOKIES
