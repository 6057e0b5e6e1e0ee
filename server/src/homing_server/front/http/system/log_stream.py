"""Streams the log of a function as OpenFaaS does: a JSON object a line."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Self

from starlette.types import Receive, Scope, Send

from homing_server.auth.identity import Identity
from homing_server.errors import ApiError
from homing_server.front.api.calls import Calls
from homing_server.front.http.system.shapes import NAMESPACE, Reader, function_name
from homing_server.logs.tail import MAX_LAST_LINES, LogTails
from homing_server.store.logs import FunctionLine

_TYPE: Final = b"application/x-ndjson"
_BOOLEANS: Final = {"": False, "0": False, "f": False, "false": False, "1": True, "t": True, "true": True}
"""As Go's strconv.ParseBool has them, in lower case."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LogQuery:
    """Which lines are asked for."""

    function: str
    tail: int
    """How many of the last ones; 0 for all."""
    since_us: int
    follow: bool

    @classmethod
    def of(cls, parameters: Mapping[str, str]) -> Self:
        """Read the parameters of a request.

        :raises ApiError: INVALID_ARGUMENT.
        """
        reader = Reader(parameters)
        function = function_name(reader.text("name", required=True))
        reader.namespace()
        tail, since, follow = reader.text("tail"), reader.text("since"), reader.text("follow").lower()
        lines, since_us = 0, 0
        if tail:
            try:
                lines = max(0, int(tail))
            except ValueError:
                reader.refuse("tail", "must be a whole number")
            if lines > MAX_LAST_LINES:
                reader.refuse("tail", f"must be at most {MAX_LAST_LINES}")
        if since:
            try:
                time = datetime.fromisoformat(since)
                since_us = int(time.replace(tzinfo=time.tzinfo or UTC).timestamp() * 1e6)
            except (ValueError, OverflowError):
                reader.refuse("since", "must be a time as RFC 3339 has it, such as 2026-01-31T12:00:00Z")
        if follow not in _BOOLEANS:
            reader.refuse("follow", "must be true or false")
        reader.done()
        return cls(function=function, tail=lines, since_us=since_us, follow=_BOOLEANS[follow])


class LogStream:
    """An answer that lasts as long as its reader stays, where that follows the log."""

    def __init__(self, query: LogQuery, tails: LogTails, calls: Calls, identity: Identity) -> None:
        """Prepare to answer.

        :param calls: Bound the calls that are under way.
        :param identity: Who asks; the stream ends with their key.
        """
        self._query = query
        self._tails = tails
        self._calls = calls
        self._identity = identity

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Send the lines that there are, and those that come.

        :raises ApiError: RESOURCE_EXHAUSTED: too many calls are under way.
        """
        query = self._query
        task = asyncio.current_task()
        assert task is not None, "requests are served in tasks"
        with self._calls.serving(self._identity, operates=False) as call:
            scope["state"]["connection"].on_disconnect(task.cancel)
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", _TYPE)]})
            try:
                with call:
                    async for lines in self._tails.tail_function(
                        query.function, since_us=query.since_us, lines=query.tail, follow=query.follow
                    ):
                        body = rendered(query.function, [line for _, line in lines])
                        await send({"type": "http.response.body", "body": body, "more_body": True})
            except ApiError:
                pass  # the server stops, or the key was revoked: that the stream ends is all that can be told
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def rendered(function: str, lines: Sequence[FunctionLine]) -> bytes:
    """Return lines as OpenFaaS has them, a JSON object each."""
    return b"".join(
        json.dumps(
            {
                "name": function,
                "namespace": NAMESPACE,
                "instance": each.invocation_id,
                "timestamp": datetime.fromtimestamp(each.line.time_us / 1e6, UTC).isoformat().replace("+00:00", "Z"),
                "text": each.line.text + "\n",
            },
            ensure_ascii=False,
        ).encode()
        + b"\n"
        for each in lines
    )
