"""A handle on an invocation, for the asynchronous client."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Generic

from homing._aio.bodies import send_large, whole
from homing._aio.connection import AsyncConnection
from homing._aio.logs import AsyncLogTail
from homing._core import calls, check, control, convert
from homing._core.calls import UNSET, Deadline, Unset
from homing._core.logs import LogLine, LogProgress
from homing._core.outcome import outcome_of, result_timeout
from homing._core.spec import Seconds
from homing._core.values import Invocation, Result
from homing.errors import DeadlineExceededError, InvocationEndedError, RequestError, UnavailableError
from homing.v1 import invocation_service_pb2

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    Out = TypeVar("Out", default=Result)
else:  # so that a plain AsyncInvocationHandle is one of a Result to type checkers, on Pythons that know no defaults
    from typing import TypeVar

    Out = TypeVar("Out")


class AsyncInvocationHandle(Generic[Out]):
    """An invocation that was accepted. It knows the id; everything else it asks the server."""

    def __init__(
        self,
        connection: AsyncConnection,
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
        return f"<AsyncInvocationHandle {self._id}>"

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

    async def describe(self, *, include_payload: bool = False) -> Invocation:
        """Return the whole record as it is now.

        :param include_payload: Whether the request's payload is wanted too.
        :raises NotFoundError: There is no such invocation, or its retention is over.
        :raises RequestError: The call failed.
        """
        return await self._whole(await self._get(deadline=self._deadline(), include_payload=include_payload))

    async def done(self) -> bool:
        """Tell whether the invocation has ended.

        :raises RequestError: The call failed.
        """
        return (self._seen is not None and self._seen.ended) or (await self._get(deadline=self._deadline())).ended

    async def wait(self, timeout: Seconds | None = None) -> Invocation:
        """Wait for the end and return the record, however the invocation ended.

        :param timeout: How long to wait, in seconds or as a timedelta; None waits for ever, 0 looks once.
        :raises ResultTimeoutError: It has not ended in time. It goes on; wait again, or later.
        :raises NotFoundError: There is no such invocation, or its retention is over.
        :raises RequestError: The call failed. An unavailable server is asked again until the time is over.
        """
        deadline = Deadline.of(timeout, None, zero=True)
        if self._seen is not None and self._seen.ended:
            return await self._whole(self._seen)
        if timeout is not None and deadline.near():
            seen = await self.describe()
            if seen.ended:
                return seen
            raise result_timeout(self._id, seen.function)
        return await self._polled(deadline)

    async def result(self, timeout: Seconds | None = None) -> Out:
        """Wait for the end and return the function's answer; that of a typed function as its output type.

        :param timeout: How long to wait, in seconds or as a timedelta; None waits for ever, 0 looks once.
        :raises FunctionError: The function failed; the error tells of the attempt and keeps the answer.
        :raises InvocationError: It ended without success in another way.
        :raises InvalidResultError: The answer is not of the output type.
        :raises ResultTimeoutError: It has not ended in time. It goes on; wait again, or later.
        :raises RequestError: The call failed. An unavailable server is asked again until the time is over.
        """
        return self._decode(outcome_of(await self.wait(timeout)))

    async def stop(self, *, reason: str | None = None, timeout: Seconds | Unset | None = UNSET) -> Invocation:
        """Stop the invocation, which must not have ended.

        Repeated while the server is unavailable: where a try whose answer was lost has stopped it, that is a success.

        :param reason: Why, for the record.
        :param timeout: How long the call may take, in seconds or as a timedelta; by default the client's.
        :returns: The record: STOPPED, or STOPPING where it is in flight and its worker decides between stop and finish.
        :raises InvocationEndedError: It has ended.
        :raises NotFoundError: There is no such invocation, or its retention is over.
        :raises RequestError: The call failed.
        """
        deadline = Deadline.of(timeout, self._connection.settings.timeout)
        request = control.stop_request(self._id, reason)
        tries = 0

        async def once() -> Invocation:
            nonlocal tries
            tries += 1
            try:
                response = await self._connection.call(
                    self._connection.invocations.StopInvocation, request, deadline=deadline
                )
            except InvocationEndedError as error:
                if control.stopped_by_earlier_try(tries, error):
                    return await self.describe()
                raise
            return convert.invocation(response.invocation)

        self._seen = await self._connection.retry(once, deadline=deadline)
        return self._seen

    async def rerun(
        self,
        *,
        payload: object = UNSET,
        content_type: str | None = None,
        request_id: str | None = None,
        timeout: Seconds | Unset | None = UNSET,
    ) -> AsyncInvocationHandle[Out]:
        """Run the invocation, which must have ended, again as a new one.

        A request id always goes along, so the call is idempotent and is retried while the server is unavailable.

        :param payload: In place of the old one, as for ``client.invoke``; by default the same. None is an empty body.
        :param content_type: The media type of the payload, where it is not the usual one.
        :param request_id: The same id with the same content is the same invocation. By default a new one.
        :param timeout: How long the acceptance may take, in seconds or as a timedelta; by default the client's.
        :returns: A handle of the new invocation, whose ``rerun_of`` is the id of this one.
        :raises InvocationNotEndedError: It has not ended.
        :raises NotFoundError: There is no such invocation, or its function is gone.
        :raises RequestError: The call failed. Where it may have been accepted, the error's ``request_id`` makes
            another try safe.
        """
        deadline = Deadline.of(timeout, self._connection.settings.timeout)
        request = control.rerun_request(self._id, payload=payload, content_type=content_type, request_id=request_id)
        try:
            await send_large(self._connection, request.payload, deadline=deadline)
            response = await self._connection.call_idempotent(
                self._connection.invocations.RerunInvocation, request, deadline=deadline
            )
        except RequestError as err:
            err.request_id = request.request_id
            raise
        return AsyncInvocationHandle(
            self._connection,
            response.invocation.id,
            self._decode,
            seen=convert.invocation(response.invocation),
            request_id=request.request_id,
            duplicate=response.duplicate,
        )

    def logs(self, *, follow: bool = False, timeout: Seconds | Unset | None = UNSET) -> AsyncLogTail[LogLine]:
        """Return the lines that the function wrote for this invocation, from the first one on.

        ::

            async with call.logs(follow=True) as lines:
                async for line in lines:
                    print(line.text)

        :param follow: Whether to wait for more until the invocation ends.
        :param timeout: How long to wait for a server that is away, each time, in seconds or as a timedelta; by default
            the client's.
        :raises TypeError: An argument is of the wrong type.
        :raises InvalidRequestError: An argument breaks a rule.
        """
        seconds = Deadline.of(timeout, self._connection.settings.timeout).remaining()
        return AsyncLogTail(
            self._connection,
            LogProgress(self._id, follow=check.flag("follow", follow)),
            method=lambda stubs: stubs.logs.TailLogs,
            find_server=lambda: self._get(deadline=Deadline.after(seconds)),
        )

    def _deadline(self) -> Deadline:
        return Deadline.after(self._connection.settings.timeout)

    async def _whole(self, invocation: Invocation) -> Invocation:
        """Return a record with the bodies that were not in it."""
        self._seen = await whole(self._connection, invocation, deadline=self._deadline())
        return self._seen

    async def _get(self, *, deadline: Deadline, include_payload: bool = False) -> Invocation:
        request = invocation_service_pb2.GetInvocationRequest(
            id=self._id, include_payload=check.flag("include_payload", include_payload)
        )
        response = await self._connection.call_idempotent(
            self._connection.invocations.GetInvocation, request, deadline=deadline
        )
        self._seen = convert.invocation(response.invocation)
        return self._seen

    async def _polled(self, deadline: Deadline) -> Invocation:
        away: UnavailableError | None = None
        while True:
            try:
                invocation = await self._poll(deadline)
            except DeadlineExceededError:  # the answer is late or lost: the next poll tells
                pass
            except UnavailableError as error:
                away = error
            else:
                away = None
                if invocation.ended:
                    return await self._whole(invocation)
            if away is not None and deadline.near():
                raise away
            if deadline.remaining() == 0:
                raise result_timeout(self._id, self.function)

    async def _poll(self, deadline: Deadline) -> Invocation:
        wait, limit = calls.poll_times(deadline)
        request = invocation_service_pb2.WaitInvocationRequest(id=self._id)
        request.timeout.FromNanoseconds(int(wait * 1e9))
        with self._connection.lasting() as invocations:
            response = await self._connection.call_idempotent(
                invocations.WaitInvocation, request, deadline=Deadline.after(limit)
            )
        self._seen = convert.invocation(response.invocation)
        return self._seen
