"""What is too much is refused before it harms others: by homing dev, and by a server on RabbitMQ with two workers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp

import homing
from homing.v1 import function_service_pb2, invocation_service_pb2
from homing.v1.function_pb2 import Command, Function
from homing.v1.function_service_pb2_grpc import FunctionServiceStub
from homing.v1.invocation_pb2 import InvocationSpec
from homing.v1.invocation_service_pb2_grpc import InvocationServiceStub
from homing.v1.payload_pb2 import Payload
from homing_core import limits
from homing_core.clock import now_us
from homing_server.rules.bounds import BOUNDS
from homing_server.store.engine import Database
from homing_server.store.functions import put_function
from support.bounded import Place, places
from support.grpc_errors import violations, violations_of
from support.processes import Cluster, Dev, Server
from support.rabbitmq import MAX_MESSAGE_SIZE, RabbitNode
from support.watchers import peak_memory

PATIENCE = 60.0
# Larger than functions may be by now, so that there need not be many.
HUGE = [f"huge-{index}" for index in range(limits.MAX_MESSAGE // limits.MIB + 1)]
"""Functions of a mebibyte each, that are in the store from the beginning: their snapshot fits into no message."""


async def store_huge(url: str) -> None:
    database = Database(url)
    await database.open()
    try:
        with database.writing() as connection:
            for name in HUGE:
                large = {"large": "x" * limits.MIB}
                function = Function(name=name, command=Command(args=["cat"]), annotations=large)
                put_function(connection, function, now_us=now_us())
    finally:
        await database.close()


@pytest.fixture(scope="module", params=["dev", "rabbitmq"])
def server(
    request: pytest.FixtureRequest, rabbit_node: RabbitNode, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("bounds")
    if request.param == "dev":
        asyncio.run(store_huge(f"sqlite:///{folder / 'homing.db'}"))
        dev = Dev(folder)
        dev.start()
        yield dev
        dev.terminate()
        return
    url = rabbit_node.new_vhost()
    with Cluster(url, folder) as cluster:
        asyncio.run(store_huge(cluster.store_url))
        cluster.start_server()
        for _ in range(2):
            cluster.start_worker()
        yield cluster.server
    rabbit_node.leave_vhost(url)


@pytest.fixture
def target(server: Server) -> str:
    return server.target


@pytest.fixture
def channel(target: str) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(target) as channel:
        yield channel


def call(channel: Any, place: Place, request: Message) -> Message | None:
    """Make a call; return the answer, the first one of a stream."""
    path = f"/{place.method.containing_service.full_name}/{place.method.name}"
    kind = channel.unary_stream if place.method.server_streaming else channel.unary_unary
    method = kind(
        path,
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=GetMessageClass(place.method.output_type).FromString,
    )
    answer = method(request, timeout=PATIENCE)
    first: Message | None = next(iter(answer), None) if place.method.server_streaming else answer
    return first


def test_one_entry_more_than_its_bound_is_refused_in_every_list_of_every_request(channel: grpc.Channel) -> None:
    tried = 0
    for place in places():
        most = BOUNDS[place.field.full_name]
        rule = f"must be at most {most}, are {most + 1}"
        if place.name.startswith("requests[0]."):
            answer = call(channel, place, place.request(most + 1))
            assert isinstance(answer, invocation_service_pb2.BatchInvokeAsyncResponse)
            told = violations_of(answer.results[0].error)
            field = place.name.removeprefix("requests[0].")
        else:
            with pytest.raises(grpc.RpcError) as refused:
                call(channel, place, place.request(most + 1))
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            told, field = violations(refused.value), place.name
        assert told == {field: rule}, place
        tried += 1
    assert tried > 30


def deploy(channel: grpc.Channel, function: Function) -> Function:
    request = function_service_pb2.DeployFunctionRequest(function=function)
    return FunctionServiceStub(channel).DeployFunction(request, timeout=PATIENCE).function


def test_p10_definitions_are_bounded_in_all_and_do_not_keep_others_from_running(
    channel: grpc.Channel, target: str
) -> None:
    cat = Command(args=["cat"])
    for size in (3 * limits.MIB, 9 * limits.MIB):
        with pytest.raises(grpc.RpcError) as refused:
            deploy(channel, Function(name="huge", command=cat, annotations={"big": "x" * size}))
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        if size < 4 * limits.MIB:  # else it is not even read
            assert violations(refused.value).keys() == {'function.annotations["big"]', "function"}
    for index in range(8):
        # As large as they may be: a snapshot of them has more than one part.
        size = limits.MAX_ANNOTATION_VALUE
        deploy(
            channel,
            Function(name=f"large-{index}", command=cat, annotations={str(n): "x" * (size - 100) for n in range(4)}),
        )
    annotations = {str(number): "x" * limits.MAX_ANNOTATION_VALUE for number in range(4)}
    with pytest.raises(grpc.RpcError) as refused:
        deploy(channel, Function(name="over", command=cat, annotations=annotations))
    assert violations(refused.value).keys() == {"function"}
    deploy(channel, Function(name="small", command=cat))

    with homing.Client(target) as client:
        assert client.invoke("small", b"x", timeout=PATIENCE).data == b"x"
        assert {function.name for function in client.functions.list()} >= {"small", "large-0", "large-7"}


def test_a_worker_that_comes_gets_a_snapshot_that_no_message_could_carry(target: str) -> None:
    assert MAX_MESSAGE_SIZE == limits.MAX_MESSAGE
    with homing.Client(target, timeout=PATIENCE) as client:
        calls = [client.invoke_async(name, name) for name in (HUGE[0], HUGE[len(HUGE) // 2], HUGE[-1])]
        assert [call.result().text for call in calls] == [call.describe().function for call in calls]


def test_lists_with_payloads_take_little_memory_however_large_their_records(
    channel: grpc.Channel, server: Server
) -> None:
    number, size, page = 200, 250 * limits.KIB, 3 * limits.MIB
    stub = InvocationServiceStub(channel)
    spec = InvocationSpec(
        function=HUGE[0], payload=Payload(data=b"x" * size), delay=Duration(seconds=3600), labels={"large": "1"}
    )
    for _ in range(number // 10):
        requests = [invocation_service_pb2.InvokeAsyncRequest(spec=spec)] * 10
        stub.BatchInvokeAsync(invocation_service_pb2.BatchInvokeAsyncRequest(requests=requests), timeout=PATIENCE)
    Path(f"/proc/{server.pid}/clear_refs").write_text("5")  # forgets the peak
    before = peak_memory(server.pid)

    asked = invocation_service_pb2.ListInvocationsRequest(page_size=1000, include_payload=True)
    asked.filter.labels["large"] = "1"
    calls = [stub.ListInvocations.future(asked, timeout=PATIENCE) for _ in range(3)]
    for call in calls:
        answer = call.result()
        assert size < answer.ByteSize() <= page
        assert answer.next_page_token
    # As many as fit into a page are read, and are there several times while they travel; all would take 318 MiB.
    assert peak_memory(server.pid) - before < 100 * limits.MIB


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (InvocationSpec(labels={"a\0b": "x"}), 'spec.labels["a\\u0000b"]'),
        (InvocationSpec(labels={"a": "x\0"}), 'spec.labels["a"]'),
        (InvocationSpec(labels={"a": "x\x1b[31m"}), 'spec.labels["a"]'),
        (InvocationSpec(labels={'"\u00e9': "x\n"}), 'spec.labels["\\"\\u00e9"]'),
        (InvocationSpec(labels={"k" * 65: ""}), "spec.labels"),
        (InvocationSpec(attempt_timeout=Duration(seconds=5, nanos=-1)), "spec.attempt_timeout"),
        (InvocationSpec(attempt_timeout=Duration(seconds=5, nanos=10**9)), "spec.attempt_timeout"),
        (InvocationSpec(max_age=Duration(seconds=-5, nanos=1)), "spec.max_age"),
        (InvocationSpec(schedule_time=Timestamp(seconds=253_402_300_800)), "spec.schedule_time"),
        (InvocationSpec(schedule_time=Timestamp(seconds=-62_135_596_801)), "spec.schedule_time"),
        (InvocationSpec(schedule_time=Timestamp(nanos=10**9)), "spec.schedule_time"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_label_duration_or_time_is_refused(channel: grpc.Channel, spec: InvocationSpec, field: str) -> None:
    spec.function = "small"
    with pytest.raises(grpc.RpcError) as refused:
        InvocationServiceStub(channel).InvokeAsync(invocation_service_pb2.InvokeAsyncRequest(spec=spec))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert violations(refused.value).keys() == {field}
