"""What the tests of parts share: the far side of a worker's wire."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from support.fake_server import FakeServer


@pytest.fixture
async def server(broker_url: str) -> AsyncIterator[FakeServer]:
    """Yield a stand-in for a server, connected."""
    async with FakeServer(broker_url) as fake:
        yield fake
