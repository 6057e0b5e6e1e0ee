"""The calls that are under way: how many there may be, and how one is ended before its time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final, Self

from homing_server.auth.identity import Identity
from homing_server.errors import ApiError, ErrorReason, server_busy, unavailable

_MOST: Final = 10_000
"""So many calls at the most are under way: each takes some ten kilobytes, and all take turns."""
_RESERVED: Final = 1_000
"""So many of them are for those who operate the server."""
_MOST_OPEN: Final = 1_000
_MOST_OPEN_OF_A_PEER: Final = 100
"""So many streams that last as long as the server, which watch its health or ask what it serves."""


class Call:
    """A call in the task that serves it; what is done in its context may be broken off by `end`."""

    __slots__ = ("_ended", "_task")

    def __init__(self) -> None:
        task = asyncio.current_task()
        assert task is not None, "calls are served in tasks"
        self._task = task
        self._ended: ApiError | None = None

    def end(self, error: ApiError) -> None:
        """End it with an error, wherever it waits."""
        if self._ended is None:
            self._ended = error
            self._task.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _error: object, _trace: object) -> None:
        """Raise what it was ended with, unless its caller went away besides."""
        if kind is asyncio.CancelledError and self._ended is not None and not self._task.uncancel():
            raise self._ended from None


class Calls:
    """Counts calls and ends them."""

    def __init__(self) -> None:
        self._number = 0
        self._open: dict[Call, str] = {}
        self._peers: Counter[str] = Counter()
        self._stopping = False

    def serving(self, identity: Identity, *, operates: bool) -> AbstractContextManager[Call]:
        """Return a context that serves a call in this task; it is ended once its caller may not call any more.

        To enter it raises ApiError. RESOURCE_EXHAUSTED: there are too many; UNAUTHENTICATED: the key has been revoked,
        or ended.

        :param operates: Whether it is for operators, who get in where others do not.
        """
        return _Serving(self, identity, _MOST if operates else _MOST - _RESERVED)

    def begin(self, most: int) -> None:
        """Count one that begins.

        :raises ApiError: RESOURCE_EXHAUSTED: so many are under way already.
        """
        if self._number >= most:
            raise server_busy("too many calls are under way")
        self._number += 1

    def end(self) -> None:
        """Count one that has ended."""
        self._number -= 1

    @contextmanager
    def until_stop(self, host: str) -> Iterator[Call]:
        """Serve a stream in this task that would last as long as the server; it is ended when that stops.

        :param host: Where it comes from.
        :raises ApiError: RESOURCE_EXHAUSTED: there are too many; UNAVAILABLE: the server stops.
        """
        if self._stopping:
            raise _stopping()
        if len(self._open) >= _MOST_OPEN or self._peers[host] >= _MOST_OPEN_OF_A_PEER:
            raise server_busy("too many streams of this kind are open")
        call = Call()
        self._open[call] = host
        self._peers[host] += 1
        try:
            yield call
        finally:
            del self._open[call]
            self._peers -= Counter((host,))

    def stop(self) -> None:
        """End the streams that would last as long as the server."""
        self._stopping = True
        for call in self._open:
            call.end(_stopping())


class _Serving(AbstractContextManager[Call]):
    """A call that is served. It is a class, since every call has one: a generator costs twice as much."""

    __slots__ = ("_calls", "_ending", "_identity", "_most")

    _ending: AbstractContextManager[None]

    def __init__(self, calls: Calls, identity: Identity, most: int) -> None:
        self._calls = calls
        self._identity = identity
        self._most = most

    def __enter__(self) -> Call:
        self._calls.begin(self._most)
        try:
            call = Call()
            self._ending = self._identity.ending(call.end)
            self._ending.__enter__()
        except BaseException:
            self._calls.end()
            raise
        return call

    def __exit__(self, *_: object) -> None:
        self._ending.__exit__(None, None, None)
        self._calls.end()


def _stopping() -> ApiError:
    return unavailable(ErrorReason.SERVER_STOPPING, "the server stops")
