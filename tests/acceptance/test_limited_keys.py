"""Keys that are limited to functions: what they see, touch and learn of others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2

from homing import Client
from homing.errors import NotFoundError, RequestError
from homing.v1 import (
    BatchInvokeAsyncRequest,
    BulkRerunRequest,
    BulkStopRequest,
    CountInvocationsRequest,
    CreateKeyRequest,
    CreateSecretRequest,
    DeadLetterFilter,
    DeleteFunctionRequest,
    DeleteSecretRequest,
    DeployFunctionRequest,
    Destination,
    Function,
    GetFunctionRequest,
    GetInvocationRequest,
    InvocationFilter,
    InvocationSpec,
    InvokeAsyncRequest,
    InvokeRequest,
    ListDeadLettersRequest,
    ListInvocationsRequest,
    ListKeysRequest,
    ListSecretsRequest,
    ListSigningKeysRequest,
    PauseFunctionRequest,
    PurgeDeadLettersRequest,
    ReadPayloadRequest,
    RedriveDeadLettersRequest,
    RerunInvocationRequest,
    ResumeFunctionRequest,
    RevokeKeyRequest,
    RevokeSigningKeyRequest,
    RotateSigningKeyRequest,
    ScaleFunctionRequest,
    StopInvocationRequest,
    TailFunctionLogsRequest,
    TailLogsRequest,
    UpdateSecretRequest,
    WaitInvocationRequest,
    WatchResultsRequest,
)
from homing.v1.invocation_service_pb2 import InvokeStreamRequest
from homing.v1.invocation_service_pb2_grpc import InvocationServiceStub
from support.guarded import ROOT_KEY, Shows, denied, methods, name_of, told
from support.processes import Cluster
from support.strangers import send


def test_a_key_for_one_function_sees_and_touches_no_other(guarded: Cluster, root: Client) -> None:
    key = root.keys.create(
        "upper-only", scopes=["invoke", "read", "operate", "deploy"], functions=["upper", "new"]
    ).secret
    limited = guarded.client(api_key=key)
    mine = limited.invoke_async("upper", "abc")
    assert mine.result(timeout=60).text == "ABC"
    other = root.invoke_async("lower", "ABC")
    assert other.result(timeout=60).text == "abc"
    assert root.get(mine.id).caller == "upper-only"
    assert root.get(other.id).caller == "root"

    denied(lambda: limited.invoke("lower", "x"))
    denied(lambda: limited.invoke("missing", "x"))
    denied(lambda: limited.invoke_async("lower", "x"))
    denied(lambda: limited.get(other.id))
    denied(lambda: limited.handle(other.id).result(timeout=5))
    denied(lambda: limited.stop(other.id))
    denied(lambda: limited.rerun(other.id))
    denied(lambda: list(limited.logs(other.id)))
    denied(lambda: limited.functions.get("lower"))
    denied(lambda: limited.functions.pause("lower"))
    denied(lambda: limited.functions.delete("lower"))
    denied(lambda: limited.functions.deploy(name="lower", command=["cat"]))
    denied(lambda: list(limited.list_invocations(function="lower")))
    denied(lambda: limited.count(function=["upper", "lower"]))
    denied(lambda: limited.bulk_stop(function="lower"))
    denied(lambda: list(limited.secrets.list()), "KEY_LIMITED")
    denied(limited.signing_keys.rotate, "KEY_LIMITED")
    denied(lambda: limited.signing_keys.rotate(function="lower"))
    denied(lambda: limited.keys.revoke("x"), "SCOPE_MISSING")

    assert [function.name for function in limited.functions.list()] == ["upper"]
    assert {each.function for each in limited.list_invocations()} == {"upper"}
    assert {each.function for each in root.list_invocations()} >= {"upper", "lower"}
    assert sum(limited.count().by_state.values()) < sum(root.count().by_state.values())
    assert limited.invoke("door", "for all").text == "for all"
    with pytest.raises(NotFoundError):
        limited.functions.get("new")


def refusals_of(channel: grpc.Channel, key: str, requests: Mapping[str, Sequence[Message]]) -> dict[str, list[str]]:
    """Return by method, for each of its requests, the reason why it is refused; empty where it is not."""
    found: dict[str, list[str]] = {}
    for method in methods(grpc.intercept_channel(channel, Shows(key))):
        found[name_of(method)] = []
        for request in requests.get(name_of(method), []):
            error = send(channel, method, request.SerializeToString(), (("authorization", f"Bearer {key}"),))
            found[name_of(method)].append("" if error is None else told(error).reason)
    return found


def test_a_limited_key_gets_at_no_other_function_by_any_rpc(guarded: Cluster, root: Client) -> None:
    """An rpc that is not here fails the test, as one does that asks for more, or for something else, than it should."""
    key = root.keys.create("limited", scopes=["invoke", "read", "operate", "deploy"], functions=["upper"]).secret
    large = b"LARGE" * 100_000
    other = root.invoke_async("lower", large)
    assert other.result(timeout=60).data == large.lower()
    root.signing_keys.rotate(function="lower")
    of_server, *_, of_lower = sorted(root.signing_keys.list(), key=lambda each: each.function or "")
    with grpc.insecure_channel(guarded.target) as channel:
        shown = grpc.intercept_channel(channel, Shows(ROOT_KEY))
        record = InvocationServiceStub(shown).GetInvocation(GetInvocationRequest(id=other.id)).invocation
        blob = record.result.payload.blob.id
        assert blob
        spec = InvocationSpec(function="lower")
        to_others = [
            InvocationSpec(function="upper", **{end: [Destination(uri="function:door"), Destination(uri=uri)]})  # type: ignore[arg-type]
            for end in ("on_success", "on_failure")
            for uri in ("function:lower", "function:missing")
        ]
        lower, letters = InvocationFilter(functions=["upper", "lower"]), DeadLetterFilter(functions=["upper", "lower"])
        deployed = [
            Function(name="lower", image="mine"),
            Function(name="missing", image="mine"),
            Function(name="upper", image="mine", secrets=["theirs"]),
            *(Function(name="upper", image="mine", on_success=each.on_success) for each in to_others[:2]),
            *(Function(name="upper", image="mine", on_failure=each.on_failure) for each in to_others[2:]),
        ]
        requests: dict[str, Sequence[Message]] = {
            "InvocationService/Invoke": [InvokeRequest(spec=spec)],
            "InvocationService/InvokeStream": [InvokeStreamRequest(spec=spec)],
            "InvocationService/InvokeAsync": [InvokeAsyncRequest(spec=each) for each in (spec, *to_others)],
            "InvocationService/BatchInvokeAsync": [],  # tells of each by itself: see below
            "InvocationService/GetInvocation": [GetInvocationRequest(id=other.id)],
            "InvocationService/WaitInvocation": [WaitInvocationRequest(id=other.id)],
            "InvocationService/ListInvocations": [ListInvocationsRequest(filter=lower)],
            "InvocationService/CountInvocations": [CountInvocationsRequest(filter=lower)],
            "InvocationService/WatchResults": [WatchResultsRequest(filter=lower)],
            "InvocationService/StopInvocation": [StopInvocationRequest(id=other.id)],
            "InvocationService/BulkStop": [BulkStopRequest(filter=lower)],
            "InvocationService/RerunInvocation": [RerunInvocationRequest(id=other.id)],
            "InvocationService/BulkRerun": [BulkRerunRequest(filter=lower)],
            "PayloadService/WritePayload": [],  # is nobody else's
            "PayloadService/ReadPayload": [ReadPayloadRequest(blob_id=blob)],
            "LogService/TailLogs": [TailLogsRequest(id=other.id)],
            "LogService/TailFunctionLogs": [TailFunctionLogsRequest(function="lower")],
            "DeadLetterService/ListDeadLetters": [ListDeadLettersRequest(filter=letters)],
            "DeadLetterService/RedriveDeadLetters": [RedriveDeadLettersRequest(filter=letters)],
            "DeadLetterService/PurgeDeadLetters": [PurgeDeadLettersRequest(filter=letters)],
            "FunctionService/GetFunction": [GetFunctionRequest(name="lower")],
            "FunctionService/ListFunctions": [],  # leaves them out
            "FunctionService/PauseFunction": [PauseFunctionRequest(name="lower")],
            "FunctionService/ResumeFunction": [ResumeFunctionRequest(name="lower")],
            "FunctionService/ScaleFunction": [ScaleFunctionRequest(name="lower", max_instances=2)],
            "FunctionService/DeployFunction": [DeployFunctionRequest(function=each) for each in deployed],
            "FunctionService/DeleteFunction": [DeleteFunctionRequest(name="lower")],
            "SecretService/CreateSecret": [CreateSecretRequest(name="theirs", value=b"x")],
            "SecretService/UpdateSecret": [UpdateSecretRequest(name="theirs", value=b"x")],
            "SecretService/ListSecrets": [ListSecretsRequest()],
            "SecretService/DeleteSecret": [DeleteSecretRequest(name="theirs")],
            "SigningKeyService/RotateSigningKey": [
                RotateSigningKeyRequest(),
                RotateSigningKeyRequest(function="lower"),
            ],
            "SigningKeyService/ListSigningKeys": [ListSigningKeysRequest(), ListSigningKeysRequest(function="lower")],
            "SigningKeyService/RevokeSigningKey": [
                RevokeSigningKeyRequest(id=of_server.id),
                RevokeSigningKeyRequest(id=of_lower.id),
            ],
            "KeyService/CreateKey": [CreateKeyRequest()],
            "KeyService/ListKeys": [ListKeysRequest()],
            "KeyService/RevokeKey": [RevokeKeyRequest()],
        }
        expected = {method: ["FUNCTION_NOT_ALLOWED"] * len(asked) for method, asked in requests.items()}
        expected["FunctionService/DeployFunction"][2] = "KEY_LIMITED"
        for method in requests:
            if method.startswith("SecretService/"):
                expected[method] = ["KEY_LIMITED"]
            if method.startswith("SigningKeyService/"):
                expected[method][0] = "KEY_LIMITED"
            if method.startswith("KeyService/"):
                expected[method] = ["SCOPE_MISSING"]  # no key that is limited may have it
        assert refusals_of(channel, key, requests) == expected

        batch = BatchInvokeAsyncRequest(requests=[InvokeAsyncRequest(spec=each) for each in (spec, *to_others)])
        limited = InvocationServiceStub(grpc.intercept_channel(channel, Shows(key)))
        for result in limited.BatchInvokeAsync(batch).results:
            info = error_details_pb2.ErrorInfo()
            assert any(detail.Unpack(info) for detail in result.error.details)
            assert info.reason == "FUNCTION_NOT_ALLOWED"
    root.signing_keys.revoke(of_lower.id)
    root.keys.revoke("limited")


def test_what_is_bulk_keeps_to_the_functions_of_the_key(guarded: Cluster, root: Client) -> None:
    key = root.keys.create("bulk", scopes=["operate", "invoke"], functions=["upper"]).secret
    limited = guarded.client(api_key=key)
    mine = root.invoke_async("upper", "x", labels={"bulk": "1"}, delay=3600)
    other = root.invoke_async("lower", "x", labels={"bulk": "1"}, delay=3600)
    with pytest.raises(RequestError, match="at least one field"):
        limited.bulk_stop()
    assert limited.bulk_stop(labels={"bulk": "1"}, request_id="r").matched == 1
    assert limited.bulk_stop(labels={"bulk": "1"}, request_id="r").stopped == 1
    assert root.get(mine.id).state == "STOPPED"
    assert root.get(mine.id).stop_request is not None
    assert root.get(other.id).state == "SCHEDULED"
    # The same id of another caller stands for another call, which stops the rest.
    assert root.bulk_stop(labels={"bulk": "1"}, request_id="r").stopped == 1
    assert root.get(other.id).state == "STOPPED"


def test_a_key_for_one_function_gives_it_no_secret_and_sees_no_further_along_a_chain(
    guarded: Cluster, root: Client
) -> None:
    root.secrets.create("given", b"for linked")
    root.secrets.create("kept", b"for others")
    root.functions.deploy(name="linked", command=["cat"], secrets=["given"], on_success=["function:lower"])
    limited = guarded.client(
        api_key=root.keys.create("linked-only", scopes=["invoke", "deploy"], functions=["linked"]).secret
    )
    caused = limited.invoke_async("linked", "ABC")
    with root.watch_results(function="lower") as results:
        caused.result(timeout=60)
        after = next(each for each in results if each.invocation.caused_by)
    denied(lambda: limited.get(after.invocation.id))
    denied(lambda: limited.handle(after.invocation.id).result(timeout=5))
    denied(lambda: limited.functions.deploy(name="linked", command=["cat"], secrets=["kept"]), "KEY_LIMITED")
    denied(lambda: limited.functions.deploy(name="linked", command=["cat"], secrets=["missing"]), "KEY_LIMITED")
    # What it does not name stays, also what it may not set itself.
    changed = limited.functions.update("linked", labels={"by": "ci"})
    assert (changed.secrets, changed.on_success) == (("given",), ("function:lower",))
    denied(lambda: limited.functions.update("linked", secrets=["given", "kept"]), "KEY_LIMITED")
    denied(lambda: limited.functions.update("linked", on_success="function:lower"))
    denied(lambda: limited.functions.update("lower", labels={"by": "ci"}))
    limited.functions.deploy(name="linked", command=["cat"], secrets=["given"])
