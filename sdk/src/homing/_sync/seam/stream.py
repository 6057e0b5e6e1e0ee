"""A stream of the synchronous gRPC stack that any thread may close."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Generic, TypeVar, cast

import grpc
from google.protobuf.message import Message

from homing._core import watch
from homing._core.calls import NEVER, Deadline
from homing._core.watch import Cancellable
from homing._sync.connection import Connection
from homing._sync.stubs import Stubs
from homing.errors import RequestError

Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)
Watch = TypeVar("Watch", bound=AbstractContextManager[Any])


class Stream(Generic[Response]):
    """The messages of a call, which any thread may close; when the call ends, another one may take its place.

    The call holds up no others: it goes over a connection for those that last.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._messages: Iterator[Response] | None = None
        self._guard = _Guard()
        weakref.finalize(self, self._guard.close)

    @property
    def closed(self) -> bool:
        """Whether it was closed, for good."""
        return self._guard.closed.is_set()

    @property
    def has_call(self) -> bool:
        """Whether there is a call to read from."""
        return self._messages is not None

    def open(
        self,
        method: Callable[[Stubs], grpc.UnaryStreamMultiCallable[Request, Response]],
        request: Request,
        *,
        deadline: Deadline = NEVER,
    ) -> None:
        """Make the call.

        :param method: Picks the method that is called.
        :param deadline: When it must be over.
        :raises ClientUseError: The client cannot be used here.
        """
        lease = self._connection.lend()

        def opened(call: Cancellable) -> None:
            if not cast("grpc.RpcContext", call).add_callback(lease.give_back):
                lease.give_back()  # it is over already
            self._guard.hold(call)

        try:
            self._messages = self._connection.stream(method(lease.stubs), request, opened=opened, deadline=deadline)
        except BaseException:
            lease.give_back()
            raise

    def read(self, limit: float | None = None) -> Response | None:
        """Wait for the next message and return it; None at the end.

        :param limit: How long to wait, in seconds; by default for ever.
        :raises TimeoutError: Nothing came in time. The call was cancelled.
        :raises RequestError: The call failed, or this was closed meanwhile.
        :raises ClientUseError: The client cannot be used here.
        """
        assert self._messages is not None
        self._connection.check()
        if limit is None:
            return next(self._messages, None)
        self._guard.expect(limit)
        try:
            return next(self._messages, None)
        except RequestError as error:
            if self._guard.silent:
                raise TimeoutError from error
            raise
        finally:
            self._guard.rest()

    def pause(self, seconds: float) -> None:
        """Sleep, but not past the end."""
        self._guard.closed.wait(seconds)

    def drop(self) -> None:
        """Read no more from the call that there is."""
        self._messages = None

    def close(self) -> None:
        """Cancel the call; who reads or sleeps stops. A forked process has nothing to close."""
        self._guard.close()


class _Guard:
    """Cancels the call of a stream: when it is closed, and by a thread when it stays silent.

    Synchronous gRPC has no limit to the wait for one message of a stream. The thread knows the guard but not its
    stream: one that nobody holds any more is collected, and that ends both.
    """

    def __init__(self) -> None:
        self._owner = os.getpid()
        self._changed = threading.Condition()
        self._call: Cancellable | None = None
        self._thread: threading.Thread | None = None
        self._due: float | None = None
        self._wakes = 0.0
        self.silent = False
        self.closed = threading.Event()

    def hold(self, call: Cancellable) -> None:
        with self._changed:
            self._call = call
            self.silent = False
            if self.closed.is_set():
                call.cancel()

    def expect(self, seconds: float) -> None:
        """Cancel the call unless the wait is over in time."""
        with self._changed:
            self._due = time.monotonic() + seconds
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="homing-watch", daemon=True)
                self._thread.start()
            elif self._due < self._wakes:
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

    def _watch(self) -> None:
        with self._changed:
            while not self.closed.is_set():
                now = time.monotonic()
                if self._due is not None and self._due <= now and self._call is not None:
                    self._due = None
                    self.silent = True
                    self._call.cancel()
                # Every wait that begins while this thread sleeps ends later, or it wakes the thread.
                self._wakes = now + watch.SILENCE_LIMIT if self._due is None else self._due
                self._changed.wait(self._wakes - now)


def subscribed(watch: Watch) -> Watch:
    """Return a watch that is subscribed."""
    watch.__enter__()
    return watch
