"""What callers hear while their calls are under way: by homing dev, and by a server on RabbitMQ with two workers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from homing import AsyncClient, Client
from homing.v1 import invocation_service_pb2 as api
from homing.v1.invocation_service_pb2_grpc import InvocationServiceStub
from support.gauges import gauges_when
from support.grpc_errors import error_info
from support.processes import Cluster, Dev, Server
from support.rabbitmq import RabbitNode

PATIENCE = 60
RESULTS = 300
LABELS = {f"{number}": "x" * 255 for number in range(16)}
"""Four kilobytes, so that the results are far more than what is under way to a reader that does not read."""
NARROW = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 64 * 1024))


@pytest.fixture(scope="module", params=["dev", "rabbitmq"])
def server(
    request: pytest.FixtureRequest, rabbit_node: RabbitNode, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("calls")
    if request.param == "dev":
        dev = Dev(folder)
        dev.module = "support.impatient"
        dev.start()
        yield dev
        dev.terminate()
        return
    url = rabbit_node.new_vhost()
    with Cluster(url, folder) as cluster:
        made = cluster.new_server()
        made.module = "support.impatient"
        made.start()
        for _ in range(2):
            cluster.start_worker()
        yield made
    rabbit_node.leave_vhost(url)


@pytest.fixture
async def channel(server: Server) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(server.target, options=NARROW) as channel:
        yield channel


async def test_invoke_tells_its_id_before_it_ends(server: Server, channel: grpc.aio.Channel, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with AsyncClient(server.target) as client:
        await client.functions.deploy(name="held", command=["sh", "-c", f"until [ -e {gate} ]; do sleep 0.05; done"])
    request = api.InvokeRequest()
    request.spec.function = "held"
    # Of a call with one answer Python's gRPC shows the headers with the answer, of a stream as they come.
    invoke: Any = channel.unary_stream(
        "/homing.v1.InvocationService/Invoke",
        request_serializer=api.InvokeRequest.SerializeToString,
        response_deserializer=api.InvokeResponse.FromString,
    )
    call = invoke(request, timeout=PATIENCE)

    told = dict(await call.initial_metadata())["homing-invocation-id"]
    assert not call.done()
    gate.touch()
    assert (await call.read()).invocation.id == told


async def test_who_was_cut_off_for_not_reading_resumes_and_misses_nothing(
    server: Server, channel: grpc.aio.Channel
) -> None:
    watching: Any = InvocationServiceStub(channel).WatchResults
    request = api.WatchResultsRequest()
    request.filter.functions.append("later")
    watch = watching(request)
    request.resume_token = (await watch.read()).resume_token
    with Client(server.target, timeout=PATIENCE) as client:
        client.functions.deploy(name="later", command=["cat"])
        batch = client.invoke_batch("later", ["x"] * RESULTS, delay=3600, labels=LABELS)
        ids = {call.id for call in batch if not isinstance(call, Exception)}
        client.bulk_stop(function="later", reason="they are to end")
    await gauges_when(server, lambda gauges: gauges.value("homing_watchers") == 0)

    seen: list[str] = []

    async def read(call: Any) -> None:
        while len(seen) < RESULTS:
            message = await call.read()
            request.resume_token = message.resume_token
            if message.HasField("invocation"):
                seen.append(message.invocation.id)

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await read(watch)
    assert error_info(caught.value).reason == "SLOW_CONSUMER"
    assert len(seen) < RESULTS
    await read(watching(request, timeout=PATIENCE))
    assert len(seen) == RESULTS
    assert set(seen) == ids
