"""Handles, with both clients, against a real server that answers as told."""

from __future__ import annotations

import threading
import time
from typing import Any

import grpc
import pytest

import homing
from homing.v1 import invocation_pb2, invocation_service_pb2
from support import records
from support.scripted_server import Refusal, ScriptedServer
from support.sdk_driver import Driver

AWAY = Refusal(code=grpc.StatusCode.UNAVAILABLE, reason="BROKER_AWAY", message="the broker is away")


def waited(record: invocation_pb2.Invocation) -> invocation_service_pb2.WaitInvocationResponse:
    return invocation_service_pb2.WaitInvocationResponse(invocation=record)


@pytest.fixture
def client(driver: Driver, scripted_server: ScriptedServer) -> Any:
    return driver.client(scripted_server.target)


def test_a_result_is_waited_for_by_the_server(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    scripted_server.script("InvokeAsync", records.accepted())
    scripted_server.script("WaitInvocation", waited(records.invocation("RUNNING")), waited(records.invocation()))

    handle = driver.do(client.invoke_async, "figlet")
    result = driver.do(handle.result, timeout=600)

    assert result.text == "ok"
    first, _ = scripted_server.requests["WaitInvocation"]
    assert first.id == records.INVOCATION_ID
    assert first.timeout.seconds == 55
    deadline = scripted_server.deadlines["WaitInvocation"][0]
    assert deadline is not None
    assert 55 < deadline < 60.7  # gRPC rounds


def test_a_known_end_costs_no_call(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    scripted_server.script("InvokeAsync", records.accepted(records.invocation("FAILED"), duplicate=True))

    handle = driver.do(client.invoke_async, "figlet")

    assert driver.do(handle.done)
    assert driver.do(handle.wait).state is homing.InvocationState.FAILED
    with pytest.raises(homing.FunctionError):
        driver.do(handle.result)
    assert set(scripted_server.requests) == {"InvokeAsync"}


def test_a_wait_that_is_over_says_so(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    def until_timeout(request: Any, context: grpc.ServicerContext) -> Any:
        threading.Event().wait(request.timeout.ToTimedelta().total_seconds())
        return waited(records.invocation("RUNNING"))

    scripted_server.script("WaitInvocation", until_timeout)
    start = time.monotonic()

    with pytest.raises(homing.ResultTimeoutError) as caught:
        driver.do(client.handle("some-id").result, timeout=0.4)

    assert 0.35 <= time.monotonic() - start < 5
    assert caught.value.invocation_id == "some-id"


def test_a_server_that_does_not_answer_in_time_is_a_wait_that_is_over(
    driver: Driver, client: Any, scripted_server: ScriptedServer
) -> None:
    release = threading.Event()
    scripted_server.script("WaitInvocation", lambda *_: release.wait(10) and waited(records.invocation()))

    with pytest.raises(homing.ResultTimeoutError):
        driver.do(client.handle("some-id").result, timeout=0.3)
    release.set()


def test_a_timeout_of_zero_looks_once(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    scripted_server.script(
        "GetInvocation",
        invocation_service_pb2.GetInvocationResponse(invocation=records.invocation("RUNNING")),
        invocation_service_pb2.GetInvocationResponse(invocation=records.invocation()),
    )
    handle = client.handle("some-id")

    with pytest.raises(homing.ResultTimeoutError):
        driver.do(handle.result, timeout=0)

    assert driver.do(handle.result, timeout=0).text == "ok"
    assert handle.function == "figlet"


def test_waiting_outlasts_a_restart_of_the_server(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    taken = threading.Event()

    def never(_: Any, context: grpc.ServicerContext) -> Any:
        taken.set()
        gone = threading.Event()
        context.add_callback(gone.set)
        gone.wait(10)
        return waited(records.invocation("RUNNING"))

    def restart() -> None:
        taken.wait(10)
        scripted_server.stop()
        scripted_server.start()

    scripted_server.script("WaitInvocation", never, waited(records.invocation()))
    restarter = threading.Thread(target=restart)
    restarter.start()

    result = driver.do(client.handle("some-id").result, timeout=30)

    restarter.join()
    assert result.text == "ok"
    assert len(scripted_server.requests["WaitInvocation"]) == 2


def test_an_unavailable_server_ends_a_wait_when_the_time_is_over(driver: Driver) -> None:
    client = driver.client("127.0.0.1:1")

    with pytest.raises(homing.UnavailableError, match=r"127\.0\.0\.1:1: "):
        driver.do(client.handle("some-id").result, timeout=0.5)


def test_describe_and_get_return_the_record(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    scripted_server.script(
        "GetInvocation",
        AWAY,
        invocation_service_pb2.GetInvocationResponse(invocation=records.invocation("RUNNING")),
    )

    record = driver.do(client.get, "some-id", include_payload=True)

    assert (record.id, record.state) == (records.INVOCATION_ID, homing.InvocationState.RUNNING)
    assert (
        scripted_server.requests["GetInvocation"]
        == [invocation_service_pb2.GetInvocationRequest(id="some-id", include_payload=True)] * 2
    )
    assert not driver.do(client.handle("some-id").done)


def test_an_unknown_invocation_is_not_found(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    missing = Refusal(
        code=grpc.StatusCode.NOT_FOUND,
        reason="INVOCATION_NOT_FOUND",
        message="there is no invocation 'x'",
        metadata={"invocation": "x"},
    )
    scripted_server.script("GetInvocation", missing)
    scripted_server.script("WaitInvocation", missing)

    for call in (client.handle("x").describe, client.handle("x").result, client.handle("x").done):
        with pytest.raises(homing.NotFoundError, match="there is no invocation") as caught:
            driver.do(call)
        assert caught.value.metadata == {"invocation": "x"}
