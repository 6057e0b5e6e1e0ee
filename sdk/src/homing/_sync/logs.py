# Generated from _aio/logs.py by scripts/unasync.py; do not edit.
"""The log lines of an invocation, or of a function, for the synchronous client."""

from __future__ import annotations

import random
from collections.abc import Callable
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from homing._core import watch
from homing._core.calls import log
from homing._core.logs import LogLine
from homing._sync.connection import Connection
from homing._sync.seam.stream import Stream
from homing._sync.stubs import Stubs
from homing.errors import ClosedClientError, RequestError

Line_co = TypeVar("Line_co", bound=LogLine, covariant=True)


class Progress(Protocol[Line_co]):
    """What a reader asks for, and how far it has come."""

    request: Any

    def resume(self) -> None:
        """Expect what a new call brings."""

    def accept(self, message: Any) -> Line_co | None:
        """Take a message; return its line, or None for one that was seen before."""


class LogTail(Generic[Line_co]):
    """The lines that a function wrote: an iterator and a context manager.

    It ends behind the last line there is; where it follows, when the invocation has ended, and that of a function when
    it is closed. It reconnects by itself, and a line that was handed out is not repeated. Made by ``handle.logs`` and
    ``functions.logs``; it connects with the first line.
    """

    def __init__(
        self,
        connection: Connection,
        progress: Progress[Line_co],
        *,
        method: Callable[[Stubs], Any],
        find_server: Callable[[], object],
    ) -> None:
        self._connection = connection
        self._progress = progress
        self._method = method
        self._find_server = find_server
        self._stream: Stream[Any] = Stream(connection)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Line_co:
        """Wait for the next line.

        :raises NotFoundError: There is no such invocation, or its retention is over; or no such function.
        :raises RequestError: The server refuses, or was away for too long.
        :raises ClientUseError: The client cannot be used here.
        """
        while not self._stream.closed:
            line = self._next()
            if line is not None:
                return line
        raise StopIteration

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it; an iteration that waits in another thread ends too."""
        self._stream.close()

    def _next(self) -> Line_co | None:
        """Return the next line; None where it was seen before, or there was none to be had."""
        try:
            if not self._stream.has_call:
                self._progress.resume()
                self._stream.open(self._method, self._progress.request)
            message = self._stream.read()
        except ClosedClientError:
            self.close()
        except RequestError as error:
            self._stream.drop()
            if not self._stream.closed:
                self._reconnect(error)
        else:
            if message is not None:
                return self._progress.accept(message)
            self.close()
        return None

    def _reconnect(self, error: RequestError) -> None:
        """Wait until the server is there again.

        :raises RequestError: It is away for too long, or the stream ended in a way that this does not cure.
        """
        if not watch.is_resumable(error):
            self.close()
            raise error
        log.info("the logs broke off and are resumed: %s", error)
        self._find_server()
        self._stream.pause(random.uniform(0, watch.RECONNECT_JITTER))  # noqa: S311 - not for secrets
