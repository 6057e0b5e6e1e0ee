"""Calls functions that already run somewhere."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final
from urllib.parse import unquote, urlsplit

import aiohttp

from homing.v1.function_pb2 import Function
from homing_core.guard import ForbiddenTargetError, Guard
from homing_core.ids import new_id
from homing_core.reasons import FailureReason
from homing_worker.reporting.logs import InvocationLog
from homing_worker.runtime.base import Answer, CallFailedError, Instance, Request, Runtime
from homing_worker.runtime.http_call import exchange, open_session
from homing_worker.runtime.resolver import GuardedResolver

_SEPARATOR: Final = re.compile(r"(/|\\|%(?:25)*2f|%(?:25)*5c)", re.IGNORECASE)
"""What some server or other takes for the end of a segment of a path, however often it is encoded."""


class UrlRuntime(Runtime):
    """Runs functions that are URLs. An instance is only a place: it bounds how many calls are made at a time."""

    source = "url"

    def __init__(self, guard: Guard) -> None:
        """Prepare to run.

        :param guard: Decides where functions may be.
        """
        self._guard = guard
        self._resolver: GuardedResolver | None = None
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Make the session that all calls share."""
        self._resolver = GuardedResolver(self._guard)
        self._session = open_session(self._resolver)

    async def close(self) -> None:
        """Close it."""
        if self._session is not None:
            await self._session.close()
        if self._resolver is not None:
            await self._resolver.close()

    async def start(
        self,
        function: Function,
        secrets: Mapping[str, bytes],  # noqa: ARG002 it sees no files
        *,
        image_id: str = "",  # noqa: ARG002 and is no image
    ) -> Instance:
        """Return a place for calls of the function."""
        assert self._session is not None
        return UrlInstance(function, self._session, self._guard)


class UrlInstance(Instance):
    """A place for calls of a function that is a URL."""

    def __init__(self, function: Function, session: aiohttp.ClientSession, guard: Guard) -> None:
        self.name = f"url-{new_id()[-8:]}"
        self.revision = function.revision
        parts = urlsplit(function.url)
        self._origin = f"{parts.scheme}://{parts.netloc}"
        self._path = parts.path.rstrip("/")
        self._session = session
        self._forbidden = ""
        try:
            # What its host resolves to is checked when a connection is made, but an address is not resolved.
            guard.check_url(function.url)
        except ForbiddenTargetError as error:
            self._forbidden = str(error)

    @property
    def alive(self) -> bool:
        """A place is always there."""
        return True

    def on_exit(self, hook: Callable[[], None]) -> None:
        """Do nothing: a place does not go by itself."""

    async def verify(self) -> bool:
        """A place is always there."""
        return True

    async def kill(self) -> bool:
        """Do nothing: what runs there is not this worker's, and may go on."""
        return False

    async def stop(self) -> None:
        """Do nothing: what runs there is not this worker's."""

    async def call(self, request: Request, log: InvocationLog | None) -> Answer:  # noqa: ARG002 what it writes is not seen
        """Call the URL; the path of the request is below the URL's own."""
        if self._path:
            request = replace(request, target=below(self._path, request.target))
        if self._forbidden:
            raise _is_forbidden(self._forbidden)
        try:
            return await exchange(self._session, self._origin, request)
        except ForbiddenTargetError as error:
            raise _is_forbidden(str(error)) from None


def _is_forbidden(why: str) -> CallFailedError:
    return CallFailedError(
        FailureReason.TARGET_FORBIDDEN,
        f"the function's URL {why}",
        permanent=True,
    )


def below(base: str, target: str) -> str:
    """Return the target of a request under a base path, which it cannot leave.

    As at the root of a server, ``..`` leads nowhere from there: in any spelling that some server may take for it.

    :param base: A path that does not end with a slash.
    :param target: A path, with the query where there is one.
    """
    path, question, query = target.partition("?")
    pieces = _SEPARATOR.split(path)
    if any(_decoded(segment) == ".." for segment in pieces[::2]):
        path = _without_dots(pieces)
    return base + ("" if path == "/" else path) + question + query


def _without_dots(pieces: list[str]) -> str:
    """Put segments, and the separators between them, together without those that are dots."""
    kept: list[str] = []
    for separator, segment in zip(["", *pieces[1::2]], pieces[::2], strict=True):
        match _decoded(segment):
            case "..":
                del kept[-1:]
            case ".":
                pass
            case _:
                kept.append(separator + segment)
    path = "".join(kept)
    return path if path.startswith("/") else f"/{path}"


def _decoded(segment: str) -> str:
    """Return a segment of a path as the most obliging server would read it."""
    while "%" in segment and (decoded := unquote(segment)) != segment:
        segment = decoded
    return segment.partition(";")[0].strip()
