"""Outcomes that find their way, as users meet them: through the SDK and the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from queue import Queue

import pytest

from homing import (
    CallbackVerificationError,
    Client,
    DeadLetterKind,
    DeliveryKind,
    DeliveryState,
    InvalidRequestError,
    InvocationState,
    NotFoundError,
    RetryPolicy,
    parse_envelope,
    verify_callback,
)
from support.cli import program
from support.confidential import confidential
from support.processes import Cluster
from support.rabbitmq import RabbitNode
from support.receiver import Request, receiver

PATIENCE = 60.0
ONCE = RetryPolicy(max_attempts=1)

pytestmark = pytest.mark.usefixtures("shared_cluster")


@pytest.fixture(scope="module")
def cluster(rabbit_node: RabbitNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    url = rabbit_node.new_vhost()
    with Cluster(url, tmp_path_factory.mktemp("deliveries")) as cluster:
        cluster.start_server()
        cluster.start_worker(HOMING_DELIVERY_DELAYS="0.05,0.05")
        client = cluster.client(timeout=PATIENCE)
        client.functions.deploy(name="echo", command=["cat"])
        client.functions.deploy(name="fail", command=["sh", "-c", "cat; exit 3"], retry_policy=ONCE)
        yield cluster
    rabbit_node.leave_vhost(url)


@pytest.fixture
def shared_cluster(cluster: Cluster) -> Cluster:
    """Have the logs of the cluster shown where a test fails."""
    return cluster


@pytest.fixture
def client(cluster: Cluster) -> Client:
    return cluster.client(timeout=PATIENCE)


def homing(cluster: Cluster, *arguments: str, code: int = 0) -> str:
    done = program(*arguments, target=cluster.target)
    assert done.returncode == code, done.stderr
    return (done.stdout if code == 0 else done.stderr).decode()


def until_over(client: Client, invocation_id: str) -> None:
    with client.watch_results(function="fence") as results:
        # What is recorded is recorded in order: a later end comes after the report of a delivery that has arrived.
        client.functions.deploy(name="fence", command=["true"])
        fence = client.invoke_async("fence")
        assert next(event for event in results if event.invocation.id == fence.id)
    deliveries = client.get(invocation_id).deliveries
    assert deliveries
    assert all(delivery.end_time is not None for delivery in deliveries)


def next_of(received: Queue[Request]) -> Request:
    return received.get(timeout=PATIENCE)


def test_a_callback_is_verified_by_its_receiver(client: Client) -> None:
    former = confidential(client.signing_keys.rotate().key)
    key = confidential(client.signing_keys.rotate().key)
    with receiver(statuses=[200]) as (url, received):
        call = client.invoke_async("echo", "grün", callback_url=f"{url}/hook", callback_headers={"X-Mine": "yes"})
        path, headers, body = next_of(received)
        until_over(client, call.id)

    assert (path, body.decode(), headers["x-mine"]) == ("/hook", "grün", "yes")
    for secret in (key, former, [former, key]):
        assert verify_callback(headers, body, secret).id == call.describe().deliveries[0].id
    for tampered in ({"body": body + b"!"}, {"headers": headers | {"webhook-id": "another"}}):
        with pytest.raises(CallbackVerificationError):
            verify_callback(**{"headers": headers, "body": body, "secret": key} | tampered)  # type: ignore[arg-type]


def test_destinations_get_the_envelope_of_the_end(client: Client) -> None:
    with receiver(statuses=[200]) as (url, received):
        good = client.invoke_async("echo", {"n": 1}, on_success=f"{url}/good", on_failure=f"{url}/bad")
        path, _, body = next_of(received)
        assert path == "/good"
        bad = client.invoke_async("fail", "words", on_success=f"{url}/good", on_failure=[f"{url}/bad"])
        failed_path, _, failed_body = next_of(received)
        scheduled = client.invoke_async("echo", on_failure=f"{url}/stopped", delay=3600)
        scheduled.stop(reason="not needed")
        stopped_path, _, stopped_body = next_of(received)

    envelope = parse_envelope(body)
    assert (envelope.id, envelope.state, envelope.request.value, envelope.response.value) == (
        good.id,
        InvocationState.SUCCEEDED,
        {"n": 1},
        {"n": 1},
    )
    failed = parse_envelope(failed_body)
    assert (failed_path, failed.id, failed.condition, failed.type) == (
        "/bad",
        bad.id,
        "RetriesExhausted",
        "invocation.failed",
    )
    assert failed.response.value == "words"
    stopped = parse_envelope(stopped_body)
    assert (stopped_path, stopped.id, stopped.condition) == ("/stopped", scheduled.id, "Stopped")


def test_a_function_is_the_next_one(client: Client) -> None:
    client.functions.deploy(name="first", command=["cat"], on_success="function:echo")
    call = client.invoke_async("first", ["a"])
    call.result(PATIENCE)
    with client.watch_results(function="fence"):
        until_over(client, call.id)
    (delivery,) = call.describe().deliveries
    assert (delivery.kind, delivery.state) == (DeliveryKind.ON_SUCCESS, DeliveryState.DELIVERED)
    assert delivery.caused is not None
    caused = client.handle(delivery.caused)
    assert parse_envelope(caused.result(PATIENCE).data).response.value == ["a"]
    assert [each.id for each in client.list_invocations(caused_by=call.id)] == [caused.id]
    assert (caused.describe().caused_by, caused.describe().depth) == (call.id, 1)


def test_what_came_to_nothing_is_seen_to(client: Client, cluster: Cluster) -> None:
    with receiver(statuses=[500, 500, 500, 200]) as (url, received):
        undelivered = client.invoke_async("echo", "x", callback_url=url)
        for _ in range(3):
            next_of(received)
        failed = client.invoke_async("fail", "again")
        failed.wait(PATIENCE)
        until_over(client, undelivered.id)
        (delivery,) = undelivered.describe().deliveries
        assert (delivery.state, len(delivery.attempts)) == (DeliveryState.DEAD, 3)

        letter = client.dead_letters.get(delivery.id)
        assert (letter.kind, letter.invocation_id, letter.function) == (
            DeadLetterKind.DELIVERY,
            undelivered.id,
            "echo",
        )
        assert letter.failure is not None
        assert letter.failure.reason == "HTTP_STATUS"
        found = json.loads(f"[{','.join(homing(cluster, 'deadletters', 'list', '--json').splitlines())}]")
        assert {each["id"] for each in found} >= {delivery.id, failed.id}
        assert "HTTP_STATUS" in homing(cluster, "deadletters", "show", delivery.id)

        assert client.dead_letters.redrive(function="echo", dry_run=True).matched == 1
        done = client.dead_letters.redrive(ids=[delivery.id])
        assert (done.matched, done.redelivered, done.rerun) == (1, 1, 0)
        next_of(received)
        until_over(client, undelivered.id)
    assert undelivered.describe().deliveries[0].state is DeliveryState.DELIVERED
    homing(cluster, "deadletters", "redrive", failed.id)
    (again,) = client.list_invocations(rerun_of=failed.id)
    client.handle(again.id).wait(PATIENCE)
    assert client.dead_letters.get(again.id).kind is DeadLetterKind.INVOCATION
    with pytest.raises(NotFoundError):
        client.dead_letters.get(failed.id)
    assert client.dead_letters.purge(ids=[again.id]).purged == 1
    with pytest.raises(NotFoundError):
        client.dead_letters.get(again.id)


def test_bad_destinations_are_named_by_every_front(client: Client, cluster: Cluster) -> None:
    for uri, reason in {
        "ftp://example.org/": "must begin with",
        "http://169.254.169.254/latest/meta-data/": "leads to 169.254.169.254: a link-local network",
        "http://2130706433/": "four decimal numbers",
        "function:nobody": "does not exist",
        "amqp:/homing.events.v1": "homing's own",
    }.items():
        with pytest.raises(InvalidRequestError, match=r"on_failure\[0\]|on_failure") as caught:
            client.invoke_async("echo", on_failure=uri)
        assert reason in str(caught.value)
        told = homing(cluster, "invoke", "echo", "x", "--async", "--on-failure", uri, code=2)
        assert reason in told
    # What functions may be reached by is one thing, and where outcomes may go is another.
    private = "http://10.0.0.1/"
    for call in (
        lambda: client.invoke_async("echo", callback_url=private),
        lambda: client.invoke_async("echo", on_success=private),
        lambda: client.functions.deploy(name="sends", command=["cat"], on_success=private),
        lambda: client.functions.deploy(name="sends", command=["cat"], on_failure=private),
    ):
        with pytest.raises(InvalidRequestError, match=r"10\.0\.0\.1: a private network.*HOMING_CALLBACK_NETWORKS"):
            call()


def test_the_command_line_says_where_an_outcome_is(client: Client, cluster: Cluster) -> None:
    with receiver(statuses=[204]) as (url, received):
        invocation_id = homing(
            cluster,
            *("invoke", "echo", "hello", "--async", "--callback-url", url, "--on-success", f"{url}/done"),
        ).strip()
        next_of(received)
        next_of(received)
        until_over(client, invocation_id)
    shown = homing(cluster, "get", invocation_id)
    assert f"{url}/done" in shown
    assert "DELIVERED" in shown
    assert "DELIVERED" in homing(cluster, "get", invocation_id, "--events")
