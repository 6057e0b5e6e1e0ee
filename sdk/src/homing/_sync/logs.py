# Generated from _aio/logs.py by scripts/unasync.py; do not edit.
"""The log lines of an invocation, for the synchronous client."""

from __future__ import annotations

import random
from collections.abc import Callable
from types import TracebackType
from typing import Self

from homing._core import watch
from homing._core.calls import log
from homing._core.logs import LogLine, LogProgress
from homing._sync.connection import Connection
from homing._sync.seam.stream import Stream
from homing.errors import ClosedClientError, RequestError
from homing.v1 import log_service_pb2


class LogTail:
    """The lines that a function wrote for an invocation: an iterator and a context manager.

    It ends behind the last line there is; where it follows, when the invocation has ended. It reconnects by itself,
    and a line that was handed out is not repeated. Made by ``handle.logs``; it connects with the first line.
    """

    def __init__(self, connection: Connection, progress: LogProgress, *, find_server: Callable[[], object]) -> None:
        self._connection = connection
        self._progress = progress
        self._find_server = find_server
        self._stream: Stream[log_service_pb2.TailLogsResponse] = Stream(connection)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> LogLine:
        """Wait for the next line.

        :raises NotFoundError: There is no such invocation, or its retention is over.
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

    def _next(self) -> LogLine | None:
        """Return the next line; None where it was seen before, or there was none to be had."""
        try:
            if not self._stream.has_call:
                self._progress.resume()
                self._stream.open(lambda stubs: stubs.logs.TailLogs, self._progress.request)
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
