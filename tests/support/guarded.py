"""A server that asks for keys, and how it refuses: shared by the tests of who may do what."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.rpc import error_details_pb2, status_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from homing import Client, PermissionDeniedError, UnauthenticatedError
from support.confidential import confidential
from support.processes import Cluster
from support.rabbitmq import RabbitNode
from support.strangers import send

ROOT_KEY = confidential("the-root-key-of-the-tests-0123456789")


@pytest.fixture(scope="module")
def guarded(rabbit_node: RabbitNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Yield a server that asks for keys, with a worker."""
    url = rabbit_node.new_vhost()
    with Cluster(url, tmp_path_factory.mktemp("guarded")) as made:
        made.start_server(HOMING_ROOT_KEY=ROOT_KEY)
        made.start_worker()
        root = made.client(api_key=ROOT_KEY)
        root.functions.deploy(name="upper", command=["tr", "a-z", "A-Z"])
        root.functions.deploy(name="lower", command=["tr", "A-Z", "a-z"])
        root.functions.deploy(name="door", command=["cat"], public=True)
        yield made
    rabbit_node.leave_vhost(url)


@pytest.fixture(scope="module")
def root(guarded: Cluster) -> Client:
    return guarded.client(api_key=ROOT_KEY)


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """How a call ended."""

    code: grpc.StatusCode
    reason: str


def told(error: Any) -> Told:
    packed = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b"")
    info = error_details_pb2.ErrorInfo()
    for detail in status_pb2.Status.FromString(packed).details:
        detail.Unpack(info)
    return Told(code=error.code(), reason=info.reason)


def retry_after(error: Any) -> float:
    info = error_details_pb2.RetryInfo()
    packed = dict(error.trailing_metadata())["grpc-status-details-bin"]
    assert any(detail.Unpack(info) for detail in status_pb2.Status.FromString(packed).details)
    return float(info.retry_delay.ToTimedelta().total_seconds())


def methods(channel: grpc.Channel) -> list[MethodDescriptor]:
    """Return what the server says that it serves."""
    database = ProtoReflectionDescriptorDatabase(channel)
    pool = DescriptorPool(database)
    services = [name for name in database.get_services() if name.startswith("homing.")]
    return [method for name in services for method in pool.FindServiceByName(name).methods]


class Shows(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Shows a key with every call."""

    def __init__(self, key: str) -> None:
        self._key = key

    def _call(self, continuation: Any, details: Any, request: Any) -> Any:
        return continuation(details._replace(metadata=[("authorization", f"Bearer {self._key}")]), request)

    intercept_unary_unary: Any = _call
    intercept_unary_stream: Any = _call
    intercept_stream_unary: Any = _call
    intercept_stream_stream: Any = _call


def call(channel: grpc.Channel, method: MethodDescriptor, authorization: str | None) -> Told:
    """Make a call with an empty request and tell how it ended, or began."""
    error = send(channel, method, b"", () if authorization is None else (("authorization", authorization),))
    return Told(code=grpc.StatusCode.OK, reason="") if error is None else told(error)


def name_of(method: MethodDescriptor) -> str:
    return f"{method.containing_service.name}/{method.name}"


def fetch(method: str, url: str, key: str | None = None) -> tuple[int, Any]:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method, headers=headers)) as answer:
            return answer.status, answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.headers


def denied(work: Callable[[], object], reason: str = "FUNCTION_NOT_ALLOWED") -> None:
    with pytest.raises(PermissionDeniedError) as caught:
        work()
    assert caught.value.reason == reason


def refused(work: Callable[[], object]) -> None:
    try:
        work()
    except UnauthenticatedError:
        return
    raise AssertionError("the key still works")
