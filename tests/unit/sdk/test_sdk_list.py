"""Listing invocations, with both clients."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest

import homing
from homing import InvocationState
from homing._core.payload import MAX_INLINE
from homing.v1 import invocation_pb2, invocation_service_pb2
from support import records
from support.scripted_server import Refusal, ScriptedServer
from support.sdk_driver import Driver

T0 = datetime(2026, 11, 22, 8, tzinfo=UTC)


@pytest.fixture
def client(driver: Driver, scripted_server: ScriptedServer) -> Any:
    return driver.client(scripted_server.target)


def page(*numbers: int, token: str = "") -> invocation_service_pb2.ListInvocationsResponse:
    return invocation_service_pb2.ListInvocationsResponse(
        invocations=[records.invocation(number=number) for number in numbers], next_page_token=token
    )


def numbers(invocations: list[homing.Invocation]) -> list[int]:
    return [int(invocation.id[-12:]) for invocation in invocations]


def test_iterating_fetches_page_after_page(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    scripted_server.script("ListInvocations", page(1, 2, token="a"), page(token="b"), page(3))

    found = client.list_invocations()
    assert scripted_server.requests == {}

    assert numbers(driver.rest(found)) == [1, 2, 3]
    assert [request.page_token for request in scripted_server.requests["ListInvocations"]] == ["", "a", "b"]
    assert [request.page_size for request in scripted_server.requests["ListInvocations"]] == [100] * 3
    assert driver.rest(found) == []


def test_every_condition_is_sent(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    scripted_server.script("ListInvocations", page())
    later = T0 + timedelta(hours=1)

    driver.rest(
        client.list_invocations(
            function=["a", "b"],
            states=[InvocationState.FAILED],
            labels={"job": "7"},
            id_prefix="0193",
            rerun_of="0192",
            caused_by="0191",
            created_since=T0,
            created_until=later,
            started_since=T0,
            ended_until=later,
            order="oldest_first",
            page_size=7,
            page_token="t",
            include_payload=True,
            include_result=True,
        )
    )

    assert scripted_server.requests["ListInvocations"] == [
        invocation_service_pb2.ListInvocationsRequest(
            filter=invocation_pb2.InvocationFilter(
                functions=["a", "b"],
                states=[invocation_pb2.INVOCATION_STATE_FAILED],
                labels={"job": "7"},
                id_prefix="0193",
                rerun_of="0192",
                caused_by="0191",
                create_time=invocation_pb2.TimeRange(start_time=records.stamp(T0), end_time=records.stamp(later)),
                start_time=invocation_pb2.TimeRange(start_time=records.stamp(T0)),
                end_time=invocation_pb2.TimeRange(end_time=records.stamp(later)),
            ),
            order=invocation_service_pb2.INVOCATION_ORDER_OLDEST_FIRST,
            page_size=7,
            page_token="t",
            include_payload=True,
            include_result=True,
        )
    ]


def test_the_limit_shrinks_the_last_page(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    scripted_server.script("ListInvocations", page(1, 2, token="a"), page(3, token="b"))

    assert numbers(driver.rest(client.list_invocations(limit=3, page_size=2))) == [1, 2, 3]
    assert [request.page_size for request in scripted_server.requests["ListInvocations"]] == [2, 1]


def test_pages_can_be_turned_by_hand(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    scripted_server.script("ListInvocations", page(1, 2, token="a"), page(3))
    found = client.list_invocations(page_size=2)
    assert (found.current_page, found.current_page_index, found.next_page_token) == (None, -1, "")

    assert numbers(driver.do(found.fetch_next_page)) == [1, 2]
    assert numbers(found.current_page) == [1, 2]
    assert (found.current_page_index, found.next_page_token) == (0, "a")
    assert driver.next(found).id.endswith("1")
    assert numbers(driver.do(found.fetch_next_page, page_size=9)) == [3]
    assert (found.current_page_index, found.next_page_token) == (1, None)
    assert scripted_server.requests["ListInvocations"][1].page_size == 9
    assert driver.do(found.fetch_next_page) == ()


def test_a_page_that_is_too_large_is_fetched_in_parts(
    driver: Driver, client: Any, scripted_server: ScriptedServer
) -> None:
    def answer(request: Any, _: Any) -> invocation_service_pb2.ListInvocationsResponse:
        start = int(request.page_token or 0)
        response = page(*range(start, min(start + request.page_size, 80)))
        for invocation in response.invocations:
            invocation.result.payload.data = b"x" * MAX_INLINE
        if start + request.page_size < 80:
            response.next_page_token = str(start + request.page_size)
        return response

    scripted_server.script("ListInvocations", answer)

    assert numbers(driver.rest(client.list_invocations(include_result=True))) == list(range(80))
    assert [request.page_size for request in scripted_server.requests["ListInvocations"]] == [100, 50, 50]


def test_an_unavailable_server_is_asked_again(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    scripted_server.script("ListInvocations", Refusal(code=grpc.StatusCode.UNAVAILABLE), page(1))

    assert numbers(driver.rest(client.list_invocations())) == [1]


def test_a_failure_leaves_the_place(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    scripted_server.script(
        "ListInvocations", page(1, token="a"), Refusal(code=grpc.StatusCode.INTERNAL, reason="FAULT"), page(2)
    )
    found = client.list_invocations()
    driver.next(found)

    with pytest.raises(homing.ServerError):
        driver.next(found)

    assert driver.next(found).id.endswith("2")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"order": "random"}, homing.InvalidRequestError, "order: must be one of newest_first, oldest_first"),
        ({"limit": 0}, homing.InvalidRequestError, "limit: must be at least 1, is 0"),
        ({"page_size": -1}, homing.InvalidRequestError, "page_size: must be at least 1, is -1"),
        ({"page_size": "9"}, TypeError, "page_size must be int, not str"),
        ({"created_since": 5}, TypeError, "created_since must be a datetime, not int"),
        ({"ended_since": datetime(2026, 1, 1)}, homing.InvalidRequestError, "ended_since: must have a time zone"),  # noqa: DTZ001
        ({"created_since": T0, "created_until": T0}, homing.InvalidRequestError, "must be later than created_since"),
        ({"states": ["FAILED"]}, TypeError, "states must be InvocationState, not str"),
        ({"page_token": 7}, TypeError, "page_token must be str, not int"),
    ],
    ids=str,
)
def test_bad_arguments_are_named(client: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        client.list_invocations(**options)
