"""Connections are kept where that loses no request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from homing_worker.runtime import CallFailedError, Request, connections
from homing_worker.runtime.http_call import exchange, open_session
from homing_worker.runtime.spool import Spools
from support.inbox import until

REQUEST = Request(method="POST", target="/", headers=[], body=b"hello", spools=Spools(Path("/nowhere")))
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
PATIENCE = 20.0


class Function:
    """Answers each request, and does something afterwards with the connection."""

    def __init__(self, afterwards: Callable[[asyncio.StreamWriter], Awaitable[None]]) -> None:
        self.afterwards = afterwards
        self.connections = 0
        self.calls = 0
        self.mute = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection."""
        self.connections += 1
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(5)
                self.calls += 1
                if self.mute:
                    return
                writer.write(OK)
                await self.afterwards(writer)
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()


async def keep(_: asyncio.StreamWriter) -> None:
    pass


async def close_soon(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(0.003)
    writer.close()


@asynccontextmanager
async def running(function: Function) -> AsyncIterator[tuple[aiohttp.ClientSession, str]]:
    server = await asyncio.start_server(function.serve, "127.0.0.1", 0)
    async with server, open_session() as session:
        yield session, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def trusted(function: Function, session: aiohttp.ClientSession, origin: str) -> None:
    """Call until a call goes by a connection that was kept."""
    async with asyncio.timeout(PATIENCE):
        before = -1
        while function.connections != before:
            before = function.connections
            await exchange(session, origin, REQUEST)


@pytest.mark.parametrize("side_by_side", [1, 10])
async def test_no_call_is_lost_where_connections_are_closed_after_each_answer(side_by_side: int) -> None:
    function = Function(close_soon)

    async with running(function) as (session, origin):
        for _ in range(100 // side_by_side):
            await asyncio.gather(*(exchange(session, origin, REQUEST) for _ in range(side_by_side)))

    assert (function.calls, function.connections) == (100, 100)


async def test_an_origin_that_closes_one_in_its_trial_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_TRIAL", 0.05)
    function = Function(close_soon)

    async with running(function) as (session, origin), asyncio.timeout(PATIENCE):
        for _ in range(2):
            await exchange(session, origin, REQUEST)
        connector = session.connector
        assert isinstance(connector, connections.KeptConnections)
        (known,) = connector._origins.values()
        assert known.on_trial
        await until(lambda: not known.on_trial)
        for _ in range(20):
            await exchange(session, origin, REQUEST)
            assert not known.may_keep

    assert (function.calls, function.connections) == (22, 22)


async def test_one_connection_serves_many_calls_once_it_is_known_to_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_TRIAL", 0.05)
    function = Function(keep)

    async with running(function) as (session, origin):
        await trusted(function, session, origin)
        before = function.connections
        for _ in range(50):
            await exchange(session, origin, REQUEST)

    assert function.connections == before


async def test_until_then_each_call_has_a_connection_of_its_own() -> None:
    function = Function(keep)

    async with running(function) as (session, origin):
        for _ in range(10):
            await exchange(session, origin, REQUEST)

    assert function.connections == 10


async def test_what_a_function_may_have_begun_is_not_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_TRIAL", 0.05)
    function = Function(keep)

    async with running(function) as (session, origin):
        await trusted(function, session, origin)
        function.mute, function.calls = True, 0
        with pytest.raises(CallFailedError) as failed:
            await exchange(session, origin, REQUEST)
        assert (failed.value.reason, failed.value.suspect) == ("CONNECTION_LOST", True)
        assert function.calls == 1

        # From then on it is not trusted.
        function.mute = False
        before = function.connections
        for _ in range(5):
            await exchange(session, origin, REQUEST)
        assert function.connections == before + 5


async def test_a_connection_that_has_closed_unnoticed_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_TRIAL", 0.05)
    closing = asyncio.Event()

    async def close_when_told(writer: asyncio.StreamWriter) -> None:
        if closing.is_set():
            writer.close()

    function = Function(close_when_told)
    async with running(function) as (session, origin):
        await trusted(function, session, origin)
        closing.set()
        # The end of the connection comes with the answer, and is not read before the next call.
        for _ in range(20):
            await exchange(session, origin, REQUEST)
