"""A handle on an invocation, for the synchronous client."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Generic

from homing._core import calls, convert
from homing._core.calls import Deadline
from homing._core.outcome import outcome_of, result_timeout
from homing._core.values import Invocation, Result
from homing._sync.connection import Connection
from homing.errors import DeadlineExceededError, UnavailableError
from homing.v1 import invocation_service_pb2

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    Out = TypeVar("Out", default=Result)
else:  # so that a plain InvocationHandle is one of a Result to type checkers, on Pythons that know no defaults
    from typing import TypeVar

    Out = TypeVar("Out")


class InvocationHandle(Generic[Out]):
    """An invocation that was accepted. It knows the id; everything else it asks the server."""

    def __init__(
        self,
        connection: Connection,
        invocation_id: str,
        decode: Callable[[Result], Out],
        *,
        seen: Invocation | None = None,
        request_id: str | None = None,
        duplicate: bool = False,
    ) -> None:
        self._connection = connection
        self._id = invocation_id
        self._decode = decode
        self._seen = seen
        self._request_id = request_id
        self._duplicate = duplicate

    def __repr__(self) -> str:
        return f"<InvocationHandle {self._id}>"

    @property
    def id(self) -> str:
        """The id of the invocation."""
        return self._id

    @property
    def function(self) -> str | None:
        """The name of the function; None while a handle that was made from an id has not asked the server."""
        return self._seen.function if self._seen else None

    @property
    def request_id(self) -> str | None:
        """The request id that ``invoke_async`` sent; None for a handle that was made from an id."""
        return self._request_id

    @property
    def duplicate(self) -> bool:
        """Whether an earlier ``invoke_async`` with the same request id made the invocation."""
        return self._duplicate

    def describe(self, *, include_payload: bool = False) -> Invocation:
        """Return the whole record as it is now.

        :param include_payload: Whether the request's payload is wanted too.
        :raises NotFoundError: There is no such invocation, or its retention is over.
        :raises RequestError: The call failed.
        """
        request = invocation_service_pb2.GetInvocationRequest(id=self._id, include_payload=include_payload)
        response = self._connection.call_again(
            self._connection.invocations.GetInvocation,
            request,
            deadline=Deadline.after(self._connection.settings.timeout),
        )
        self._seen = convert.invocation(response.invocation)
        return self._seen

    def done(self) -> bool:
        """Tell whether the invocation has ended.

        :raises RequestError: The call failed.
        """
        return (self._seen is not None and self._seen.ended) or self.describe().ended

    def wait(self, timeout: float | timedelta | None = None) -> Invocation:
        """Wait for the end and return the record, however the invocation ended.

        :param timeout: How long to wait, in seconds or as a timedelta; None waits for ever, 0 looks once.
        :raises ResultTimeoutError: It has not ended in time. It goes on; wait again, or later.
        :raises NotFoundError: There is no such invocation, or its retention is over.
        :raises RequestError: The call failed. An unavailable server is asked again until the time is over.
        """
        deadline = Deadline.of(timeout, None, zero=True)
        if self._seen is not None and self._seen.ended:
            return self._seen
        if timeout is not None and deadline.near():
            seen = self.describe()
            if seen.ended:
                return seen
            raise result_timeout(self._id, seen.function)
        while True:
            invocation = self._poll(deadline)
            if invocation is not None and invocation.ended:
                return invocation
            if deadline.remaining() == 0:
                raise result_timeout(self._id, self.function)

    def result(self, timeout: float | timedelta | None = None) -> Out:
        """Wait for the end and return the function's answer; that of a typed function as its output type.

        :param timeout: How long to wait, in seconds or as a timedelta; None waits for ever, 0 looks once.
        :raises FunctionError: The function failed; the error tells of the attempt and keeps the answer.
        :raises InvocationError: It ended without success in another way.
        :raises InvalidResultError: The answer is not of the output type.
        :raises ResultTimeoutError: It has not ended in time. It goes on; wait again, or later.
        :raises RequestError: The call failed. An unavailable server is asked again until the time is over.
        """
        return self._decode(outcome_of(self.wait(timeout)))

    def _poll(self, deadline: Deadline) -> Invocation | None:
        wait, limit = calls.poll_times(deadline)
        request = invocation_service_pb2.WaitInvocationRequest(id=self._id)
        request.timeout.FromNanoseconds(int(wait * 1e9))
        try:
            response = self._connection.call_again(
                self._connection.invocations.WaitInvocation, request, deadline=Deadline.after(limit)
            )
        except DeadlineExceededError:  # the answer is late or lost: the next poll tells
            return None
        except UnavailableError:
            if deadline.near():
                raise
            return None
        self._seen = convert.invocation(response.invocation)
        return self._seen
