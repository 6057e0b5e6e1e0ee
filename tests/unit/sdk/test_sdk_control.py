"""Stopping, running again and counting, with both clients, against a real server that answers as told."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import grpc
import pytest

import homing
from homing import InvocationState
from homing.v1 import invocation_pb2, payload_pb2
from homing.v1 import invocation_service_pb2 as api
from support import records
from support.scripted_server import Refusal, ScriptedServer, streamed
from support.sdk_driver import Driver

AWAY = Refusal(code=grpc.StatusCode.UNAVAILABLE, reason="BROKER_AWAY", message="the broker is away")
T0 = datetime(2026, 11, 22, 8, tzinfo=UTC)


def in_state(reason: str, state: str) -> Refusal:
    return Refusal(
        code=grpc.StatusCode.FAILED_PRECONDITION,
        reason=reason,
        message=f"it is {state}",
        metadata={"invocation": "some-id", "state": state},
    )


@pytest.fixture
def client(driver: Driver, scripted_server: ScriptedServer) -> Any:
    return driver.client(scripted_server.target)


def test_a_stop_returns_the_record(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    scripted_server.script(
        "StopInvocation", AWAY, api.StopInvocationResponse(invocation=records.invocation("STOPPING"))
    )

    record = driver.do(client.stop, "some-id", reason="enough")

    assert record.state is InvocationState.STOPPING
    assert scripted_server.requests["StopInvocation"] == [api.StopInvocationRequest(id="some-id", reason="enough")] * 2


def test_a_stopped_end_is_known_to_the_handle(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    scripted_server.script("StopInvocation", api.StopInvocationResponse(invocation=records.invocation("STOPPED")))
    handle = client.handle("some-id")

    driver.do(handle.stop)

    with pytest.raises(homing.InvocationStoppedError, match="figlet ended STOPPED"):
        driver.do(handle.result)
    assert scripted_server.requests["StopInvocation"] == [api.StopInvocationRequest(id="some-id")]


def test_a_stop_of_an_ended_one_is_an_error(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    scripted_server.script("StopInvocation", AWAY, in_state("INVOCATION_ENDED", "SUCCEEDED"))

    with pytest.raises(homing.InvocationEndedError, match="it is SUCCEEDED") as caught:
        driver.do(client.stop, "some-id")

    assert isinstance(caught.value, homing.FailedPreconditionError)
    assert caught.value.state is InvocationState.SUCCEEDED


def test_a_stop_whose_answer_was_lost_is_a_success(
    driver: Driver, client: Any, scripted_server: ScriptedServer
) -> None:
    scripted_server.script("StopInvocation", AWAY, in_state("INVOCATION_ENDED", "STOPPED"))
    scripted_server.script("GetInvocation", api.GetInvocationResponse(invocation=records.invocation("STOPPED")))

    assert driver.do(client.stop, "some-id").state is InvocationState.STOPPED
    # But not where the first try is told so: then somebody else did it.
    with pytest.raises(homing.InvocationEndedError):
        driver.do(client.stop, "some-id")


@pytest.mark.parametrize(
    ("options", "payload"),
    [
        ({}, None),
        ({"payload": None}, payload_pb2.Payload()),
        ({"payload": {"a": 1}}, payload_pb2.Payload(content_type="application/json", data=b'{"a":1}')),
        ({"payload": b"x", "content_type": "image/x"}, payload_pb2.Payload(content_type="image/x", data=b"x")),
    ],
    ids=str,
)
def test_a_rerun_sends_what_it_is_given(
    driver: Driver,
    client: Any,
    scripted_server: ScriptedServer,
    options: dict[str, Any],
    payload: payload_pb2.Payload | None,
) -> None:
    rerun = records.invocation("ENQUEUED", number=2)
    scripted_server.script("RerunInvocation", AWAY, api.RerunInvocationResponse(invocation=rerun, duplicate=True))

    handle = driver.do(client.rerun, "some-id", request_id="r1", **options)

    assert (handle.id, handle.function, handle.request_id, handle.duplicate) == (rerun.id, "figlet", "r1", True)
    expected = api.RerunInvocationRequest(id="some-id", request_id="r1", payload=payload)
    assert scripted_server.requests["RerunInvocation"] == [expected] * 2


def test_a_typed_handle_is_run_again_as_one(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    ended = records.invocation(number=2, body=b"[1]", content_type="application/json")
    scripted_server.script("RerunInvocation", api.RerunInvocationResponse(invocation=ended))

    handle = driver.do(client.handle("some-id", output=list[int]).rerun)

    assert driver.do(handle.result) == [1]


def test_a_lost_rerun_tells_its_request_id(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    scripted_server.script("RerunInvocation", AWAY)
    scripted_server.script("BulkRerun", AWAY)

    with pytest.raises(homing.UnavailableError) as caught:
        driver.do(client.rerun, "some-id", timeout=0.3)
    assert {request.request_id for request in scripted_server.requests["RerunInvocation"]} == {caught.value.request_id}
    with pytest.raises(homing.UnavailableError) as caught:
        driver.do(client.bulk_rerun, function="f", timeout=0.3)
    assert {request.request_id for request in scripted_server.requests["BulkRerun"]} == {caught.value.request_id}


def test_a_rerun_of_a_running_one_is_an_error(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    scripted_server.script("RerunInvocation", in_state("INVOCATION_NOT_ENDED", "RUNNING"))

    with pytest.raises(homing.InvocationNotEndedError) as caught:
        driver.do(client.rerun, "some-id")

    assert caught.value.state is InvocationState.RUNNING


def test_counts_come_by_state(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    count = api.CountInvocationsResponse.Count
    scripted_server.script(
        "CountInvocations",
        AWAY,
        api.CountInvocationsResponse(
            counts=[
                count(state=invocation_pb2.INVOCATION_STATE_RUNNING, count=2),
                count(state=invocation_pb2.INVOCATION_STATE_SUCCEEDED, count=10_000, more=True),
            ]
        ),
    )

    counts = driver.do(client.count, function="f", created_since=T0, rerun_of="0192")

    assert counts.by_state == {InvocationState.RUNNING: 2, InvocationState.SUCCEEDED: 10_000}
    assert counts.more == {InvocationState.SUCCEEDED}
    assert counts.total == 10_002
    assert scripted_server.requests["CountInvocations"][1].filter == invocation_pb2.InvocationFilter(
        functions=["f"], create_time=invocation_pb2.TimeRange(start_time=records.stamp(T0)), rerun_of="0192"
    )


def test_bulk_calls_send_the_filter(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    done = api.BulkStopResponse(matched=5, stopped=3, stopping=2, done=True)
    scripted_server.script("BulkStop", AWAY, streamed(done))
    scripted_server.script("BulkRerun", AWAY, streamed(api.BulkRerunResponse(matched=9, accepted=6, done=True)))
    wanted = invocation_pb2.InvocationFilter(labels={"job": "7"}, states=[invocation_pb2.INVOCATION_STATE_FAILED])
    conditions: dict[str, Any] = {"labels": {"job": "7"}, "states": [InvocationState.FAILED]}

    stopped = driver.do(client.bulk_stop, reason="enough", dry_run=True, request_id="r0", **conditions)
    rerun = driver.do(client.bulk_rerun, max_per_second=0.5, request_id="r1", **conditions)

    assert stopped == homing.BulkStopped(matched=5, stopped=3, stopping=2)
    assert rerun == homing.BulkRerun(matched=9, accepted=6, refused=0)
    assert (
        scripted_server.requests["BulkStop"]
        == [api.BulkStopRequest(filter=wanted, reason="enough", dry_run=True, request_id="r0")] * 2
    )
    assert (
        scripted_server.requests["BulkRerun"]
        == [api.BulkRerunRequest(filter=wanted, max_per_second=0.5, request_id="r1")] * 2
    )


@pytest.mark.parametrize(
    "case",
    [
        ("stop", {"reason": 5}, TypeError, "reason must be str, not int"),
        ("rerun", {"payload": {1}}, TypeError, "payload must be str, bytes or what JSON can carry"),
        ("rerun", {"content_type": "a/b"}, homing.InvalidRequestError, "content_type: needs a payload"),
        ("rerun", {"request_id": 5}, TypeError, "request_id must be str, not int"),
        ("count", {"states": ["FAILED"]}, TypeError, "states must be InvocationState, not str"),
        ("count", {"state": "FAILED"}, TypeError, "unexpected keyword argument 'state'"),
        ("bulk_stop", {"rerun_of": 5}, TypeError, "rerun_of must be str, not int"),
        ("bulk_stop", {"dry_run": "no"}, TypeError, "dry_run must be bool, not str"),
        ("bulk_stop", {"request_id": 5}, TypeError, "request_id must be str, not int"),
        ("bulk_stop", {"on_progress": 5}, TypeError, "on_progress must be callable, not int"),
        ("bulk_rerun", {"max_per_second": "1"}, TypeError, "max_per_second must be a number, not str"),
    ],
    ids=lambda case: f"{case[0]} {case[1]}",
)
def test_bad_arguments_are_named_before_anything_is_sent(
    driver: Driver,
    client: Any,
    scripted_server: ScriptedServer,
    case: tuple[str, dict[str, Any], type[Exception], str],
) -> None:
    method, options, error, message = case
    arguments = ["some-id"] if method in {"stop", "rerun"} else []

    with pytest.raises(error, match=message):
        driver.do(getattr(client, method), *arguments, **options)

    assert scripted_server.requests == {}
