"""The part of the asynchronous client that is about one invocation, known by its id."""

from __future__ import annotations

from typing import Any, TypeVar, overload

from homing._aio.connection import AsyncConnection
from homing._aio.handle import AsyncInvocationHandle
from homing._aio.logs import AsyncLogTail
from homing._core import check
from homing._core.calls import UNSET, Unset
from homing._core.logs import LogLine
from homing._core.spec import Seconds
from homing._core.typed import Signature
from homing._core.values import Invocation, Result

Out = TypeVar("Out")


class AsyncById:
    """Shows an invocation, stops it, runs it again."""

    _connection: AsyncConnection

    @overload
    def handle(self, invocation_id: str) -> AsyncInvocationHandle[Result]: ...

    @overload
    def handle(self, invocation_id: str, *, output: type[Out]) -> AsyncInvocationHandle[Out]: ...

    def handle(self, invocation_id: str, *, output: type[Any] = Result) -> AsyncInvocationHandle[Any]:
        """Return a handle on an invocation, without a call.

        :param output: The type of its result, as for ``function``.
        :raises TypeError: The id is no str, or the output no type that JSON can carry.
        """
        check.text("invocation_id", invocation_id)
        return AsyncInvocationHandle(self._connection, invocation_id, Signature.of("", object, output).value)

    async def get(self, invocation_id: str, *, include_payload: bool = False) -> Invocation:
        """Return the whole record of an invocation.

        :param include_payload: Whether the request's payload is wanted too.
        :raises NotFoundError: There is no such invocation, or its retention is over.
        :raises RequestError: The call failed.
        """
        return await self.handle(invocation_id).describe(include_payload=include_payload)

    async def stop(
        self, invocation_id: str, *, reason: str | None = None, timeout: Seconds | Unset | None = UNSET
    ) -> Invocation:
        """Stop an invocation that has not ended, as ``handle(invocation_id).stop`` does.

        :param reason: Why, for the record.
        :param timeout: How long the call may take, in seconds or as a timedelta; by default the client's.
        :returns: The record: STOPPED, or STOPPING where it is in flight and its worker decides between stop and finish.
        :raises InvocationEndedError: It has ended.
        :raises NotFoundError: There is no such invocation, or its retention is over.
        :raises RequestError: The call failed.
        """
        return await self.handle(invocation_id).stop(reason=reason, timeout=timeout)

    async def rerun(
        self,
        invocation_id: str,
        *,
        payload: object = UNSET,
        content_type: str | None = None,
        request_id: str | None = None,
        timeout: Seconds | Unset | None = UNSET,
    ) -> AsyncInvocationHandle:
        """Run an ended invocation again, as a new one; as ``handle(invocation_id).rerun`` does.

        :param payload: In place of the old one, as for ``invoke``; by default the same. None is an empty body.
        :param content_type: The media type of the payload, where it is not the usual one.
        :param request_id: The same id with the same content is the same invocation. By default a new one.
        :param timeout: How long the acceptance may take, in seconds or as a timedelta; by default the client's.
        :returns: A handle of the new invocation.
        :raises InvocationNotEndedError: It has not ended.
        :raises NotFoundError: There is no such invocation, or its function is gone.
        :raises RequestError: The call failed. Where it may have been accepted, the error's ``request_id`` makes
            another try safe.
        """
        return await self.handle(invocation_id).rerun(
            payload=payload, content_type=content_type, request_id=request_id, timeout=timeout
        )

    def logs(
        self, invocation_id: str, *, follow: bool = False, timeout: Seconds | Unset | None = UNSET
    ) -> AsyncLogTail[LogLine]:
        """Return the lines that the function wrote for an invocation, as ``handle(invocation_id).logs`` does.

        ::

            async with client.logs(call.id, follow=True) as lines:
                async for line in lines:
                    print(line.text)

        :param follow: Whether to wait for more until the invocation ends.
        :param timeout: How long to wait for a server that is away, each time, in seconds or as a timedelta; by default
            the client's.
        :raises TypeError: An argument is of the wrong type.
        :raises InvalidRequestError: An argument breaks a rule.
        """
        return self.handle(invocation_id).logs(follow=follow, timeout=timeout)
