"""Stored bodies: their id is no right to them, and what a key stores is bounded."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

import grpc
import pytest

from homing import Client
from homing.v1 import (
    BatchInvokeAsyncRequest,
    Blob,
    InvocationSpec,
    InvokeAsyncRequest,
    InvokeRequest,
    Payload,
    ReadPayloadRequest,
    RerunInvocationRequest,
    WaitInvocationRequest,
    WritePayloadRequest,
)
from homing.v1.invocation_service_pb2_grpc import InvocationServiceStub
from homing.v1.payload_service_pb2_grpc import PayloadServiceStub
from support.allowed import INVOKE, OPERATE, READ
from support.grpc_errors import error_info
from support.guarded import Shows
from support.processes import Cluster


def upload(channel: grpc.Channel, body: bytes) -> Blob:
    parts = [WritePayloadRequest(size=len(body)), WritePayloadRequest(data=body)]
    blob: Blob = PayloadServiceStub(channel).WritePayload(iter(parts)).blob
    return blob


def read(channel: grpc.Channel, blob: Blob) -> bytes:
    return b"".join(part.data for part in PayloadServiceStub(channel).ReadPayload(ReadPayloadRequest(blob_id=blob.id)))


def refusal_of(work: Callable[[], object]) -> str:
    with pytest.raises(grpc.RpcError) as caught:
        work()
    return error_info(caught.value).reason


def test_the_id_of_a_body_is_no_right_to_it(guarded: Cluster, root: Client) -> None:
    """Neither by reading it, nor through a function that tells it, a public one too."""
    body = b"a secret " * 40_000
    secrets = {
        name: root.keys.create(f"bodies-{name}", scopes=scopes, functions=functions).secret
        for name, scopes, functions in (
            ("alice", [INVOKE], []),
            ("mallory", [INVOKE], []),
            ("reader", [READ], []),
            ("operator", [OPERATE, INVOKE], []),
            ("of-door", [READ, INVOKE], ["door"]),
            ("of-upper", [READ, INVOKE], ["upper"]),
        )
    }
    with grpc.insecure_channel(guarded.target) as channel:
        shown = {name: grpc.intercept_channel(channel, Shows(key)) for name, key in secrets.items()}
        blob = upload(shown["alice"], body)
        assert read(shown["alice"], blob) == body
        spec = InvocationSpec(function="door", payload=Payload(blob=Blob(id=blob.id)))
        request = InvokeAsyncRequest(spec=spec)
        # Nobody else, as long as it belongs to no invocation.
        for name in secrets.keys() - {"alice"}:
            assert refusal_of(partial(read, shown[name], blob)) == "BLOB_NOT_FOUND"
        for stub in (InvocationServiceStub(shown["mallory"]), InvocationServiceStub(channel)):
            assert refusal_of(partial(stub.InvokeAsync, request)) == "BLOB_NOT_FOUND"
            assert refusal_of(partial(stub.Invoke, InvokeRequest(spec=spec))) == "BLOB_NOT_FOUND"
            (result,) = stub.BatchInvokeAsync(BatchInvokeAsyncRequest(requests=[request])).results
            assert "there is no stored body" in result.error.message

        stub = InvocationServiceStub(shown["alice"])
        call = stub.InvokeAsync(request).invocation
        end = stub.WaitInvocation(WaitInvocationRequest(id=call.id)).invocation
        answer = end.result.payload.blob
        for name in ("alice", "reader", "of-door"):
            assert read(shown[name], blob) == read(shown[name], answer) == body
        assert refusal_of(lambda: read(shown["mallory"], blob)) == "SCOPE_MISSING"
        assert refusal_of(lambda: read(shown["of-upper"], answer)) == "FUNCTION_NOT_ALLOWED"
        assert refusal_of(lambda: InvocationServiceStub(shown["mallory"]).InvokeAsync(request)) == "SCOPE_MISSING"
        refused = refusal_of(lambda: InvocationServiceStub(channel).InvokeAsync(request))
        assert refused in {"SCOPE_MISSING", "KEY_MISSING"}
        # Whoever may run it again may do so with what it had, and not with what they have no right to.
        operator = InvocationServiceStub(shown["operator"])
        assert operator.RerunInvocation(RerunInvocationRequest(id=call.id)).invocation.rerun_of == call.id
        other = RerunInvocationRequest(id=call.id, payload=Payload(blob=Blob(id=upload(shown["alice"], body).id)))
        assert refusal_of(lambda: operator.RerunInvocation(other)) == "BLOB_NOT_FOUND"
        # The answer of a synchronous call is its caller's, whether or not there is a record of it by now.
        direct = stub.Invoke(InvokeRequest(spec=spec)).invocation.result.payload.blob
        assert read(shown["alice"], direct) == body
        assert stub.InvokeAsync(
            InvokeAsyncRequest(spec=InvocationSpec(function="door", payload=Payload(blob=Blob(id=direct.id))))
        ).invocation.id


def test_what_a_key_stores_and_does_not_use_is_bounded(guarded: Cluster, root: Client) -> None:
    """What is under way counts by the size that it is said to have, so nothing need be sent for that."""
    key = root.keys.create("hoards", scopes=["invoke"]).secret
    ended, refused = threading.Event(), threading.Event()

    def parts() -> Iterator[WritePayloadRequest]:
        yield WritePayloadRequest(size=64 * 2**20)
        ended.wait()

    with ExitStack() as channels:
        # Of a connection there are fewer streams at once.
        options = [("grpc.use_local_subchannel_pool", 1)]
        stubs = [
            PayloadServiceStub(
                grpc.intercept_channel(
                    channels.enter_context(grpc.insecure_channel(guarded.target, options=options)), Shows(key)
                )
            )
            for _ in range(5)
        ]
        uploads = [stub.WritePayload.future(parts(), timeout=60) for stub in stubs for _ in range(13)]
        for each in uploads:
            each.add_done_callback(lambda _: refused.set())
        refused.wait()
        reasons = [error_info(each.exception()).reason for each in uploads if each.done()]
        assert reasons == ["TOO_MANY_UPLOADS"]
        for each in uploads:
            each.cancel()
        ended.set()
    root.keys.revoke("hoards")
