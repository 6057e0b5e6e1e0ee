"""The resolver: what a name leads to is checked, and name servers that do not answer hold up nobody else."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator

import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import AsyncResolver

from homing_core.guard import ForbiddenTargetError, Guard
from homing_worker.runtime import resolver
from homing_worker.runtime.resolver import GuardedResolver

ANYWHERE = Guard(hosts=["*.example", "localhost"])


class Moves(AbstractResolver):
    """Resolves a name to other addresses each time, as who rebinds names does."""

    def __init__(self, *answers: str) -> None:
        self._answers = iter(answers)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        address = next(self._answers)
        return [ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0)]

    async def close(self) -> None:
        pass


class SilentNameServer(asyncio.DatagramProtocol):
    """A name server that takes questions and never answers."""

    def __init__(self) -> None:
        self.questions: list[bytes] = []

    def datagram_received(self, data: bytes, _: object) -> None:
        self.questions.append(data)


@pytest.fixture
async def silent(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[SilentNameServer, GuardedResolver]]:
    monkeypatch.setattr(resolver, "LOOKUP_TIMEOUT", 1.0)
    transport, server = await asyncio.get_running_loop().create_datagram_endpoint(
        SilentNameServer, local_addr=("127.0.0.1", 0)
    )
    host, port = transport.get_extra_info("sockname")
    guarded = GuardedResolver(ANYWHERE, AsyncResolver(nameservers=[f"{host}:{port}"], timeout=2.0, tries=1))
    yield server, guarded
    await guarded.close()
    transport.close()


async def test_what_a_name_leads_to_is_checked_each_time() -> None:
    guarded = GuardedResolver(Guard(), Moves("93.184.215.14", "10.0.0.1"))

    assert [found["host"] for found in await guarded.resolve("two.example", 80)] == ["93.184.215.14"]
    with pytest.raises(ForbiddenTargetError, match=r"two\.example, which is 10\.0\.0\.1"):
        await guarded.resolve("two.example", 80)


async def test_silent_name_servers_hold_up_nobody_else(silent: tuple[SilentNameServer, GuardedResolver]) -> None:
    server, guarded = silent
    stuck = [asyncio.create_task(guarded.resolve(f"{number}.example", 80)) for number in range(200)]
    await asyncio.sleep(0)

    started = time.monotonic()
    found = await guarded.resolve("localhost", 80)
    assert time.monotonic() - started < 0.5
    assert {each["host"] for each in found} <= {"127.0.0.1", "::1"}

    errors = await asyncio.gather(*stuck, return_exceptions=True)
    assert {type(error) for error in errors} == {OSError}
    assert "no name server told the address of 0.example within 1 s" in str(errors[0])
    assert len(server.questions) >= len(stuck)


async def test_a_host_is_looked_up_once_at_a_time(silent: tuple[SilentNameServer, GuardedResolver]) -> None:
    server, guarded = silent

    errors = await asyncio.gather(*(guarded.resolve("one.example", 80) for _ in range(50)), return_exceptions=True)

    assert {type(error) for error in errors} == {OSError}
    # One question for the IPv4 address, however many wait for it.
    assert len(server.questions) == 1
