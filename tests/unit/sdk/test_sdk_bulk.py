"""Calls about many are made again by their request ids where they break off, and tell how far they are."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

import homing
from homing.v1 import dead_letter_service_pb2 as letters
from homing.v1 import invocation_service_pb2 as api
from support.scripted_server import Refusal, ScriptedServer, streamed
from support.sdk_driver import Driver

PATIENCE = 30
AWAY = Refusal(code=grpc.StatusCode.UNAVAILABLE, reason="SERVER_STOPPING")

METHODS: list[tuple[str, type[Any], type[Any], dict[str, int]]] = [
    ("BulkStop", api.BulkStopResponse, homing.BulkStopped, {"stopped": 3, "stopping": 1}),
    ("BulkRerun", api.BulkRerunResponse, homing.BulkRerun, {"accepted": 3, "refused": 1}),
    (
        "RedriveDeadLetters",
        letters.RedriveDeadLettersResponse,
        homing.Redriven,
        {"rerun": 2, "redelivered": 1, "refused": 1},
    ),
    ("PurgeDeadLetters", letters.PurgeDeadLettersResponse, homing.Purged, {"purged": 4}),
]


@pytest.fixture
def client(driver: Driver, scripted_server: ScriptedServer) -> Any:
    return driver.client(scripted_server.target)


def call_of(client: Any, method: str) -> Any:
    return {
        "BulkStop": client.bulk_stop,
        "BulkRerun": client.bulk_rerun,
        "RedriveDeadLetters": client.dead_letters.redrive,
        "PurgeDeadLetters": client.dead_letters.purge,
    }[method]


@pytest.mark.parametrize("case", METHODS, ids=lambda case: case[0])
def test_what_breaks_off_goes_on_until_it_is_done(
    driver: Driver, client: Any, scripted_server: ScriptedServer, case: tuple[str, Any, Any, dict[str, int]]
) -> None:
    method, message, value, counts = case
    name, number = next(iter(counts.items()))
    scripted_server.script(
        method,
        streamed(message(matched=9), message(matched=9, **{name: 1}), AWAY),
        streamed(message(matched=9, **{name: number})),
        streamed(message(matched=9, **{name: number}), Refusal(code=grpc.StatusCode.INTERNAL, message="RST_STREAM")),
        streamed(message(matched=9, **counts, done=True)),
    )
    seen: list[Any] = []

    done = driver.do(call_of(client, method), function="f", on_progress=seen.append)

    nothing = dict.fromkeys(counts, 0)
    assert done == value(matched=9, **counts)
    assert seen == [
        value(matched=9, **nothing),
        value(matched=9, **nothing | {name: 1}),
        value(matched=9, **nothing | {name: number}),
        value(matched=9, **nothing | {name: number}),
        done,
    ]
    first, *others = scripted_server.requests[method]
    assert first.request_id
    assert others == [first] * 3


def test_each_call_has_an_id_of_its_own(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    scripted_server.script("BulkStop", streamed(api.BulkStopResponse(done=True)))

    for _ in range(2):
        driver.do(client.bulk_stop, function="f")
    driver.do(client.bulk_stop, function="f", request_id="mine")

    ids = [request.request_id for request in scripted_server.requests["BulkStop"]]
    assert len(set(ids)) == 3
    assert ids[2] == "mine"


@pytest.mark.parametrize(
    ("refusal", "error"),
    [
        (Refusal(code=grpc.StatusCode.ABORTED, reason="BULK_CALL_TAKEN_OVER"), homing.AbortedError),
        (Refusal(code=grpc.StatusCode.INTERNAL, reason="INTERNAL"), homing.ServerError),
        (Refusal(code=grpc.StatusCode.UNAUTHENTICATED, reason="KEY_INVALID"), homing.UnauthenticatedError),
        (Refusal(code=grpc.StatusCode.ALREADY_EXISTS, reason="REQUEST_ID_REUSED"), homing.AlreadyExistsError),
    ],
    ids=lambda case: case.reason if isinstance(case, Refusal) else None,
)
def test_what_the_server_says_is_the_end(
    driver: Driver,
    client: Any,
    scripted_server: ScriptedServer,
    refusal: Refusal,
    error: type[homing.RequestError],
) -> None:
    scripted_server.script("BulkRerun", streamed(api.BulkRerunResponse(matched=2), refusal))

    with pytest.raises(error) as caught:
        driver.do(client.bulk_rerun, function="f")

    assert caught.value.reason == refusal.reason
    assert [request.request_id for request in scripted_server.requests["BulkRerun"]] == [caught.value.request_id]


def test_the_time_bounds_the_whole(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    ended = threading.Event()

    def hangs(_request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        context.add_callback(ended.set)
        yield api.BulkStopResponse(matched=2)
        ended.wait(PATIENCE)

    later = Refusal(code=grpc.StatusCode.UNAVAILABLE, reason="STORE_UNAVAILABLE", retry_after=0.5)
    scripted_server.script("BulkStop", streamed(api.BulkStopResponse(matched=2), later), hangs)

    with pytest.raises(homing.DeadlineExceededError) as caught:
        driver.do(client.bulk_stop, function="f", request_id="mine", timeout=2)

    assert caught.value.request_id == "mine"
    assert ended.wait(PATIENCE)
    first, second = scripted_server.deadlines["BulkStop"]
    assert first is not None
    assert second is not None
    # gRPC tells a server of a deadline that is up to 3 % later than it is.
    assert first <= 2.06
    assert first - second > 0.4


def test_who_is_told_may_end_it(driver: Driver, client: Any, scripted_server: ScriptedServer) -> None:
    """The server learns of it, so that it does no more."""
    ended = threading.Event()

    def goes_on(_request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        context.add_callback(ended.set)
        yield api.BulkStopResponse(matched=2)
        ended.wait(PATIENCE)

    def enough(_: homing.BulkStopped) -> None:
        raise homing.UnavailableError("enough", code=grpc.StatusCode.UNAVAILABLE)

    scripted_server.script("BulkStop", goes_on)

    with pytest.raises(homing.UnavailableError, match="enough"):
        driver.do(client.bulk_stop, function="f", on_progress=enough)

    assert ended.wait(PATIENCE)
    assert len(scripted_server.requests["BulkStop"]) == 1


def test_what_is_done_is_done_although_the_stream_breaks(
    driver: Driver, client: Any, scripted_server: ScriptedServer
) -> None:
    scripted_server.script("PurgeDeadLetters", streamed(letters.PurgeDeadLettersResponse(matched=1, done=True), AWAY))

    assert driver.do(client.dead_letters.purge, function="f").matched == 1
    assert len(scripted_server.requests["PurgeDeadLetters"]) == 1
