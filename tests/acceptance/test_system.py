"""OpenFaaS's administration over HTTP, as `faas-cli` asks for it: the order of its calls, codes, shapes, traps."""

from __future__ import annotations

import base64
import http.client
import json
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import Message
from typing import Any

import pytest

from homing import Client
from support.confidential import confidential
from support.processes import Cluster, Dev
from support.rabbitmq import RabbitNode

ROOT_KEY = confidential("the-root-key-of-openfaas-0123456789")
PATIENCE = 60.0
IMAGE = "example.invalid/env:1"


@dataclass(frozen=True, kw_only=True)
class Gateway:
    """The HTTP port, asked by somebody with a key or by everybody."""

    address: str
    client: Client
    authorization: str

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        authorization: str | None = None,
        raw: bytes | None = None,
    ) -> tuple[int, bytes, Message]:
        shown = self.authorization if authorization is None else authorization
        sent = raw if raw is not None else None if body is None else json.dumps(body).encode()
        with closing(http.client.HTTPConnection(self.address, timeout=PATIENCE)) as port:
            port.request(method, path, body=sent, headers={"Authorization": shown} if shown else {})
            answer = port.getresponse()
            return answer.status, answer.read(), answer.headers

    def json(self, path: str) -> Any:
        status, body, headers = self.ask("GET", path)
        assert status == 200, body
        assert headers["Content-Type"] == "application/json"
        return json.loads(body)


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"admin:{password}".encode()).decode()


@pytest.fixture(scope="module", params=["dev", "rabbitmq"])
def gateway(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Yield a homing dev, asked as by a faas-cli that has not logged in; and a server with keys and two workers."""
    folder = tmp_path_factory.mktemp("system")
    if request.param == "dev":
        dev = Dev(folder)
        dev.start()
        with Client(dev.target, timeout=PATIENCE) as made:
            yield Gateway(address=dev.http, client=made, authorization="Bearer ")
        assert dev.terminate() == 0
        return
    node: RabbitNode = request.getfixturevalue("rabbit_node")
    url = node.new_vhost()
    with Cluster(url, folder) as cluster:
        cluster.start_server(HOMING_ROOT_KEY=ROOT_KEY)
        cluster.start_worker()
        cluster.start_worker()
        client = cluster.client(api_key=ROOT_KEY, timeout=PATIENCE)
        yield Gateway(address=cluster.server.http, client=client, authorization=basic(ROOT_KEY))
    node.leave_vhost(url)


@pytest.fixture(autouse=True)
def nothing_deployed(gateway: Gateway) -> Iterator[None]:
    """Leave no function and no secret behind."""
    yield
    for function in gateway.client.functions.list():
        gateway.client.functions.delete(function.name)
    for secret in gateway.client.secrets.list():
        gateway.client.secrets.delete(secret.name)


def test_deploy_updates_first_and_creates_where_there_was_nothing(gateway: Gateway) -> None:
    deployment = {
        "service": "env", "image": IMAGE, "namespace": "openfaas-fn", "envProcess": "env", "envVars": {"k": "v"},
        "constraints": ["x"], "secrets": [], "labels": {"team": "a"},
        "annotations": {"com.openfaas.retry.attempts": "7"},
        "limits": {"memory": "128Mi", "cpu": "100m"}, "requests": {"memory": "1Mi"}, "readOnlyRootFilesystem": True,
        "registryAuth": "", "network": "",
    }  # fmt: skip
    assert gateway.ask("PUT", "/system/functions", deployment)[0] == 404
    assert gateway.ask("POST", "/system/functions", deployment)[:2] == (202, b"")

    function = gateway.client.functions.get("env")
    assert function.image == IMAGE
    assert function.env == {"k": "v", "fprocess": "env"}
    assert function.retry_policy is not None
    assert function.retry_policy.max_attempts == 7
    assert (function.limits.memory_bytes, function.limits.cpu_millis) == (128 << 20, 100)

    assert gateway.ask("PUT", "/system/functions", deployment | {"envVars": {"k": "w"}})[0] == 202
    assert gateway.client.functions.get("env").env["k"] == "w"


def test_a_process_named_in_the_environment_goes_before_envprocess(gateway: Gateway) -> None:
    deployment = {"service": "env", "image": IMAGE, "envProcess": "env", "envVars": {"fprocess": "cat"}}
    assert gateway.ask("POST", "/system/functions", deployment)[0] == 202
    assert gateway.client.functions.get("env").env == {"fprocess": "cat"}


def test_the_list_and_a_description_have_the_shape_that_faas_cli_reads(gateway: Gateway) -> None:
    assert gateway.json("/system/functions") == []
    gateway.client.functions.deploy(name="upper", command=["tr", "a-z", "A-Z"], labels={"team": "a"}, env={"k": "v"})
    gateway.client.invoke("upper", "x")

    # As `faas-cli ready` does: the word of the worker may be on its way.
    ends_at = time.monotonic() + PATIENCE
    while not gateway.json("/system/function/upper")["availableReplicas"] and time.monotonic() < ends_at:
        time.sleep(0.1)
    (listed,) = gateway.json("/system/functions?namespace=openfaas-fn")
    described = gateway.json("/system/function/upper?usage=1&namespace=openfaas-fn")
    assert gateway.json("/system/function/upper.openfaas-fn")["name"] == "upper"
    created = datetime.fromisoformat(listed.pop("createdAt"))
    assert abs((datetime.now(UTC) - created).total_seconds()) < 600
    assert listed.pop("availableReplicas") >= 1
    assert listed.pop("replicas") >= 1
    assert isinstance(listed.pop("invocationCount"), float)
    assert listed == {
        "name": "upper",
        "image": "tr a-z A-Z",
        "namespace": "openfaas-fn",
        "envVars": {"k": "v"},
        "labels": {"team": "a"},
    }
    assert described["availableReplicas"] > 0
    assert gateway.ask("GET", "/system/function/nothing")[0] == 404


def test_delete_and_scale(gateway: Gateway) -> None:
    for method, path, body in (
        ("DELETE", "/system/functions", {"functionName": "upper"}),
        ("POST", "/system/scale-function/upper", {"serviceName": "upper", "replicas": 2}),
    ):
        assert gateway.ask(method, path, body)[0] == 404
    gateway.client.functions.deploy(name="upper", command=["cat"])
    for replicas, path, most in ((2, "upper", 4), (9, "upper.openfaas-fn", 9), (0, "upper", 9)):
        body = {"serviceName": "upper", "replicas": replicas, "namespace": "openfaas-fn"}
        assert gateway.ask("POST", f"/system/scale-function/{path}", body)[:2] == (202, b"")
        function = gateway.client.functions.get("upper")
        assert (function.min_instances, function.max_instances or 4) == (replicas, most)
    assert gateway.ask("DELETE", "/system/functions", {"functionName": "upper", "namespace": ""})[:2] == (202, b"")
    assert list(gateway.client.functions.list()) == []


def test_secrets_are_made_changed_and_removed_and_never_shown(gateway: Gateway) -> None:
    path = "/system/secrets"
    assert gateway.json(path) == []
    assert gateway.ask("POST", path, {"name": "s1", "value": "text", "namespace": "openfaas-fn"})[0] == 202
    assert gateway.ask("POST", path, {"name": "s1", "value": "text"})[0] == 409
    assert gateway.ask("POST", path, {"name": "s2", "rawValue": base64.b64encode(b"\x00\xff").decode()})[0] == 202
    assert gateway.json(path) == [{"name": name, "namespace": "openfaas-fn"} for name in ("s1", "s2")]
    assert gateway.ask("PUT", path, {"name": "s1", "value": "other"})[0] == 202
    assert gateway.ask("PUT", path, {"name": "s3", "value": "other"})[0] == 404
    for name in ("s1", "s2"):
        assert gateway.ask("DELETE", path, {"name": name})[:2] == (202, b"")
    assert gateway.ask("DELETE", path, {"name": "s1"})[0] == 404
    assert gateway.ask("POST", "/system/functions", {"service": "f", "image": IMAGE, "secrets": ["s1"]})[0] == 400


def test_information_has_no_null_where_faas_cli_would_fall_over_it(gateway: Gateway) -> None:
    info = gateway.json("/system/info")
    for version in (info["version"], info["provider"]["version"]):
        assert version["release"]
        assert isinstance(version["sha"], str)
    assert (info["provider"]["provider"], bool(info["provider"]["orchestration"]), bool(info["arch"])) == (
        "homing",
        True,
        True,
    )
    assert gateway.json("/system/namespaces") == ["openfaas-fn"]
    assert gateway.ask("GET", "/healthz", authorization="")[0] == 200


def test_a_page_of_another_site_deploys_nothing(gateway: Gateway) -> None:
    for headers in (
        {"Origin": "https://evil.example", "Content-Type": "text/plain"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Origin": "null"},
    ):
        for path in ("/system/functions", "/v1/functions"):
            with closing(http.client.HTTPConnection(gateway.address, timeout=PATIENCE)) as port:
                shown = {"Authorization": gateway.authorization}
                port.request("POST", path, json.dumps({"service": "env", "image": IMAGE}), headers | shown)
                answer = port.getresponse()
                assert (answer.status, b"another site" in answer.read()) == (403, True)
    assert list(gateway.client.functions.list()) == []


def lines_of(body: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in body.splitlines()]


def test_logs_of_a_function_whatever_it_served(gateway: Gateway) -> None:
    gateway.client.functions.deploy(name="says", command=["sh", "-c", "cat >&2"])
    gateway.client.functions.deploy(name="silent", command=["cat"])
    with closing(http.client.HTTPConnection(gateway.address, timeout=PATIENCE)) as port:
        port.request(
            "GET", "/system/logs?name=says&follow=true&tail=-1", headers={"Authorization": gateway.authorization}
        )
        following = port.getresponse()
        assert following.headers["Content-Type"] == "application/x-ndjson"
        first = gateway.client.invoke("says", "one")
        assert json.loads(following.readline())["text"] == "one\n"
        second = gateway.client.invoke_async("says", "two").wait(timeout=PATIENCE)
        line = json.loads(following.readline())
    assert line["text"] == "two\n"
    assert (line["name"], line["namespace"], line["instance"]) == ("says", "openfaas-fn", second.id)
    assert datetime.fromisoformat(line["timestamp"]).tzinfo is not None

    status, body, _ = gateway.ask("GET", "/system/logs?name=says.openfaas-fn&follow=false")
    assert status == 200
    assert [(each["instance"], each["text"]) for each in lines_of(body)] == [
        (first.invocation.id, "one\n"),
        (second.id, "two\n"),
    ]
    assert [each["text"] for each in lines_of(gateway.ask("GET", "/system/logs?name=says&tail=1")[1])] == ["two\n"]
    since = line["timestamp"].replace("+00:00", "Z")
    assert [each["text"] for each in lines_of(gateway.ask("GET", f"/system/logs?name=says&since={since}")[1])] == [
        "two\n"
    ]
    assert gateway.ask("GET", "/system/logs?name=silent")[:2] == (200, b"")
    assert gateway.ask("GET", "/system/logs?name=nothing")[0] == 404


BAD: list[tuple[str, str, object, int, str]] = [
    ("GET", "/system/logs", None, 422, "name"),
    ("GET", "/system/logs?name=f&tail=x", None, 422, "tail"),
    ("GET", "/system/logs?name=f&tail=99999999", None, 422, "tail"),
    ("GET", "/system/logs?name=f&since=yesterday", None, 422, "since"),
    ("GET", "/system/logs?name=f&follow=perhaps", None, 422, "follow"),
    ("GET", "/system/functions?namespace=other", None, 400, "namespace"),
    ("POST", "/system/functions", {}, 400, "service"),
    ("POST", "/system/functions", {"service": "f"}, 400, "image"),
    ("POST", "/system/functions", {"service": "F_", "image": IMAGE}, 400, "name"),
    ("POST", "/system/functions", {"service": 3, "image": IMAGE}, 400, "service"),
    ("POST", "/system/functions", {"service": "f", "image": IMAGE, "envVars": {"a": 1}}, 400, "envVars"),
    ("POST", "/system/functions", {"service": "f", "image": IMAGE, "labels": ["a"]}, 400, "labels"),
    (
        "POST",
        "/system/functions",
        {"service": "f", "image": IMAGE, "labels": {"com.openfaas.scale.max": "101"}},
        400,
        'labels["com.openfaas.scale.max"]: must be',
    ),
    ("POST", "/system/functions", {"service": "f", "image": IMAGE, "limits": {"memory": "lots"}}, 400, "limits.memory"),
    ("POST", "/system/functions", {"service": "f", "image": IMAGE, "namespace": "other"}, 400, "namespace"),
    ("POST", "/system/functions", {"service": "f", "image": IMAGE, "secrets": "s"}, 400, "secrets"),
    (
        "POST",
        "/system/functions",
        {"service": "f", "image": IMAGE, "annotations": {"com.openfaas.retry.codes": "x"}},
        400,
        "com.openfaas.retry.codes",
    ),
    ("POST", "/system/functions", [], 400, "object"),
    ("DELETE", "/system/functions", {}, 400, "functionName"),
    ("POST", "/system/scale-function/f", {"replicas": -1}, 400, "replicas"),
    ("POST", "/system/scale-function/f", {"replicas": "2"}, 400, "replicas"),
    ("POST", "/system/secrets", {"name": "s", "rawValue": "&"}, 400, "rawValue"),
    ("POST", "/system/secrets", {"name": "s"}, 400, "value"),
    ("POST", "/system/secrets", {"name": "/", "value": "x"}, 400, "name"),
    ("PATCH", "/system/functions", {}, 405, ""),
    ("GET", "/system/scale-function/f", None, 405, ""),
    ("GET", "/system/nothing", None, 404, ""),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "named"), BAD)
def test_bad_input_is_refused_by_the_name_of_its_field(  # noqa: PLR0917 a row of the table
    gateway: Gateway, method: str, path: str, body: object, status: int, named: str
) -> None:
    found, text, _ = gateway.ask(method, path, body)
    assert (found, named in text.decode()) == (status, True), text


def test_what_is_no_json_is_refused(gateway: Gateway) -> None:
    for raw in (b"{", b"\xff", b'{"service":', b"[" * 100_000, b'{"a":' * 10_000, b"null", b"x" * (600 * 1024)):
        assert gateway.ask("POST", "/system/functions", raw=raw)[0] == 400


def test_nobody_comes_in_without_a_key_and_nobody_further_than_theirs(gateway: Gateway) -> None:
    if gateway.authorization == "Bearer ":
        for shown in ("", "Bearer ", "Bearer x", basic("x"), "Basic ?"):
            assert gateway.ask("GET", "/system/functions", authorization=shown)[0] == 200
        return
    keys = gateway.client.keys
    reads = keys.create("system-reads", scopes=["read"]).secret
    deploys = keys.create("system-deploys", scopes=["deploy"]).secret
    operates = keys.create("system-operates", scopes=["operate"]).secret
    deployment = {"service": "env", "image": IMAGE}
    for path in ("functions", "function/x", "info", "secrets", "logs?name=x", "namespaces", "nothing"):
        for shown in ("", "Bearer ", "Bearer wrong", basic("wrong"), "Basic ?", "Basic " + "x" * 99):
            status, body, headers = gateway.ask("GET", f"/system/{path}", authorization=shown)
            assert (status, body) == (401, b"invalid credentials\n")
            assert headers["WWW-Authenticate"] == 'Basic realm="Restricted"'
    for shown in (f"Bearer {reads}", basic(reads), basic(ROOT_KEY)):
        assert gateway.ask("GET", "/system/functions", authorization=shown)[0] == 200
    assert gateway.ask("POST", "/system/functions", deployment, authorization=basic(reads))[0] == 403
    assert gateway.ask("PUT", "/system/functions", deployment, authorization=basic(reads))[0] == 403
    assert gateway.ask("PUT", "/system/functions", deployment, authorization=basic(deploys))[0] == 404
    assert gateway.ask("POST", "/system/functions", deployment, authorization=basic(deploys))[0] == 202
    scaling = {"serviceName": "env", "replicas": 0}
    assert gateway.ask("POST", "/system/scale-function/env", scaling, authorization=basic(reads))[0] == 403
    assert gateway.ask("POST", "/system/scale-function/env", scaling, authorization=basic(operates))[0] == 202
    assert gateway.ask("GET", "/system/logs?name=env", authorization=basic(deploys))[0] == 403
    assert gateway.ask("GET", "/system/secrets", authorization=basic(reads))[0] == 403
    limited = keys.create("system-limited", scopes=["read", "deploy"], functions=["other"]).secret
    assert gateway.ask("GET", "/system/functions", authorization=basic(limited))[:2] == (200, b"[]")
    assert gateway.ask("GET", "/system/logs?name=env", authorization=basic(limited))[0] == 403
    assert gateway.ask("DELETE", "/system/functions", {"functionName": "env"}, authorization=basic(limited))[0] == 403
    for name in ("reads", "deploys", "operates", "limited"):
        keys.revoke(f"system-{name}")
