"""Runs one test against both clients of the SDK."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from homing import AsyncClient, Client


class Driver:
    """Makes clients of one kind, and waits for what their methods return where that needs waiting for."""

    def __init__(self, *, asynchronous: bool) -> None:
        self.asynchronous = asynchronous
        self._runner = asyncio.Runner()
        self._clients: list[Any] = []

    def client(self, target: str | None = None, **options: Any) -> Any:
        """Return a new client, which is closed at the end of the test."""
        client: Any = AsyncClient(target, **options) if self.asynchronous else Client(target, **options)
        self._clients.append(client)
        return client

    def do(self, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Make a call and return its result."""
        result = call(*arguments, **options)
        return self._runner.run(_wait(result)) if inspect.isawaitable(result) else result

    def next(self, items: Any) -> Any:
        """Return the next item of an iterator of either kind."""
        return self.do(items.__anext__ if self.asynchronous else items.__next__)

    def rest(self, items: Any) -> list[Any]:
        """Return all items that are left."""
        if self.asynchronous:
            return list(self._runner.run(_collect(items)))
        return list(items)

    def later(self, seconds: float, call: Callable[..., Any]) -> None:
        """Make a call while another one waits."""
        if self.asynchronous:
            self._runner.get_loop().call_later(seconds, lambda: asyncio.ensure_future(call()))
        else:
            threading.Timer(seconds, call).start()

    def close(self) -> None:
        """Close the clients and the event loop."""
        for client in self._clients:
            self.do(client.close)
        self._runner.close()


async def _wait(result: Any) -> Any:
    return await result


async def _collect(items: Any) -> list[Any]:
    return [item async for item in items]


@pytest.fixture(params=["Client", "AsyncClient"])
def driver(request: pytest.FixtureRequest) -> Iterator[Driver]:
    """A driver of each client."""
    driver = Driver(asynchronous=request.param == "AsyncClient")
    yield driver
    driver.close()
