# Generated from _aio/by_id.py by scripts/unasync.py; do not edit.
"""The part of the synchronous client that is about one invocation, known by its id."""

from __future__ import annotations

from typing import Any, TypeVar, overload

from homing._core import check
from homing._core.calls import UNSET, Unset
from homing._core.logs import LogLine
from homing._core.spec import Seconds
from homing._core.typed import Signature
from homing._core.values import Invocation, Result
from homing._sync.connection import Connection
from homing._sync.handle import InvocationHandle
from homing._sync.logs import LogTail

Out = TypeVar("Out")


class ById:
    """Shows an invocation, stops it, runs it again."""

    _connection: Connection

    @overload
    def handle(self, invocation_id: str) -> InvocationHandle[Result]: ...

    @overload
    def handle(self, invocation_id: str, *, output: type[Out]) -> InvocationHandle[Out]: ...

    def handle(self, invocation_id: str, *, output: type[Any] = Result) -> InvocationHandle[Any]:
        """Return a handle on an invocation, without a call.

        :param output: The type of its result, as for ``function``.
        :raises TypeError: The id is no str, or the output no type that JSON can carry.
        """
        check.text("invocation_id", invocation_id)
        return InvocationHandle(self._connection, invocation_id, Signature.of("", object, output).value)

    def get(self, invocation_id: str, *, include_payload: bool = False) -> Invocation:
        """Return the whole record of an invocation.

        :param include_payload: Whether the request's payload is wanted too.
        :raises NotFoundError: There is no such invocation, or its retention is over.
        :raises RequestError: The call failed.
        """
        return self.handle(invocation_id).describe(include_payload=include_payload)

    def stop(
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
        return self.handle(invocation_id).stop(reason=reason, timeout=timeout)

    def rerun(
        self,
        invocation_id: str,
        *,
        payload: object = UNSET,
        content_type: str | None = None,
        request_id: str | None = None,
        timeout: Seconds | Unset | None = UNSET,
    ) -> InvocationHandle:
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
        return self.handle(invocation_id).rerun(
            payload=payload, content_type=content_type, request_id=request_id, timeout=timeout
        )

    def logs(
        self, invocation_id: str, *, follow: bool = False, timeout: Seconds | Unset | None = UNSET
    ) -> LogTail[LogLine]:
        """Return the lines that the function wrote for an invocation, as ``handle(invocation_id).logs`` does.

        ::

            with client.logs(call.id, follow=True) as lines:
                for line in lines:
                    print(line.text)

        :param follow: Whether to wait for more until the invocation ends.
        :param timeout: How long to wait for a server that is away, each time, in seconds or as a timedelta; by default
            the client's.
        :raises TypeError: An argument is of the wrong type.
        :raises InvalidRequestError: An argument breaks a rule.
        """
        return self.handle(invocation_id).logs(follow=follow, timeout=timeout)
