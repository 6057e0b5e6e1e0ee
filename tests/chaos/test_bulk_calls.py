"""Calls about many whose server is killed half-way: made again by their ids they do all once, and count exactly."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

import homing
from homing import Client, InvocationState
from homing.v1 import invocation_pb2
from homing.v1.dead_letter_pb2 import DeadLetterFilter
from homing.v1.dead_letter_service_pb2 import PurgeDeadLettersRequest, RedriveDeadLettersRequest
from homing.v1.dead_letter_service_pb2_grpc import DeadLetterServiceStub
from homing.v1.invocation_service_pb2 import BulkRerunRequest, BulkStopRequest
from homing.v1.invocation_service_pb2_grpc import InvocationServiceStub
from support.bulk import outcome_of
from support.gauges import gauges_when
from support.processes import Cluster

NUMBER = 4000
NAME = "many"
PATIENCE = 300
SELECTION = invocation_pb2.InvocationFilter(functions=[NAME])
DEAD = DeadLetterFilter(functions=[NAME])


@pytest.fixture
def client(cluster: Cluster) -> Iterator[Client]:
    """A client of a server without workers: what is accepted stays where it is."""
    cluster.start_server()
    with cluster.client(timeout=PATIENCE) as client:
        yield client


def accept(client: Client, number: int) -> list[str]:
    ids = []
    for start in range(0, number, 1000):
        handles = client.invoke_batch(NAME, [str(each) for each in range(start, min(start + 1000, number))])
        ids += [handle.id for handle in handles if isinstance(handle, homing.InvocationHandle)]
    assert len(ids) == number
    return ids


def deploy(client: Client, *, paused: bool) -> None:
    client.functions.deploy(name=NAME, command=["cat"])
    if paused:
        client.functions.pause(NAME)


def come_to_nothing(client: Client, number: int) -> list[str]:
    """Return invocations that ended INVALID: their function was removed, and is there again."""
    deploy(client, paused=True)
    ids = accept(client, number)
    with client.watch_results(function=NAME) as ends:
        client.functions.delete(NAME)
        assert {event.invocation.id for event in itertools.islice(ends, number)} == {*ids}
    deploy(client, paused=True)
    return ids


def killed_half_way(
    cluster: Cluster, call: Callable[[grpc.Channel], Iterator[Any]], *, after: int, did: Callable[[Any], int]
) -> int:
    """Kill the server once a call has sent so many messages, and start it again; return how much was done by then."""
    seen = []
    with grpc.insecure_channel(cluster.target) as channel:
        try:
            for message in call(channel):
                assert not message.done, "it was too fast to be killed half-way"
                seen.append(message)
                if len(seen) == after:
                    cluster.server.kill()
        except grpc.RpcError as broken:
            error: Any = broken
            assert error.code() is grpc.StatusCode.UNAVAILABLE
        else:
            raise AssertionError("the stream ended as if it were done")
    cluster.server.start()
    return did(seen[-1])


def carry_out(cluster: Cluster, call: Callable[[grpc.Channel], Iterator[Any]], did: Callable[[Any], int]) -> Any:
    """Make a call, and make it again after each kill, until it is done: before it has done much, and in its middle."""
    killed_half_way(cluster, call, after=1, did=did)
    assert 0 < killed_half_way(cluster, call, after=2, did=did) < NUMBER
    with grpc.insecure_channel(cluster.target) as channel:
        last = outcome_of(call(channel))
        assert outcome_of(call(channel)) == last
    return last


def reruns(client: Client) -> Counter[str | None]:
    """Return how often each was run again."""
    return Counter(one.rerun_of for one in client.list_invocations(function=NAME, page_size=1000) if one.rerun_of)


def test_a_bulk_stop_goes_on_after_kills_and_counts_each_once(cluster: Cluster, client: Client) -> None:
    deploy(client, paused=False)
    at_the_broker = accept(client, NUMBER // 2)
    client.functions.pause(NAME)
    in_the_store = accept(client, NUMBER - NUMBER // 2)
    request = BulkStopRequest(filter=SELECTION, reason="enough", request_id="all of it")
    late: list[str] = []

    def call(channel: grpc.Channel) -> Iterator[Any]:
        for message in InvocationServiceStub(channel).BulkStop(request):
            if not late:
                late.append(client.invoke_async(NAME).id)
            yield message

    with client.watch_results(function=NAME) as ends:
        done = carry_out(cluster, call, lambda message: message.stopped + message.stopping)
        assert (done.matched, done.stopped + done.stopping) == (NUMBER, NUMBER)
        assert done.stopped >= len(in_the_store)
        seen = Counter((e.invocation.id, e.invocation.state) for e in itertools.islice(ends, NUMBER))
    assert seen == Counter((key, InvocationState.STOPPED) for key in at_the_broker + in_the_store)
    assert client.get(late[0]).state is InvocationState.ENQUEUED
    with pytest.raises(homing.AlreadyExistsError):
        client.bulk_stop(function=NAME, reason="another", request_id="all of it")
    assert client.get(late[0]).state is InvocationState.ENQUEUED


async def test_a_bulk_rerun_goes_on_after_kills_and_runs_nothing_twice(cluster: Cluster, client: Client) -> None:
    ids = come_to_nothing(client, NUMBER)
    request = BulkRerunRequest(filter=SELECTION, request_id="again")

    def call(channel: grpc.Channel) -> Iterator[Any]:
        return InvocationServiceStub(channel).BulkRerun(request)

    done = carry_out(cluster, call, lambda message: message.accepted)

    assert (done.matched, done.accepted, done.refused) == (NUMBER, NUMBER, 0)
    assert reruns(client) == Counter(ids)
    await gauges_when(
        cluster.server,
        lambda gauges: gauges.records == {"INVALID": NUMBER, "ENQUEUED": NUMBER} and not gauges.record_drift,
    )


def test_redrives_and_purges_go_on_after_kills_and_count_each_once(cluster: Cluster, client: Client) -> None:
    ids = come_to_nothing(client, NUMBER)
    request = RedriveDeadLettersRequest(filter=DEAD, request_id="again")

    def call(channel: grpc.Channel) -> Iterator[Any]:
        return DeadLetterServiceStub(channel).RedriveDeadLetters(request)

    done = carry_out(cluster, call, lambda message: message.rerun)

    assert (done.matched, done.rerun, done.refused) == (NUMBER, NUMBER, 0)
    assert reruns(client) == Counter(ids)
    assert not list(client.dead_letters.list(function=NAME, limit=1))

    # They come to nothing once more, and are forgotten.
    with client.watch_results(function=NAME) as ends:
        client.functions.delete(NAME)
        assert len({event.invocation.id for event in itertools.islice(ends, NUMBER)}) == NUMBER
    purge = PurgeDeadLettersRequest(filter=DEAD, request_id="again")
    with pytest.raises(grpc.RpcError) as refused, grpc.insecure_channel(cluster.target) as channel:
        next(DeadLetterServiceStub(channel).PurgeDeadLetters(purge))
    error: Any = refused.value
    assert error.code() is grpc.StatusCode.ALREADY_EXISTS
    purge.request_id = "forget"
    with grpc.insecure_channel(cluster.target) as channel:
        for message in DeadLetterServiceStub(channel).PurgeDeadLetters(purge):
            assert message.matched == NUMBER
            break
    cluster.server.kill()
    cluster.server.start()
    purged = client.dead_letters.purge(function=NAME, request_id="forget")
    assert purged == homing.Purged(matched=NUMBER, purged=NUMBER)
    assert not list(client.dead_letters.list(function=NAME, limit=1))


def test_the_sdk_goes_on_by_itself(cluster: Cluster, client: Client) -> None:
    ids = come_to_nothing(client, NUMBER)
    seen: list[homing.BulkRerun] = []

    def kill(progress: homing.BulkRerun) -> None:
        if progress.accepted and not any(before.accepted for before in seen):
            assert progress.accepted < NUMBER, "it was too fast to be killed half-way"
            cluster.server.kill()
            cluster.server.start()
        seen.append(progress)

    done = client.bulk_rerun(function=NAME, on_progress=kill)

    assert done == homing.BulkRerun(matched=NUMBER, accepted=NUMBER, refused=0)
    accepted = [progress.accepted for progress in seen]
    assert accepted == sorted(accepted)
    assert reruns(client) == Counter(ids)
