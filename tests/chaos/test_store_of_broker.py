"""A virtual host of RabbitMQ belongs to one store, whatever is started, restarted or lost."""

from __future__ import annotations

from pathlib import Path

from homing import Client
from support.processes import Cluster, Server
from support.rabbitmq import RabbitNode, vhost_of


def foreign_server(cluster: Cluster, folder: Path, **environment: str) -> Server:
    """Return a server of another store on the cluster's virtual host."""
    return cluster.new_server(HOMING_STORE_URL=f"sqlite:///{folder / 'other.sqlite3'}", **environment)


def assert_refused(server: Server) -> None:
    server.launch()
    assert server.wait() == 1
    said = [line["text"] for line in server.lines if not line["event"]]
    assert len(said) == 1, said
    assert said[0].startswith("homing-server: this virtual host of RabbitMQ belongs to another store, ")
    assert "HOMING_TAKE_OVER_BROKER" in said[0]


def run_one(cluster: Cluster, server: Server) -> None:
    with Client(server.target, timeout=60) as client:
        client.functions.deploy(name="hello", command=["cat"])
        assert client.invoke_async("hello", "here").result(60).text == "here"


def test_a_server_of_another_store_is_refused_and_those_of_the_same_are_not(cluster: Cluster, tmp_path: Path) -> None:
    first = cluster.start_server()
    cluster.start_worker()
    assert_refused(foreign_server(cluster, tmp_path))
    second = cluster.start_server()
    first.restart()
    for server in (first, second):
        run_one(cluster, server)


def test_a_new_store_takes_the_place_of_one_that_is_lost(cluster: Cluster, tmp_path: Path) -> None:
    lost = cluster.start_server()
    cluster.start_worker()
    lost.kill()
    successor = foreign_server(cluster, tmp_path, HOMING_TAKE_OVER_BROKER="true")
    successor.start()
    run_one(cluster, successor)
    del successor.environment["HOMING_TAKE_OVER_BROKER"]
    successor.restart()
    assert_refused(lost)


def test_a_broker_that_lost_what_it_had_is_noted_anew(
    cluster: Cluster, rabbit_node: RabbitNode, tmp_path: Path
) -> None:
    server = cluster.start_server()
    cluster.start_worker()
    vhost, before = vhost_of(cluster.broker_url), len(server.lines)
    rabbit_node.ctl("delete_vhost", vhost)
    rabbit_node.ctl("add_vhost", vhost)
    rabbit_node.ctl("set_permissions", "-p", vhost, "guest", ".*", ".*", ".*")
    server.wait_for_log("broker_connected", after=before)
    run_one(cluster, server)
    assert_refused(foreign_server(cluster, tmp_path))
