"""Bodies over the inline limit, in and out, with a real server and worker: by gRPC, and what goes wrong on the way."""

from __future__ import annotations

import hashlib
import http.client
import os
import resource
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from homing.v1 import function_service_pb2_grpc, invocation_pb2, invocation_service_pb2_grpc, payload_service_pb2_grpc
from homing.v1.function_pb2 import Command, Function
from homing.v1.function_service_pb2 import DeployFunctionRequest
from homing.v1.invocation_pb2 import InvocationSpec
from homing.v1.invocation_service_pb2 import (
    GetInvocationRequest,
    InvokeAsyncRequest,
    InvokeRequest,
    WaitInvocationRequest,
)
from homing.v1.payload_pb2 import Blob, Payload
from homing.v1.payload_service_pb2 import ReadPayloadRequest, WritePayloadRequest
from homing_core import limits
from homing_server.payloads.signed_urls import SignedUrls
from support.processes import Cluster

PATIENCE = 60.0
MIB = limits.MIB


def body_of(size: int) -> bytes:
    """Return bytes that show where a part is missing or twice."""
    block = b"".join(number.to_bytes(4, "big") for number in range(4096))
    return (block * (size // len(block) + 1))[:size]


def upload(data: bytes, *, size: int | None = None, part: int = MIB) -> Iterator[WritePayloadRequest]:
    yield WritePayloadRequest(size=len(data) if size is None else size)
    for start in range(0, len(data), part):
        yield WritePayloadRequest(data=data[start : start + part])


class Api:
    """The public API of a server."""

    def __init__(self, target: str) -> None:
        self.channel = grpc.insecure_channel(target)
        self.functions = function_service_pb2_grpc.FunctionServiceStub(self.channel)
        self.invocations = invocation_service_pb2_grpc.InvocationServiceStub(self.channel)
        self.payloads = payload_service_pb2_grpc.PayloadServiceStub(self.channel)

    def deploy(self, name: str, *args: str) -> None:
        function = Function(name=name, command=Command(args=args))
        self.functions.DeployFunction(DeployFunctionRequest(function=function), timeout=PATIENCE)

    def write(self, data: bytes) -> Blob:
        return self.payloads.WritePayload(upload(data), timeout=PATIENCE).blob

    def read(self, blob: Blob) -> bytes:
        parts = self.payloads.ReadPayload(ReadPayloadRequest(blob_id=blob.id), timeout=PATIENCE)
        return b"".join(part.data for part in parts)

    def start(self, spec: InvocationSpec, request_id: str = "") -> str:
        request = InvokeAsyncRequest(spec=spec, request_id=request_id)
        return self.invocations.InvokeAsync(request, timeout=PATIENCE).invocation.id

    def end(self, invocation_id: str) -> invocation_pb2.Invocation:
        deadline = time.monotonic() + PATIENCE
        while True:
            left = deadline - time.monotonic()
            request = WaitInvocationRequest(id=invocation_id)
            found = self.invocations.WaitInvocation(request, timeout=max(left, 0.1)).invocation
            if found.HasField("end_time"):
                return found


def refusal(error: grpc.RpcError) -> tuple[str, str, str]:
    """Return code and reason of an error, and the field that it names."""
    status = rpc_status.from_call(cast("grpc.Call", error))
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        if not detail.Unpack(info):
            detail.Unpack(bad)
    return (
        cast("grpc.Call", error).code().name,
        info.reason,
        bad.field_violations[0].field if bad.field_violations else "",
    )


@contextmanager
def refused(code: str, reason: str, field: str = "") -> Iterator[None]:
    with pytest.raises(grpc.RpcError) as raised:
        yield
    assert refusal(raised.value) == (code, reason, field)


def blob_files(cluster: Cluster) -> list[Path]:
    return sorted((Path(cluster.server.environment["HOMING_DATA_DIR"]) / "blobs").glob("*/*"))


@pytest.fixture
def api(shared_cluster: Cluster) -> Iterator[Api]:
    """Yield the API of a server that other tests use too."""
    api = Api(shared_cluster.target)
    with api.channel:
        yield api


@pytest.fixture
def own(cluster: Cluster) -> Iterator[Api]:
    """Yield the API of a server of the test's own."""
    cluster.start_server()
    api = Api(cluster.target)
    with api.channel:
        yield api


def test_bodies_of_all_sizes_go_in_and_come_out(api: Api) -> None:
    api.deploy("cat", "cat")
    for size in (300 * 1024, 10 * MIB, 64 * MIB):
        body = body_of(size)
        blob = api.write(body)
        assert (blob.size, blob.sha256) == (size, hashlib.sha256(body).digest())

        # Its id alone is enough.
        spec = InvocationSpec(function="cat", payload=Payload(content_type="x/y", blob=Blob(id=blob.id)))
        end = api.end(api.start(spec))
        synchronous = api.invocations.Invoke(InvokeRequest(spec=spec), timeout=PATIENCE).invocation

        for invocation in (end, synchronous):
            assert invocation.state == invocation_pb2.INVOCATION_STATE_SUCCEEDED, invocation.failure
            assert invocation.result.payload.content_type == "x/y"
            assert (invocation.result.payload.blob.size, invocation.result.payload.data) == (size, b"")
            assert api.read(invocation.result.payload.blob) == body
        record = api.invocations.GetInvocation(GetInvocationRequest(id=end.id, include_payload=True)).invocation
        assert record.spec.payload.blob == blob


def test_what_does_not_come_as_it_should_is_refused_and_leaves_nothing(shared_cluster: Cluster, api: Api) -> None:
    before = blob_files(shared_cluster)

    def write(*requests: WritePayloadRequest) -> None:
        api.payloads.WritePayload(iter(requests), timeout=PATIENCE)

    size, data = WritePayloadRequest(size=4), WritePayloadRequest(data=b"four")
    for field, requests in (
        ("size", []),
        ("size", [data]),
        ("size", [WritePayloadRequest(size=-1)]),
        ("size", [WritePayloadRequest(size=limits.MAX_PAYLOAD + 1)]),
        ("data", [size]),
        ("data", [size, size]),
        ("data", [size, data, size]),
        ("data", [size, data, data]),
        ("data", [WritePayloadRequest(size=2 * MIB), WritePayloadRequest(data=bytes(MIB + 1))]),
    ):
        with refused("INVALID_ARGUMENT", "INVALID_REQUEST", field):
            write(*requests)
    assert blob_files(shared_cluster) == before


def test_a_reference_to_a_body_must_be_right(api: Api) -> None:
    api.deploy("cat", "cat")
    blob = api.write(body_of(1000))

    def start(blob: Blob, request_id: str = "") -> str:
        return api.start(InvocationSpec(function="cat", payload=Payload(blob=blob)), request_id)

    missing = Blob(id="00000000-0000-7000-8000-000000000000")
    with refused("NOT_FOUND", "BLOB_NOT_FOUND"):
        start(missing)
    with refused("NOT_FOUND", "BLOB_NOT_FOUND"):
        api.read(missing)
    with refused("NOT_FOUND", "BLOB_NOT_FOUND"):
        api.invocations.Invoke(
            InvokeRequest(spec=InvocationSpec(function="cat", payload=Payload(blob=missing))), timeout=PATIENCE
        )
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST", "blob_id"):
        api.read(Blob())
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST", "spec.payload.blob.id"):
        start(Blob(size=5))
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST", "spec.payload.blob.size"):
        start(Blob(id=blob.id, size=999))
    with refused("INVALID_ARGUMENT", "INVALID_REQUEST", "spec.payload.blob.sha256"):
        start(Blob(id=blob.id, sha256=bytes(32)))

    # The content counts for a request id, however often it was uploaded.
    first = start(blob, "one")
    assert start(api.write(body_of(1000)), "one") == first
    with refused("ALREADY_EXISTS", "REQUEST_ID_REUSED"):
        start(api.write(body_of(1001)), "one")


@contextmanager
def half_uploaded(cluster: Cluster, api: Api) -> Iterator[Any]:
    """Yield an upload of which the server has written a part."""
    over = threading.Event()

    def parts() -> Iterator[WritePayloadRequest]:
        yield WritePayloadRequest(size=10 * MIB)
        yield WritePayloadRequest(data=bytes(MIB // 2))
        over.wait(PATIENCE)

    call = api.payloads.WritePayload.future(parts(), timeout=PATIENCE)
    wait_for(lambda: MIB // 2 in {path.stat().st_size for path in blob_files(cluster)})
    try:
        yield call
    finally:
        over.set()


def test_an_upload_that_is_given_up_leaves_nothing(shared_cluster: Cluster, api: Api) -> None:
    before = blob_files(shared_cluster)
    with half_uploaded(shared_cluster, api) as call:
        call.cancel()

        wait_for(lambda: blob_files(shared_cluster) == before)


def test_a_server_killed_during_an_upload_leaves_nothing_for_long(cluster: Cluster, own: Api) -> None:
    kept = own.write(body_of(MIB))
    with half_uploaded(cluster, own) as call:
        cluster.server.kill()
        with pytest.raises(grpc.RpcError):
            call.result()
    files = blob_files(cluster)
    assert len(files) == 2
    for path in files:
        os.utime(path, (time.time() - 7200,) * 2)
    cluster.server.start()

    wait_for(lambda: [path.name for path in blob_files(cluster)] == [kept.id])
    assert own.read(kept) == body_of(MIB)


def test_what_no_invocation_refers_to_is_removed_after_an_hour(cluster: Cluster, own: Api) -> None:
    cluster.start_worker()
    own.deploy("cat", "cat")
    used, removed, unused, young = (own.write(body_of(MIB + number)) for number in range(4))
    for blob in (used, removed):
        own.end(own.start(InvocationSpec(function="cat", payload=Payload(blob=blob))))
    assert len(blob_files(cluster)) == 6
    cluster.server.terminate()
    with sqlite3.connect(cluster.store_url.removeprefix("sqlite:///")) as store:
        store.execute("UPDATE blobs SET create_us = create_us - 7200000000 WHERE id <> ?", (young.id,))
        store.execute("UPDATE blob_uses SET create_us = create_us - 200000000000")
        # As where its record has been removed.
        store.execute(
            "DELETE FROM blob_uses WHERE invocation_id IN (SELECT invocation_id FROM blob_uses WHERE blob_id = ?)",
            (removed.id,),
        )
    cluster.server.start()

    wait_for(lambda: len(blob_files(cluster)) == 3)
    for blob in (unused, removed):
        with refused("NOT_FOUND", "BLOB_NOT_FOUND"):
            own.read(blob)
    assert own.read(used) == body_of(MIB)
    assert own.read(young) == body_of(MIB + 3)


@contextmanager
def nearly_full_disk(cluster: Cluster) -> Iterator[None]:
    """Limit the size of a server's files, which fails as a full disk does."""
    most = resource.RLIM_INFINITY
    resource.prlimit(cluster.server.pid, resource.RLIMIT_FSIZE, (4 * MIB, most))
    try:
        yield
    finally:
        resource.prlimit(cluster.server.pid, resource.RLIMIT_FSIZE, (most, most))


def test_a_full_disk_refuses_an_upload_and_leaves_nothing(shared_cluster: Cluster, api: Api) -> None:
    before = blob_files(shared_cluster)
    with nearly_full_disk(shared_cluster):
        with refused("UNAVAILABLE", "DISK_FULL"):
            api.write(body_of(8 * MIB))
        assert blob_files(shared_cluster) == before
        assert api.read(api.write(body_of(MIB))) == body_of(MIB)


def ask(method: str, url: str, body: bytes | None = None) -> tuple[int, bytes]:
    parts = urlsplit(url)
    with closing(http.client.HTTPConnection(parts.netloc, timeout=PATIENCE)) as port:
        port.request(method, f"{parts.path}?{parts.query}", body=body)
        answer = port.getresponse()
        return answer.status, answer.read()


def test_the_data_port_serves_signed_requests_only(shared_cluster: Cluster, api: Api) -> None:
    blob = api.write(body_of(MIB))
    host = f"http://{shared_cluster.server.http}"
    expires = int(time.time()) + 60
    for method, path in (
        ("GET", f"/v1/blobs/{blob.id}"),
        ("GET", f"/v1/blobs/{blob.id}?expires={expires}&signature=AAAA"),
        ("GET", f"/v1/blobs/{blob.id}?expires=%C3%A4&signature=%C3%A4"),
        ("PUT", f"/v1/results/{blob.id}?expires={expires}&signature=AAAA"),
    ):
        assert ask(method, host + path, b"x" if method == "PUT" else None) == (403, b"Forbidden")
    for path in ("..%2F..%2Fhoming.db", "../../homing.db", "%2e%2e", "%00"):
        status, _ = ask("GET", f"{host}/v1/blobs/{path}?expires={expires}&signature=AAAA")
        assert status in {403, 404}


def test_the_data_port_takes_what_it_has_room_for(shared_cluster: Cluster, api: Api) -> None:
    with sqlite3.connect(shared_cluster.store_url.removeprefix("sqlite:///")) as store:
        ((key,),) = store.execute("SELECT value FROM properties WHERE name = 'data_key'")
    urls = SignedUrls()
    urls.open(f"http://{shared_cluster.server.http}", bytes.fromhex(key))
    put = urls.access("00000000-0000-7000-8000-000000000001", Payload()).result_url
    before = blob_files(shared_cluster)

    with nearly_full_disk(shared_cluster):
        assert ask("PUT", put, body_of(8 * MIB)) == (507, b"the server has no room for the body: its disk is full\n")
    assert ask("PUT", put, bytes(limits.MAX_PAYLOAD + 1))[0] == 413
    assert blob_files(shared_cluster) == before

    status, answer = ask("PUT", put, body_of(MIB))
    stored = Blob.FromString(answer)
    assert (status, stored.size, stored.sha256) == (200, MIB, hashlib.sha256(body_of(MIB)).digest())
    assert ask("GET", urls.reading(Payload(blob=stored))) == (200, body_of(MIB))
    assert api.read(stored) == body_of(MIB)
    gone = Blob(id="00000000-0000-7000-8000-000000000000")
    assert ask("GET", urls.reading(Payload(blob=gone)))[0] == 404


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
