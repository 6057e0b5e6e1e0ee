"""The synchronous client."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING

import grpc

from homing._core import check, convert, status
from homing._core.calls import UNSET, Deadline, Unset
from homing._core.outcome import outcome_of, result_timeout
from homing._core.policy import RetryPolicy
from homing._core.settings import DEFAULT_TIMEOUT, ConnectionSettings
from homing._core.spec import Query, Seconds, add_async_options, invocation_filter, invocation_spec
from homing._core.values import Invocation, InvocationState, Result
from homing._core.watch import WatchProgress
from homing._sync.connection import Connection
from homing._sync.functions import Functions
from homing._sync.handle import InvocationHandle
from homing._sync.watch import ResultWatch
from homing.errors import DeadlineExceededError, RequestError
from homing.v1 import invocation_service_pb2

if TYPE_CHECKING:
    from typing_extensions import Self


class Client:
    """A connection to a homing server. Safe to use from several threads, but not from a forked process.

    ::

        with Client("localhost:50051") as client:
            print(client.invoke("figlet", "hello").text)
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        api_key: str | None = None,
        tls_ca: str | os.PathLike[str] | None = None,
        timeout: Seconds | None = DEFAULT_TIMEOUT,
    ) -> None:
        """Make a client; it connects with its first call.

        :param target: ``HOST:PORT`` of the server; by default HOMING_TARGET, or else ``localhost:50051``.
        :param api_key: The key to show to the server; by default HOMING_API_KEY, or else none.
        :param tls_ca: A PEM file with the certificates to trust; by default HOMING_TLS_CA. With one TLS is used.
        :param timeout: The longest that a call may take where it does not say itself, in seconds or as a timedelta;
            calls that are repeated because the server is unavailable are repeated within it. None means for ever.
        :raises TypeError: An argument is of the wrong type.
        :raises InvalidRequestError: An argument breaks a rule.
        """
        self._connection = Connection(
            ConnectionSettings.read(
                target=target, api_key=api_key, tls_ca=tls_ca, timeout=timeout, environment=os.environ
            )
        )
        self._functions = Functions(self._connection)

    def __repr__(self) -> str:
        return f"<Client {self._connection.settings.target}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. Running calls end with ClosedClientError, watches just end."""
        self._connection.close()

    @property
    def functions(self) -> Functions:
        """What deploys, shows and removes functions."""
        return self._functions

    def invoke(
        self,
        function: str,
        payload: object = None,
        *,
        timeout: Seconds | Unset | None = UNSET,
        attempt_timeout: Seconds | None = None,
        content_type: str | None = None,
        method: str | None = None,
        path: str | None = None,
        query: Query | None = None,
        headers: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        retry_policy: RetryPolicy | None = None,
    ) -> Result:
        """Run a function and wait for its answer.

        The call is never repeated by itself: when the server is lost meanwhile, the outcome is unknown.

        :param function: The name of the function.
        :param payload: str goes as text, bytes as they are, None as an empty body, all else as JSON; at most 256 KiB.
        :param timeout: How long to wait, in seconds or as a timedelta; by default the client's. None waits for as long
            as the server does.
        :param attempt_timeout: How long one attempt may run; by default the function's.
        :param content_type: The media type of the payload, where it is not the usual one.
        :param method: The method of the HTTP request to the function; ``POST`` by default.
        :param path: Its path; ``/`` by default.
        :param query: Its query string, or a mapping of its parts.
        :param headers: Further headers.
        :param labels: Labels to find the invocation by.
        :param retry_policy: Which failed attempts are made again; by default the function's.
        :raises FunctionError: The function failed; the error tells of the attempt and keeps the answer.
        :raises InvocationError: The invocation ended without success in another way.
        :raises ResultTimeoutError: There was no answer in time. What has not started by then never starts.
        :raises TypeError: An argument is of the wrong type.
        :raises InvalidRequestError: An argument breaks a rule.
        :raises NotFoundError: There is no such function.
        :raises RequestError: The call failed.
        """
        deadline = Deadline.of(timeout, self._connection.settings.timeout)
        spec = invocation_spec(
            function=function,
            payload=payload,
            content_type=content_type,
            method=method,
            path=path,
            query=query,
            headers=headers,
            labels=labels,
            retry_policy=retry_policy,
            attempt_timeout=attempt_timeout,
        )
        request = invocation_service_pb2.InvokeRequest(spec=spec)
        try:
            response = self._connection.call(self._connection.invocations.Invoke, request, deadline=deadline)
        except DeadlineExceededError as err:
            raise result_timeout(_told_id(err), function) from err
        return outcome_of(convert.invocation(response.invocation))

    def invoke_async(
        self,
        function: str,
        payload: object = None,
        *,
        callback_url: str | None = None,
        callback_headers: Mapping[str, str] | None = None,
        request_id: str | None = None,
        max_age: Seconds | None = None,
        schedule_time: datetime | None = None,
        delay: Seconds | None = None,
        timeout: Seconds | Unset | None = UNSET,
        attempt_timeout: Seconds | None = None,
        content_type: str | None = None,
        method: str | None = None,
        path: str | None = None,
        query: Query | None = None,
        headers: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        retry_policy: RetryPolicy | None = None,
    ) -> InvocationHandle:
        """Have a function run later; return once that is durably accepted.

        A request id always goes along, so the call is repeated safely while the server is unavailable.

        :param function: The name of the function.
        :param payload: str goes as text, bytes as they are, None as an empty body, all else as JSON; at most 256 KiB.
        :param callback_url: An http or https URL that receives the function's output.
        :param callback_headers: Further headers of the callback.
        :param request_id: An id of your choice, at most 128 printable characters: the same id with the same content
            is the same invocation. By default a new one.
        :param max_age: How long the invocation may wait for its first start; by default the function's.
        :param schedule_time: When to start it, as a datetime with a time zone; by default now.
        :param delay: How long from now to start it, in place of schedule_time.
        :param timeout: How long the acceptance may take, in seconds or as a timedelta; by default the client's.
        :param attempt_timeout: How long one attempt may run; by default the function's.
        :param content_type: The media type of the payload, where it is not the usual one.
        :param method: The method of the HTTP request to the function; ``POST`` by default.
        :param path: Its path; ``/`` by default.
        :param query: Its query string, or a mapping of its parts.
        :param headers: Further headers.
        :param labels: Labels to find the invocation by.
        :param retry_policy: Which failed attempts are made again; by default the function's.
        :raises TypeError: An argument is of the wrong type.
        :raises InvalidRequestError: An argument breaks a rule.
        :raises NotFoundError: There is no such function.
        :raises AlreadyExistsError: The request id was used before, with other content.
        :raises RequestError: The call failed. Where it may have been accepted, the error's ``request_id`` makes
            another try safe.
        """
        deadline = Deadline.of(timeout, self._connection.settings.timeout)
        spec = invocation_spec(
            function=function,
            payload=payload,
            content_type=content_type,
            method=method,
            path=path,
            query=query,
            headers=headers,
            labels=labels,
            retry_policy=retry_policy,
            attempt_timeout=attempt_timeout,
        )
        add_async_options(
            spec,
            callback_url=callback_url,
            callback_headers=callback_headers,
            max_age=max_age,
            schedule_time=schedule_time,
            delay=delay,
        )
        chosen = str(uuid.uuid4()) if request_id is None else check.text("request_id", request_id)
        request = invocation_service_pb2.InvokeAsyncRequest(spec=spec, request_id=chosen)
        try:
            response = self._connection.call_again(self._connection.invocations.InvokeAsync, request, deadline=deadline)
        except RequestError as err:
            err.request_id = chosen
            raise
        return InvocationHandle(
            self._connection,
            response.invocation.id,
            seen=convert.invocation(response.invocation),
            request_id=chosen,
            duplicate=response.duplicate,
        )

    def handle(self, invocation_id: str) -> InvocationHandle:
        """Return a handle on an invocation, without a call.

        :raises TypeError: The id is no str.
        """
        return InvocationHandle(self._connection, check.text("invocation_id", invocation_id))

    def get(self, invocation_id: str, *, include_payload: bool = False) -> Invocation:
        """Return the whole record of an invocation.

        :param include_payload: Whether the request's payload is wanted too.
        :raises NotFoundError: There is no such invocation, or its retention is over.
        :raises RequestError: The call failed.
        """
        return self.handle(invocation_id).describe(include_payload=include_payload)

    def watch_results(
        self,
        *,
        function: str | Iterable[str] | None = None,
        states: Iterable[InvocationState] | None = None,
        labels: Mapping[str, str] | None = None,
        id_prefix: str | None = None,
        resume_token: str | None = None,
        timeout: Seconds | Unset | None = UNSET,
    ) -> ResultWatch:
        """Watch for invocations that end. The watch is in place when the call returns: what ends from then on is seen.

        ::

            with client.watch_results(function="figlet") as events:
                for event in events:
                    print(event.invocation.id, event.result.text)

        Conditions that are given must all match.

        :param function: The name of a function, or several names.
        :param states: Any of these ends; by default all.
        :param labels: All of these labels.
        :param id_prefix: Ids that start so.
        :param resume_token: Goes on after the event that another watch saved it from; by default from now on.
        :param timeout: How long the subscription may take, in seconds or as a timedelta; by default the client's.
            Once it is in place, the watch reconnects for as long as it takes.
        :raises ResumeTokenExpiredError: The token is too old.
        :raises TypeError: An argument is of the wrong type.
        :raises InvalidRequestError: An argument breaks a rule.
        :raises RequestError: The subscription failed.
        """
        wanted = invocation_filter(function=function, states=states, labels=labels, id_prefix=id_prefix)
        token = "" if resume_token is None else check.text("resume_token", resume_token)
        patience = Deadline.of(timeout, self._connection.settings.timeout).remaining()
        return ResultWatch(self._connection, WatchProgress(wanted, token), patience=patience)


def _told_id(err: DeadlineExceededError) -> str | None:
    cause = err.__cause__
    if not isinstance(cause, grpc.Call):
        return None
    return status.metadata_value(cause.initial_metadata(), status.INVOCATION_ID_KEY)
