"""Serves one function by ASGI: a request is a call."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from datetime import datetime
from functools import partial
from typing import Any, Final

from homing_function import logs
from homing_function.context import Context, Headers
from homing_function.declaration import Function
from homing_function.errors import DoNotRetry, InvalidInputError
from homing_function.progress import Progress
from homing_function.response import Answer, answer_of, failure, item_of
from homing_function.tracebacks import formatted, one_line

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

HEALTH_PATHS: Final = ("/_/health", "/_/ready")
"""Where it is told whether calls are taken; a call of the function has any other path."""
_END: Final = object()


class CallerGoneError(Exception):
    """Who called has closed the connection."""


class BrokenStreamError(Exception):
    """A function failed in the middle of its answer, and has been told of; the connection is to be closed."""


class App:
    """One function, as an ASGI application."""

    def __init__(self, function: Function[..., Any]) -> None:
        self._function = function
        self._threads = ThreadPoolExecutor(max_workers=function.concurrency, thread_name_prefix=function.name)
        self.stopping = False
        """Whether no more calls are to come."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise ValueError(f"there is no {scope['type']} here")
        if scope["path"] in HEALTH_PATHS:
            status, word = (503, b"stopping\n") if self.stopping else (200, b"OK\n")
            await _send(send, Answer(status=status, content_type="text/plain; charset=utf-8", body=word))
            return
        try:
            body = await _body(receive)
        except CallerGoneError:
            return
        serving = asyncio.ensure_future(self._serve(scope, body, send))
        leaving = asyncio.ensure_future(_until_gone(receive))
        try:
            await asyncio.wait({serving, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not serving.done():
                # Nobody waits for the answer: the attempt is over, or was stopped.
                serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
        finally:
            serving.cancel()
            leaving.cancel()
        if not serving.cancelled():
            serving.result()

    async def _serve(self, scope: Scope, body: bytes, send: Send) -> None:
        begun = time.perf_counter()
        headers = Headers([(name.decode("latin-1"), _text_of(value)) for name, value in scope["headers"]])
        progress = Progress(headers.get("X-Homing-Progress-Url", ""))
        context = _context(scope, headers, progress)
        # What is written of the call, and reported, is out before the answer is.
        with logs.of_call(context.call_id):
            try:
                answer = await self._answer(context, body, send)
            finally:
                await progress.finish()
        if answer is None:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        else:
            await _send(send, answer, ("X-Duration-Seconds", f"{time.perf_counter() - begun:.6f}"))

    async def _answer(self, context: Context, body: bytes, send: Send) -> Answer | None:
        """Call the function and return its answer; None where it was streamed, up to its end.

        :raises BrokenStreamError: It failed in the middle.
        """
        stream = _Stream(send)
        try:
            value = await self._call(self._arguments(context, body))
            if not isinstance(value, (AsyncIterator, Iterator)):
                return answer_of(value, self._function.output)
            async for item in value if isinstance(value, AsyncIterator) else self._in_thread(value):
                await stream.put(*item_of(item, self._function.output))
        except InvalidInputError as error:
            told = failure(400, str(error), final=True)
        except DoNotRetry as error:
            sys.stderr.write(f"{one_line(error)}\n")
            told = failure(500, str(error), final=True)
        except (Exception, SystemExit, asyncio.CancelledError) as error:
            # Whatever a function raises is the end of this call, and of nothing else.
            if isinstance(error, asyncio.CancelledError) and _is_cancelled():
                raise
            sys.stderr.write(formatted(error))
            told = failure(500, one_line(error), final=False)
        else:
            return None if stream.started else Answer(status=200, content_type="", body=b"")
        if stream.started:
            raise BrokenStreamError
        return told

    def _arguments(self, context: Context, body: bytes) -> dict[str, Any]:
        """Return what the function is called with.

        :raises InvalidInputError: The body does not fit.
        """
        function = self._function
        arguments: dict[str, Any] = {}
        if function.payload is not None:
            arguments[function.payload.name] = function.payload.value(body, context.headers.get("Content-Type", ""))
        if function.context_name:
            arguments[function.context_name] = context
        return arguments

    async def _call(self, arguments: dict[str, Any]) -> Any:
        function = self._function
        if function.streams:
            return function.handler(**arguments)
        if function.is_async:
            return await function.handler(**arguments)
        return await self._run(partial(copy_context().run, function.handler, **arguments))

    async def _in_thread(self, items: Iterator[Any]) -> AsyncIterator[Any]:
        """Yield what a generator yields, each step of which runs in a thread."""
        step = partial(copy_context().run, next, items, _END)
        while (item := await self._run(step)) is not _END:
            yield item

    async def _run(self, work: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, _raising_no_stop, work)


class _Stream:
    """An answer that is sent as it comes, of the kind of its first part."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False

    async def put(self, content_type: str, part: bytes) -> None:
        """Send a part."""
        if not self.started:
            self.started = True
            await self._send(_start(200, content_type, ()))
        await self._send({"type": "http.response.body", "body": part, "more_body": True})


def _raising_no_stop(work: Callable[[], Any]) -> Any:
    """Do work in a thread: a future takes no StopIteration."""
    try:
        return work()
    except StopIteration as error:
        raise RuntimeError("the function raised StopIteration") from error


def _is_cancelled() -> bool:
    """Tell whether the present task was cancelled: what a function waited for may have been, which is its failure."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _text_of(value: bytes) -> str:
    """Return the text of a header, which is UTF-8, or else has a character for each byte."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _context(scope: Scope, headers: Headers, progress: Progress) -> Context:
    given: dict[str, Any] = {}
    if call_id := headers.get("X-Call-Id", ""):
        given["call_id"] = call_id
    attempt = headers.get("X-Homing-Attempt", "")
    if attempt.isascii() and attempt.isdecimal():
        given["attempt"] = int(attempt)
    with suppress(ValueError):
        given["deadline"] = datetime.fromisoformat(headers.get("X-Homing-Deadline", ""))
    return Context(
        headers=headers,
        method=scope["method"],
        path=scope["path"],
        query=scope["query_string"].decode("latin-1"),
        report=progress.report,
        **given,
    )


async def _body(receive: Receive) -> bytes:
    """Return the whole body of a request.

    :raises CallerGoneError: It never came.
    """
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise CallerGoneError
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


async def _until_gone(receive: Receive) -> None:
    """Return once who called has closed the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass


def _start(status: int, content_type: str, headers: tuple[tuple[str, str], ...]) -> dict[str, Any]:
    named = [(name.lower(), value) for name, value in headers]
    if content_type and all(name != "content-type" for name, _ in named):
        named.insert(0, ("content-type", content_type))
    return {
        "type": "http.response.start",
        "status": status,
        "headers": [(name.encode(), value.encode(errors="replace")) for name, value in named],
    }


async def _send(send: Send, answer: Answer, *more: tuple[str, str]) -> None:
    headers = (*answer.headers, *more)
    if answer.status not in {204, 304}:
        headers = (*headers, ("Content-Length", str(len(answer.body))))
    await send(_start(answer.status, answer.content_type, headers))
    await send({"type": "http.response.body", "body": answer.body})
