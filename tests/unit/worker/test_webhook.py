"""What a receiver's status says stands, however its answer goes on."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from homing.v1 import invocation_pb2 as api
from homing.v1.payload_pb2 import Payload
from homing.v1.policy_pb2 import Callback
from homing_core.guard import Guard
from homing_core.ids import new_id
from homing_core.wire.v1 import DeliveryMessage
from homing_worker.deliveries import webhook
from homing_worker.deliveries.outcome import Outcome
from homing_worker.deliveries.webhook import WebhookClient
from homing_worker.runtime.bodies import Bodies

LOOPBACK = Guard(networks=[ipaddress.ip_network("127.0.0.0/8")])
KEYS = [b"k" * 32]


@asynccontextmanager
async def receiver(answer: bytes, *, closes: bool) -> AsyncIterator[str]:
    """Take requests, and answer them with some bytes."""
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(3)
        writer.write(answer)
        if not closes:
            await over.wait()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        over.set()


async def post(url: str, folder: Path) -> Outcome:
    message = DeliveryMessage(
        delivery_id=new_id(),
        kind=api.DELIVERY_KIND_CALLBACK,
        uri=url,
        callback=Callback(url=url),
        invocation_id=new_id(),
        state=api.INVOCATION_STATE_SUCCEEDED,
        result=api.Result(status_code=200, payload=Payload(data=b"ART")),
    )
    bodies = Bodies(folder)
    client = WebhookClient(LOOPBACK, bodies)
    try:
        return await client.post(message, KEYS)
    finally:
        await client.close()
        await bodies.close()


@pytest.mark.parametrize("status", [200, 204, 299, 410, 500])
@pytest.mark.parametrize(
    ("rest", "closes"),
    [
        (b"Content-Length: 100\r\n\r\nbroken", True),
        (b"Content-Length: 100\r\n\r\nthe rest never comes", False),
        (b"Content-Length: 2\r\n\r\nok", True),
        (b"Transfer-Encoding: chunked\r\n\r\nno chunk\r\n", False),
        (b"Transfer-Encoding: chunked\r\n\r\n5\r\nbro", True),
        (b"\r\n" + b"x" * 300_000, False),
        (b"X-Long: " + b"x" * 60_000 + b"\r\nContent-Length: 0\r\n\r\n", False),
        (b"".join(b"X-%d: v\r\n" % number for number in range(480)) + b"Content-Length: 0\r\n\r\n", False),
    ],
    ids=["broken", "hangs", "short", "garbage", "broken-chunk", "endless", "long-header", "many-headers"],
)
async def test_what_follows_the_status_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, rest: bytes, *, closes: bool
) -> None:
    monkeypatch.setattr(webhook, "DRAIN_TIMEOUT", 0.05)
    monkeypatch.setattr(webhook, "TIMEOUT", 5.0)

    async with receiver(b"HTTP/1.1 %d x\r\n" % status + rest, closes=closes) as url:
        outcome = await post(url, tmp_path)

    assert outcome.status_code == status
    assert (outcome.failure is None) == (status < 300)
