"""What the SDK offers, and at what price."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import homing
import homing.testing
import homing.v1

SDK = Path(__file__).resolve().parents[3] / "sdk"
PAIRS = [
    (getattr(homing, name.removeprefix("Async")), getattr(homing, name))
    for name in homing.__all__
    if name.startswith("Async") and inspect.isclass(getattr(homing, name.removeprefix("Async"), None))
]


def test_the_public_names_are_these() -> None:
    assert homing.__all__ == [
        "MAX_PAYLOAD",
        "AbortedError",
        "AlreadyExistsError",
        "Answer",
        "AnswerStream",
        "ApiKey",
        "AsyncAnswerStream",
        "AsyncClient",
        "AsyncDeadLetterList",
        "AsyncDeadLetters",
        "AsyncFunctions",
        "AsyncInterceptor",
        "AsyncInvocationHandle",
        "AsyncInvocationList",
        "AsyncKeys",
        "AsyncLogTail",
        "AsyncOptions",
        "AsyncResultWatch",
        "AsyncSecrets",
        "AsyncSigningKeys",
        "AsyncTypedFunction",
        "Attempt",
        "AttemptOutcome",
        "Blob",
        "BulkRerun",
        "BulkStopped",
        "Call",
        "CallbackVerificationError",
        "Client",
        "ClientUseError",
        "ClosedClientError",
        "DeadLetter",
        "DeadLetterKind",
        "DeadLetterList",
        "DeadLetterOptions",
        "DeadLetters",
        "DeadlineExceededError",
        "Delivery",
        "DeliveryAttempt",
        "DeliveryKind",
        "DeliveryState",
        "Envelope",
        "EnvelopePayload",
        "ErrorReason",
        "Event",
        "EventType",
        "FailedPreconditionError",
        "Failure",
        "FailureReason",
        "FilterOptions",
        "ForkedClientError",
        "Function",
        "FunctionError",
        "FunctionLogLine",
        "FunctionOptions",
        "FunctionTimeoutError",
        "Functions",
        "HeaderValues",
        "Headers",
        "HomingError",
        "Interceptor",
        "InvalidEnvelopeError",
        "InvalidRequestError",
        "InvalidResultError",
        "Invocation",
        "InvocationCounts",
        "InvocationEndedError",
        "InvocationError",
        "InvocationExpiredError",
        "InvocationHandle",
        "InvocationInvalidError",
        "InvocationList",
        "InvocationNotEndedError",
        "InvocationRequest",
        "InvocationState",
        "InvocationStoppedError",
        "Keys",
        "Limits",
        "LogLine",
        "LogStream",
        "LogTail",
        "NewApiKey",
        "NewSigningKey",
        "NotFoundError",
        "Payload",
        "PayloadTooLargeError",
        "PermissionDeniedError",
        "Progress",
        "Purged",
        "RateLimitedError",
        "Redriven",
        "RequestError",
        "Result",
        "ResultTimeoutError",
        "ResultWatch",
        "ResumeTokenExpiredError",
        "RetryPolicy",
        "RevisionMismatchError",
        "RunOptions",
        "Scope",
        "Secret",
        "Secrets",
        "ServerError",
        "SigningKey",
        "SigningKeys",
        "StopRequest",
        "TypedFunction",
        "UnauthenticatedError",
        "UnavailableError",
        "UnimplementedError",
        "VerifiedCallback",
        "Violation",
        "WaitReason",
        "WatchEvent",
        "WrongLoopError",
        "__version__",
        "parse_envelope",
        "verify_callback",
    ]


@pytest.mark.parametrize("module", [homing, homing.testing, homing.v1], ids=lambda module: module.__name__)
def test_the_public_names_exist_and_are_sorted(module: object) -> None:
    names: list[str] = vars(module)["__all__"]

    assert names == sorted(names, key=lambda name: (not name.isupper(), name))
    assert [name for name in names if not hasattr(module, name)] == []


def test_every_error_is_public_and_a_homing_error() -> None:
    errors = {
        name: value
        for name, value in vars(homing.errors).items()
        if inspect.isclass(value) and issubclass(value, Exception)
    }

    assert set(errors) <= set(homing.__all__)
    assert [name for name, value in errors.items() if not issubclass(value, homing.HomingError)] == []


def test_the_module_docstring_of_errors_draws_every_error() -> None:
    drawn = homing.errors.__doc__ or ""

    missing = [name for name in homing.__all__ if name.endswith("Error") and f"─ {name}" not in drawn]

    assert missing == ["HomingError"]  # the root has no branch


def test_each_asynchronous_class_has_a_synchronous_one() -> None:
    assert {aio.__name__ for _, aio in PAIRS} == {name for name in homing.__all__ if name.startswith("Async")} - {
        "AsyncInterceptor",
        "AsyncOptions",
    }  # a type of callables, and the options of invoke_async


@pytest.mark.parametrize(("sync", "aio"), PAIRS, ids=lambda cls: cls.__name__)
def test_both_clients_have_the_same_methods(sync: type, aio: type) -> None:
    def synchronous(annotation: object) -> str:
        # A handle or watch of the one kind stands for that of the other.
        text = re.sub(r" \| AsyncIterable\[\w+\]|Async(?!Options)", "", str(annotation))
        return re.sub(r"^Generator\[(.+?)(, None)+\]$", r"Generator[\1]", text)

    def members(cls: type) -> dict[str, inspect.Signature | None]:
        found: dict[str, inspect.Signature | None] = {}
        for name, member in inspect.getmembers(cls):
            if name.startswith("_"):
                continue
            found[name] = None
            if inspect.isfunction(member):
                signature = inspect.signature(member)
                found[name] = signature.replace(
                    parameters=[
                        parameter.replace(annotation=synchronous(parameter.annotation))
                        for parameter in signature.parameters.values()
                    ],
                    return_annotation=synchronous(signature.return_annotation),
                )
        return found

    assert members(sync) == members(aio)
    assert any(members(sync).values())


@pytest.mark.parametrize("cls", [cls for pair in PAIRS for cls in pair], ids=lambda cls: cls.__name__)
def test_options_are_keyword_only(cls: type) -> None:
    positional = {
        f"{name}({parameter.name})"
        for name, member in inspect.getmembers(cls, inspect.isfunction)
        if not name.startswith("_")
        for parameter in inspect.signature(member).parameters.values()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD and parameter.name != "self"
    }

    assert positional <= {
        "invoke(function)",
        "invoke(payload)",
        "invoke_stream(function)",
        "invoke_stream(payload)",
        "invoke_async(function)",
        "invoke_async(payload)",
        "get(invocation_id)",
        "handle(invocation_id)",
        "invoke_batch(what)",
        "invoke_batch(payloads)",
        "map(function)",
        "map(items)",
        "function(name)",
        "get(name)",
        "get(dead_letter_id)",
        "delete(name)",
        "wait(timeout)",
        "result(timeout)",
        "stop(invocation_id)",
        "rerun(invocation_id)",
        "logs(invocation_id)",
        "logs(name)",
        "pause(name)",
        "resume(name)",
        "scale(name)",
        "read_payload(body)",
        "create(name)",
        "create(value)",
        "update(name)",
        "update(value)",
        "revoke(key)",
        "revoke(key_id)",
    }


def test_the_version_is_that_of_the_distribution() -> None:
    assert homing.__version__ == (SDK.parent / "VERSION").read_text().strip()


def test_importing_loads_nothing_but_the_declared_dependencies() -> None:
    code = """
import sys
before = set(sys.modules)
import homing
loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
print(*sorted(loaded - sys.stdlib_module_names - {"homing"}))
"""
    run = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)

    # grpc itself loads its companions where they are installed.
    assert [name for name in run.stdout.split() if not name.startswith(("grpc", "_cython", "cython"))] in (
        ["google", "tenacity"],
        ["google", "tenacity", "typing_extensions"],
    )


def test_all_messages_of_requests_and_answers_are_named_by_the_package() -> None:
    services = [
        service
        for name in sys.modules
        if re.fullmatch(r"homing\.v1\.\w+_service_pb2", name)
        for service in sys.modules[name].DESCRIPTOR.services_by_name.values()
    ]
    messages = {
        kind.name
        for service in services
        for method in service.methods
        for kind in (method.input_type, method.output_type)
    }

    assert len(services) == 8
    assert messages - set(homing.v1.__all__) == set()
