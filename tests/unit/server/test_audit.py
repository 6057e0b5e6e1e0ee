"""Whatever was asked for, there is a line of it, and no key in any."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from structlog.testing import capture_logs

from homing.v1 import (
    BulkRerunRequest,
    BulkStopRequest,
    CreateKeyRequest,
    CreateSecretRequest,
    DeadLetterFilter,
    DeleteFunctionRequest,
    DeleteSecretRequest,
    DeployFunctionRequest,
    Function,
    InvocationFilter,
    Key,
    PauseFunctionRequest,
    PurgeDeadLettersRequest,
    RedriveDeadLettersRequest,
    RerunInvocationRequest,
    ResumeFunctionRequest,
    RevokeKeyRequest,
    RevokeSigningKeyRequest,
    RotateSigningKeyRequest,
    ScaleFunctionRequest,
    StopInvocationRequest,
    TimeRange,
    UpdateSecretRequest,
)
from homing.v1.key_service_pb2 import SCOPE_INVOKE, SCOPE_OPERATE
from homing_server.auth import audit
from support.allowed import ADMIN, ALLOWED, DEPLOY, OPERATE

VALUE = b"NOBODY IS TO SEE THIS"
ACTIONS: list[tuple[str, object, dict[str, object]]] = [
    ("DeployFunction", DeployFunctionRequest(function=Function(name="f", env={"A": "x"})), {"function": "f"}),
    ("DeleteFunction", DeleteFunctionRequest(name="f"), {"function": "f"}),
    ("PauseFunction", PauseFunctionRequest(name="f"), {"function": "f"}),
    ("ResumeFunction", ResumeFunctionRequest(name="f"), {"function": "f"}),
    ("ScaleFunction", ScaleFunctionRequest(name="f", max_instances=2), {"function": "f"}),
    ("StopInvocation", StopInvocationRequest(id="i", reason="r"), {"invocation": "i"}),
    ("RerunInvocation", RerunInvocationRequest(id="i"), {"invocation": "i"}),
    ("BulkStop", BulkStopRequest(filter=InvocationFilter(id_prefix="0")), {"filter": "{'id_prefix': '0'}"}),
    ("BulkRerun", BulkRerunRequest(dry_run=True), {"filter": "{}", "dry_run": True}),
    (
        "RedriveDeadLetters",
        RedriveDeadLettersRequest(filter=DeadLetterFilter(functions=["f"])),
        {"filter": "{'functions': ['f']}"},
    ),
    (
        "PurgeDeadLetters",
        PurgeDeadLettersRequest(filter=DeadLetterFilter(ids=["d"]), dry_run=True),
        {"filter": "{'ids': ['d']}", "dry_run": True},
    ),
    ("CreateSecret", CreateSecretRequest(name="s", value=VALUE), {"secret": "s"}),
    ("UpdateSecret", UpdateSecretRequest(name="s", value=VALUE), {"secret": "s"}),
    ("DeleteSecret", DeleteSecretRequest(name="s"), {"secret": "s"}),
    ("RotateSigningKey", RotateSigningKeyRequest(function="f", key=VALUE.decode()), {"function": "f"}),
    ("RevokeSigningKey", RevokeSigningKeyRequest(id="k"), {"signing_key": "k"}),
    (
        "CreateKey",
        CreateKeyRequest(key=Key(name="k", scopes=[SCOPE_INVOKE, SCOPE_OPERATE], functions=["f", "g"])),
        {"key": "k", "scopes": ["invoke", "operate"], "functions": ["f", "g"]},
    ),
    ("RevokeKey", RevokeKeyRequest(key="k"), {"key": "k"}),
]


def line_of(method: str, request: object) -> dict[str, Any]:
    with capture_logs() as lines:
        audit.log_action(f"/homing.v1.X/{method}", caller="ops", request=request, outcome="OK")
    (line,) = lines
    return dict(line)


@pytest.mark.parametrize(("method", "request_", "target"), ACTIONS, ids=[method for method, *_ in ACTIONS])
def test_the_line_of_an_action_tells_what_it_is_about_and_nothing_secret(
    method: str, request_: object, target: dict[str, object]
) -> None:
    head = {"event": "audit", "log_level": "info", "action": method, "caller": "ops", "outcome": "OK"}
    assert line_of(method, request_) == head | target
    # It was refused before anybody read what it asked for.
    assert line_of(method, None) == head


def test_whatever_needs_more_than_to_invoke_and_to_read_is_an_action() -> None:
    changing = {
        method for method, scopes in ALLOWED.items() if scopes & {OPERATE, DEPLOY, ADMIN} and "/List" not in method
    }
    assert {method.partition("/")[2] for method in changing} == {method for method, *_ in ACTIONS}
    for method in ALLOWED:
        assert audit.is_control(f"/homing.v1.{method}") == (method in changing)


def test_a_long_text_is_cut_off() -> None:
    assert line_of("PauseFunction", PauseFunctionRequest(name="f" * 300))["function"] == "f" * 256
    prefix = InvocationFilter(id_prefix="0" * 300)
    assert line_of("BulkStop", BulkStopRequest(filter=prefix))["filter"] == ("{'id_prefix': '" + "0" * 300)[:256]


def test_a_filter_beyond_its_bounds_is_told_by_its_size() -> None:
    """To write it out would take longer than to refuse it."""
    within = InvocationFilter(id_prefix="0" * (64 * 1024 - 4))
    assert within.ByteSize() == 64 * 1024
    assert line_of("BulkStop", BulkStopRequest(filter=within))["filter"].startswith("{'id_prefix'")
    beyond = InvocationFilter(id_prefix="0" * (64 * 1024 - 3))
    line = line_of("BulkStop", BulkStopRequest(filter=beyond, dry_run=True))
    assert (line["filter"], "dry_run" in line) == ("of 65537 bytes", False)


def test_of_many_functions_and_scopes_of_a_key_ten_are_told() -> None:
    key = Key(name="k", scopes=[SCOPE_INVOKE] * 20, functions=[f"f{number}" for number in range(20)])
    line = line_of("CreateKey", CreateKeyRequest(key=key))
    assert line["scopes"] == ["invoke"] * 10
    assert line["functions"] == [f"f{number}" for number in range(10)]


def test_the_line_of_refusals_tells_what_was_asked_for_where_it_was_one_thing() -> None:
    with capture_logs() as lines:
        audit.log_refusal(peer="::1", caller="ci", reason="KEY_EXPIRED", what="/" * 300, number=1)
        audit.log_refusal(peer="", caller="", reason="KEY_MISSING", what="", number=7)
    head = {"event": "audit_refused", "log_level": "info"}
    assert lines == [
        head | {"peer": "::1", "caller": "ci", "reason": "KEY_EXPIRED", "number": 1, "asked": "/" * 256},
        head | {"peer": "", "caller": "", "reason": "KEY_MISSING", "number": 7},
    ]


def test_lines_are_written_whatever_the_level_is() -> None:
    logger = logging.getLogger("homing.audit")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        audit.log_at_any_level()
        assert logger.isEnabledFor(logging.INFO)
    finally:
        logger.setLevel(level)


@pytest.mark.parametrize("time", [Timestamp(seconds=253_402_300_800), Timestamp(nanos=2_000_000_000)])
def test_times_that_are_none_are_told_as_they_came(time: Timestamp) -> None:
    selection = InvocationFilter(functions=["figlet"], create_time=TimeRange(end_time=time))
    line = line_of("BulkStop", BulkStopRequest(filter=selection))
    assert "figlet" in line["filter"]
    assert str(time.seconds or time.nanos) in line["filter"]
    assert "\n" not in line["filter"]


def test_scopes_that_are_none_are_left_out() -> None:
    key = Key(name="ci", scopes=[1, 99], expire_time=Timestamp(seconds=2**62))  # type: ignore[list-item]
    line = line_of("CreateKey", CreateKeyRequest(key=key))
    assert (line["key"], line["scopes"]) == ("ci", ["invoke"])


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("CreateKey", CreateKeyRequest(key=Key(name="hk_0123_SECRET"))),
        ("RevokeKey", RevokeKeyRequest(key="hk_0123_SECRET")),
        ("RevokeSigningKey", RevokeSigningKeyRequest(id="whsec_SECRET")),
    ],
)
def test_a_key_in_the_place_of_its_name_is_not_told(method: str, request_: object) -> None:
    line = line_of(method, request_)
    assert "SECRET" not in str(line)
    assert "" in line.values()
