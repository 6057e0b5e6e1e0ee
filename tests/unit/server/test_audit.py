"""Whatever was asked for, there is a line of it, and no key in any."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from structlog.testing import capture_logs

from homing.v1 import CreateKeyRequest, InvocationFilter, Key, RevokeKeyRequest, RevokeSigningKeyRequest, TimeRange
from homing.v1.invocation_service_pb2 import BulkStopRequest
from homing_server.auth import audit


def line_of(method: str, request: object) -> dict[str, Any]:
    with capture_logs() as lines:
        audit.log_action(f"/homing.v1.X/{method}", caller="ops", request=request, outcome="OK")
    (line,) = lines
    return dict(line)


@pytest.mark.parametrize("time", [Timestamp(seconds=253_402_300_800), Timestamp(nanos=2_000_000_000)])
def test_times_that_are_none_are_told_as_they_came(time: Timestamp) -> None:
    selection = InvocationFilter(functions=["figlet"], create_time=TimeRange(end_time=time))
    line = line_of("BulkStop", BulkStopRequest(filter=selection))
    assert "figlet" in line["filter"]
    assert str(time.seconds or time.nanos) in line["filter"]


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
    assert "SECRET" not in str(line_of(method, request_))
