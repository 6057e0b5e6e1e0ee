"""Answers that are passed on as they come, while a worker or a server is killed."""

from __future__ import annotations

import time

import pytest

from homing import Client, InvocationState, NotFoundError, UnavailableError
from support.processes import Cluster
from support.source import Exchange, running_source

PATIENCE = 60.0
SOON = 2.0


def one(call: Exchange) -> None:
    call.chunked("text/event-stream")
    call.chunk(b"one")
    call.wait_left(PATIENCE)


def ended_record(client: Client, invocation_id: str) -> tuple[InvocationState, str]:
    """Return how an invocation ended, once there is a record of it."""
    limit = time.monotonic() + PATIENCE
    while True:
        try:
            record = client.handle(invocation_id).wait(timeout=PATIENCE)
            break
        except NotFoundError:
            assert time.monotonic() < limit
            time.sleep(0.05)
    assert record.failure is not None
    return record.state, record.failure.reason


def test_a_worker_that_is_killed_breaks_its_streams_and_is_told_of(cluster: Cluster) -> None:
    server = cluster.start_server()
    worker = cluster.start_worker()
    with running_source() as source, Client(server.target, timeout=PATIENCE) as client:
        source.answers["/"] = one
        client.functions.deploy(name="source", url=source.url)
        with client.invoke_stream("source") as stream:
            assert next(stream) == b"one"
            worker.kill()
            with pytest.raises(UnavailableError) as raised:
                next(stream)
            assert raised.value.reason == "WORKER_LOST"
            assert raised.value.invocation_id == stream.invocation_id
        assert source.calls[0].left.wait(SOON)
        assert ended_record(client, stream.invocation_id) == (InvocationState.FAILED, "WORKER_LOST")


def test_a_server_that_is_killed_leaves_no_function_behind(cluster: Cluster) -> None:
    other = cluster.start_server()
    server = cluster.start_server()
    cluster.start_worker()
    with running_source() as source, Client(server.target) as client, Client(other.target, timeout=PATIENCE) as safe:
        source.answers["/"] = one
        safe.functions.deploy(name="source", url=source.url)
        with client.invoke_stream("source") as stream:
            assert next(stream) == b"one"
            server.kill()
            with pytest.raises(UnavailableError):
                next(stream)
            killed = time.monotonic()
            assert source.calls[0].left.wait(SOON)
            assert time.monotonic() - killed < SOON
        assert ended_record(safe, stream.invocation_id) == (InvocationState.STOPPED, "STOPPED")


def test_a_server_that_stops_ends_its_streams(cluster: Cluster) -> None:
    server = cluster.start_server(HOMING_DRAIN_TIMEOUT="1")
    cluster.start_worker()
    with running_source() as source, Client(server.target) as client:
        source.answers["/"] = one
        client.functions.deploy(name="source", url=source.url)
        with client.invoke_stream("source") as stream:
            assert next(stream) == b"one"
            assert server.terminate() == 0
            with pytest.raises(UnavailableError):
                next(stream)
        assert source.calls[0].left.wait(SOON)
