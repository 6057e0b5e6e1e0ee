"""Dead letters, with both clients, against servers that answer as told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest

import homing
from homing import DeadLetterKind, DeliveryState, InvocationState
from homing.testing import FakeServer
from homing.v1 import dead_letter_pb2, invocation_pb2
from homing.v1.dead_letter_service_pb2 import (
    ListDeadLettersRequest,
    ListDeadLettersResponse,
    PurgeDeadLettersRequest,
    PurgeDeadLettersResponse,
    RedriveDeadLettersRequest,
    RedriveDeadLettersResponse,
)
from support import records
from support.scripted_server import Refusal, ScriptedServer, streamed
from support.sdk_driver import Driver

T0 = datetime(2026, 11, 22, 8, tzinfo=UTC)


@pytest.fixture
def client(driver: Driver, scripted_server: ScriptedServer) -> Any:
    return driver.client(scripted_server.target)


def page(*ids: str, token: str = "") -> ListDeadLettersResponse:
    return ListDeadLettersResponse(
        dead_letters=[dead_letter_pb2.DeadLetter(id=id_) for id_ in ids], next_page_token=token
    )


def test_the_kinds_are_those_of_the_api() -> None:
    values = dead_letter_pb2.DeadLetterKind.DESCRIPTOR.values

    assert [kind.value for kind in DeadLetterKind] == [
        "UNKNOWN",
        *(value.name.removeprefix("DEAD_LETTER_KIND_") for value in values[1:]),
    ]


def test_iterating_fetches_page_after_page(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    scripted_server.script("ListDeadLetters", page("a", "b", token="1"), page(token="2"), page("c"))

    found = client.dead_letters.list()
    assert scripted_server.requests == {}

    assert [letter.id for letter in driver.rest(found)] == ["a", "b", "c"]
    requests = scripted_server.requests["ListDeadLetters"]
    assert [request.page_token for request in requests] == ["", "1", "2"]
    assert [request.page_size for request in requests] == [100] * 3


def test_pages_can_be_turned(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    scripted_server.script("ListDeadLetters", page("a", "b", token="1"), page("c", token="2"))

    found = client.dead_letters.list(limit=3, page_size=2)

    assert [letter.id for letter in driver.do(found.fetch_next_page)] == ["a", "b"]
    assert (found.current_page_index, found.next_page_token) == (0, "1")
    assert [letter.id for letter in driver.do(found.fetch_next_page)] == ["c"]
    assert (found.next_page_token, driver.do(found.fetch_next_page)) == (None, ())
    assert [request.page_size for request in scripted_server.requests["ListDeadLetters"]] == [2, 1]


def test_every_condition_is_sent(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    scripted_server.script("ListDeadLetters", page())
    done = RedriveDeadLettersResponse(matched=3, rerun=1, redelivered=1, done=True)
    scripted_server.script("RedriveDeadLetters", streamed(done))
    scripted_server.script("PurgeDeadLetters", streamed(PurgeDeadLettersResponse(matched=3, purged=2, done=True)))
    later = T0 + timedelta(hours=1)
    conditions: Any = {
        "ids": ["a", "b"],
        "kind": DeadLetterKind.DELIVERY,
        "function": "figlet",
        "since": T0,
        "until": later,
    }

    driver.rest(client.dead_letters.list(**conditions, page_token="t"))
    redriven = driver.do(client.dead_letters.redrive, **conditions, dry_run=True, max_per_second=2.5, request_id="r1")
    purged = driver.do(client.dead_letters.purge, **conditions, dry_run=True, request_id="r2")

    wanted = dead_letter_pb2.DeadLetterFilter(
        ids=["a", "b"],
        kind=dead_letter_pb2.DEAD_LETTER_KIND_DELIVERY,
        functions=["figlet"],
        time=invocation_pb2.TimeRange(start_time=records.stamp(T0), end_time=records.stamp(later)),
    )
    assert scripted_server.requests["ListDeadLetters"] == [
        ListDeadLettersRequest(filter=wanted, page_size=100, page_token="t")
    ]
    assert scripted_server.requests["RedriveDeadLetters"] == [
        RedriveDeadLettersRequest(filter=wanted, dry_run=True, max_per_second=2.5, request_id="r1")
    ]
    assert scripted_server.requests["PurgeDeadLetters"] == [
        PurgeDeadLettersRequest(filter=wanted, dry_run=True, request_id="r2")
    ]
    assert redriven == homing.Redriven(matched=3, rerun=1, redelivered=1, refused=0)
    assert purged == homing.Purged(matched=3, purged=2)


def test_all_calls_are_repeated_while_the_server_is_away(
    driver: Driver, client: Any, scripted_server: ScriptedServer
) -> None:
    away = Refusal(code=grpc.StatusCode.UNAVAILABLE, reason="STORE_AWAY")
    scripted_server.script("ListDeadLetters", away, page("a"))
    scripted_server.script("RedriveDeadLetters", away, streamed(RedriveDeadLettersResponse(matched=1, done=True)))
    scripted_server.script("PurgeDeadLetters", away, streamed(PurgeDeadLettersResponse(matched=2, done=True)))

    assert driver.do(client.dead_letters.get, "a").id == "a"
    assert driver.do(client.dead_letters.redrive, ids="a").matched == 1
    assert driver.do(client.dead_letters.purge, ids="a").matched == 2


def test_one_is_told_in_full(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    delivery = invocation_pb2.Delivery(id="d", uri="https://x.example/", state=invocation_pb2.DELIVERY_STATE_DEAD)
    delivery.attempts.add(number=1, status_code=410)
    message = dead_letter_pb2.DeadLetter(
        id="d",
        kind=dead_letter_pb2.DEAD_LETTER_KIND_DELIVERY,
        invocation_id="i",
        function="figlet",
        state=invocation_pb2.INVOCATION_STATE_SUCCEEDED,
        time=records.stamp(T0),
        failure=invocation_pb2.Failure(reason="GONE", message="it answered 410"),
        delivery=delivery,
    )
    scripted_server.script("ListDeadLetters", ListDeadLettersResponse(dead_letters=[message]))

    letter = driver.do(client.dead_letters.get, "d")

    assert (letter.id, letter.kind, letter.invocation_id) == ("d", DeadLetterKind.DELIVERY, "i")
    assert (letter.function, letter.state, letter.time) == ("figlet", InvocationState.SUCCEEDED, T0)
    assert letter.failure == homing.Failure(reason="GONE", message="it answered 410", retryable=False)
    assert (letter.delivery.state, letter.delivery.attempts[0].status_code) == (DeliveryState.DEAD, 410)
    assert letter.message == message


def test_one_that_is_none_is_not_found(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    scripted_server.script("ListDeadLetters", page())

    with pytest.raises(homing.NotFoundError, match="there is no dead letter 'x'") as caught:
        driver.do(client.dead_letters.get, "x")

    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.NOT_FOUND, "DEAD_LETTER_NOT_FOUND")


@pytest.mark.parametrize(
    ("conditions", "field"),
    [
        ({"ids": [str(number) for number in range(1001)]}, "ids"),
        ({"ids": []}, "ids"),
        ({"kind": DeadLetterKind.UNKNOWN}, "kind"),
        ({"since": datetime(2026, 11, 22)}, "since"),  # noqa: DTZ001 - that is what is refused
        ({"since": T0, "until": T0}, "until"),
    ],
)
def test_what_breaks_a_rule_is_refused_before_it_is_sent(
    driver: Driver, client: Any, scripted_server: ScriptedServer, conditions: Any, field: str
) -> None:
    for call in (client.dead_letters.list, client.dead_letters.redrive, client.dead_letters.purge):
        with pytest.raises(homing.InvalidRequestError) as caught:
            driver.do(call, **conditions)
        assert [violation.field for violation in caught.value.violations] == [field]
    assert scripted_server.requests == {}


@pytest.mark.parametrize("conditions", [{"ids": [1]}, {"ids": 1}, {"kind": "DELIVERY"}, {"other": 1}], ids=repr)
def test_wrong_types_are_refused(driver: Driver, client: Any, conditions: Any) -> None:
    with pytest.raises(TypeError):
        driver.do(client.dead_letters.purge, **conditions)


def test_on_the_fake_server_they_are_listed_redriven_and_purged(driver: Driver, homing_fake: FakeServer) -> None:
    client = driver.client()
    function = homing_fake.function("f").fails(400, times=3).returns("ok")
    homing_fake.function("g").times_out()
    failed = [driver.do(client.invoke_async, "f").id for _ in range(3)]
    timed_out = driver.do(client.invoke_async, "g").id
    driver.do(client.invoke_async, "f")
    stopped = driver.do(client.invoke_async, function.hold().name)
    driver.do(stopped.stop)
    function.release()

    letters = driver.rest(client.dead_letters.list(page_size=1))
    assert [letter.id for letter in letters] == [timed_out, *reversed(failed)]
    assert {letter.state for letter in letters} == {InvocationState.FAILED, InvocationState.TIMED_OUT}
    assert letters[1].failure.reason == "HTTP_STATUS"
    assert driver.rest(client.dead_letters.list(kind=DeadLetterKind.DELIVERY)) == []

    redrive, purge = client.dead_letters.redrive, client.dead_letters.purge
    assert driver.do(redrive, function="f", dry_run=True) == homing.Redriven(
        matched=3, rerun=0, redelivered=0, refused=0
    )
    assert driver.do(redrive, ids=failed[0]).rerun == 1
    assert [one.state for one in driver.rest(client.list_invocations(rerun_of=failed[0]))] == [
        InvocationState.SUCCEEDED
    ]
    driver.do(client.functions.delete, "g")
    assert driver.do(redrive, function=["f", "g"]) == homing.Redriven(matched=3, rerun=2, redelivered=0, refused=1)
    assert driver.do(client.dead_letters.get, timed_out).function == "g"
    assert driver.do(purge, ids=[timed_out], dry_run=True) == homing.Purged(matched=1, purged=0)
    assert driver.do(purge, ids=[timed_out]) == homing.Purged(matched=1, purged=1)
    assert driver.rest(client.dead_letters.list()) == []
    for call in (redrive, purge):
        with pytest.raises(homing.InvalidRequestError, match="must have at least one field set"):
            driver.do(call)


def test_on_the_fake_server_synchronous_calls_leave_none(driver: Driver, homing_fake: FakeServer) -> None:
    client = driver.client()
    homing_fake.function("f").fails(400)

    with pytest.raises(homing.FunctionError):
        driver.do(client.invoke, "f")

    assert driver.rest(client.dead_letters.list()) == []
