# Generated from _aio/watch.py by scripts/unasync.py; do not edit.
"""A watch of results, for the synchronous client."""

from __future__ import annotations

import random
from types import TracebackType
from typing import Self

from tenacity import Retrying, retry_if_exception

from homing._core import watch
from homing._core.calls import Deadline, log, log_retry, stop_for
from homing._core.values import WatchEvent
from homing._core.watch import WatchProgress
from homing._sync.connection import Connection
from homing._sync.seam.stream import Stream
from homing.errors import ClosedClientError, RequestError
from homing.v1 import invocation_service_pb2

Message = invocation_service_pb2.WatchResultsResponse


class ResultWatch:
    """The invocations that end, as they end: an iterator that never ends by itself, and a context manager.

    It reconnects and resumes by itself; no event is left out or repeated. Made by ``client.watch_results``.
    It is subscribed when that returns.
    """

    def __init__(self, connection: Connection, progress: WatchProgress, *, timeout: float | None) -> None:
        self._connection = connection
        self._progress = progress
        self._timeout = timeout
        self._stream: Stream[Message] = Stream(connection)
        self._pending: WatchEvent | None = None
        self._started = False

    def __enter__(self) -> Self:
        return self._start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> WatchEvent:
        """Wait for the next event.

        :raises ResumeTokenExpiredError: The connection was away for so long that results were removed meanwhile.
        :raises RequestError: The server refuses to go on.
        :raises ClientUseError: The client cannot be used here.
        """
        self._start()
        while not self._stream.closed:
            event = None
            try:
                if not self._stream.has_call:
                    self._stream.pause(random.uniform(0, watch.RECONNECT_JITTER))  # noqa: S311 - not for secrets
                    self._open(Deadline(None))
                if self._pending is not None:
                    event, self._pending = self._pending, None
                else:
                    event = self._progress.accept(self._read(watch.SILENCE_LIMIT))
            except ClosedClientError:
                self.close()
            except RequestError as error:
                self._stream.drop()
                if self._stream.closed:
                    break
                if not watch.is_resumable(error):
                    self.close()
                    raise
                log.info("the watch broke and is resumed: %s", error)
            if event is not None:
                return event
        raise StopIteration

    @property
    def resume_token(self) -> str:
        """Resumes a watch after the last event that this one handed out. Save it to go on in another process."""
        return self._progress.resume_token

    def close(self) -> None:
        """End the watch; an iteration that waits in another thread ends too."""
        self._stream.close()

    def _start(self) -> Self:
        if not self._started:
            self._started = True
            try:
                self._open(Deadline.after(self._timeout))
            except BaseException:
                self.close()
                raise
        return self

    def _open(self, deadline: Deadline) -> None:
        """Open the stream where the watch is and wait until the server says that it is in place."""

        def once() -> None:
            remaining = deadline.remaining()
            self._stream.open(lambda stubs: stubs.invocations.WatchResults, self._progress.request())
            limit = watch.SILENCE_LIMIT if remaining is None else min(watch.SILENCE_LIMIT, remaining)
            self._pending = self._progress.accept(self._read(limit))

        too_late = stop_for(deadline)
        Retrying(
            stop=lambda state: self._stream.closed or too_late(state),
            wait=watch.wait_before_reconnect,
            retry=retry_if_exception(watch.is_resumable),
            sleep=self._stream.pause,
            before_sleep=log_retry,
            reraise=True,
        )(once)

    def _read(self, limit: float) -> Message:
        target = self._connection.settings.target
        try:
            message = self._stream.read(limit)
        except TimeoutError as error:
            raise watch.lost(target, f"nothing came for {limit:.0f} s") from error
        if message is None:
            raise watch.lost(target, "the server ended the stream")
        return message
