"""TLS end to end: callers to the server, workers to its data port, and both to RabbitMQ."""

from __future__ import annotations

import contextlib
import ssl
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from homing import Client, DeliveryAttempt, InvalidRequestError, InvocationHandle, UnavailableError
from support.certificates import Authority, Pair
from support.cli import homing
from support.confidential import confidential
from support.processes import Cluster, ProcessError, Server
from support.rabbitmq import RabbitNode

ROOT_KEY = confidential("the-root-key-of-the-tls-tests-0123456789")
LARGE = b"x" * 400_000


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
def pair(authority: Authority) -> Pair:
    return authority.issue("server", "127.0.0.1", "localhost")


def serves_tls(pair: Pair) -> dict[str, str]:
    return {"HOMING_TLS_CERT": str(pair.cert), "HOMING_TLS_KEY": str(pair.key)}


def refused(client: Client) -> None:
    with client, pytest.raises(UnavailableError):
        list(client.functions.list())


def fetch(url: str, context: ssl.SSLContext) -> int:
    with urllib.request.urlopen(url, context=context) as answer:
        return int(answer.status)


def test_callers_and_workers_check_the_server(
    cluster: Cluster, authority: Authority, pair: Pair, tmp_path: Path
) -> None:
    server = cluster.start_server(HOMING_ROOT_KEY=ROOT_KEY, **serves_tls(pair))
    cluster.start_worker(HOMING_TLS_CA=str(authority.ca))
    client = cluster.client(tls_ca=authority.ca, api_key=ROOT_KEY)
    client.functions.deploy(name="echo", command=["cat"])
    assert client.invoke("echo", "hello").text == "hello"
    # By the data port, over TLS too.
    assert client.invoke_async("echo", LARGE).result(timeout=60).data == LARGE

    refused(Client(server.target, api_key=ROOT_KEY, timeout=2))
    refused(Client(f"https://{server.target}", api_key=ROOT_KEY, timeout=2))
    refused(Client(server.target, tls_ca=Authority(tmp_path / "other").ca, api_key=ROOT_KEY, timeout=2))
    trusting = ssl.create_default_context(cafile=str(authority.ca))
    assert fetch(f"https://{server.http}/healthz", trusting) == 200
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
        fetch(f"https://{server.http}/healthz", ssl.create_default_context())


def first_attempt(call: InvocationHandle[Any]) -> DeliveryAttempt:
    deadline = time.monotonic() + 60
    while True:
        for delivery in call.describe().deliveries:
            for attempt in delivery.attempts:
                return attempt
        assert time.monotonic() < deadline, "nobody tried to deliver"
        time.sleep(0.1)


def test_https_trusts_what_the_system_does(
    cluster: Cluster, authority: Authority, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = cluster.start_server(**serves_tls(pair))
    # This is how OpenSSL is told where the certificates of the system are.
    monkeypatch.delenv("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
    with Client(f"https://{server.target}") as client:
        assert list(client.functions.list()) == []


def test_clients_and_workers_show_certificates_where_the_server_wants_them(
    cluster: Cluster, authority: Authority, pair: Pair, tmp_path: Path
) -> None:
    people = Authority(tmp_path / "people", "people")
    mine = people.issue("me")
    stranger = Authority(tmp_path / "strangers", "strangers").issue("stranger")
    server = cluster.start_server(HOMING_TLS_CLIENT_CA=str(people.ca), **serves_tls(pair))
    cluster.start_worker(HOMING_TLS_CA=str(authority.ca), **serves_tls(mine))
    client = cluster.client(tls_ca=authority.ca, tls_cert=mine.cert, tls_key=mine.key)
    client.functions.deploy(name="echo", command=["cat"])
    assert client.invoke_async("echo", LARGE).result(timeout=60).data == LARGE
    # What is passed on as it comes goes there as well: it is more than would be kept of others.
    client.functions.deploy(name="zeros", command=["head", "-c", "70000000", "/dev/zero"])
    with client.invoke_stream("zeros") as stream:
        assert sum(map(len, stream)) == 70_000_000
    # The server itself, by the name that deliveries know it by; it serves nothing there.
    call = client.invoke_async("echo", "x", callback_url="http://gateway:8080/nothing")
    assert first_attempt(call).status_code == 404

    shown = homing(
        *("--target", server.target, "--tls-ca", str(authority.ca)),
        *("--tls-cert", str(mine.cert), "--tls-key", str(mine.key), "invoke", "echo", "hello"),
    )
    assert (shown.exit_code, shown.stdout) == (0, "hello"), shown.stderr
    refused(Client(server.target, tls_ca=authority.ca, timeout=2))
    refused(Client(server.target, tls_ca=authority.ca, tls_cert=stranger.cert, tls_key=stranger.key, timeout=2))
    context = ssl.create_default_context(cafile=str(authority.ca))
    with pytest.raises((urllib.error.URLError, ssl.SSLError, ConnectionError)):
        fetch(f"https://{server.http}/healthz", context)
    context.load_cert_chain(mine.cert, mine.key)
    assert fetch(f"https://{server.http}/healthz", context) == 200


@pytest.mark.parametrize(
    "case",
    [
        ({"HOMING_TLS_KEY": None}, "HOMING_TLS_CERT is set without HOMING_TLS_KEY"),
        ({"HOMING_TLS_CERT": None}, "HOMING_TLS_KEY is set without HOMING_TLS_CERT"),
        ({"HOMING_TLS_CERT": "/missing.pem"}, "HOMING_TLS_CERT: /missing.pem cannot be read"),
        ({"HOMING_TLS_CERT": "garbage"}, "garbage has no certificate in PEM form"),
        ({"HOMING_TLS_KEY": "other"}, "is not the key of the certificate in"),
        ({"HOMING_TLS_CLIENT_CA": "garbage"}, "HOMING_TLS_CLIENT_CA: .*garbage has no certificates in PEM form"),
        ({"HOMING_BROKER_TLS_CA": "garbage"}, "are for a HOMING_BROKER_URL that begins with amqps"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(
    cluster: Cluster, authority: Authority, pair: Pair, tmp_path: Path, case: tuple[dict[str, str | None], str]
) -> None:
    changes, message = case
    (tmp_path / "garbage").write_text("no certificate")
    files = {"garbage": str(tmp_path / "garbage"), "other": str(authority.issue("other", "localhost").key)}
    settings = {**serves_tls(pair), **{name: files.get(str(value), value) for name, value in changes.items()}}
    server = cluster.new_server(**{name: value for name, value in settings.items() if value is not None})
    with pytest.raises(ProcessError, match=message):
        server.start()
    assert server.wait() == 1


def test_options_of_the_command_go_before_the_environment(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOMING_TLS_CA", str(pair.cert))

    for option, setting in (("--tls-ca", "tls_ca"), ("--tls-cert", "tls_cert"), ("--tls-key", "tls_key")):
        given = {"--tls-cert": str(pair.cert), "--tls-key": str(pair.key)} | {option: "/missing.pem"}
        result = homing(*(part for pair_ in given.items() for part in pair_), "list")
        assert result.exit_code == 2
        assert f"{setting}: cannot be read" in " ".join(result.stderr.split())


def test_the_client_names_a_file_that_is_not_there(pair: Pair) -> None:
    with pytest.raises(InvalidRequestError, match="tls_key"):
        Client("localhost:1", tls_cert=pair.cert)
    with pytest.raises(InvalidRequestError, match="tls_ca: cannot be read"):
        Client("localhost:1", tls_ca="/missing.pem")
    with pytest.raises(InvalidRequestError, match="http://"):
        Client("http://localhost:1", tls_ca=pair.cert)


@contextlib.contextmanager
def secure_node(authority: Authority, pair: Pair) -> Iterator[RabbitNode]:
    """Yield a RabbitMQ that wants certificates of those who connect by TLS."""
    node = RabbitNode(Path(tempfile.mkdtemp(prefix="homing-rabbitmq-")))
    node.listen_to_tls(ca=authority.ca, cert=pair.cert, key=pair.key)
    with node:
        yield node


def test_amqps_checks_the_broker_and_shows_a_certificate(authority: Authority, pair: Pair, tmp_path: Path) -> None:
    mine = authority.issue("homing")
    tls = {
        "HOMING_BROKER_TLS_CA": str(authority.ca),
        "HOMING_BROKER_TLS_CERT": str(mine.cert),
        "HOMING_BROKER_TLS_KEY": str(mine.key),
    }
    with secure_node(authority, pair) as node:
        vhost = node.new_vhost().rpartition("/")[2]
        url = f"amqps://guest:guest@127.0.0.1:{node.tls_port}/{vhost}"
        with Cluster(url, tmp_path / "good") as cluster:
            cluster.start_server(**tls)
            cluster.start_worker(**tls)
            client = cluster.client()
            client.functions.deploy(name="echo", command=["cat"])
            assert client.invoke_async("echo", "hello").result(timeout=60).text == "hello"
        for number, (host, settings) in enumerate(
            (
                # Not of an authority that the system trusts.
                ("127.0.0.1", {}),
                ("127.0.0.1", tls | {"HOMING_BROKER_TLS_CA": str(Authority(tmp_path / "other").ca)}),
                # The certificate is of another host.
                ("127.0.0.2", tls),
                # Shows no certificate.
                ("127.0.0.1", {"HOMING_BROKER_TLS_CA": str(authority.ca)}),
            )
        ):
            url = f"amqps://guest:guest@{host}:{node.tls_port}/{vhost}"
            with Cluster(url, tmp_path / f"bad-{number}") as cluster:
                server = cluster.new_server(**settings)
                server.launch()
                line = server.wait_for_log("broker_connect_failed")
                assert server.running
                assert not has_connected(server), line


def has_connected(server: Server) -> bool:
    return any(line.get("event") == "broker_connected" for line in server.lines)
