"""A server that moves to another port takes nothing with it that workers cannot find."""

from __future__ import annotations

from support.processes import Cluster

PATIENCE = 60.0
LARGE = bytes(range(256)) * 2048


def test_large_bodies_that_wait_at_the_broker_are_read_and_written_where_the_server_is_now(
    cluster: Cluster,
) -> None:
    server = cluster.start_server()
    client = cluster.client(timeout=PATIENCE)
    client.functions.deploy(name="cat", command=["cat"])
    calls = [client.invoke_async("cat", LARGE) for _ in range(4)]
    former = server.http
    server.terminate()
    server.environment["HOMING_HTTP_LISTEN"] = "127.0.0.1:0"
    server.start()
    assert server.http != former

    for _ in range(2):
        cluster.start_worker()
    for call in calls:
        assert call.result(timeout=20).data == LARGE
        assert [attempt.number for attempt in call.describe().attempts] == [1]


def test_a_worker_that_is_connected_learns_where_the_server_has_moved(cluster: Cluster) -> None:
    server = cluster.start_server()
    worker = cluster.start_worker()
    client = cluster.client(timeout=PATIENCE)
    client.functions.deploy(name="slow-cat", command=["sh", "-c", "sleep 2; exec cat"])
    call = client.invoke_async("slow-cat", LARGE)
    with client.watch_results(include_transitions=True) as changes:
        if not call.describe().attempts:
            next(change for change in changes if change.invocation.attempts)
    server.terminate()
    server.environment["HOMING_HTTP_LISTEN"] = "127.0.0.1:0"
    server.start()

    assert call.result(timeout=30).data == LARGE
    assert [attempt.number for attempt in call.describe().attempts] == [1]
    assert worker.running
