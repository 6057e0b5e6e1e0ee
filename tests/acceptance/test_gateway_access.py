"""Who may invoke functions over plain HTTP: whoever shows a key, and everybody where a function is public."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest

from homing import Client, Scope
from support.confidential import confidential
from support.http_client import Headers, ask
from support.processes import Cluster, Server
from support.rabbitmq import RabbitNode

ROOT_KEY = confidential("the-root-key-of-the-tests-of-the-gateway")


@pytest.fixture(scope="module")
def server(rabbit_node: RabbitNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    url = rabbit_node.new_vhost()
    with Cluster(url, tmp_path_factory.mktemp("keys")) as cluster:
        started = cluster.start_server(HOMING_ROOT_KEY=ROOT_KEY)
        cluster.start_worker()
        with Client(started.target, api_key=ROOT_KEY, timeout=60) as client:
            show = ["sh", "-c", 'printf "%s" "$Http_Authorization"']
            client.functions.deploy(name="closed", command=show)
            client.functions.deploy(name="open", command=show, public=True)
        yield started
    rabbit_node.leave_vhost(url)


def basic(key: str) -> Headers:
    return [("Authorization", "Basic " + base64.b64encode(f"anybody:{key}".encode()).decode())]


def bearer(key: str) -> Headers:
    return [("Authorization", f"Bearer {key}")]


@pytest.fixture(scope="module")
def keys(server: Server) -> dict[str, str]:
    with Client(server.target, api_key=ROOT_KEY, timeout=60) as client:
        return {
            "invoke": confidential(client.keys.create("invoke", scopes=[Scope.INVOKE]).secret),
            "read": confidential(client.keys.create("read", scopes=[Scope.READ]).secret),
            "other": confidential(client.keys.create("other", scopes=[Scope.INVOKE], functions=["open"]).secret),
            "operate": confidential(client.keys.create("operate", scopes=[Scope.OPERATE]).secret),
        }


@pytest.mark.parametrize("kind", ["function", "async-function"])
def test_a_key_is_needed_unless_the_function_is_public(server: Server, keys: dict[str, str], kind: str) -> None:
    done = 200 if kind == "function" else 202

    def post(name: str, headers: Headers) -> int:
        return ask(server.http, "POST", f"/{kind}/{name}", headers, b"").status

    assert [post("closed", show(keys["invoke"])) for show in (basic, bearer)] == [done, done]
    assert [post(name, []) for name in ("closed", "nothing", "open")] == [401, 401, done]
    page = ("Origin", "https://page.example")
    assert [post("open", [*headers, page]) for headers in ([], bearer(keys["other"]))] == [done, done]
    assert post("closed", bearer("hk_000000000000_" + "x" * 43)) == 401
    assert [post("closed", bearer(keys[name])) for name in ("read", "other")] == [403, 403]


def test_without_a_key_nothing_but_an_answer_can_be_asked_for(server: Server) -> None:
    def status(*headers: tuple[str, str]) -> int:
        return ask(server.http, "POST", "/async-function/open", list(headers), b"").status

    assert status(("X-Call-Id", "theirs")) == 202
    assert [status(("X-Callback-Url", "http://example.org/")), status(("X-Homing-Delay", "1h"))] == [401, 401]


def test_the_key_is_not_shown_to_the_function(server: Server, keys: dict[str, str]) -> None:
    for headers in (basic(keys["invoke"]), bearer(keys["invoke"]), bearer(ROOT_KEY)):
        assert ask(server.http, "POST", "/function/closed", headers, b"").body == b""


def test_to_stop_takes_the_scope_of_operators(server: Server, keys: dict[str, str]) -> None:
    later = [*bearer(keys["invoke"]), ("X-Homing-Delay", "1h"), ("X-Call-Id", "mine")]
    assert ask(server.http, "POST", "/async-function/closed", later, b"").status == 202

    def stop(headers: Headers) -> int:
        return ask(server.http, "DELETE", "/async-function/mine", headers).status

    assert [stop([]), stop(bearer(keys["invoke"])), stop(bearer(keys["operate"]))] == [401, 403, 202]
