"""Callbacks from a worker to a receiver on the loopback."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pika
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from standardwebhooks import Webhook, WebhookVerificationError

from homing.v1 import invocation_pb2 as api
from homing.v1.payload_pb2 import Payload
from homing.v1.policy_pb2 import Callback
from homing_core.clock import now_us
from homing_core.envelope import envelope_body
from homing_core.guard import Guard
from homing_core.ids import new_id
from homing_core.signing import new_key, show_key
from homing_core.wire.v1 import DeliveryMessage, EnvelopeBody, Event
from homing_worker.control.secrets import SecretLink
from homing_worker.deliveries.webhook import WebhookClient
from homing_worker.runtime.bodies import Bodies
from support.fake_server import FakeServer
from support.http_headers import headers_of
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


LONG_AGO_US = 3 * 24 * 3_600_000_000
"""Longer than any schedule takes."""
SOON = {"delivery_delays": "0.01,0.01,0.01,0.01"}
"""Five attempts, all of one dispatch."""


def answering(status: int, **headers: str) -> Answer:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, headers=headers)

    return answer


def delivery(url: str, **fields: object) -> DeliveryMessage:
    values: dict[str, object] = {
        "delivery_id": new_id(),
        "generation": 1,
        "kind": api.DELIVERY_KIND_CALLBACK,
        "uri": url,
        "callback": Callback(url=url),
        "invocation_id": new_id(),
        "function": "figlet",
        "state": api.INVOCATION_STATE_SUCCEEDED,
        "result": api.Result(status_code=200, payload=Payload(content_type="text/plain", data=b"ART")),
        "start_us": 1_700_000_000_000_000,
        "end_us": 1_700_000_001_250_000,
        "since_us": now_us(),
    }
    return DeliveryMessage(**(values | fields))  # type: ignore[arg-type]


async def over(server: FakeServer, message: DeliveryMessage) -> Event:
    """Dispatch a delivery and return the event of its end; there is one of its beginning before it."""
    await server.deliver(message)
    begun = await server.event(message.invocation_id, "delivery")
    assert begun.delivery.state == api.DELIVERY_STATE_DELIVERING
    return await server.event(message.invocation_id, "delivery", number=2)


async def test_the_output_arrives_with_its_headers(
    server: FakeServer, broker_url: str, tmp_path: Path, receiver: Receiver
) -> None:
    message = delivery(
        receiver.url,
        callback=Callback(
            url=receiver.url,
            headers=headers_of([("Authorization", "Bearer x"), ("X-Of-Function", "asked"), ("x-of-function", "twice")]),
        ),
        result=api.Result(
            status_code=201,
            headers=headers_of(
                [
                    ("x-of-function", "given"),
                    ("x-own", "yes"),
                    ("host", "evil"),
                    ("transfer-encoding", "chunked"),
                    ("x-own", "again"),
                    ("x-call-id", "forged"),
                    ("content-type", "text/forged"),
                ]
            ),
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
        "Authorization": "Bearer x",
    }
    assert {name: request.headers.getall(name) for name in expected} == {
        key: [value] for key, value in expected.items()
    }
    assert request.headers.getall("X-Own") == ["yes", "again"]
    assert request.headers.getall("X-Of-Function") == ["asked", "twice"]
    assert request.headers["Host"] != "evil"


async def test_a_callback_shows_the_call_id(
    server: FakeServer, broker_url: str, tmp_path: Path, receiver: Receiver
) -> None:
    message = delivery(receiver.url, call_id="order-7")

    async with running_worker(server, broker_url, tmp_path):
        await over(server, message)

    ((request, _),) = receiver.requests
    shown = request.headers["X-Call-Id"], request.headers["X-Homing-Invocation-Id"]
    assert shown == ("order-7", message.invocation_id)


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

    async with running_worker(server, broker_url, tmp_path, **SOON):
        end = await over(server, delivery(receiver.url))

    assert end.delivery.state == api.DELIVERY_STATE_DELIVERED
    assert [attempt.status_code for attempt in end.delivery.attempts] == [500, 429, 302, 200]
    assert [request.path for request, _ in receiver.requests] == ["/hook"] * 4


async def test_a_receiver_that_never_takes_it_ends_the_delivery_dead(
    server: FakeServer, broker_url: str, tmp_path: Path, receiver: Receiver
) -> None:
    receiver.script = [answering(503)] * 10

    async with running_worker(server, broker_url, tmp_path, **SOON):
        end = await over(server, delivery(receiver.url))

    assert end.delivery.state == api.DELIVERY_STATE_DEAD
    assert len(end.delivery.attempts) == 5
    assert {attempt.failure.reason for attempt in end.delivery.attempts} == {"HTTP_STATUS"}


async def test_gone_is_final(server: FakeServer, broker_url: str, tmp_path: Path, receiver: Receiver) -> None:
    receiver.script = [answering(410)]

    async with running_worker(server, broker_url, tmp_path):
        end = await over(server, delivery(receiver.url))

    assert end.delivery.state == api.DELIVERY_STATE_DEAD
    assert [attempt.status_code for attempt in end.delivery.attempts] == [410]


async def test_nobody_listens(server: FakeServer, broker_url: str, tmp_path: Path) -> None:
    async with running_worker(server, broker_url, tmp_path, delivery_delays="0.01"):
        end = await over(server, delivery(f"http://127.0.0.1:{free_port()}/"))

    assert end.delivery.state == api.DELIVERY_STATE_DEAD
    assert [attempt.failure.reason for attempt in end.delivery.attempts] == ["CONNECTION_FAILED"] * 2


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


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
    assert attempt.failure.reason == "TARGET_FORBIDDEN"


async def test_other_networks_are_allowed_by_setting_and_the_loopback_then_is_not(
    server: FakeServer, broker_url: str, tmp_path: Path, receiver: Receiver
) -> None:
    async with running_worker(server, broker_url, tmp_path, callback_networks="127.0.0.2/32"):
        refused = await over(server, delivery(receiver.url))
        async with receiving("127.0.0.2") as other:
            taken = await over(server, delivery(other.url))

    assert refused.delivery.attempts[0].failure.reason == "TARGET_FORBIDDEN"
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


async def test_long_delays_are_left_to_the_store(
    server: FakeServer, broker_url: str, tmp_path: Path, receiver: Receiver
) -> None:
    receiver.script = [answering(503), answering(503), answering(503, **{"Retry-After": "3600"}), answering(410)]

    async with running_worker(server, broker_url, tmp_path, delivery_delays="0.01,30,600,600"):
        message = delivery(receiver.url)
        first = await over(server, message)
        message.generation, message.prior_attempts = 2, 2
        await server.deliver(message)
        second = await server.event(message.invocation_id, "delivery", number=4)
        message.generation, message.prior_attempts = 3, 3
        await server.deliver(message)
        third = await server.event(message.invocation_id, "delivery", number=6)

    pending = api.DELIVERY_STATE_PENDING
    assert [each.delivery.state for each in (first, second, third)] == [pending, pending, api.DELIVERY_STATE_DEAD]
    assert [len(each.delivery.attempts) for each in (first, second, third)] == [2, 1, 1]
    assert 24 <= (first.delivery.due_us - first.time_us) / 1e6 <= 36.1
    assert 3599 <= (second.delivery.due_us - second.time_us) / 1e6 <= 3601, "Retry-After is longer"


async def test_the_last_attempt_is_the_last_also_after_a_hand_over(
    server: FakeServer, broker_url: str, tmp_path: Path, receiver: Receiver
) -> None:
    receiver.script = [answering(500)]

    async with running_worker(server, broker_url, tmp_path, delivery_delays="30,30"):
        end = await over(server, delivery(receiver.url, prior_attempts=2))

    assert end.delivery.state == api.DELIVERY_STATE_DEAD


async def test_a_delivery_is_signed_the_way_of_standard_webhooks(
    server: FakeServer, broker_url: str, tmp_path: Path, receiver: Receiver
) -> None:
    former, newer = new_key(), new_key()
    server.signing_keys = [newer, former]
    forged = {"Webhook-Signature": "v1,forged", "Webhook-Id": "forged"}
    message = delivery(
        receiver.url,
        callback=Callback(url=receiver.url, headers=headers_of(forged)),
        result=api.Result(
            status_code=200,
            headers=headers_of({"webhook-signature": "v1,forged"}),
            payload=Payload(content_type="application/json", data='{"ä":1}'.encode()),
        ),
    )

    async with running_worker(server, broker_url, tmp_path):
        await over(server, message)
        server.signing_keys, server.signing_version = [new_key()], 2
        await over(server, delivery(receiver.url, signing_version=2))

    (request, body), (later, later_body) = receiver.requests
    assert request.headers["webhook-id"] == message.delivery_id
    for key in (former, newer):
        Webhook(show_key(key)).verify(body, dict(request.headers))
        with pytest.raises(WebhookVerificationError):
            Webhook(show_key(key)).verify(body + b" ", dict(request.headers))
        with pytest.raises(WebhookVerificationError):
            Webhook(show_key(key)).verify(later_body, dict(later.headers))
    with pytest.raises(WebhookVerificationError):
        Webhook(show_key(new_key())).verify(body, dict(request.headers))
    old = dict(request.headers) | {"webhook-timestamp": str(int(request.headers["webhook-timestamp"]) - 400)}
    with pytest.raises(WebhookVerificationError):
        Webhook(show_key(newer)).verify(body, old)


async def test_a_delivery_is_never_sent_unsigned(
    server: FakeServer, broker_url: str, tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SecretLink.__init__, "__kwdefaults__", {"timeout": 0.2})
    async with running_worker(server, broker_url, tmp_path) as worker:
        server.silent = True
        message = delivery(receiver.url)
        await server.deliver(message)
        await server.status(lambda status: bool(status.secrets_wanted))
        assert not receiver.requests
        server.silent = False
        end = await server.event(message.invocation_id, "delivery", number=2)
        assert worker.name == end.worker

    assert end.delivery.state == api.DELIVERY_STATE_DELIVERED
    assert len(end.delivery.attempts) == 1


async def test_a_destination_gets_the_envelope(
    server: FakeServer, broker_url: str, tmp_path: Path, receiver: Receiver
) -> None:
    message = delivery(
        receiver.url,
        kind=api.DELIVERY_KIND_ON_FAILURE,
        callback=None,
        state=api.INVOCATION_STATE_FAILED,
        failure=api.Failure(reason="HTTP_STATUS", message="the function answered with status 500", retryable=True),
        request=EnvelopeBody(content_type="application/json", data=b'{"n":1}', size=7),
        response=EnvelopeBody(content_type="text/plain", data=b"no", size=2),
        attempt_count=3,
    )

    async with running_worker(server, broker_url, tmp_path):
        await over(server, message)

    ((request, body),) = receiver.requests
    assert request.headers["content-type"] == "application/json"
    event = json.loads(body)
    assert event["type"] == "invocation.failed"
    assert event["data"] == json.loads(envelope_body(message, wrapped=False))
    assert event["data"]["requestPayload"] == {"n": 1}
    Webhook(show_key(server.signing_keys[0])).verify(body, dict(request.headers))


async def test_a_destination_may_be_an_exchange(server: FakeServer, broker_url: str, tmp_path: Path) -> None:
    connection = pika.BlockingConnection(pika.URLParameters(broker_url))
    channel = connection.channel()
    channel.exchange_declare("outcomes", "topic", durable=True)
    channel.queue_declare("failures", durable=True)
    channel.queue_bind("failures", "outcomes", "*.failed")
    fields = {"kind": api.DELIVERY_KIND_ON_FAILURE, "callback": None, "state": api.INVOCATION_STATE_FAILED}

    allowed = "outcomes, nowhere, /failures"
    async with running_worker(server, broker_url, tmp_path, delivery_delays="0.01", amqp_destinations=allowed):
        routed = delivery("amqp:outcomes/figlet.failed", **fields)
        queued = delivery("amqp:/failures", **fields)
        ends = [await over(server, message) for message in (routed, queued)]
        lost = await over(server, delivery("amqp:outcomes/nobody", **fields))
        nowhere = await over(server, delivery("amqp:nowhere/key", **fields))
        other = await over(server, delivery("amqp:amq.topic/x", **fields))
        after = await over(server, delivery("amqp:outcomes/x.failed", **fields))

    assert [end.delivery.state for end in [*ends, after]] == [api.DELIVERY_STATE_DELIVERED] * 3
    for end in (lost, nowhere):
        assert end.delivery.state == api.DELIVERY_STATE_DEAD
        assert [attempt.failure.reason for attempt in end.delivery.attempts] == ["UNROUTABLE"] * 2
    assert other.delivery.state == api.DELIVERY_STATE_DEAD
    assert [attempt.failure.reason for attempt in other.delivery.attempts] == ["TARGET_FORBIDDEN"]
    for message in (routed, queued):
        _, properties, body = channel.basic_get("failures", auto_ack=True)
        assert properties is not None
        assert body is not None
        assert (properties.message_id, properties.type) == (message.delivery_id, "invocation.failed")
        assert (properties.delivery_mode, properties.content_type) == (2, "application/json")
        assert json.loads(body)["requestContext"]["requestId"] == message.invocation_id
    connection.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_the_gateway_is_the_server_itself(
    server: FakeServer, broker_url: str, tmp_path: Path, receiver: Receiver, host: str
) -> None:
    """Its address is the server's own word, and on a private network as a rule."""
    origin = receiver.url.removesuffix("/hook").replace("127.0.0.1", host)
    async with running_worker(server, broker_url, tmp_path, callback_networks=""):
        end = await over(server, delivery("http://gateway:8080/async-function/next?a=b", gateway_url=origin, depth=2))

    assert end.delivery.state == api.DELIVERY_STATE_DELIVERED
    ((request, _),) = receiver.requests
    assert (request.path_qs, request.headers["x-homing-depth"]) == ("/async-function/next?a=b", "2")


async def test_a_name_that_is_rebound_between_check_and_connect_leads_nowhere(
    tmp_path: Path, receiver: Receiver
) -> None:
    """The connection goes to an address that was checked: the name is not asked for again."""
    public = Guard(ports=[int(receiver.url.rpartition(":")[2].partition("/")[0])])
    url = receiver.url.replace("127.0.0.1", "rebound.example")
    bodies = Bodies(tmp_path)
    client = WebhookClient(public, bodies, Rebound("127.0.0.1"))
    refused = await client.post(delivery(url), [new_key()])
    assert refused.failure is not None
    assert (refused.failure.reason, refused.failure.retryable) == ("TARGET_FORBIDDEN", False)
    assert "rebound.example, which is 127.0.0.1: this host" in refused.failure.message
    await client.close()

    asked = Rebound("127.0.0.1", "10.0.0.1")
    client = WebhookClient(Guard(networks=[ipaddress.ip_network("127.0.0.0/8")]), bodies, asked)
    taken = await client.post(delivery(url), [new_key()])
    assert taken.failure is None
    assert asked.times == 1
    again = await client.post(delivery(url.replace("rebound", "twice")), [new_key()])
    assert again.failure is not None
    assert again.failure.reason == "TARGET_FORBIDDEN"
    await client.close()
    await bodies.close()
    assert len(receiver.requests) == 1


class Rebound(AbstractResolver):
    """Resolves to one address after the other."""

    def __init__(self, *addresses: str) -> None:
        self._addresses = iter(addresses)
        self.times = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.times += 1
        return [ResolveResult(hostname=host, host=next(self._addresses), port=port, family=family, proto=0, flags=0)]

    async def close(self) -> None:
        pass


async def test_a_receiver_that_hangs_is_left_alone_and_others_are_served_meanwhile(
    server: FakeServer, broker_url: str, tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("homing_worker.deliveries.webhook.TIMEOUT", 0.5)
    release = asyncio.Event()

    async def hang(_: web.Request) -> web.StreamResponse:
        await release.wait()
        return web.Response()

    slow = [delivery(receiver.url) for _ in range(60)]
    receiver.script = [hang] * 60

    async with running_worker(server, broker_url, tmp_path), receiving("127.0.0.2") as other:
        for message in slow:
            await server.deliver(message)
        quick = await over(server, delivery(other.url))
        ends = [await last_report(server, message) for message in slow]
        # Its last attempt is not used up so.
        await server.deliver(waiting := delivery(receiver.url, prior_attempts=9, tried=True))
        put_off = await server.event(waiting.invocation_id, "delivery")
        # One that was never tried is tried when it would be given up.
        last = await over(server, delivery(receiver.url, since_us=now_us() - LONG_AGO_US, tried=False))
        spared = delivery(receiver.url, prior_attempts=1, since_us=now_us() - LONG_AGO_US, tried=True)
        await server.deliver(spared)
        given_up = await server.event(spared.invocation_id, "delivery")
        release.set()

    assert quick.delivery.state == api.DELIVERY_STATE_DELIVERED
    reasons = Counter(end.delivery.attempts[-1].failure.reason for end in ends)
    assert reasons["RECEIVER_DOWN"] >= 50
    assert {end.delivery.state for end in ends} == {api.DELIVERY_STATE_PENDING}
    assert put_off.delivery.state == api.DELIVERY_STATE_PENDING
    assert 0 < (put_off.delivery.due_us - put_off.time_us) / 1e6 < 12
    assert [attempt.failure.reason for attempt in put_off.delivery.attempts] == ["RECEIVER_DOWN"]
    assert [attempt.failure.reason for attempt in last.delivery.attempts] == ["TIMEOUT"]
    assert given_up.delivery.state == api.DELIVERY_STATE_DEAD
    assert [attempt.failure.reason for attempt in given_up.delivery.attempts] == ["RECEIVER_DOWN"]


async def last_report(server: FakeServer, message: DeliveryMessage) -> Event:
    """Return the report by which a worker let a delivery go once it is there."""
    number = 1
    while True:
        event = await server.event(message.invocation_id, "delivery", number=number)
        if event.delivery.state != api.DELIVERY_STATE_DELIVERING:
            return event
        number += 1
