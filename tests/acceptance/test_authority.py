"""What is accepted later in somebody's name is checked by what they may do then: chains, redrives and re-runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from homing import Client, Delivery, DeliveryState, PermissionDeniedError
from support.confidential import confidential
from support.processes import Cluster, Dev
from support.rabbitmq import RabbitNode

PATIENCE = 60.0
ROOT_KEY = confidential("the-root-key-of-the-tests-0123456789")


@pytest.fixture(scope="module", params=["dev", "rabbitmq"])
def target(
    request: pytest.FixtureRequest, rabbit_node: RabbitNode, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("authority")
    if request.param == "dev":
        dev = Dev(folder, HOMING_ROOT_KEY=ROOT_KEY)
        dev.start()
        yield dev.target
        dev.terminate()
        return
    url = rabbit_node.new_vhost()
    with Cluster(url, folder) as cluster:
        cluster.start_server(HOMING_ROOT_KEY=ROOT_KEY)
        for _ in range(2):
            cluster.start_worker()
        yield cluster.target
    rabbit_node.leave_vhost(url)


@pytest.fixture
def root(target: str) -> Iterator[Client]:
    with Client(target, api_key=ROOT_KEY, timeout=PATIENCE) as client:
        for name in ("first", "second", "third"):
            client.functions.deploy(name=name, command=["cat"])
        yield client


@contextmanager
def client_of(root: Client, target: str, name: str, scopes: list[str], functions: list[str]) -> Iterator[Client]:
    """Yield the client of a key that is revoked afterwards."""
    key = root.keys.create(name, scopes=scopes, functions=functions).secret
    with Client(target, api_key=key, timeout=PATIENCE) as client:
        yield client
    root.keys.revoke(name)


def settled(root: Client, invocation: str) -> Delivery:
    """Return the one delivery of an ended invocation once there is nothing more to come of it."""
    while True:
        (delivery,) = root.get(invocation).deliveries
        if delivery.state in {DeliveryState.DELIVERED, DeliveryState.DEAD}:
            return delivery
        # No watch tells of deliveries; this takes a worker and the recorder a turn.
        root.invoke("third")


def refusal(root: Client, invocation: str) -> str:
    """Return why the delivery of an invocation came to nothing for want of a right, as its dead letter says."""
    delivery = settled(root, invocation)
    assert delivery.state is DeliveryState.DEAD
    failure = root.dead_letters.get(delivery.id).failure
    assert failure is not None
    assert failure.reason == "NOT_ALLOWED"
    return failure.message


def test_an_outcome_invokes_a_function_only_while_its_caller_may(root: Client, target: str) -> None:
    root.functions.pause("first")
    with client_of(root, target, "passer", ["invoke"], []) as client:
        held = client.invoke_async("first", "x", on_success="function:second")
    root.functions.resume("first")
    root.handle(held.id).wait(PATIENCE)
    assert refusal(root, held.id) == "'second' is not invoked for 'passer' any more: the API key was revoked meanwhile"

    # Whoever has the name now goes on where it was, with the rights of now.
    for scopes, functions, why in (
        (["invoke"], ["first"], "the API key is limited to functions, and 'second' is none of them"),
        (["read"], [], "invoking needs a key with the scope invoke or operate"),
    ):
        with client_of(root, target, "passer", scopes, functions):
            assert root.dead_letters.redrive(ids=[settled(root, held.id).id]).redelivered == 1
            assert refusal(root, held.id) == f"'second' is not invoked for 'passer' any more: {why}"
    with client_of(root, target, "passer", ["invoke"], ["first", "second"]):
        assert root.dead_letters.redrive(ids=[settled(root, held.id).id]).redelivered == 1
        delivery = settled(root, held.id)
    assert delivery.caused is not None
    assert root.get(delivery.caused).caller == "passer"


def test_where_a_function_says_that_outcomes_go_holds_for_all_its_callers(root: Client, target: str) -> None:
    root.functions.deploy(name="passing", command=["cat"], on_success="function:third")
    root.functions.pause("passing")
    with client_of(root, target, "passed", ["invoke"], ["passing"]) as client:
        held = client.invoke_async("passing", "x")
    root.functions.resume("passing")
    root.handle(held.id).wait(PATIENCE)
    assert settled(root, held.id).state is DeliveryState.DELIVERED


def test_who_runs_or_delivers_again_may_do_so_themselves(root: Client, target: str) -> None:
    call = root.invoke_async("first", "x", on_success="function:second", labels={"run": target})
    root.functions.pause("first")
    again = root.invoke_async("first", "x", on_success="function:second")
    root.functions.delete("second")
    root.functions.resume("first")
    for each in (call, again):
        each.wait(PATIENCE)
    delivery = settled(root, again.id)
    assert delivery.state is DeliveryState.DEAD
    root.functions.deploy(name="second", command=["cat"])

    with client_of(root, target, "limited", ["operate", "invoke"], ["first"]) as limited:
        with pytest.raises(PermissionDeniedError) as caught:
            limited.rerun(again.id)
        assert caught.value.reason == "FUNCTION_NOT_ALLOWED"
        redriven = limited.dead_letters.redrive(ids=[delivery.id])
        assert (redriven.redelivered, redriven.refused) == (0, 1)
        rerun = limited.bulk_rerun(labels={"run": target})
        assert (rerun.accepted, rerun.refused) == (0, 1)
    assert root.dead_letters.get(delivery.id).id == delivery.id

    with client_of(root, target, "able", ["operate"], ["first", "second"]) as able:
        assert able.dead_letters.redrive(ids=[delivery.id]).redelivered == 1
        assert settled(root, again.id).state is DeliveryState.DELIVERED
        assert able.bulk_rerun(labels={"run": target}).accepted == 1
