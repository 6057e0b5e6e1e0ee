"""What functions say of how far they are: read, bounded, and passed on in moderation."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from homing.v1.invocation_pb2 import Progress
from homing_worker.control.gate import Gate
from homing_worker.reporting import progress
from homing_worker.reporting.progress import BadProgressError, ProgressEndpoint, read_progress
from support.inbox import until

FORM = "application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    ("content_type", "body", "wanted"),
    [
        ("application/json", b'{"percent": 40, "text": "resizing"}', (40, "resizing")),
        ("application/octet-stream", b'{"percent": 0.5}', (0.5, "before")),
        (FORM, b'{"percent": 100}', (100, "before")),
        (FORM, b"percent=12.5&text=a+b", (12.5, "a b")),
        ("text/plain", "Zürich".encode(), (7, "Zürich")),
        ("application/json", b'{"text": ""}', (7, "")),
        ("application/json", b'{"text": "\\ud800"}', (7, "?")),
    ],
)
def test_what_is_understood(content_type: str, body: bytes, wanted: tuple[float, str]) -> None:
    read = read_progress(content_type, body, Progress(percent=7, text="before"))
    assert (read.percent, read.text) == wanted
    assert read.time.seconds


@pytest.mark.parametrize(
    ("content_type", "body", "error"),
    [
        ("application/json", b"40", "body must have percent, text or both"),
        ("application/json", b"{}", "body must have percent, text or both"),
        ("application/json", b"40 percent", 'body must be JSON, as in {"percent": 40, "text": "resizing"}'),
        ("application/json", b"[" * 4000, 'body must be JSON, as in {"percent": 40, "text": "resizing"}'),
        ("application/json", b"\xff", "body must be UTF-8"),
        ("application/json", b'{"percent": 100.1}', "percent must be a number from 0 to 100, is 100.1"),
        ("application/json", b'{"percent": -1}', "percent must be a number from 0 to 100, is -1"),
        ("application/json", b'{"percent": NaN}', "percent must be a number from 0 to 100, is nan"),
        ("application/json", b'{"percent": true}', "percent must be a number from 0 to 100, is True"),
        ("application/json", b'{"percent": 1e999}', "percent must be a number from 0 to 100, is inf"),
        (FORM, b"percent=half", "percent must be a number from 0 to 100, is 'half'"),
        ("application/json", b'{"text": 1}', "text must be a string, is 1"),
        ("text/plain", b"x" * 1025, "text must have at most 1024 characters, has 1025"),
        ("application/json", b'{"percentage": 1}', "'percentage' is no field of progress: those are percent and text"),
    ],
)
def test_what_is_refused(content_type: str, body: bytes, error: str) -> None:
    with pytest.raises(BadProgressError) as caught:
        read_progress(content_type, body, None)
    assert str(caught.value) == error


@pytest.fixture
async def gate() -> Gate:
    """Return the gate of a worker that has just heard a server."""
    gate = Gate()
    gate.reopen()
    return gate


@pytest.fixture
async def reports(gate: Gate) -> AsyncIterator[ProgressEndpoint]:
    reports = ProgressEndpoint(gate)
    await reports.open(["127.0.0.1"])
    yield reports
    await reports.close()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def post(session: aiohttp.ClientSession, url: str, **options: Any) -> tuple[int, Any]:
    """Return the status and the JSON of the answer, if any."""
    async with session.post(url, **options) as response:
        return response.status, await response.json() if response.status != 204 else None


async def test_the_last_one_counts_and_none_is_lost_at_the_end(
    reports: ProgressEndpoint, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_MIN_INTERVAL", 0.5)
    taken: list[float] = []
    first, other = reports.begin("127.0.0.1", lambda report: taken.append(report.percent)), reports.begin("::1", print)
    assert other is None
    assert first is not None
    begun = asyncio.get_running_loop().time()
    for percent in range(20):
        assert await post(session, first.url, json={"percent": percent}) == (204, None)
    await until(lambda: taken[-1:] == [19])
    passed = asyncio.get_running_loop().time() - begun
    assert taken[0] == 0
    assert len(taken) - 1 <= passed / 0.5
    await post(session, first.url, json={"percent": 50})
    await post(session, first.url, json={"percent": 99})
    reports.end(first)
    assert taken[-1] == 99
    status, answer = await post(session, first.url, json={"percent": 100})
    assert (status, answer["error"]["field"]) == (404, "path")
    assert taken[-1] == 99


async def test_only_the_last_one_is_left_after_a_silence(
    session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_MIN_INTERVAL", 0.05)
    gate = Gate()
    reports = ProgressEndpoint(gate)
    await reports.open(["127.0.0.1"])
    taken: list[float] = []
    report = reports.begin("127.0.0.1", lambda report: taken.append(report.percent))
    assert report is not None
    for percent in range(10):
        await post(session, report.url, json={"percent": percent})
        await asyncio.sleep(0.02)
    assert not taken
    gate.reopen()
    await until(lambda: taken == [9])
    await reports.close()


async def test_errors_name_the_field_and_the_limit(reports: ProgressEndpoint, session: aiohttp.ClientSession) -> None:
    report = reports.begin("127.0.0.1", lambda _: None)
    assert report is not None
    assert await post(session, report.url, json={"percent": 140}) == (
        400,
        {"error": {"field": "percent", "message": "must be a number from 0 to 100, is 140"}},
    )
    for body in (b"x" * 5000, _chunks()):
        assert await post(session, report.url, data=body) == (
            400,
            {"error": {"field": "body", "message": "must have at most 4096 bytes"}},
        )
    async with session.get(report.url) as response:
        assert response.status == 405


async def _chunks() -> AsyncIterator[bytes]:
    for _ in range(100):
        yield b"x" * 1000


async def test_whoever_holds_connections_keeps_no_other_from_reporting(
    reports: ProgressEndpoint, session: aiohttp.ClientSession
) -> None:
    taken: list[float] = []
    report = reports.begin("127.0.0.1", lambda report: taken.append(report.percent))
    assert report is not None
    host, port = urlsplit(report.url).hostname, urlsplit(report.url).port
    held = [await asyncio.open_connection(host, port) for _ in range(400)]

    assert await post(session, report.url, json={"percent": 40}) == (204, None)
    await until(lambda: taken == [40] and sum(reader.at_eof() for reader, _ in held) >= 150)

    for _, writer in held:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def test_where_it_listens_and_what_it_says_can_be_set(gate: Gate) -> None:
    reports = ProgressEndpoint(gate, listen="127.0.0.1:0", url="http://worker-1:9000/")
    await reports.open(["172.17.0.1"])
    report = reports.begin("172.17.0.1", lambda _: None)
    assert report is not None
    assert report.url.startswith("http://worker-1:9000/")
    await reports.close()

    everywhere = ProgressEndpoint(gate, listen="0.0.0.0:0")
    await everywhere.open(["127.0.0.1", "127.0.0.2"])
    urls = [report.url for host in ("127.0.0.1", "127.0.0.2") if (report := everywhere.begin(host, lambda _: None))]
    assert [url.split(":")[1] for url in urls] == ["//127.0.0.1", "//127.0.0.2"]
    await everywhere.close()


async def test_an_address_of_another_host_is_no_reason_to_fail(gate: Gate) -> None:
    reports = ProgressEndpoint(gate)
    await reports.open(["192.0.2.1", "127.0.0.1"])
    assert reports.begin("192.0.2.1", lambda _: None) is None
    assert reports.begin("127.0.0.1", lambda _: None) is not None
    await reports.close()
