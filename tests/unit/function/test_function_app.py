"""One function as an application: what it answers, streams, writes and reports."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

import pytest

from homing_function import Context, DoNotRetry, Function, Response
from homing_function.app import App, BrokenStreamError, Scope


@dataclass
class Got:
    """What an application answered."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    parts: list[bytes] = field(default_factory=list)
    whole: bool = False

    @property
    def body(self) -> bytes:
        return b"".join(self.parts)


@dataclass
class Size:
    width: int
    height: int = 1


def app(handler: Callable[..., Any], concurrency: int = 1) -> App:
    return App(Function(handler, name="f", concurrency=concurrency))


async def ask(
    it: App,
    body: bytes = b"",
    path: str = "/",
    *,
    gone: asyncio.Event | None = None,
    got: Got | None = None,
    **headers: str,
) -> Got:
    """Send a request; who asks leaves when the event is set."""
    got = Got() if got is None else got
    scope: Scope = {
        "type": "http", "method": "POST", "path": path, "query_string": b"a=b",
        "headers": [(name.replace("_", "-").lower().encode(), value.encode()) for name, value in headers.items()],
    }  # fmt: skip
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Any:
        if messages:
            return messages.pop()
        await (gone or asyncio.Event()).wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            got.status = message["status"]
            got.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            got.parts += [message["body"]] if message["body"] else []
            got.whole = not message.get("more_body", False)

    await it(scope, receive, send)
    return got


@pytest.mark.parametrize(
    ("given", "content_type", "body"),
    [
        ("grün", "text/plain; charset=utf-8", "grün".encode()),
        (b"\x00", "application/octet-stream", b"\x00"),
        ({"a": [1, None]}, "application/json", b'{"a":[1,null]}'),
        (Size(3), "application/json", b'{"width":3,"height":1}'),
        ([Size(3)], "application/json", b'[{"width":3,"height":1}]'),
        (datetime(2026, 1, 2, tzinfo=UTC), "application/json", b'"2026-01-02T00:00:00+00:00"'),
        (None, "", b""),
        (0, "application/json", b"0"),
    ],
)
async def test_what_is_returned_becomes_a_body_of_its_kind(given: Any, content_type: str, body: bytes) -> None:
    got = await ask(app(lambda: given))

    assert (got.status, got.headers.get("content-type", ""), got.body) == (200, content_type, body)
    assert got.headers["content-length"] == str(len(body))
    assert float(got.headers["x-duration-seconds"]) >= 0


async def test_a_response_says_more_than_a_value() -> None:
    def page() -> Response:
        return Response(body="<p>", status=201, content_type="text/html", headers=[("X-A", "1"), ("X-B", "2")])

    got = await ask(app(page))

    assert (got.status, got.body) == (201, b"<p>")
    assert got.headers.items() >= {("content-type", "text/html"), ("x-a", "1"), ("x-b", "2")}


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"status": 99}, "status must be from 200 to 599, is 99"),
        ({"status": 999}, "status must be from 200 to 599, is 999"),
        ({"status": "201"}, "status must be a number, is '201'"),
        ({"headers": {"X-Count": 5}}, "the header X-Count must be a text, is 5"),
        ({"headers": [("Not a name", "1")]}, "'Not a name' is no name of a header"),
        ({"headers": {"Location": "/a\r\nSet-Cookie: b=1"}}, "the header Location has a line feed"),
        ({"content_type": "text/html\nX-A: 1"}, "content_type has a line feed"),
    ],
)
async def test_a_response_that_could_not_be_sent_is_told_where_it_is_made(said: dict[str, Any], why: str) -> None:
    with pytest.raises((TypeError, ValueError), match=re.escape(why)):
        Response(**said)

    got = await ask(app(lambda: Response(**said)))

    assert got.status == 500
    assert why in got.body.decode()


async def test_a_response_takes_the_headers_of_an_answer_that_the_function_got_elsewhere() -> None:
    elsewhere = {"Content-Length": "3", "Transfer-Encoding": "chunked", "Connection": "close", "ETag": "x"}

    got = await ask(app(lambda: Response(body="four", headers=elsewhere)))

    assert (got.headers.keys() & {"transfer-encoding", "connection"}, got.headers["content-length"]) == (set(), "4")
    assert got.headers["etag"] == "x"


async def test_headers_are_text_in_utf_8() -> None:
    seen: list[Context] = []
    it = app(seeing(seen))

    await ask(it, X_Name="Grün")
    named = await ask(app(lambda: Response(headers={"Content-Disposition": 'inline; filename="Grün.pdf"'})))

    assert seen[0].headers["X-Name"] == "Grün"
    assert named.headers["content-disposition"] == 'inline; filename="Grün.pdf"'


async def test_a_function_that_ends_the_program_ends_its_own_call(capsys: pytest.CaptureFixture[str]) -> None:
    def leaves() -> None:
        sys.exit("no such file")

    async def leaves_too() -> None:
        sys.exit(3)

    async def waits_in_vain() -> None:
        waiting = asyncio.ensure_future(asyncio.Event().wait())
        waiting.cancel()
        await waiting

    def cancels() -> None:
        raise asyncio.CancelledError

    told = [await ask(app(handler)) for handler in (leaves, leaves_too, waits_in_vain, cancels)]

    lines = [b"SystemExit: no such file\n", b"SystemExit: 3\n", b"asyncio.exceptions.CancelledError\n"]
    assert [(each.status, each.body) for each in told] == [(500, line) for line in [*lines, lines[-1]]]
    assert "in waits_in_vain\n" in capsys.readouterr().err


async def test_async_and_plain_functions_get_payload_and_context() -> None:
    async def waits(size: Size, ctx: Context) -> str:
        await asyncio.sleep(0)
        return f"{size.width} {ctx.attempt} {threading.current_thread() is threading.main_thread()}"

    def works(ctx: Context, size: Size) -> str:
        return f"{size.width} {ctx.attempt} {threading.current_thread() is threading.main_thread()}"

    assert (await ask(app(waits), b'{"width": 3}', X_Homing_Attempt="2")).body == b"3 2 True"
    assert (await ask(app(works), b'{"width": 3}', X_Homing_Attempt="2")).body == b"3 2 False"


async def test_the_context_tells_of_the_call() -> None:
    seen: list[Context] = []
    deadline = datetime.now(UTC) + timedelta(minutes=5)

    await ask(
        app(seeing(seen)),
        path="/some/path",
        X_Call_Id="c1", X_Homing_Deadline=deadline.isoformat().replace("+00:00", "Z"), X_Mine="yes",
    )  # fmt: skip
    await ask(app(seeing(seen)))

    told, bare = seen
    assert (told.call_id, told.attempt, told.deadline) == ("c1", 1, deadline)
    assert (told.method, told.path, told.query, told.headers["x-MINE"]) == ("POST", "/some/path", "a=b", "yes")
    assert told.seconds_left is not None
    assert 290 < told.seconds_left <= 300
    assert (len(bare.call_id), bare.deadline, bare.seconds_left) == (36, None, None)


def seeing(seen: list[Context]) -> Callable[[Context], None]:
    def see(ctx: Context) -> None:
        seen.append(ctx)

    return see


async def test_input_that_does_not_fit_is_refused_and_never_tried_again(capsys: pytest.CaptureFixture[str]) -> None:
    def resize(job: Size) -> None:
        raise AssertionError

    got = await ask(app(resize), b'{"width": "wide"}')

    assert (got.status, got.body) == (400, b"job.width: must be int, is str 'wide'\n")
    assert got.headers["x-homing-retry"] == "no"
    assert not capsys.readouterr().err


async def test_an_exception_is_one_line_for_the_caller_and_the_users_frames_in_the_log(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fails() -> None:
        raise ValueError("it\nrains")

    async def fails_later() -> None:
        await asyncio.sleep(0)
        fails()

    for handler in (fails, fails_later):
        got = await ask(app(handler))
        error = capsys.readouterr().err.splitlines()

        assert (got.status, got.body) == (500, b"ValueError: it rains\n")
        assert "x-homing-retry" not in got.headers
        assert error[0] == "Traceback (most recent call last):"
        assert f'File "{__file__}"' in error[1]
        assert error[1].endswith(f"in {handler.__name__}")
        assert not [line for line in error if "homing_function" in line or "concurrent" in line]


async def test_a_function_says_that_another_attempt_does_not_help(capsys: pytest.CaptureFixture[str]) -> None:
    def pays() -> None:
        raise DoNotRetry("it is already paid")

    got = await ask(app(pays))

    assert (got.status, got.body, got.headers["x-homing-retry"]) == (500, b"it is already paid\n", "no")
    assert capsys.readouterr().err == "homing_function.errors.DoNotRetry: it is already paid\n"


async def test_a_result_that_is_not_of_its_type_is_the_functions_fault(capsys: pytest.CaptureFixture[str]) -> None:
    def resize() -> Size:
        return Size("wide")  # type: ignore[arg-type]

    got = await ask(app(resize))

    assert (got.status, got.body) == (
        500,
        b"homing_function.types.ConversionError: result.width: must be int, is str 'wide'\n",
    )
    assert "result.width" in capsys.readouterr().err


def _texts() -> Iterator[str]:
    yield "a"
    yield "b"


def _values() -> Iterator[Size]:
    yield Size(1)
    yield Size(2)


async def _bytes() -> AsyncIterator[bytes]:
    yield b"\x00"
    await asyncio.sleep(0)
    yield b"\x01"


def _nothing() -> Iterator[str]:
    yield from ()


def _returned() -> Iterator[Size]:
    return iter([Size(1), Size(2)])


@pytest.mark.parametrize(
    ("handler", "content_type", "parts"),
    [
        (_texts, "text/plain; charset=utf-8", [b"a", b"b"]),
        (_values, "application/x-ndjson", [b'{"width":1,"height":1}\n', b'{"width":2,"height":1}\n']),
        (_returned, "application/x-ndjson", [b'{"width":1,"height":1}\n', b'{"width":2,"height":1}\n']),
        (_bytes, "application/octet-stream", [b"\x00", b"\x01"]),
        (_nothing, "", []),
    ],
)
async def test_a_generator_is_sent_item_by_item(
    handler: Callable[[], Any], content_type: str, parts: list[bytes]
) -> None:
    got = await ask(app(handler))

    assert (got.status, got.headers.get("content-type", ""), got.parts, got.whole) == (200, content_type, parts, True)


async def test_a_generator_that_fails_breaks_its_answer_off(capsys: pytest.CaptureFixture[str]) -> None:
    def at_once() -> Iterator[str]:
        yield from ()
        raise ValueError("before")

    def later() -> Iterator[str]:
        yield "a"
        raise ValueError("after")

    first, second = await ask(app(at_once)), Got()
    with pytest.raises(BrokenStreamError):
        await ask(app(later), got=second)

    assert (first.status, first.body) == (500, b"ValueError: before\n")
    assert (second.status, second.parts, second.whole) == (200, [b"a"], False)
    assert "ValueError: after" in capsys.readouterr().err


async def test_who_leaves_ends_an_async_function() -> None:
    began, ended, gone = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def waits() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    asking = asyncio.create_task(ask(app(waits), gone=gone))
    await began.wait()
    gone.set()
    async with asyncio.timeout(10):
        await asking

    assert ended.is_set()


async def test_health_is_told_without_running_the_function() -> None:
    def runs() -> None:
        raise AssertionError

    it = app(runs)
    assert [(await ask(it, path=path)).status for path in ("/_/health", "/_/ready")] == [200, 200]
    it.stopping = True
    assert [(await ask(it, path=path)).status for path in ("/_/health", "/_/ready")] == [503, 503]


async def test_plain_functions_run_as_many_at_a_time_as_they_say() -> None:
    together = threading.Barrier(3, timeout=20)
    it = app(lambda: together.wait() >= 0, 3)

    async with asyncio.timeout(20):
        answers = await asyncio.gather(*(ask(it) for _ in range(3)))

    assert {got.body for got in answers} == {b"true"}


class Reports(ThreadingHTTPServer):
    said: list[Any]


class Reported(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        cast(Reports, self.server).said.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def reports() -> Iterator[Reports]:
    with Reports(("127.0.0.1", 0), Reported) as server:
        server.said = []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


async def test_progress_is_reported_before_the_answer_and_what_is_left_out_stays(reports: Reports) -> None:
    def works(ctx: Context) -> None:
        ctx.progress(10, "begun")
        ctx.progress(text="nearly")
        ctx.progress(90)

    async def waits(ctx: Context) -> None:
        works(ctx)

    for handler in (works, waits):
        reports.said.clear()
        await ask(app(handler), X_Homing_Progress_Url=f"http://127.0.0.1:{reports.server_port}/p")

        assert {name: value for said in reports.said for name, value in said.items()} == {
            "percent": 90, "text": "nearly"
        }  # fmt: skip


@pytest.mark.parametrize("url", ["", "file:///etc/passwd", "http://127.0.0.1:1/"])
async def test_progress_that_nobody_takes_harms_nothing(url: str) -> None:
    def works(ctx: Context) -> str:
        ctx.progress(10)
        return "done"

    assert (await ask(app(works), X_Homing_Progress_Url=url)).body == b"done"


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"percent": 101}, "from 0 to 100, is 101"),
        ({"percent": float("nan")}, "is nan"),
        ({"text": "x" * 1025}, "has 1025"),
    ],
)
def test_progress_has_bounds(said: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Context().progress(**said)


async def test_a_function_that_logs_does_so_on_standard_error(caplog: pytest.LogCaptureFixture) -> None:
    def logs() -> None:
        logging.getLogger("mine").warning("beware")

    await ask(app(logs))

    assert [record.getMessage() for record in caplog.records if record.name == "mine"] == ["beware"]
