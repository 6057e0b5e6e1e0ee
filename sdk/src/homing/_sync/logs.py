"""The log lines of an invocation, for the synchronous client."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from homing._core import watch
from homing._core.calls import log
from homing._core.logs import LogLine, LogProgress
from homing._sync.connection import Connection
from homing.errors import ClosedClientError, RequestError
from homing.v1 import invocation_service_pb2

if TYPE_CHECKING:
    from typing_extensions import Self

Message = invocation_service_pb2.TailLogsResponse


class _Stream(Protocol):
    """The part of a call of TailLogs that is used here; gRPC has no public type for it."""

    def cancel(self) -> bool: ...


class LogTail:
    """The lines that a function wrote for an invocation: an iterator and a context manager.

    It ends behind the last line there is; where it follows, when the invocation has ended. It reconnects by itself,
    and a line that was handed out is not repeated. Made by ``handle.logs``; it connects with the first line.
    """

    def __init__(self, connection: Connection, progress: LogProgress, *, find_server: Callable[[], object]) -> None:
        self._connection = connection
        self._progress = progress
        self._find_server = find_server
        self._messages: Iterator[Message] | None = None
        self._call: _Stream | None = None
        self._closed = threading.Event()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> LogLine:
        """Wait for the next line.

        :raises NotFoundError: There is no such invocation, or its retention is over.
        :raises RequestError: The server refuses to tell, or was away for too long.
        :raises ForkedClientError: The client was made in another process.
        """
        while not self._closed.is_set():
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
        self._closed.set()
        if self._call is not None:
            self._call.cancel()

    def _next(self) -> LogLine | None:
        """Return the next line; None where it was seen before, or there was none to be had."""
        try:
            if self._messages is None:
                self._messages = self._connection.stream(
                    self._connection.invocations.TailLogs, self._progress.request, opened=self._opened
                )
            return self._progress.accept(next(self._messages))
        except (StopIteration, ClosedClientError):
            self.close()
        except RequestError as error:
            if not self._closed.is_set():
                self._reconnect(error)
        return None

    def _opened(self, call: _Stream) -> None:
        self._call = call
        if self._closed.is_set():
            call.cancel()

    def _reconnect(self, error: RequestError) -> None:
        """Wait until the server is there again.

        :raises RequestError: It is away for too long, or the stream ended in a way that this does not cure.
        """
        if not watch.worth_resuming(error):
            self.close()
            raise error
        log.info("the logs broke off and are resumed: %s", error)
        self._messages = None
        self._progress.resume()
        self._find_server()
        self._closed.wait(random.uniform(0, watch.SPREAD))  # noqa: S311 - not for secrets
