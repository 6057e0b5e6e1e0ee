"""Strangers at the door: whatever they send, or do not send, others are served, and the server stays as it was."""

from __future__ import annotations

import contextlib
import http.client
import os
import resource
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from homing import Client
from homing.v1 import (
    BatchInvokeAsyncRequest,
    BatchInvokeAsyncResponse,
    InvokeRequest,
    ListInvocationsRequest,
    ListInvocationsResponse,
)
from support.confidential import confidential
from support.grpc_errors import error_info
from support.processes import Cluster, Dev, Server
from support.rabbitmq import RabbitNode
from support.strangers import MIB, call_at_once, invoke_at_once, send, watching

ROOT_KEY = confidential("the-root-key-of-strangers-0123456789")
SETTINGS = {"HOMING_ROOT_KEY": ROOT_KEY, "HOMING_SYNC_TIMEOUT": "0.5"}
SOON = 1.0
ROOM = 200 * MIB
BOMB = 16 * MIB
VERY_MANY = 3000
"""Fifty times as many calls as go over a connection at once; `make soak` makes more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class House:
    """A server that asks for keys, and one of its users."""

    server: Server
    client: Client

    def call(self) -> None:
        assert self.client.invoke_async("quiet", b"x").id


@pytest.fixture(scope="module", params=["dev", "rabbitmq"])
def house(
    request: pytest.FixtureRequest, rabbit_node: RabbitNode, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    # Less than a thousand connections take, as many systems have it.
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.ExitStack() as stack:
        folder = tmp_path_factory.mktemp("house")
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, limits[1]))
        try:
            if request.param == "dev":
                server: Server = Dev(folder, HOMING_LOG_LEVEL="info", **SETTINGS)
                server.start()
                stack.callback(server.terminate)
            else:
                url = rabbit_node.new_vhost()
                stack.callback(rabbit_node.leave_vhost, url)
                cluster = stack.enter_context(Cluster(url, folder, log_level="info"))
                server = cluster.start_server(**SETTINGS)
                cluster.start_worker()
                cluster.start_worker()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        client = stack.enter_context(Client(server.target, api_key=ROOT_KEY))
        client.functions.deploy(name="quiet", command=["cat"], max_instances=1)
        client.functions.pause("quiet")
        client.functions.deploy(name="door", command=["cat"], public=True)
        yield House(server=server, client=client)


def methods(channel: grpc.Channel) -> list[MethodDescriptor]:
    """Return all that is served."""
    database = ProtoReflectionDescriptorDatabase(channel)
    pool = DescriptorPool(database)
    return [method for name in database.get_services() for method in pool.FindServiceByName(name).methods]


def bomb_for(method: MethodDescriptor) -> bytes:
    """Return empty messages, or empty texts, in the field of a request where most of them fit, as many as fit."""
    fields = method.input_type.fields
    lists = [each for each in fields if each.is_repeated and each.type != FieldDescriptor.TYPE_ENUM]
    inner = [each for each in fields if each.message_type is not None]
    number = next((each.number for each in (*lists, *inner)), 15)
    return bytes([number << 3 | 2, 0]) * (BOMB // 2)


class _Key(grpc.StreamStreamClientInterceptor):
    def intercept_stream_stream(self, continuation: Any, details: Any, requests: Any) -> Any:
        return continuation(details._replace(metadata=with_key(ROOT_KEY)), requests)


def with_key(key: str | None) -> tuple[tuple[str, str], ...]:
    return () if key is None else (("authorization", f"Bearer {key}"),)


@pytest.fixture
def channel(house: House) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(house.server.target) as channel:
        yield channel


@pytest.mark.parametrize("key", [None, ROOT_KEY], ids=["stranger", "user"])
def test_little_that_stands_for_much_holds_nobody_up(house: House, channel: grpc.Channel, key: str | None) -> None:
    served = methods(grpc.intercept_channel(channel, _Key()))
    assert len(served) > 30
    raw = {method.full_name: bomb_for(method) for method in served}
    with (
        grpc.insecure_channel(house.server.target, compression=grpc.Compression.Gzip) as compressed,
        watching(house.server.pid, house.call) as measured,
        ThreadPoolExecutor(4) as pool,
    ):
        errors = list(pool.map(lambda method: send(compressed, method, raw[method.full_name], with_key(key)), served))
    for method, error in zip(served, errors, strict=True):
        assert error is not None, method.full_name
        info = error_info(error)
        assert error.code() in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNAUTHENTICATED}, method.full_name
        if error.code() is grpc.StatusCode.UNAUTHENTICATED:
            assert (key, info.reason) == (None, "KEY_MISSING"), method.full_name
        else:
            assert info.reason == "INVALID_REQUEST"
            assert method.name in error.details(), method.full_name
    assert measured.slowest < SOON
    assert measured.grown < ROOM


def test_what_cannot_be_read_is_refused_with_a_reason_and_no_traceback(house: House, channel: grpc.Channel) -> None:
    served = methods(grpc.intercept_channel(channel, _Key()))
    before = len(house.server.lines)
    for method in served:
        error = send(channel, method, b"\xff\xff\xff", with_key(ROOT_KEY))
        assert error is not None, method.full_name
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, method.full_name
        assert error_info(error).reason == "INVALID_REQUEST"
    unknown: Any = channel.unary_unary("/else.Where/Nothing")
    with pytest.raises(grpc.RpcError) as caught:
        unknown(b"", metadata=with_key(ROOT_KEY), timeout=30)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert error_info(caught.value).reason == "NOT_SERVED"
    # These gRPC refuses by itself.
    invoke: Any = channel.unary_unary("/homing.v1.InvocationService/InvokeAsync")
    for raw, more in ((b"\x00" * (17 * MIB), ()), (b"", (("x-large", "y" * 20_000),))):
        with pytest.raises(grpc.RpcError) as caught:
            invoke(raw, metadata=(*with_key(ROOT_KEY), *more), timeout=30)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    host, port = house.server.http.rsplit(":", 1)
    with socket.create_connection((host, int(port))) as garbage:
        garbage.sendall(b"\x16\x03\x01\x00\xff \x00\r\n\r\n")
        assert garbage.recv(1000).startswith(b"HTTP/1.1 400 ")
    house.call()
    for line in house.server.lines[before:]:
        assert "exception" not in line, line
        assert "Traceback" not in str(line), line


def open_idle(address: str, number: int, first: bytes) -> list[socket.socket]:
    host, port = address.rsplit(":", 1)
    opened = []
    for _ in range(number):
        connection = socket.create_connection((host, int(port)), timeout=30)
        with contextlib.suppress(OSError):  # it may be closed at once
            connection.sendall(first)
        opened.append(connection)
    return opened


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"


@pytest.mark.parametrize(
    ("port", "first"),
    [("grpc", b""), ("grpc", PREFACE), ("http", b""), ("http", b"GET /healthz HTTP/1.1\r\nHost: loc")],
    ids=["grpc silent", "grpc idle", "http silent", "http half a request"],
)
def test_a_thousand_idle_connections_keep_nobody_out(house: House, port: str, first: bytes) -> None:
    address = house.server.target if port == "grpc" else house.server.http

    def someone_new() -> None:
        health = http.client.HTTPConnection(house.server.http, timeout=30)
        health.request("GET", "/healthz")
        assert health.getresponse().status == 200
        health.close()
        with Client(house.server.target, api_key=ROOT_KEY) as client:
            assert client.invoke_async("quiet", b"x").id

    with watching(house.server.pid, someone_new) as measured:
        opened = open_idle(address, 1100, first)
        someone_new()
    for connection in opened:
        connection.close()
    assert measured.slowest < SOON
    assert measured.grown < ROOM


@pytest.fixture
def elsewhere() -> Iterator[ProcessPoolExecutor]:
    """Yield a process for those who call at once, so that they do not hold up who measures."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        pool.submit(os.nice, 10).result()  # it has started
        yield pool


def test_all_of_very_many_calls_that_a_client_makes_at_once_are_accepted(
    house: House, elsewhere: ProcessPoolExecutor
) -> None:
    with watching(house.server.pid, house.call) as measured:
        ids = elsewhere.submit(invoke_at_once, house.server.target, ROOT_KEY, VERY_MANY).result()
    assert len(ids) == VERY_MANY
    assert measured.slowest < SOON
    assert measured.grown < ROOM


def test_very_many_calls_at_once_of_many_clients_are_taken_or_told_when_to_come(
    house: House, elsewhere: ProcessPoolExecutor
) -> None:
    with watching(house.server.pid, house.call) as measured:
        outcomes = elsewhere.submit(call_at_once, house.server.target, ROOT_KEY, 10, VERY_MANY).result()
    assert sum(outcomes.values()) == VERY_MANY
    assert outcomes.keys() <= {"OK", "SERVER_BUSY"}
    assert outcomes["OK"] > 1000
    # At first all of them come in before anybody can take turns: on a machine with other work that is a long moment.
    assert measured.within(0.9) < SOON
    assert measured.slowest < 3 * SOON
    assert measured.grown < ROOM


def test_refusals_are_audited_and_do_not_fill_the_log(house: House, channel: grpc.Channel) -> None:
    before = len(house.server.lines)
    wait: Any = channel.unary_unary("/homing.v1.FunctionService/ListFunctions")
    for _ in range(50):
        with pytest.raises(grpc.RpcError):
            wait(b"", metadata=with_key("wrong"), timeout=30)
    line = house.server.wait_for_log("audit_refused", reason="KEY_INVALID", after=before)
    assert (line["asked"], line["number"]) == ("/homing.v1.FunctionService/ListFunctions", 1)
    assert sum(line.get("reason") == "KEY_INVALID" for line in house.server.lines[before:]) <= 2


def test_http_on_loopback_has_no_other_name(house: House) -> None:
    for path in ("/healthz", "/metrics"):
        connection = http.client.HTTPConnection(house.server.http, timeout=30)
        connection.request("GET", path, headers={"Host": "rebound.example", "Authorization": f"Bearer {ROOT_KEY}"})
        answer = connection.getresponse()
        assert (answer.status, b"HOMING_DATA_URL, and not 'rebound.example'" in answer.read()) == (421, True)
        connection.close()


def test_both_versions_of_reflection_know_all_names(house: House, channel: grpc.Channel) -> None:
    from grpc_reflection.v1alpha import reflection_pb2 as reflection

    names = [
        "homing.v1.InvocationService",
        "homing.v1.InvocationService.Invoke",
        "homing.v1.Invocation.state",
        "homing.v1.InvocationState",
        "homing.v1.INVOCATION_STATE_FAILED",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1.ServerReflection.ServerReflectionInfo",
        "grpc.health.v1.Health.Check",
    ]
    for version in ("v1", "v1alpha"):
        ask: Any = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection.ServerReflectionResponse.FromString,
        )
        asked = [reflection.ServerReflectionRequest(file_containing_symbol=name) for name in names]
        nowhere = [
            reflection.ServerReflectionRequest(file_containing_symbol=name)
            for name in ("homing.v1.InvocationService.Nothing", "homing.v1.Nothing", "Nothing", "")
        ]
        answers = list(ask(iter([*asked, *nowhere]), metadata=with_key(ROOT_KEY), timeout=30))
        for name, answer in zip(names, answers, strict=False):
            assert answer.HasField("file_descriptor_response"), (version, name)
        assert [each.error_response.error_code for each in answers[len(names) :]] == [5] * len(nowhere)


def test_a_batch_has_an_answer_that_every_client_takes(house: House) -> None:
    batch = BatchInvokeAsyncRequest()
    for number in range(1000):
        each = batch.requests.add()
        each.spec.function = "quiet"
        each.request_id = f"large-{number}"
        each.spec.payload.data = b"x"
        for label in range(16):
            each.spec.labels[f"{label}"] = "y" * 255
    with grpc.insecure_channel(house.server.target) as channel:
        invoke: Any = channel.unary_unary(
            "/homing.v1.InvocationService/BatchInvokeAsync",
            request_serializer=BatchInvokeAsyncRequest.SerializeToString,
            response_deserializer=BatchInvokeAsyncResponse.FromString,
        )
        for duplicate in (False, True):
            answer = invoke(batch, metadata=with_key(ROOT_KEY), timeout=60)
            assert answer.ByteSize() <= 3 * MIB
            assert len(answer.results) == 1000
            assert all(each.accepted.invocation.id for each in answer.results)
            assert all(each.accepted.invocation.function == "quiet" for each in answer.results)
            assert {each.accepted.duplicate for each in answer.results} == {duplicate}
            assert len(answer.results[0].accepted.invocation.spec.labels) == 16


def test_pages_are_bounded_while_they_are_read(house: House) -> None:
    house.client.functions.deploy(name="large", command=["cat"])
    house.client.functions.pause("large")
    payload = b"x" * (250 * 1024)
    for _ in range(7):
        batch = house.client.invoke_batch("large", [payload] * 60)
        assert len(batch) == 60

    def pages() -> None:
        request = ListInvocationsRequest(page_size=1000, include_payload=True, include_result=True)
        # Records of several kinds are sorted.
        request.filter.functions.extend(["large", "quiet", "door"])
        with grpc.insecure_channel(house.server.target) as channel:
            ask: Any = channel.unary_unary(
                "/homing.v1.InvocationService/ListInvocations",
                request_serializer=ListInvocationsRequest.SerializeToString,
                response_deserializer=ListInvocationsResponse.FromString,
            )
            for _ in range(3):
                answer = ask(request, metadata=with_key(ROOT_KEY), timeout=60)
                assert len(answer.invocations) >= 5
                assert answer.ByteSize() <= 3 * MIB
                assert answer.next_page_token
                request.page_token = answer.next_page_token

    with watching(house.server.pid, house.call) as measured, ThreadPoolExecutor(3) as pool:
        for each in [pool.submit(pages) for _ in range(3)]:
            each.result()
    assert measured.slowest < SOON
    assert measured.grown < 100 * MIB


def test_what_was_not_answered_in_time_is_named(house: House, channel: grpc.Channel) -> None:
    request = InvokeRequest()
    request.spec.function = "quiet"
    # A stream shows the metadata that comes before the answer as soon as it comes.
    invoke: Any = channel.unary_stream(
        "/homing.v1.InvocationService/Invoke", request_serializer=InvokeRequest.SerializeToString
    )
    call = invoke(request, metadata=with_key(ROOT_KEY))
    invocation = dict(call.initial_metadata())["homing-invocation-id"]
    assert call.is_active()
    with pytest.raises(grpc.RpcError) as caught:
        next(call)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    info = error_info(caught.value)
    assert (info.reason, info.metadata["invocation"]) == ("DEADLINE_EXCEEDED", invocation)


def test_open_streams_of_health_and_reflection_do_not_hold_up_a_stop(house: House) -> None:
    from grpc_reflection.v1alpha import reflection_pb2 as reflection

    with grpc.insecure_channel(house.server.target) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest())
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        asked = threading.Event()
        over = threading.Event()

        def ask() -> Iterator[Any]:
            yield reflection.ServerReflectionRequest(list_services="")
            asked.set()
            over.wait(60)

        stream: Any = channel.stream_stream(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection.ServerReflectionResponse.FromString,
        )
        answers = stream(ask(), metadata=with_key(ROOT_KEY))
        next(answers)
        assert asked.wait(30)
        stopping = threading.Thread(target=house.server.terminate)
        stopping.start()
        house.server.wait_for_log("stopping")
        # What else there is to do at the stop takes its time; gRPC has stopped once both have ended.
        with pytest.raises(grpc.RpcError) as caught:
            list(answers)
        assert error_info(caught.value).reason == "SERVER_STOPPING"
        with pytest.raises(grpc.RpcError) as caught:
            list(watch)
        assert error_info(caught.value).reason == "SERVER_STOPPING"
        over.set()
        stopping.join(10)
        assert not house.server.running
    house.server.start()
