"""Callbacks from a worker to a receiver on the loopback."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from aiohttp import web

from homing.v1 import invocation_pb2 as api
from homing.v1.payload_pb2 import Payload
from homing.v1.policy_pb2 import Callback
from homing_core.ids import new_id
from homing_core.wire.v1 import DeliveryMessage, Event
from homing_worker import deliverer
from support.fake_server import FakeServer
from support.workers import running_worker

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Receiver:
    """Takes callbacks and answers as scripted, with 200 once the script is at its end."""

    url: str = ""
    script: list[Answer] = field(default_factory=list)
    requests: list[tuple[web.Request, bytes]] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request, await request.read()))
        return await self.script.pop(0)(request) if self.script else web.Response()


@asynccontextmanager
async def receiving(host: str = "127.0.0.1") -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, host, 0).start()
    receiver.url = f"http://{host}:{runner.addresses[0][1]}/hook"
    try:
        yield receiver
    finally:
        await runner.cleanup()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as made:
        yield made


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliverer, "FIRST_BACKOFF", 0.01)
    monkeypatch.setattr(deliverer, "MAX_DELAY", 0.1)


def answering(status: int, **headers: str) -> Answer:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, headers=headers)

    return answer


def delivery(url: str, **fields: object) -> DeliveryMessage:
    values: dict[str, object] = {
        "delivery_id": new_id(),
        "generation": 1,
        "callback": Callback(url=url),
        "invocation_id": new_id(),
        "function": "figlet",
        "state": api.INVOCATION_STATE_SUCCEEDED,
        "result": api.Result(status_code=200, payload=Payload(content_type="text/plain", data=b"ART")),
        "start_us": 1_700_000_000_000_000,
        "end_us": 1_700_000_001_250_000,
    }
    return DeliveryMessage(**(values | fields))  # type: ignore[arg-type]


async def over(server: FakeServer, message: DeliveryMessage) -> Event:
    """Hand out a delivery and return the event of its end; there is one of its beginning before it."""
    await server.deliver(message)
    begun = await server.event(message.invocation_id, "delivery")
    assert begun.delivery.state == api.DELIVERY_STATE_DELIVERING
    return await server.event(message.invocation_id, "delivery", number=2)


async def test_the_output_arrives_with_its_headers(
    server: FakeServer, broker_url: str, tmp_path: Path, receiver: Receiver
) -> None:
    message = delivery(
        receiver.url,
        callback=Callback(url=receiver.url, headers={"Authorization": "Bearer x", "X-Of-Function": "asked"}),
        result=api.Result(
            status_code=201,
            headers={"x-of-function": "given", "x-own": "yes", "host": "evil", "transfer-encoding": "chunked"},
            payload=Payload(content_type="text/plain", data=b"ART"),
        ),
    )

    async with running_worker(server, broker_url, tmp_path):
        end = await over(server, message)

    assert end.delivery.state == api.DELIVERY_STATE_DELIVERED
    (attempt,) = end.delivery.attempts
    assert (attempt.status_code, attempt.HasField("failure")) == (200, False)
    ((request, body),) = receiver.requests
    assert (request.method, request.path, body) == ("POST", "/hook", b"ART")
    expected = {
        "Content-Type": "text/plain",
        "X-Call-Id": message.invocation_id,
        "X-Function-Name": "figlet",
        "X-Function-Status": "201",
        "X-Duration-Seconds": "1.250000",
        "X-Start-Time": "1700000000000000000",
        "X-Homing-State": "SUCCEEDED",
        "X-Own": "yes",
        "X-Of-Function": "asked",
        "Authorization": "Bearer x",
    }
    assert {name: request.headers[name] for name in expected} == expected
    assert request.headers["Host"] != "evil"


async def test_where_there_was_no_answer_the_status_says_so(
    server: FakeServer, broker_url: str, tmp_path: Path, receiver: Receiver
) -> None:
    async with running_worker(server, broker_url, tmp_path):
        for state in (api.INVOCATION_STATE_TIMED_OUT, api.INVOCATION_STATE_FAILED):
            await over(server, delivery(receiver.url, state=state, result=api.Result(), start_us=0))

    seen = [(request.headers["X-Function-Status"], body) for request, body in receiver.requests]
    assert seen == [("504", b""), ("500", b"")]


async def test_a_failing_receiver_is_asked_again(
    server: FakeServer, broker_url: str, tmp_path: Path, receiver: Receiver
) -> None:
    receiver.script = [answering(500), answering(429, **{"Retry-After": "0"}), answering(302, Location="/elsewhere")]

    async with running_worker(server, broker_url, tmp_path):
        end = await over(server, delivery(receiver.url))

    assert end.delivery.state == api.DELIVERY_STATE_DELIVERED
    assert [attempt.status_code for attempt in end.delivery.attempts] == [500, 429, 302, 200]
    assert [request.path for request, _ in receiver.requests] == ["/hook"] * 4


async def test_a_receiver_that_never_takes_it_ends_the_delivery_dead(
    server: FakeServer, broker_url: str, tmp_path: Path, receiver: Receiver
) -> None:
    receiver.script = [answering(503)] * 10

    async with running_worker(server, broker_url, tmp_path):
        end = await over(server, delivery(receiver.url))

    assert end.delivery.state == api.DELIVERY_STATE_DEAD
    assert len(end.delivery.attempts) == deliverer.MAX_ATTEMPTS
    assert {attempt.failure.reason for attempt in end.delivery.attempts} == {"HTTP_STATUS"}


async def test_gone_is_final(server: FakeServer, broker_url: str, tmp_path: Path, receiver: Receiver) -> None:
    receiver.script = [answering(410)]

    async with running_worker(server, broker_url, tmp_path):
        end = await over(server, delivery(receiver.url))

    assert end.delivery.state == api.DELIVERY_STATE_DEAD
    assert [attempt.status_code for attempt in end.delivery.attempts] == [410]


async def test_nobody_listens(server: FakeServer, broker_url: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    async with running_worker(server, broker_url, tmp_path):
        end = await over(server, delivery(f"http://127.0.0.1:{port}/"))

    assert end.delivery.state == api.DELIVERY_STATE_DEAD
    assert {attempt.failure.reason for attempt in end.delivery.attempts} == {"CONNECTION_FAILED"}


@pytest.mark.parametrize(
    "host", ["10.0.0.1", "169.254.169.254", "[fe80::1]", "0.0.0.0", "[::ffff:10.0.0.1]", "0xa000001"]
)
async def test_forbidden_addresses_are_never_called(
    server: FakeServer, broker_url: str, tmp_path: Path, host: str
) -> None:
    async with running_worker(server, broker_url, tmp_path):
        end = await over(server, delivery(f"http://{host}:8080/"))

    assert end.delivery.state == api.DELIVERY_STATE_DEAD
    (attempt,) = end.delivery.attempts
    assert attempt.failure.reason == "CALLBACK_FORBIDDEN"


async def test_other_networks_are_allowed_by_setting_and_the_loopback_then_is_not(
    server: FakeServer, broker_url: str, tmp_path: Path, receiver: Receiver
) -> None:
    async with running_worker(server, broker_url, tmp_path, callback_networks="127.0.0.2/32"):
        refused = await over(server, delivery(receiver.url))
        async with receiving("127.0.0.2") as other:
            taken = await over(server, delivery(other.url))

    assert refused.delivery.attempts[0].failure.reason == "CALLBACK_FORBIDDEN"
    assert taken.delivery.state == api.DELIVERY_STATE_DELIVERED
    assert not receiver.requests


async def test_names_are_resolved_and_checked(
    server: FakeServer, broker_url: str, tmp_path: Path, receiver: Receiver
) -> None:
    async with running_worker(server, broker_url, tmp_path):
        end = await over(server, delivery(receiver.url.replace("127.0.0.1", "localhost")))

    assert end.delivery.state == api.DELIVERY_STATE_DELIVERED


async def test_a_receiver_that_floods_harms_nobody(
    server: FakeServer, broker_url: str, tmp_path: Path, receiver: Receiver
) -> None:
    async def flood(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 100_000)

    receiver.script = [flood]

    async with running_worker(server, broker_url, tmp_path):
        flooded = await over(server, delivery(receiver.url))
        after = await over(server, delivery(receiver.url))

    assert flooded.delivery.state == api.DELIVERY_STATE_DELIVERED
    assert after.delivery.state == api.DELIVERY_STATE_DELIVERED


async def test_a_receiver_that_hangs_times_out_and_others_are_served_meanwhile(
    server: FakeServer, broker_url: str, tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("homing_worker.callback.TIMEOUT", 0.5)
    monkeypatch.setattr(deliverer, "MAX_ATTEMPTS", 1)
    release = asyncio.Event()

    async def hang(_: web.Request) -> web.StreamResponse:
        await release.wait()
        return web.Response()

    slow = [delivery(receiver.url) for _ in range(20)]
    receiver.script = [hang] * 20

    async with running_worker(server, broker_url, tmp_path), receiving("127.0.0.2") as other:
        for message in slow:
            await server.deliver(message)
        quick = await over(server, delivery(other.url))
        ends = [await server.event(message.invocation_id, "delivery", number=2) for message in slow]
        release.set()

    assert quick.delivery.state == api.DELIVERY_STATE_DELIVERED
    assert quick.time_us < max(end.time_us for end in ends)
    assert {end.delivery.attempts[0].failure.reason for end in ends} == {"TIMEOUT"}
