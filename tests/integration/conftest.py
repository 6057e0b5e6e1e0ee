"""What the tests of parts share: the far side of a worker's wire, and an image that misbehaves."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator

import pytest

from support.docker import LABEL, ROOT, build, remove_by_label
from support.fake_server import FakeServer


@pytest.fixture
async def server(broker_url: str) -> AsyncIterator[FakeServer]:
    """Yield a stand-in for a server, connected."""
    async with FakeServer(broker_url) as fake:
        yield fake


@pytest.fixture(scope="session")
def odd_image(base_image: str) -> Iterator[str]:
    """Yield the tag of an image that answers `POST /` with the body, and misbehaves at paths that say how."""
    run = secrets.token_hex(4)
    tag, label = f"homing-test-odd:{run}", f"{LABEL}={run}"
    try:
        build(ROOT / "tests" / "support" / "images" / "odd", base=base_image, tag=tag, label=label)
        yield tag
    finally:
        remove_by_label(label)
