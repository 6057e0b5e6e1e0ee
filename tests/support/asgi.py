"""Asks an ASGI application as a server would, without one."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message

from homing_server.auth.identity import EVERYBODY, Identity


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def lines(self) -> Sequence[str]:
        """The body as lines."""
        return self.body.decode().splitlines()


class Request:
    """A request that is under way."""

    def __init__(
        self,
        method: str,
        target: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        identity: Identity = EVERYBODY,
    ) -> None:
        path, _, query = target.partition("?")
        self._scope = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "path": path,
            "raw_path": path.encode("latin-1", "replace"),
            "query_string": query.encode("latin-1", "replace"),
            "headers": [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()],
            "client": ("127.0.0.1", 5),
            "state": {"identity": identity},
        }
        self.incoming: asyncio.Queue[Message] = asyncio.Queue()
        """What the client does."""
        self.incoming.put_nowait({"type": "http.request", "body": body, "more_body": False})
        self.takes = sys.maxsize
        """So many parts of the answer the client takes, and then no more."""
        self.sent: list[bytes] = []
        """The body of the answer so far."""
        self.came = asyncio.Condition()
        """Told of each part of it."""
        self._head: Message = {}
        self._complete = False

    def leave(self) -> None:
        """Go away."""
        self.incoming.put_nowait({"type": "http.disconnect"})

    async def to(self, app: ASGIApp) -> Answer:
        """Ask an application; return its answer."""
        await app(self._scope, self.incoming.get, self._send)
        assert self._complete, "the answer has an end"
        headers = {name.decode(): value.decode() for name, value in self._head["headers"]}
        return Answer(status=self._head["status"], headers=headers, body=b"".join(self.sent))

    async def until(self, text: bytes) -> None:
        """Wait until something has come."""
        async with self.came:
            await self.came.wait_for(lambda: text in b"".join(self.sent))

    async def _send(self, message: Message) -> None:
        if self.takes == 0:
            await asyncio.Event().wait()
        self.takes -= 1
        assert not self._complete, "nothing comes after the end"
        if message["type"] == "http.response.start":
            assert not self._head, "an answer begins once"
            self._head = message
            return
        assert self._head, "the headers come first"
        async with self.came:
            self.sent.append(message.get("body", b""))
            self._complete = not message.get("more_body", False)
            self.came.notify_all()


async def ask(
    app: ASGIApp,
    method: str,
    target: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    identity: Identity = EVERYBODY,
) -> Answer:
    """Ask an application once."""
    return await Request(method, target, headers=headers, body=body, identity=identity).to(app)
