"""Fixtures for pytest, which finds them by itself where homing is installed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from homing import Client
from homing.testing import FakeServer


@pytest.fixture
def homing_fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    """Yield a fake server of the test's own. Clients that the test or the application makes find it by themselves."""
    with FakeServer() as fake:
        monkeypatch.setenv("HOMING_TARGET", fake.target)
        monkeypatch.delenv("HOMING_API_KEY", raising=False)
        monkeypatch.delenv("HOMING_TLS_CA", raising=False)
        yield fake


@pytest.fixture
def homing_client(homing_fake: FakeServer) -> Iterator[Client]:
    """Yield a client of the fake server. Asynchronous code makes its own ``AsyncClient()``, in its own loop."""
    with Client(homing_fake.target) as client:
        yield client
