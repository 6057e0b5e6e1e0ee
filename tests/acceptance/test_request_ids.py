"""Request ids at a real server: one rule for every call that has one, and the same call has the same answer."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import ParseDict
from google.protobuf.message_factory import GetMessageClass

import homing.v1
from homing import Client
from homing.v1 import BatchInvokeAsyncRequest, InvokeAsyncRequest
from homing.v1.invocation_service_pb2_grpc import InvocationServiceStub
from support.grpc_errors import violated_fields
from support.processes import Cluster

METHODS = {
    method.name: method
    for _, module, _ in pkgutil.iter_modules(homing.v1.__path__)
    if module.endswith("_service_pb2")
    for service in importlib.import_module(f"homing.v1.{module}").DESCRIPTOR.services_by_name.values()
    for method in service.methods
    if "request_id" in method.input_type.fields_by_name
}
REQUESTS: dict[str, dict[str, Any]] = {
    "InvokeAsync": {"spec": {"function": "cat"}},
    "BulkStop": {"filter": {"idPrefix": "nothing"}},
    "RerunInvocation": {"id": "ENDED"},
    "BulkRerun": {"filter": {"idPrefix": "nothing"}},
    "RedriveDeadLetters": {"filter": {"functions": ["nothing"]}},
    "PurgeDeadLetters": {"filter": {"functions": ["nothing"]}},
    "CreateKey": {"key": {"name": "shop", "scopes": ["SCOPE_READ"]}},
    "RotateSigningKey": {},
}
BAD = ["x" * 129, "naïve", "line\nbreak", "\x7f"]
Call = Callable[[str, str], Any]


@pytest.fixture(scope="module", autouse=True)
def call(shared_cluster: Cluster) -> Iterator[Call]:
    with Client(shared_cluster.target) as client, grpc.insecure_channel(shared_cluster.target) as channel:
        client.functions.deploy(name="cat", command=["cat"])
        ended = client.invoke("cat", "x").invocation.id

        def make(name: str, request_id: str) -> Any:
            method = METHODS[name]
            fields = {key: ended if value == "ENDED" else value for key, value in REQUESTS[name].items()}
            request = ParseDict(fields | {"requestId": request_id}, GetMessageClass(method.input_type)())
            answer = GetMessageClass(method.output_type).FromString
            path = f"/{method.containing_service.full_name}/{name}"
            kind: Any = channel.unary_stream if method.server_streaming else channel.unary_unary
            response = kind(path, lambda message: message.SerializeToString(), answer)(request, timeout=30)
            return list(response)[-1] if method.server_streaming else response

        yield make


def test_every_call_with_a_request_id_is_looked_at_here() -> None:
    assert REQUESTS.keys() == METHODS.keys()


@pytest.mark.parametrize("name", METHODS)
def test_an_id_of_another_form_is_refused(call: Call, name: str) -> None:
    for request_id in BAD:
        with pytest.raises(grpc.RpcError) as refused:
            call(name, request_id)
        assert set(violated_fields(refused.value)) == {"request_id"}, request_id


@pytest.mark.parametrize("name", METHODS)
def test_the_longest_id_is_taken_and_the_same_call_has_the_same_answer(call: Call, name: str) -> None:
    longest = f"{name}, ~".ljust(128, "!")
    first, again = call(name, longest), call(name, longest)

    if "duplicate" in METHODS[name].output_type.fields_by_name:
        assert (first.duplicate, again.duplicate) == (False, True)
        again.duplicate = False
    if "invocation" in METHODS[name].output_type.fields_by_name:
        assert first.invocation.id == again.invocation.id, "the rest of it goes on"
    else:
        assert first == again


def test_each_request_of_a_batch_is_looked_at_by_itself(shared_cluster: Cluster) -> None:
    requests = [
        ParseDict(REQUESTS["InvokeAsync"] | {"requestId": request_id}, InvokeAsyncRequest())
        for request_id in [*BAD, "good"]
    ]
    with grpc.insecure_channel(shared_cluster.target) as channel:
        stub = InvocationServiceStub(channel)
        results = stub.BatchInvokeAsync(BatchInvokeAsyncRequest(requests=requests), timeout=30).results
    assert [result.WhichOneof("outcome") for result in results] == ["error"] * len(BAD) + ["accepted"]
    assert all("request_id: must have" in result.error.message for result in results[:-1])
