"""One server has a role, and another takes it over when that one is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client import Gauge

from homing_server.cluster import leadership
from homing_server.cluster.leadership import Leadership
from homing_server.store.engine import Database
from homing_server.tasks import Tasks
from support.inbox import until
from support.store import opened

TERM_SECONDS = 0.5


@pytest.fixture
async def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Database]:
    monkeypatch.setattr(leadership, "TERM_SECONDS", TERM_SECONDS)
    monkeypatch.setattr(leadership, "_RENEWAL_SECONDS", 0.05)
    async with opened(tmp_path) as database:
        yield database


class Station:
    """A server, as far as roles are concerned; it counts the steps that it does as the one that has the role."""

    def __init__(self, database: Database, name: str) -> None:
        self.gauge = Gauge("leads", "", registry=None)
        self.leadership = Leadership(database, "role", name, self.gauge)
        self.steps = 0
        self._work = Tasks()
        self._renewing = Tasks()

    async def start(self) -> None:
        await self._work.__aenter__()
        await self._renewing.__aenter__()
        self._renewing.repeat(self.leadership.renew, pause=0.05)
        self._work.repeat(self.leadership.led(self.step), pause=0.05)

    async def freeze(self) -> None:
        """Renew no more, as one whose store or process hangs."""
        await self._renewing.__aexit__(None, None, None)

    async def stop(self) -> None:
        await self.freeze()
        await self._work.__aexit__(None, None, None)

    async def step(self) -> None:
        self.steps += 1
        await asyncio.sleep(0.01)

    @property
    def leads(self) -> bool:
        (sample,) = next(iter(self.gauge.collect())).samples
        assert bool(sample.value) is self.leadership.held
        return self.leadership.held


async def test_one_leads_until_it_is_gone_and_works_no_longer_than_its_term(database: Database) -> None:
    stations = [Station(database, str(number)) for number in range(3)]
    for station in stations:
        await station.start()
    await until(lambda: sum(station.leads for station in stations) == 1)
    first = next(station for station in stations if station.leads)
    others = [station for station in stations if station is not first]
    await asyncio.sleep(2 * TERM_SECONDS)  # the role is kept for longer than a term
    assert first.leads
    assert first.steps > 0 == sum(station.steps for station in others)

    await first.freeze()
    await until(lambda: any(station.leads for station in others))
    assert not first.leads, "by its own clock, before another took over"
    done = first.steps
    second = next(station for station in others if station.leads)
    await until(lambda: second.steps > 3)
    assert first.steps <= done + 1, "at most what was under way"

    third = next(station for station in others if station is not second)
    await second.leadership.resign()
    assert not second.leads
    async with asyncio.timeout(TERM_SECONDS):
        await until(lambda: third.leads)
    await asyncio.sleep(TERM_SECONDS / 2)  # who has resigned asks no more
    assert not second.leads
    for station in stations:
        await station.stop()
