"""The HTTP port on a real socket: requests that are cut, forged, slow or too many, over one connection or many."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from random import Random

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from homing_server.auth.refusals import Refusals
from homing_server.errors import ErrorReason
from homing_server.front.api.calls import Calls
from homing_server.front.http import connection, server
from homing_server.front.http.areas import Area, routed
from homing_server.front.http.connection import MAX_HEAD_BYTES, MAX_HEADERS
from homing_server.front.http.host_names import HostNames
from homing_server.front.http.root import Root
from homing_server.front.http.server import HttpFront

PATIENCE = 20.0
HOST = b"Host: localhost\r\n"
THE_END = b"this is the end"
END = b"POST /echo/end HTTP/1.1\r\n" + HOST + b"Connection: close\r\nContent-Length: 15\r\n\r\n" + THE_END


@dataclass
class Seen:
    """What came to the application."""

    requests: list[tuple[str, bytes, list[tuple[bytes, bytes]]]] = field(default_factory=list)
    targets: list[str] = field(default_factory=list)
    disconnects: int = 0
    began: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass
class Port:
    """A port that is served, and what was seen there."""

    front: HttpFront
    number: int
    seen: Seen

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.number)

    async def send(self, *parts: bytes) -> bytes:
        """Send bytes over a connection of their own, and a last request; return what was answered before it."""
        reader, writer = await self.connect()
        for part in (*parts, END):
            writer.write(part)
        try:
            async with asyncio.timeout(PATIENCE):
                answers = await reader.read(-1)
        finally:
            writer.close()
        return answers[: answers.rindex(b"HTTP/1.1 ")] if answers.endswith(THE_END) else answers


@pytest.fixture
async def port() -> AsyncIterator[Port]:
    """Yield a port with an application that echoes bodies, one that waits, and one that fails."""
    seen = Seen()

    async def echo(request: Request) -> Response:
        body = await request.body()
        seen.targets.append(f"{request.scope['raw_path'].decode()}?{request.scope['query_string'].decode()}")
        if body != THE_END:
            seen.requests.append((request.method, body, request.scope["headers"]))
        return PlainTextResponse(body)

    async def wait(scope: Scope, _receive: Receive, _send: Send) -> None:
        task = asyncio.current_task()
        assert task is not None
        scope["state"]["connection"].on_disconnect(task.cancel)
        seen.began.set()
        try:
            await asyncio.Event().wait()
        finally:
            seen.gone.set()

    async def flood(scope: Scope, _receive: Receive, send: Send) -> None:
        task = asyncio.current_task()
        assert task is not None
        scope["state"]["connection"].on_disconnect(task.cancel)
        seen.began.set()
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while True:
                await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
                await asyncio.sleep(0)
        finally:
            seen.gone.set()

    async def broken(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise ValueError

    def fails(_request: Request) -> Response:
        raise ValueError

    echoing = routed([Route("/echo/{rest:path}", echo, methods=["GET", "POST", "PUT"]), Route("/echo/fails", fails)])
    areas = [
        Area(path="/echo/", app=echoing),
        Area(path="/wait", app=wait),
        Area(path="/flood", app=flood),
        Area(path="/broken", app=broken),
        Area(path="/fails", app=routed([Route("/fails", fails)])),
    ]
    root = Root(areas, keys=None, calls=Calls(), refusals=Refusals(), names=HostNames(any=False))
    front = HttpFront("127.0.0.1:0", root, tls=None)
    address = await front.start()
    yield Port(front, int(address.rpartition(":")[2]), seen)
    await front.drain(0)
    await front.stop()


def statuses(answers: bytes) -> list[int]:
    """Return the statuses of answers, one after the other."""
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answers)]


SMUGGLING = {
    "content length and chunks": b"Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nX",
    "chunks and content length": b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n1\r\nZ\r\n0\r\n\r\n",
    "two content lengths": b"Content-Length: 3\r\nContent-Length: 5\r\n\r\nabcde",
    "a list of content lengths": b"Content-Length: 3, 3\r\n\r\nabc",
    "a signed content length": b"Content-Length: +3\r\n\r\nabc",
    "a negative content length": b"Content-Length: -1\r\n\r\n",
    "a hexadecimal content length": b"Content-Length: 0x3\r\n\r\nabc",
    "a content length beyond all numbers": b"Content-Length: 99999999999999999999999\r\n\r\nabc",
    "an unknown transfer encoding": b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked, and not at the end": b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "two transfer encodings": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "a space before the colon": b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "a folded header": b"X-One: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    "a header without a name": b": x\r\nContent-Length: 0\r\n\r\n",
    "a header without a colon": b"GET /echo/two HTTP/1.1\r\n\r\n",
    "a control character in a value": b"X-One: a\x00b\r\nContent-Length: 0\r\n\r\n",
    "a carriage return in a value": b"X-One: a\rX-Two: b\r\nContent-Length: 0\r\n\r\n",
    "a chunk of no number": b"Transfer-Encoding: chunked\r\n\r\nZZ\r\nabc\r\n0\r\n\r\n",
    "a chunk that is longer than it says": b"Transfer-Encoding: chunked\r\n\r\n2\r\nabcd\r\n0\r\n\r\n",
    "a chunk of a number with a sign": b"Transfer-Encoding: chunked\r\n\r\n-1\r\nabc\r\n0\r\n\r\n",
    "a chunk beyond all numbers": b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nabc\r\n0\r\n\r\n",
}
SERVED = (b"HTTP/1.1 200 ", b"HTTP/1.1 100 ", b"HTTP/1.1 4", b"HTTP/1.1 501 ")
FOLLOWING = b"POST /echo/smuggled HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8\r\n\r\nsmuggled"


@pytest.mark.parametrize("rest", SMUGGLING.values(), ids=SMUGGLING)
async def test_a_request_whose_end_is_not_clear_is_refused_with_all_that_follows(port: Port, rest: bytes) -> None:
    answers = await port.send(b"POST /echo/one HTTP/1.1\r\n" + HOST + rest + FOLLOWING)

    assert statuses(answers) == [400]
    assert port.seen.requests == []


BAD_LINES = {
    "nothing sensible": b"\x16\x03\x01\x00\xff \x00\r\n\r\n",
    "another protocol": b"SSH-2.0-OpenSSH\r\n\r\n",
    "no version": b"GET /echo/a\r\n\r\n",
    "a version to come": b"GET /echo/a HTTP/9.9\r\nHost: localhost\r\n\r\n",
    "an unknown method of no version": b"BREW /echo/a\r\n\r\n",
    "a method that is none": b"BR(EW) /echo/a HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "bytes over 127 in the path": b"GET /echo/\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a host to connect to": b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "two hosts": b"GET /echo/a HTTP/1.1\r\nHost: localhost\r\nHost: other\r\n\r\n",
    "no host": b"GET /echo/a HTTP/1.1\r\n\r\n",
    "a preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@pytest.mark.parametrize("line", BAD_LINES.values(), ids=BAD_LINES)
async def test_what_is_no_request_is_answered_with_400(port: Port, line: bytes) -> None:
    assert statuses(await port.send(line)) == [400]
    assert port.seen.requests == []


@pytest.mark.parametrize("method", [b"BREW", b"get", b"X-Y", b"G", b"GETT", b"DESCRIBE"])
async def test_a_method_that_nobody_knows_is_not_implemented(port: Port, method: bytes) -> None:
    request = method + b" /echo/a HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n\r\nhi"

    answer = await port.send(request)
    assert statuses(answer) == [501]
    assert answer.endswith(b"not implemented: the method is not known\n")
    before = b"GET /echo/a HTTP/1.1\r\n" + HOST + b"\r\n"
    # What comes behind a request is refused with all that follows.
    assert statuses(await port.send(before + request)) == [200]
    assert [each[0] for each in port.seen.requests] == ["GET"]


@pytest.mark.parametrize(
    "path",
    [
        b"/echo//a", b"/echo/%2e%2e", b"/echo/../x", b"/echo/%00", b"/echo/a?", b"/echo/" + b"a" * 8192, b"/echo/%",
        b"/echo/%ff", b"/echo/a?" + b"q" * 8192, b"http://localhost/echo/a", b"/echo/a;b=c", b"/echo/a#f",
    ],
)  # fmt: skip
async def test_odd_paths_are_served_as_any(port: Port, path: bytes) -> None:
    assert statuses(await port.send(b"GET " + path + b" HTTP/1.1\r\n" + HOST + b"\r\n")) == [200]


async def test_a_path_and_a_query_may_be_as_they_are_typed(port: Port) -> None:
    typed = "/echo/grün?name=Jürgen&b=%20".encode()
    request = b"POST " + typed + b" HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n\r\nhi"

    reader, writer = await port.connect()
    for each in (request, request, END):
        writer.write(each)
        async with asyncio.timeout(PATIENCE):
            answer = await reader.readuntil(THE_END if each is END else b"hi")
        assert statuses(answer) == [200]
    writer.close()

    assert port.seen.targets == ["/echo/gr%C3%BCn?name=J%C3%BCrgen&b=%20"] * 2 + ["/echo/end?"]


@pytest.mark.parametrize("path", [b"//echo/a", b"/%65cho/a", b"/ECHO/a", b"*", b"/", b"/echo", b"/nothing"])
async def test_where_nothing_is_there_is_nothing(port: Port, path: bytes) -> None:
    (status,) = statuses(await port.send(b"OPTIONS " + path + b" HTTP/1.1\r\n" + HOST + b"\r\n"))
    assert status in {400, 404}
    assert port.seen.requests == []


async def test_a_head_of_the_largest_size_is_read_and_a_larger_one_is_not(port: Port) -> None:
    line = b"GET /echo/a HTTP/1.1\r\n" + HOST
    fits = line + b"X-Long: " + b"x" * (MAX_HEAD_BYTES - 1000) + b"\r\n\r\n"
    large = line + b"X-Long: " + b"x" * (MAX_HEAD_BYTES + 1) + b"\r\n\r\n"
    endless = line + b"X-Long: " + b"x" * (4 * MAX_HEAD_BYTES)
    many = line + b"".join(b"X-%d: v\r\n" % number for number in range(MAX_HEADERS)) + b"\r\n"
    long = b"GET /echo/" + b"a" * (2 * MAX_HEAD_BYTES) + b" HTTP/1.1\r\n" + HOST + b"\r\n"

    assert statuses(await port.send(fits)) == [200]
    for head in (large, endless, many, long):
        assert statuses(await port.send(head)) == [431]


async def test_a_header_behind_a_body_is_none_of_the_request(port: Port) -> None:
    chunks = b"1\r\na\r\n0\r\nX-Late: y\r\nAuthorization: Bearer z\r\n\r\n"
    head = b"POST /echo/a HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\nTrailer: X-Late\r\n\r\n"
    assert statuses(await port.send(head + chunks)) == [200]
    ((_, body, headers),) = port.seen.requests
    assert body == b"a"
    assert {b"x-late", b"authorization"}.isdisjoint(name for name, _ in headers)


async def test_requests_in_a_row_are_answered_in_their_order(port: Port) -> None:
    row = b"".join(
        b"POST /echo/a HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n\r\n%02d" % number for number in range(50)
    )
    answers = await port.send(row)
    assert statuses(answers) == [200] * 50
    assert [body for _, body, _ in port.seen.requests] == [b"%02d" % number for number in range(50)]


async def test_what_asks_for_another_protocol_is_served_as_it_is(port: Port) -> None:
    upgrade = b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nhi"
    answers = await port.send(b"POST /echo/a HTTP/1.1\r\n" + HOST + upgrade)
    assert statuses(answers) == [200]
    assert answers.endswith(b"hi")


@pytest.mark.parametrize("rest", [b"", b"GET /echo/b HTTP/1.1\r\n" + HOST + b"\r\n", b"nonsense\r\n\r\n"])
async def test_what_comes_before_the_last_request_of_a_connection_is_answered(port: Port, rest: bytes) -> None:
    before = b"PUT /echo/a HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nT: v\r\n\r\n"
    last = b"POST /echo/a HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nhi"
    answers = await port.send(before + last + rest)
    assert statuses(answers) == [200, 200]
    assert answers.endswith(b"connection: close\r\n\r\nhi")


async def test_who_waits_to_be_told_to_send_a_body_is_told(port: Port) -> None:
    reader, writer = await port.connect()
    writer.write(b"POST /echo/a HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
    async with asyncio.timeout(PATIENCE):
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"hi")
        assert (await reader.readuntil(b"hi")).startswith(b"HTTP/1.1 200 OK\r\n")
    writer.close()


async def test_a_failure_is_told_without_a_trace_or_by_breaking_off(port: Port) -> None:
    for path in (b"/fails", b"/echo/fails"):
        answer = await port.send(b"GET " + path + b" HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")
        assert b"Traceback" not in answer
        assert b"ValueError" not in answer
    broken = await port.send(b"GET /broken HTTP/1.1\r\n" + HOST + b"\r\n")
    assert b"half" in broken
    assert not broken.endswith(b"0\r\n\r\n")


async def test_who_goes_away_while_waiting_is_noticed(port: Port) -> None:
    _, writer = await port.connect()
    writer.write(b"GET /wait HTTP/1.1\r\n" + HOST + b"\r\n")
    async with asyncio.timeout(PATIENCE):
        await port.seen.began.wait()
        writer.transport.abort()
        await port.seen.gone.wait()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have connections close soon."""
    monkeypatch.setattr(connection, "SILENT_SECONDS", 0.2)
    monkeypatch.setattr(connection, "_STALLED_SECONDS", 0.3)
    monkeypatch.setattr(server, "_TICK_SECONDS", 0.05)


SLOW = {
    "silent": (b"", []),
    "half a head": (b"GET /echo/a HTTP/1.1\r\nHost: lo", []),
    "after an answer": (b"GET /echo/a HTTP/1.1\r\n" + HOST + b"\r\n", [200]),
    "half a head after an answer": (b"GET /echo/a HTTP/1.1\r\n" + HOST + b"\r\nGET /echo/b HT", [200]),
    "half a body": (b"POST /echo/a HTTP/1.1\r\n" + HOST + b"Content-Length: 9\r\n\r\nhalf", [408]),
}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("first", "answered"), SLOW.values(), ids=SLOW)
async def test_a_connection_on_which_nothing_comes_is_closed(port: Port, first: bytes, answered: list[int]) -> None:
    reader, writer = await port.connect()
    writer.write(first)
    async with asyncio.timeout(PATIENCE):
        assert statuses(await reader.read(-1)) == answered
    writer.close()


@pytest.mark.usefixtures("impatient")
async def test_a_head_that_comes_byte_by_byte_has_no_longer_than_another(port: Port) -> None:
    reader, writer = await port.connect()

    async def trickle() -> None:
        with contextlib.suppress(OSError):
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.05)

    writer.write(b"GET /echo/a HTTP/1.1\r\nX-Slow: ")
    trickling = asyncio.create_task(trickle())
    async with asyncio.timeout(PATIENCE):
        with contextlib.suppress(ConnectionError):
            assert await reader.read(-1) == b""
    trickling.cancel()
    writer.close()


@pytest.mark.usefixtures("impatient")
async def test_who_reads_nothing_is_cut_off(port: Port) -> None:
    _, writer = await port.connect()
    writer.write(b"GET /flood HTTP/1.1\r\n" + HOST + b"\r\n")
    async with asyncio.timeout(PATIENCE):
        await port.seen.began.wait()
        await port.seen.gone.wait()
    writer.close()


async def test_a_server_that_stops_lets_calls_end_and_takes_no_more(port: Port) -> None:
    reader, writer = await port.connect()
    writer.write(b"GET /wait HTTP/1.1\r\n" + HOST + b"\r\n")
    async with asyncio.timeout(PATIENCE):
        await port.seen.began.wait()
        draining = asyncio.create_task(port.front.drain(PATIENCE))
        await asyncio.sleep(0)
        refused = await port.send(b"GET /echo/a HTTP/1.1\r\n" + HOST + b"\r\n")
        assert statuses(refused) == [503]
        assert ErrorReason.SERVER_STOPPING is ErrorReason("SERVER_STOPPING")
        assert b"Connection: close" in refused or b"connection: close" in refused
        writer.close()
        await draining
    del reader


SEEDS = [
    b"POST /echo/a?q=1 HTTP/1.1\r\n" + HOST + b"Content-Length: 5\r\nX-One: 1\r\n\r\nhello",
    b"PUT /echo/%2e%2e//a HTTP/1.1\r\n" + HOST
    + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: v\r\n\r\n",
    b"GET /echo/a HTTP/1.1\r\n" + HOST + b"Accept: */*\r\nConnection: keep-alive\r\nCookie: a=b\r\n\r\n",
    b"GET /echo/a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"POST /echo/a HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nhi",
    b"HEAD /echo/a HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: 1\r\n\r\nx",
]  # fmt: skip
PIECES = [
    b"\r\n", b"\n", b"\r", b" ", b"\t", b"\x00", b"\xff", b":", b"0", b"-1", b"chunked", b"%00", b"//", b"GET ",
    b"HTTP/1.1", b"Content-Length: 9\r\n", b"Transfer-Encoding: chunked\r\n", b"\r\n\r\n", b";", b"?", b"#", b"x" * 300,
]  # fmt: skip


def mutated(random: Random) -> bytes:
    """Return requests with something wrong in them, or not."""
    data = bytearray(b"".join(random.choices(SEEDS, k=random.randint(1, 3))))
    for _ in range(random.randint(1, 6)):
        place = random.randrange(len(data) + 1)
        match random.randrange(4):
            case 0:
                data[place:place] = random.choice(PIECES)
            case 1:
                del data[place : place + random.randint(1, 12)]
            case 2:
                data[place : place + 1] = bytes((random.randrange(256),))
            case 3:
                data[place : place + 4] = random.choice(PIECES)
    return bytes(data)


@pytest.mark.usefixtures("impatient")
async def test_whatever_comes_is_answered_or_refused_and_nobody_else_suffers(port: Port) -> None:
    random = Random(20261128)

    async def send() -> None:
        reader, writer = await port.connect()
        try:
            writer.write(mutated(random))
            async with asyncio.timeout(PATIENCE):
                answers = await reader.read(-1)
        except ConnectionError:
            return  # refused while it was still being sent
        finally:
            writer.close()
        assert answers == b"" or answers.startswith(SERVED), answers
        assert set(statuses(answers)) <= {100, 200, 400, 404, 405, 408, 421, 431, 501}, answers

    for _ in range(10):
        async with asyncio.TaskGroup() as group:
            for _ in range(50):
                group.create_task(send())
    assert statuses(await port.send(b"GET /echo/a HTTP/1.1\r\n" + HOST + b"\r\n")) == [200]
    assert port.front.open_connections == 0
