"""Handing over many invocations at once, with both clients."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status

import homing
from homing import InvocationRequest
from homing._core.payload import MAX_INLINE
from homing.v1 import invocation_service_pb2
from support import records
from support.scripted_server import Refusal, ScriptedServer
from support.sdk_driver import Driver

AWAY = Refusal(code=grpc.StatusCode.UNAVAILABLE, reason="BROKER_AWAY", message="the broker is away")
Response = invocation_service_pb2.BatchInvokeAsyncResponse


@pytest.fixture
def client(driver: Driver, scripted_server: ScriptedServer) -> Any:
    return driver.client(scripted_server.target)


def accepted(requests: Iterable[invocation_service_pb2.InvokeAsyncRequest]) -> Response:
    """Return the answer to a batch that is accepted; the numbers of the invocations are their payloads."""
    return Response(
        results=[
            Response.Result(
                accepted=records.accepted(records.invocation("ENQUEUED", number=int(one.spec.payload.data[:9] or b"0")))
            )
            for one in requests
        ]
    )


def accept(request: invocation_service_pb2.BatchInvokeAsyncRequest, _: Any) -> Response:
    return accepted(request.requests)


def refused(code: grpc.StatusCode, reason: str, message: str, field: str = "") -> Response.Result:
    status = Status(code=code.value[0], message=message)
    status.details.add().Pack(ErrorInfo(reason=reason, domain="homing.dev"))
    if field:
        status.details.add().Pack(
            BadRequest(field_violations=[BadRequest.FieldViolation(field=field, description=message)])
        )
    return Response.Result(error=status)


def test_each_is_accepted_or_refused_by_itself_in_order(
    driver: Driver, client: Any, scripted_server: ScriptedServer
) -> None:
    def answer(request: Any, _: Any) -> Response:
        response = accepted(request.requests)
        response.results[1].CopyFrom(
            refused(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", "must be at most 16", "spec.labels")
        )
        response.results[2].CopyFrom(refused(grpc.StatusCode.NOT_FOUND, "FUNCTION_NOT_FOUND", "there is none"))
        return response

    scripted_server.script("BatchInvokeAsync", answer)

    first, second, third = driver.do(
        client.invoke_batch,
        [
            InvocationRequest(function="figlet", payload="1", request_id="r1", labels={"a": "b"}, max_age=60),
            InvocationRequest(function="figlet", payload="2"),
            InvocationRequest(function="none", payload="3"),
        ],
    )

    assert (first.id[-1], first.request_id, first.function) == ("1", "r1", "figlet")
    assert isinstance(second, homing.InvalidRequestError)
    assert second.violations == (homing.Violation("spec.labels", "must be at most 16"),)
    assert isinstance(third, homing.NotFoundError)
    assert (third.reason, third.domain, str(third)) == ("FUNCTION_NOT_FOUND", "homing.dev", "there is none")
    [request] = scripted_server.requests["BatchInvokeAsync"]
    assert request.requests[0].spec.max_age == records.span(60)
    assert len({one.request_id for one in request.requests}) == 3
    assert third.request_id == request.requests[2].request_id


def test_one_function_with_many_payloads(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    scripted_server.script("BatchInvokeAsync", accept)

    handles = driver.do(client.invoke_batch, "figlet", (str(n) for n in range(3)), labels={"job": "7"}, delay=5)

    assert [handle.id[-1] for handle in handles] == ["0", "1", "2"]
    [request] = scripted_server.requests["BatchInvokeAsync"]
    assert {one.spec.function for one in request.requests} == {"figlet"}
    assert all(one.spec.labels == {"job": "7"} and one.spec.delay.seconds == 5 for one in request.requests)


def test_nothing_is_no_call(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    assert driver.do(client.invoke_batch, []) == []
    assert scripted_server.requests == {}


def test_more_than_a_call_carries_is_cut(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    scripted_server.script("BatchInvokeAsync", accept)

    handles = driver.do(client.invoke_batch, "figlet", [str(n) for n in range(2050)])

    assert [int(handle.id[-12:]) for handle in handles] == list(range(2050))
    assert [len(call.requests) for call in scripted_server.requests["BatchInvokeAsync"]] == [1000, 1000, 50]


def test_calls_stay_below_the_limit_of_a_message(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    scripted_server.script("BatchInvokeAsync", accept)
    payload = b"0" * MAX_INLINE

    handles = driver.do(client.invoke_batch, "figlet", [payload] * 100)

    assert len(handles) == 100
    calls = scripted_server.requests["BatchInvokeAsync"]
    assert len(calls) == 2
    assert all(call.ByteSize() <= 15 * 2**20 for call in calls)


def test_an_answer_that_is_too_large_is_asked_for_in_parts(
    driver: Driver, client: Any, scripted_server: ScriptedServer
) -> None:
    def answer(request: Any, _: Any) -> Response:
        response = accepted(request.requests)
        for result in response.results:  # as for invocations that ended long ago
            result.accepted.duplicate = True
            result.accepted.invocation.result.payload.data = b"x" * MAX_INLINE
        return response

    scripted_server.script("BatchInvokeAsync", answer)

    handles = driver.do(client.invoke_batch, "figlet", [str(n) for n in range(70)])

    assert [int(handle.id[-12:]) for handle in handles] == list(range(70))
    assert [len(call.requests) for call in scripted_server.requests["BatchInvokeAsync"]] == [70, 35, 35]


def test_a_batch_is_sent_again_with_the_same_request_ids(
    driver: Driver, client: Any, scripted_server: ScriptedServer
) -> None:
    scripted_server.script("BatchInvokeAsync", AWAY, accept)

    driver.do(client.invoke_batch, "figlet", ["1", "2"])

    first, second = scripted_server.requests["BatchInvokeAsync"]
    assert first == second


def test_what_could_not_be_decided_is_sent_again_alone(
    driver: Driver, client: Any, scripted_server: ScriptedServer
) -> None:
    def half(request: Any, _: Any) -> Response:
        response = accepted(request.requests)
        response.results[1].CopyFrom(refused(grpc.StatusCode.UNAVAILABLE, "STORE_BUSY", "the store is busy"))
        return response

    scripted_server.script("BatchInvokeAsync", half, accept)

    handles = driver.do(client.invoke_batch, "figlet", ["1", "2", "3"])

    assert [handle.id[-1] for handle in handles] == ["1", "2", "3"]
    first, second = scripted_server.requests["BatchInvokeAsync"]
    assert list(second.requests) == [first.requests[1]]


def test_a_call_that_fails_is_told_in_each_place(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    scripted_server.script("BatchInvokeAsync", accept, AWAY)

    outcomes = driver.do(client.invoke_batch, "figlet", [str(n) for n in range(1002)], timeout=0.6)

    assert all(not isinstance(outcome, Exception) for outcome in outcomes[:1000])
    assert [type(outcome) for outcome in outcomes[1000:]] == [homing.UnavailableError] * 2
    lost = scripted_server.requests["BatchInvokeAsync"][1].requests
    assert [outcome.request_id for outcome in outcomes[1000:]] == [one.request_id for one in lost]


def test_what_can_be_refused_here_is_not_sent(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    scripted_server.script("BatchInvokeAsync", accept)

    large, fine = driver.do(client.invoke_batch, "figlet", [b"x" * (homing.MAX_PAYLOAD + 1), "1"])

    assert isinstance(large, homing.PayloadTooLargeError)
    assert fine.id[-1] == "1"
    assert len(scripted_server.requests["BatchInvokeAsync"][0].requests) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([InvocationRequest(function="f"), "x"],), r"requests\[1\] must be an InvocationRequest, not str"),
        (([InvocationRequest(function=5)],), r"requests\[0\]: function must be str, not int"),  # type: ignore[arg-type]
        (("figlet",), "needs the payloads"),
        (("figlet", "payload"), "payloads must be several, not one str"),
        (([InvocationRequest(function="f")], ["x"]), "takes payloads and options with the name of a function only"),
    ],
    ids=str,
)
def test_wrong_types_are_raised_before_anything_is_sent(
    driver: Driver, client: Any, scripted_server: ScriptedServer, arguments: tuple[Any, ...], message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        driver.do(client.invoke_batch, *arguments)

    assert scripted_server.requests == {}


def test_a_closed_client_is_raised(driver: Driver, client: Any) -> None:
    driver.do(client.close)

    with pytest.raises(homing.ClosedClientError):
        driver.do(client.invoke_batch, "figlet", ["1"])
