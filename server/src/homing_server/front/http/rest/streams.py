"""Answers that come bit by bit: server-sent events, lines of JSON, or the bytes of a body."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, Final

from starlette.requests import ClientDisconnect
from starlette.types import Send

from homing.v1.invocation_service_pb2 import WatchResultsResponse
from homing.v1.log_service_pb2 import TailFunctionLogsResponse, TailLogsResponse
from homing_server.errors import ApiError, ErrorReason
from homing_server.front.http.rest.client import Client
from homing_server.front.http.rest.errors import described, http_error

EVENTS_TYPE: Final = "text/event-stream"
LINES_TYPE: Final = "application/x-ndjson"
BYTES_TYPE: Final = "application/octet-stream"

KEEP_ALIVE_SECONDS = 15.0
"""After so long without an event a comment follows: proxies cut connections off on which nothing comes."""
_FIRST_SECONDS: Final = 1.0
"""After so long without the first event, or an error, its client is told that there is a stream."""
_RETRY_MILLISECONDS: Final = 1_000
_LAST_WORDS_SECONDS: Final = 5.0
_ENDED: Final = "-end"
"""Ends the id of the event that says that all lines have come."""

Render = Callable[[Any], Awaitable[str]]
"""Writes a message as JSON on one line."""


class Stream:
    """The answer of a stream, message by message: Responses."""

    media_type: str

    def __init__(self, client: Client, send: Send) -> None:
        self._client = client
        self._send = send
        self._begun = False
        self._turn = asyncio.Lock()

    async def begin(self) -> None:
        """Send the headers."""
        async with self._turn:
            await self._begin()

    async def write(self, response: Any) -> None:
        """Send a message."""
        framed = await self._framed(response)
        async with self._turn:
            await self._begin()
            await self._send_part(framed)

    @contextlib.asynccontextmanager
    async def kept_alive(self) -> AsyncIterator[None]:
        """Show its client, while nothing else comes, that it goes on; where there is a way to."""
        yield

    async def finish(self, last: bytes = b"") -> None:
        """Send the end."""
        async with self._turn:
            await self._begin()
            await self._send({"type": "http.response.body", "body": last, "more_body": False})

    async def fail(self, error: ApiError) -> None:
        """Tell of an error where nothing has been sent yet, by raising it; else in the stream, and end it.

        :raises ApiError: Nothing has been sent.
        :raises ClientDisconnect: Nobody reads it: what is left is to close the connection.
        """
        if not self._begun:
            raise error
        if error.reason is ErrorReason.SLOW_CONSUMER:
            raise ClientDisconnect from error
        try:
            async with asyncio.timeout(_LAST_WORDS_SECONDS):
                await self.finish(self._last_words(error))
        except TimeoutError:
            raise ClientDisconnect from error

    async def _begin(self) -> None:
        if self._begun:
            return
        self._begun = True
        headers = {
            "content-type": self.media_type,
            "cache-control": "no-store",
            # As nginx asks for it: else it collects events until they fill its buffers.
            "x-accel-buffering": "no",
            "x-content-type-options": "nosniff",
            **self._client.answer_headers,
        }
        encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
        await self._send({"type": "http.response.start", "status": 200, "headers": encoded})

    async def _send_part(self, part: bytes) -> None:
        await self._send({"type": "http.response.body", "body": part, "more_body": True})

    async def _framed(self, response: Any) -> bytes:
        raise NotImplementedError

    def _last_words(self, error: ApiError) -> bytes:
        raise NotImplementedError


class Lines(Stream):
    """A line of JSON for each message; an error is a line of its own."""

    media_type = LINES_TYPE

    def __init__(self, client: Client, send: Send, render: Render) -> None:
        super().__init__(client, send)
        self._render = render

    async def _framed(self, response: Any) -> bytes:
        return f"{await self._render(response)}\n".encode()

    def _last_words(self, error: ApiError) -> bytes:
        return f"{_one_line(described(error))}\n".encode()


class Bytes(Stream):
    """The data of each message and nothing else."""

    media_type = BYTES_TYPE

    async def _framed(self, response: Any) -> bytes:
        data: bytes = response.data
        return data

    async def fail(self, error: ApiError) -> None:
        """Raise the error, or break the answer off.

        :raises ApiError: Nothing has been sent.
        :raises ClientDisconnect: Something has.
        """
        if not self._begun:
            raise error
        raise ClientDisconnect from error


class Events(Stream):
    """Server-sent events, each with the id from which a client goes on that was cut off."""

    media_type = EVENTS_TYPE

    def __init__(
        self, client: Client, send: Send, render: Render, events: WatchEvents | FunctionLogEvents | LogEvents
    ) -> None:
        """Prepare to send.

        :param events: Tells ids and kinds of events.
        """
        super().__init__(client, send)
        self._render = render
        self._events = events
        self._last = asyncio.get_running_loop().time()

    async def _begin(self) -> None:
        if not self._begun:
            await super()._begin()
            await self._send_part(f"retry: {_RETRY_MILLISECONDS}\n\n".encode())

    async def write(self, response: Any) -> None:
        """Send an event, unless its client has it."""
        if self._events.takes(response):
            await super().write(response)
            self._last = asyncio.get_running_loop().time()

    async def finish(self, last: bytes = b"") -> None:
        """Send the end, with an event that says so."""
        await super().finish(last or self._events.end)

    @contextlib.asynccontextmanager
    async def kept_alive(self) -> AsyncIterator[None]:
        """Send comments while nothing else comes."""
        keeping = asyncio.create_task(self._keep_alive())
        try:
            yield
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)

    async def _keep_alive(self) -> None:
        await asyncio.sleep(_FIRST_SECONDS)
        await self.begin()
        while True:
            silent = asyncio.get_running_loop().time() - self._last
            if silent >= KEEP_ALIVE_SECONDS:
                async with self._turn:
                    await self._send_part(b":\n\n")
                self._last = asyncio.get_running_loop().time()
                silent = 0.0
            await asyncio.sleep(KEEP_ALIVE_SECONDS - silent)

    async def _framed(self, response: Any) -> bytes:
        message = self._events.message(response)
        data = await self._render(message)
        kind, event_id = self._events.kind(message), self._events.id(message)
        return f"id: {event_id}\nevent: {kind}\ndata: {data}\n\n".encode()

    def _last_words(self, error: ApiError) -> bytes:
        retry = "" if error.retry_after is None else f"retry: {int(error.retry_after * 1000)}\n"
        return f"{retry}event: error\ndata: {_one_line(described(error))}\n\n".encode()


class WatchEvents:
    """What a watch tells, under its resume tokens."""

    end = b""
    """It has none: a watch lasts until it is cut off."""

    def takes(self, _response: Any) -> bool:
        """Tell whether the client wants a message: all."""
        return True

    def message(self, response: Any) -> WatchResultsResponse:
        """Return the message, which comes serialised."""
        return WatchResultsResponse.FromString(response) if isinstance(response, bytes) else response

    def kind(self, message: Any) -> str:
        """Return what it tells of."""
        kind: str | None = message.WhichOneof("event")
        return kind or "bookmark"

    def id(self, message: Any) -> str:
        """Return the token after it."""
        token: str = message.resume_token
        return token


class FunctionLogEvents:
    """Lines of the log of a function, under their resume tokens."""

    def __init__(self, last_id: str) -> None:
        """Go on after a line.

        :param last_id: Its id; empty to begin with the first.
        """
        self.over: Final = last_id.endswith(_ENDED)
        """Whether that was all."""
        self._last = last_id

    @property
    def end(self) -> bytes:
        """The event that says that this was all."""
        return f"id: {self._last}{_ENDED}\nevent: end\ndata: {{}}\n\n".encode()

    def takes(self, response: Any) -> bool:
        """Note where to go on; tell whether the client wants a line: all."""
        self._last = response.resume_token
        return True

    def message(self, response: Any) -> TailFunctionLogsResponse:
        """Return the message."""
        assert isinstance(response, TailFunctionLogsResponse)
        return response

    def kind(self, _message: Any) -> str:
        """Return what it tells of."""
        return "line"

    def id(self, message: Any) -> str:
        """Return the token after it."""
        token: str = message.resume_token
        return token


class LogEvents:
    """Lines of a log, which are numbered: they stay in order, and nobody takes one away."""

    def __init__(self, last_id: str) -> None:
        """Go on after a line.

        :param last_id: Its id; empty to begin with the first.
        :raises ApiError: INVALID_ARGUMENT: no line has it.
        """
        number = last_id.removesuffix(_ENDED)
        if number and not (number.isascii() and number.isdigit() and len(number) < 20):
            raise http_error(400, "the header Last-Event-ID must be the id of an event of these")
        self.over: Final = last_id.endswith(_ENDED)
        """Whether that was all."""
        self._skip = int(number or 0)
        self._number = 0

    @property
    def end(self) -> bytes:
        """The event that says that this was all."""
        return f"id: {self._number}{_ENDED}\nevent: end\ndata: {{}}\n\n".encode()

    def takes(self, _response: Any) -> bool:
        """Count a line; tell whether the client wants it."""
        self._number += 1
        return self._number > self._skip

    def message(self, response: Any) -> TailLogsResponse:
        """Return the message."""
        assert isinstance(response, TailLogsResponse)
        return response

    def kind(self, _message: Any) -> str:
        """Return what it tells of."""
        return "line"

    def id(self, _message: Any) -> str:
        """Return the number of the line."""
        return str(self._number)


def _one_line(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
