"""A watch of results, for the synchronous client."""

from __future__ import annotations

import os
import random
import threading
import time
import weakref
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from tenacity import Retrying, retry_if_exception, sleep_using_event

from homing._core import watch
from homing._core.calls import Deadline, log, log_repeat, stop_for
from homing._core.values import WatchEvent
from homing._core.watch import WatchProgress
from homing._sync.connection import Connection
from homing.errors import ClosedClientError, RequestError
from homing.v1 import invocation_service_pb2

if TYPE_CHECKING:
    from typing_extensions import Self

Message = invocation_service_pb2.WatchResultsResponse


class _Stream(Protocol):
    """The part of a call of WatchResults that is used here; gRPC has no public type for it."""

    def cancel(self) -> bool: ...


class _Line:
    """The stream of a watch, with a thread that cuts it when it stays silent.

    Synchronous gRPC has no limit to the wait for one message of a stream. The thread knows the line but not its watch:
    a watch that nobody holds any more is collected, and that ends both.
    """

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._changed = threading.Condition()
        self._call: _Stream | None = None
        self._due: float | None = None
        self._wakes = 0.0
        self.silent = False
        self.closed = threading.Event()
        threading.Thread(target=self._guard, name="homing-watch", daemon=True).start()

    def open(self, call: _Stream) -> None:
        with self._changed:
            self._call = call
            self.silent = False
            if self.closed.is_set():
                call.cancel()

    def expect(self, seconds: float) -> None:
        """Cut the stream unless the wait is over in time."""
        with self._changed:
            self._due = time.monotonic() + seconds
            if self._due < self._wakes:
                self._changed.notify_all()

    def rest(self) -> None:
        """Nothing is waited for."""
        self._due = None

    def close(self) -> None:
        if os.getpid() != self._owner:
            return
        self.closed.set()
        with self._changed:
            if self._call is not None:
                self._call.cancel()
            self._changed.notify_all()

    def _guard(self) -> None:
        with self._changed:
            while not self.closed.is_set():
                now = time.monotonic()
                if self._due is not None and self._due <= now and self._call is not None:
                    self._due = None
                    self.silent = True
                    self._call.cancel()
                # Every wait that begins while this thread sleeps ends later, or it wakes the thread.
                self._wakes = now + watch.SILENCE if self._due is None else self._due
                self._changed.wait(self._wakes - now)


class ResultWatch:
    """The invocations that end, as they end: an iterator that never ends by itself, and a context manager.

    It reconnects and resumes by itself; no event is left out or repeated. Made by ``client.watch_results``.
    """

    def __init__(self, connection: Connection, progress: WatchProgress, *, patience: float | None) -> None:
        self._connection = connection
        self._progress = progress
        self._messages: Iterator[Message] | None = None
        self._pending: WatchEvent | None = None
        self._line = _Line()
        self._finalizer = weakref.finalize(self, self._line.close)
        try:
            self._open(Deadline.after(patience))
        except BaseException:
            self.close()
            raise

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> WatchEvent:
        """Wait for the next event.

        :raises ResumeTokenExpiredError: The connection was away for so long that results were removed meanwhile.
        :raises RequestError: The server refuses to go on.
        :raises ForkedClientError: The client was made in another process.
        """
        while not self._line.closed.is_set():
            event = None
            try:
                if self._messages is None:
                    self._line.closed.wait(random.uniform(0, watch.SPREAD))  # noqa: S311 - not for secrets
                    self._open(Deadline(None))
                if self._pending is not None:
                    event, self._pending = self._pending, None
                else:
                    event = self._progress.accept(self._read(watch.SILENCE))
            except ClosedClientError:
                self.close()
            except RequestError as error:
                self._messages = None
                if self._line.closed.is_set():
                    break
                if not watch.worth_resuming(error):
                    self.close()
                    raise
                log.info("the watch broke and is resumed: %s", error)
            if event is not None:
                return event
        raise StopIteration

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def resume_token(self) -> str:
        """Resumes a watch after the last event that this one handed out. Save it to go on in another process."""
        return self._progress.resume_token

    def close(self) -> None:
        """End the watch; an iteration that waits in another thread ends too."""
        self._line.close()

    def _open(self, deadline: Deadline) -> None:
        """Open the stream where the watch is and wait until the server says that it is in place."""
        closed = self._line.closed

        def once() -> None:
            remaining = deadline.remaining()
            self._messages = self._connection.stream(
                self._connection.invocations.WatchResults, self._progress.request(), opened=self._line.open
            )
            limit = watch.SILENCE if remaining is None else min(watch.SILENCE, remaining)
            self._pending = self._progress.accept(self._read(limit))

        too_late = stop_for(deadline)
        Retrying(
            stop=lambda state: closed.is_set() or too_late(state),
            wait=watch.wait_before_resuming,
            retry=retry_if_exception(watch.worth_resuming),
            sleep=sleep_using_event(closed),
            before_sleep=log_repeat,
            reraise=True,
        )(once)

    def _read(self, limit: float) -> Message:
        self._connection.check()
        assert self._messages is not None
        target = self._connection.settings.target
        self._line.expect(limit)
        try:
            return next(self._messages)
        except StopIteration:
            raise watch.lost(target, "the server ended the stream") from None
        except RequestError as err:
            if self._line.silent:
                raise watch.lost(target, f"nothing came for {limit:.0f} s") from err
            raise
        finally:
            self._line.rest()
