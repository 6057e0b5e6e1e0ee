"""Who is let in while very many calls are under way, and how a call ends before its time."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest

from homing_server.auth.identity import EVERYBODY, Identity
from homing_server.errors import ApiError, key_missing, key_revoked
from homing_server.front.api.calls import Call, Calls

PATIENCE = 10.0


def refusal_of_call(calls: Calls, *, operates: bool, identity: Identity = EVERYBODY) -> str:
    """Return the reason why a call is not served; empty where it is."""
    try:
        with calls.serving(identity, operates=operates):
            return ""
    except ApiError as error:
        return error.reason


def refusal_of_stream(calls: Calls, host: str) -> str:
    try:
        with calls.until_stop(host):
            return ""
    except ApiError as error:
        return error.reason


async def test_there_is_room_left_for_operators() -> None:
    calls = Calls()
    with ExitStack() as under_way:
        for _ in range(8_999):
            under_way.enter_context(calls.serving(EVERYBODY, operates=False))
        assert refusal_of_call(calls, operates=False) == ""
        under_way.enter_context(calls.serving(EVERYBODY, operates=False))
        assert refusal_of_call(calls, operates=False) == "SERVER_BUSY"
        for _ in range(999):
            under_way.enter_context(calls.serving(EVERYBODY, operates=True))
        assert refusal_of_call(calls, operates=True) == ""
        under_way.enter_context(calls.serving(EVERYBODY, operates=True))
        assert refusal_of_call(calls, operates=True) == "SERVER_BUSY"
    assert refusal_of_call(calls, operates=False) == ""


async def test_who_may_call_no_more_is_not_served_and_takes_no_room() -> None:
    calls, identity = Calls(), Identity(name="x", scopes=frozenset())
    identity.state.revoke()
    for _ in range(10_001):
        assert refusal_of_call(calls, operates=True, identity=identity) == "KEY_INVALID"


async def test_a_call_is_ended_with_its_key() -> None:
    calls, identity, serves = Calls(), Identity(name="x", scopes=frozenset()), asyncio.Event()

    async def serve() -> None:
        with calls.serving(identity, operates=False) as call, call:
            serves.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(serve())
    await serves.wait()
    identity.state.revoke()
    with pytest.raises(ApiError) as error:
        await asyncio.wait_for(task, PATIENCE)
    assert error.value.reason == "KEY_INVALID"


async def waits(calls: list[Call], entered: asyncio.Event) -> None:
    with Call() as call:
        calls.append(call)
        entered.set()
        await asyncio.Event().wait()


async def test_a_call_ends_with_the_first_reason_that_there_is() -> None:
    calls: list[Call] = []
    entered = asyncio.Event()
    task = asyncio.create_task(waits(calls, entered))
    await entered.wait()
    calls[0].end(key_revoked())
    calls[0].end(key_missing())
    with pytest.raises(ApiError) as error:
        await asyncio.wait_for(task, PATIENCE)
    assert error.value.reason == "KEY_INVALID"
    assert error.value.__suppress_context__


async def test_a_call_whose_caller_went_away_is_cancelled() -> None:
    entered = asyncio.Event()
    task = asyncio.create_task(waits([], entered))
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, PATIENCE)


async def test_whose_caller_went_away_besides_has_nobody_to_be_told() -> None:
    calls: list[Call] = []
    entered = asyncio.Event()
    task = asyncio.create_task(waits(calls, entered))
    await entered.wait()
    task.cancel()
    calls[0].end(key_revoked())
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, PATIENCE)


async def test_what_goes_wrong_in_a_call_that_was_ended_is_told_as_it_is() -> None:
    async def fails() -> None:
        with Call() as call:
            call.end(key_revoked())
            raise FileNotFoundError

    with pytest.raises(FileNotFoundError):
        await asyncio.wait_for(asyncio.create_task(fails()), PATIENCE)


async def test_streams_that_last_are_few_and_of_one_host_fewer() -> None:
    calls = Calls()
    with ExitStack() as streams:
        for host in range(9):
            for _ in range(100):
                streams.enter_context(calls.until_stop(f"10.0.0.{host}"))
        assert refusal_of_stream(calls, "10.0.0.0") == "SERVER_BUSY"
        for _ in range(99):
            streams.enter_context(calls.until_stop("10.0.0.9"))
        assert refusal_of_stream(calls, "10.0.0.9") == ""
        streams.enter_context(calls.until_stop("10.0.0.10"))
        assert refusal_of_stream(calls, "10.0.0.10") == "SERVER_BUSY"
        # They take no room of those that end by themselves.
        assert refusal_of_call(calls, operates=False) == ""
    for _ in range(101):
        assert refusal_of_stream(calls, "10.0.0.0") == ""


async def test_streams_that_last_end_when_the_server_stops() -> None:
    calls, open_ = Calls(), asyncio.Event()

    async def stream() -> None:
        with calls.until_stop("10.0.0.1") as call, call:
            open_.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(stream())
    await open_.wait()
    calls.stop()
    with pytest.raises(ApiError) as error:
        await asyncio.wait_for(task, PATIENCE)
    assert error.value.reason == refusal_of_stream(calls, "10.0.0.1") == "SERVER_STOPPING"
