"""The API as clients meet it that have no code of ours: by reflection alone."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

import homing
from homing import Client, RevisionMismatchError
from homing.v1 import InvokeResponse
from support.grpc_errors import error_info
from support.processes import Cluster, Server

INVOCATIONS = "homing.v1.InvocationService"
FUNCTIONS = "homing.v1.FunctionService"


class Described:
    """A client that knows of the API only what the server says of itself."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel
        self._described = ProtoReflectionDescriptorDatabase(channel)
        self._pool = DescriptorPool(self._described)

    def services(self) -> set[str]:
        return set(self._described.get_services())

    def call(self, service: str, method: str, request: dict[str, Any]) -> dict[str, Any]:
        described = self._pool.FindServiceByName(service).FindMethodByName(method)
        message = ParseDict(request, GetMessageClass(described.input_type)())
        answer = GetMessageClass(described.output_type)
        path = f"/{service}/{method}"
        if described.server_streaming:
            stream: Any = self._channel.unary_stream(path, lambda m: m.SerializeToString(), answer.FromString)
            return MessageToDict(next(stream(message, timeout=30)))
        unary: Any = self._channel.unary_unary(path, lambda m: m.SerializeToString(), answer.FromString)
        return MessageToDict(unary(message, timeout=30))


def test_a_server_describes_itself_so_that_anybody_can_call_it(cluster: Cluster) -> None:
    server = cluster.start_server()
    cluster.start_worker()
    with grpc.insecure_channel(server.target) as channel:
        described = Described(channel)

        assert {INVOCATIONS, FUNCTIONS, "grpc.health.v1.Health"} <= described.services()

        described.call(
            FUNCTIONS, "DeployFunction", {"function": {"name": "shout", "command": {"args": ["tr", "a-z", "A-Z"]}}}
        )
        spec = {"function": "shout", "payload": {"data": "aG9taW5n"}}
        answer = described.call(INVOCATIONS, "Invoke", {"spec": spec})

        assert answer["invocation"]["state"] == "INVOCATION_STATE_SUCCEEDED"
        assert answer["invocation"]["result"]["payload"]["data"] == "SE9NSU5H"

        accepted = described.call(INVOCATIONS, "InvokeAsync", {"spec": spec, "requestId": "once"})
        ended = described.call(INVOCATIONS, "WaitInvocation", {"id": accepted["invocation"]["id"]})
        assert ended["invocation"]["result"]["payload"]["data"] == "SE9NSU5H"

        # A mask travels as text in JSON, in the names that JSON has for the fields.
        mask = {"updateMask": "maxInstances,labels", "expectedRevision": "1"}
        wanted = {"name": "shout", "maxInstances": 9, "labels": {"team": "x"}, "url": "http://ignored"}
        changed = described.call(FUNCTIONS, "DeployFunction", {"function": wanted} | mask)["function"]
        assert changed["command"] == {"args": ["tr", "a-z", "A-Z"]}
        assert (changed["maxInstances"], changed["labels"], changed["revision"]) == (9, {"team": "x"}, "2")
        with pytest.raises(grpc.RpcError) as caught:
            described.call(FUNCTIONS, "DeployFunction", {"function": wanted} | mask)
        assert cast("grpc.Call", caught.value).code() is grpc.StatusCode.ABORTED

        # What it does not know, as a client may that is newer, it refuses as it refuses everything.
        unknown: Any = channel.unary_unary(
            f"/{INVOCATIONS}/Later", lambda m: m.SerializeToString(), InvokeResponse.FromString
        )
        with pytest.raises(grpc.RpcError) as caught:
            unknown(InvokeResponse(), timeout=30)
        assert cast("grpc.Call", caught.value).code() is grpc.StatusCode.UNIMPLEMENTED
        assert error_info(caught.value).reason == homing.ErrorReason.NOT_SERVED

        health: Any = health_pb2_grpc.HealthStub(channel)
        for name in ("", INVOCATIONS, FUNCTIONS):
            status = health.Check(health_pb2.HealthCheckRequest(service=name)).status
            assert status == health_pb2.HealthCheckResponse.SERVING


def test_of_two_servers_that_change_a_function_at_once_exactly_one_wins(cluster: Cluster) -> None:
    servers = [cluster.start_server(), cluster.start_server()]
    together = threading.Barrier(len(servers))
    rounds = 40

    lost: list[tuple[int, int]] = []

    def race(server: Server) -> list[int]:
        """Change the function in each round at the revision of the round before; return the rounds that were won."""
        won = []
        with Client(server.target) as client:
            for expected in range(rounds):
                together.wait(60)
                try:
                    client.functions.deploy(
                        name="contested", image=f"{server.name}:{expected}", expected_revision=expected
                    )
                except RevisionMismatchError as error:
                    lost.append((error.expected, error.actual))
                else:
                    won.append(expected)
        return won

    with ThreadPoolExecutor() as threads:
        wins = list(threads.map(race, servers))

    assert sorted(wins[0] + wins[1]) == list(range(rounds))
    assert sorted(lost) == [(expected, expected + 1) for expected in range(rounds)]
    for server in servers:
        with Client(server.target) as client:
            # The one that lost the last round hears of it by a message.
            deadline = time.monotonic() + 60
            while client.functions.get("contested").revision != rounds:
                assert time.monotonic() < deadline
                time.sleep(0.02)
