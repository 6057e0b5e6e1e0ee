"""Who is at the other end of a request: sends its body, waits or goes away; the context of the call made of it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Mapping
from typing import Final, Self

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from homing_server.errors import ApiError, Code, ErrorReason
from homing_server.front.http.rest.errors import http_error

TIMEOUT: Final = "X-Homing-Timeout"
INVOCATION_ID: Final = "X-Homing-Invocation-Id"
"""The header of an answer that names the invocation that its client waited for."""
_TRACEPARENT: Final = "traceparent"
_TRACEPARENT_CHARACTERS: Final = 64


class Client:
    """The client of a request: a CallContext. In its context the task is cancelled once it has gone away."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        """Look who asks.

        :raises ApiError: INVALID_ARGUMENT: a header says what it cannot say.
        """
        self.headers: Final = Headers(scope=scope)
        self.invocation_id = ""
        """The invocation that it waits for, once that is known."""
        self._scope = scope
        self._receive = receive
        self._deadline = self._read_deadline()
        self._task = asyncio.current_task()
        self._watching: asyncio.Task[None] | None = None
        self._gone = False

    @property
    def host(self) -> str:
        """Where it is."""
        return self._scope["client"][0] if self._scope["client"] else ""

    def peer(self) -> str:
        """Return what tells its connection from others."""
        return ":".join(map(str, self._scope["client"] or ()))

    def traceparent(self) -> str:
        """Return the trace context that it sent along; empty where there is none."""
        return self.headers.get(_TRACEPARENT, "")[:_TRACEPARENT_CHARACTERS]

    def time_remaining(self) -> float | None:
        """Return how many seconds it still waits; None where it said no time."""
        return None if self._deadline is None else self._deadline - asyncio.get_running_loop().time()

    async def send_invocation_id(self, invocation_id: str) -> None:
        """Note which invocation it waits for: over HTTP it is told with the answer."""
        self.invocation_id = invocation_id

    @property
    def answer_headers(self) -> Mapping[str, str]:
        """What the headers of the answer say of the call."""
        return {INVOCATION_ID: self.invocation_id} if self.invocation_id else {}

    async def body(self, limit: int) -> bytes:
        """Return the body.

        :raises ApiError: INVALID_ARGUMENT: it is larger than the limit.
        :raises ClientDisconnect: It has gone away.
        """
        parts, size = [], 0
        if self.length is not None and self.length > limit:
            raise _too_large(limit)
        async for part in self.parts():
            size += len(part)
            if size > limit:
                raise _too_large(limit)
            parts.append(part)
        return b"".join(parts)

    @property
    def length(self) -> int | None:
        """The length of the body in bytes; None where it is not said."""
        said = self.headers.get("content-length", "")
        return int(said) if said.isascii() and said.isdigit() else None

    async def parts(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes; then watch whether the client goes away.

        :raises ClientDisconnect: It has gone away.
        """
        more = True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            more = message.get("more_body", False)
            if message.get("body"):
                yield message["body"]
        self._watching = asyncio.create_task(self._watch())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _error: object, _trace: object) -> None:
        """Watch no more; raise ClientDisconnect where the task was cancelled for that alone."""
        if self._watching is not None:
            self._watching.cancel()
        if self._gone and kind is asyncio.CancelledError and self._task is not None and not self._task.uncancel():
            raise ClientDisconnect from None

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        if self._task is not None:
            self._task.cancel()

    def _read_deadline(self) -> float | None:
        said = self.headers.get(TIMEOUT)
        if said is None:
            return None
        try:
            seconds = float(said)
        except ValueError:
            seconds = math.nan
        if not 0 < seconds < math.inf:
            raise ApiError(
                code=Code.INVALID_ARGUMENT,
                reason=ErrorReason.INVALID_REQUEST,
                message=f"the header {TIMEOUT} must be a number of seconds",
            )
        return asyncio.get_running_loop().time() + seconds


def _too_large(limit: int) -> ApiError:
    return http_error(413, f"the body must have at most {limit} bytes")
