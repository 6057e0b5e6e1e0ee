"""Answers of REST that come bit by bit: events that say where to go on, lines, and bodies as they are."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from google.protobuf.message_factory import GetMessageClass
from starlette.requests import ClientDisconnect

from homing_core.limits import MIB
from homing_server.errors import ApiError, ErrorReason, unavailable
from homing_server.front.api import serving
from homing_server.front.http.rest import streams
from homing_server.front.http.rest.app import Rest
from support.asgi import Answer, Request, ask
from support.rest import METHODS, PATIENCE, Service, error_of


def events_of(answer: Answer) -> list[dict[str, str]]:
    """Return server-sent events as their fields."""
    return [
        dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        for block in answer.body.decode().split("\n\n")
        if block
    ]


def watched(token: str, **fields: Any) -> bytes:
    message: Any = GetMessageClass(METHODS["/homing.v1.InvocationService/WatchResults"].output_type)(resume_token=token)
    if fields:
        message.invocation.id = fields["id"]
    else:
        message.bookmark.SetInParent()
    raw: bytes = message.SerializeToString()
    return raw


async def test_a_watch_is_events_that_say_where_to_go_on(rest: Rest, service: Service) -> None:
    service.answers = [watched("t1"), watched("t2", id="7\n8")]
    answer = await ask(rest, "GET", "/v1/results:watch?resumeToken=old", headers={"Last-Event-ID": "t0"})
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["cache-control"] == "no-store"
    retry, bookmark, invocation = events_of(answer)
    assert retry == {"retry": "1000"}
    assert (bookmark["id"], bookmark["event"]) == ("t1", "bookmark")
    assert (invocation["id"], invocation["event"]) == ("t2", "invocation")
    assert json.loads(invocation["data"]) == {"resumeToken": "t2", "invocation": {"id": "7\n8"}}
    (request,) = service.requests
    assert request.resume_token == "t0"  # type: ignore[attr-defined]


async def test_a_stream_that_fails_before_it_begins_is_an_error(rest: Rest) -> None:
    answer = await ask(rest, "GET", "/v1/results:watch?nothing=1")
    assert answer.status == 400
    error_of(answer)


async def test_a_stream_that_fails_midway_says_why(rest: Rest, service: Service) -> None:
    service.error = unavailable(ErrorReason.SERVER_STOPPING, "the server stops", retry_after=2)
    service.answers = [watched("t1")]
    *_, last = events_of(await ask(rest, "GET", "/v1/results:watch"))
    assert (last["event"], last["retry"]) == ("error", "2000")
    assert json.loads(last["data"])["error"]["code"] == 503
    service.answers = []
    lines = (await ask(rest, "POST", "/v1/invocations:bulkStop")).lines
    assert json.loads(lines[0]) == {}
    assert json.loads(lines[1])["error"]["details"][0]["reason"] == "SERVER_STOPPING"


async def test_a_stream_that_nobody_reads_is_cut_off(
    rest: Rest, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "UNREAD_SECONDS", 0.1)
    service.answers = [watched("t1")]
    request = Request("GET", "/v1/results:watch")
    request.takes = 2
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(ClientDisconnect) as caught:
            await request.to(rest)
    assert isinstance(caught.value.__cause__, ApiError)
    assert caught.value.__cause__.reason is ErrorReason.SLOW_CONSUMER


async def test_a_silent_stream_is_kept_alive(rest: Rest, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "KEEP_ALIVE_SECONDS", 0.05)
    service.goes_on.clear()
    service.answers = [watched("t1")]
    request = Request("GET", "/v1/results:watch")
    asking = asyncio.create_task(request.to(rest))
    async with asyncio.timeout(PATIENCE):
        await request.until(b":\n\n:\n\n")
        service.goes_on.set()
        await asking


async def test_a_log_is_numbered_lines_and_goes_on_after_the_last_one(rest: Rest, service: Service) -> None:
    line = GetMessageClass(METHODS["/homing.v1.LogService/TailLogs"].output_type)
    service.answers = [line(text=text) for text in "abc"]
    logs = "/v1/invocations/7/logs"
    _, *lines, end = events_of(await ask(rest, "GET", logs))
    assert [(each["id"], each["event"]) for each in lines] == [("1", "line"), ("2", "line"), ("3", "line")]
    assert [json.loads(each["data"])["text"] for each in lines] == ["a", "b", "c"]
    assert (end["event"], end["id"]) == ("end", "3-end")
    _, again, end = events_of(await ask(rest, "GET", logs, headers={"Last-Event-ID": "2"}))
    assert (again["id"], json.loads(again["data"])["text"], end["id"]) == ("3", "c", "3-end")
    over = await ask(rest, "GET", logs, headers={"Last-Event-ID": "3-end"})
    assert (over.status, over.body) == (204, b"")


async def test_a_log_of_a_function_goes_on_after_the_token_of_a_line(rest: Rest, service: Service) -> None:
    line = GetMessageClass(METHODS["/homing.v1.LogService/TailFunctionLogs"].output_type)
    service.answers = [line(text=text, resume_token=f"t{text}") for text in "ab"]
    logs = "/v1/functions/f/logs?tail=2"
    _, *lines, end = events_of(await ask(rest, "GET", logs))
    assert [(each["id"], each["event"]) for each in lines] == [("ta", "line"), ("tb", "line")]
    assert (end["event"], end["id"]) == ("end", "tb-end")
    await ask(rest, "GET", logs, headers={"Last-Event-ID": "ta"})
    assert [each.resume_token for each in service.requests] == ["", "ta"]  # type: ignore[attr-defined]
    over = await ask(rest, "GET", logs, headers={"Last-Event-ID": "tb-end"})
    assert (over.status, over.body) == (204, b"")


@pytest.mark.parametrize("last", ["x", "-1", "1" * 20, "end", "²"])
async def test_an_id_that_no_line_has_is_refused(rest: Rest, last: str) -> None:
    answer = await ask(rest, "GET", "/v1/invocations/7/logs", headers={"Last-Event-ID": last})
    assert answer.status == 400
    assert "Last-Event-ID" in error_of(answer)["message"]


async def test_bytes_are_stored_as_they_come(rest: Rest, service: Service) -> None:
    body = b"\x00\xff" * MIB
    answer = await ask(rest, "POST", "/v1/payloads", headers={"Content-Length": str(len(body))}, body=body)
    assert answer.status == 200
    first, *parts = service.requests
    assert first.size == len(body)  # type: ignore[attr-defined]
    assert [len(part.data) for part in parts] == [MIB, MIB]  # type: ignore[attr-defined]
    assert b"".join(part.data for part in parts) == body  # type: ignore[attr-defined]


async def test_bytes_of_no_known_length_are_refused(rest: Rest) -> None:
    answer = await ask(rest, "POST", "/v1/payloads", body=b"x")
    assert answer.status == 411
    error_of(answer)


async def test_bytes_are_read_as_they_are(rest: Rest, service: Service) -> None:
    part = GetMessageClass(METHODS["/homing.v1.PayloadService/ReadPayload"].output_type)
    service.answers = [part(data=b"\x00"), part(data=b"\xff")]
    answer = await ask(rest, "GET", "/v1/payloads/7")
    assert (answer.headers["content-type"], answer.body) == ("application/octet-stream", b"\x00\xff")
    assert service.requests[0].blob_id == "7"  # type: ignore[attr-defined]
    service.error = unavailable(ErrorReason.BLOB_UNAVAILABLE, "the file is gone")
    with pytest.raises(ClientDisconnect):
        await ask(rest, "GET", "/v1/payloads/7")
