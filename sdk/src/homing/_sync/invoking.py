# Generated from _aio/invoking.py by scripts/unasync.py; do not edit.
"""The part of the synchronous client that runs functions."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from datetime import datetime
from typing import Any, Literal, TypeVar, Unpack, overload

from homing._core import convert, status
from homing._core.batch import Batch, requests_of
from homing._core.calls import UNSET, Deadline, Unset
from homing._core.destinations import Destinations
from homing._core.headers import HeaderValues
from homing._core.options import AsyncOptions, InvocationRequest
from homing._core.outcome import outcome_of, result_timeout
from homing._core.policy import RetryPolicy
from homing._core.spec import Query, Seconds, invocation_spec
from homing._core.typed import Signature, raw
from homing._core.values import Result
from homing._sync.accepting import accept, accept_batch
from homing._sync.answer_stream import AnswerStream
from homing._sync.bodies import send_large, whole
from homing._sync.connection import Connection
from homing._sync.handle import InvocationHandle
from homing._sync.typed import TypedFunction
from homing.errors import DeadlineExceededError, RequestError
from homing.v1 import invocation_service_pb2

In = TypeVar("In")
Out = TypeVar("Out")


class Invoking:
    """Runs functions now or later, one or many."""

    _connection: Connection

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
        headers: HeaderValues | None = None,
        labels: Mapping[str, str] | None = None,
        retry_policy: RetryPolicy | None = None,
        call_id: str | None = None,
    ) -> Result:
        """Run a function and wait for its answer.

        The call is never retried by itself: when the server is lost meanwhile, the outcome is unknown. Breaking the
        wait off stops the function.

        :param function: The name of the function.
        :param payload: str goes as text, bytes as they are, None as an empty body, all else as JSON; at most 64 MiB.
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
        :param call_id: What ``X-Call-Id`` shows to the function and to receivers of the outcome, at most 128 printable
            ASCII characters without spaces; by default the id of the invocation. Several may bear one, and what an
            outcome causes inherits it.
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
            call_id=call_id,
        )
        send_large(self._connection, spec.payload, deadline=deadline)
        request = invocation_service_pb2.InvokeRequest(spec=spec)
        try:
            with self._connection.lasting() as invocations:
                response = self._connection.call(invocations.Invoke, request, deadline=deadline)
        except RequestError as err:
            err.invocation_id = status.invocation_id(err)
            if isinstance(err, DeadlineExceededError):
                raise result_timeout(err.invocation_id, function) from err
            raise
        ended = convert.invocation(response.invocation)
        return outcome_of(whole(self._connection, ended, deadline=deadline))

    def invoke_stream(
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
        headers: HeaderValues | None = None,
        labels: Mapping[str, str] | None = None,
        retry_policy: RetryPolicy | None = None,
        call_id: str | None = None,
    ) -> AnswerStream:
        """Run a function and read its answer as it comes, of whatever size it is.

        ::

            with client.invoke_stream("chat", "hello") as answer:
                print(answer.status_code, answer.content_type)
                for chunk in answer:
                    print(chunk)

        Entering the context runs the function and waits for the head of its answer; a failure until then is raised
        there, as ``invoke`` raises it. An answer that breaks off later raises in the iteration. Leaving the context
        before the end stops the function. The record keeps the first 256 KiB.

        :param function: The name of the function.
        :param payload: str goes as text, bytes as they are, None as an empty body, all else as JSON; at most 64 MiB.
        :param timeout: How long to wait for the head of the answer, in seconds or as a timedelta; by default the
            client's. None waits for as long as the server does. From then on the attempt time-out counts.
        :param attempt_timeout: How long one attempt may run; by default the function's.
        :param content_type: The media type of the payload, where it is not the usual one.
        :param method: The method of the HTTP request to the function; ``POST`` by default.
        :param path: Its path; ``/`` by default.
        :param query: Its query string, or a mapping of its parts.
        :param headers: Further headers.
        :param labels: Labels to find the invocation by.
        :param retry_policy: Which failed attempts are made again, as long as no byte was passed on; by default the
            function's.
        :param call_id: What ``X-Call-Id`` shows to the function and to receivers of the outcome, at most 128 printable
            ASCII characters without spaces; by default the id of the invocation. Several may bear one, and what an
            outcome causes inherits it.
        :raises TypeError: An argument is of the wrong type.
        :raises InvalidRequestError: An argument breaks a rule.
        """
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
            call_id=call_id,
        )
        deadline = Deadline.of(timeout, self._connection.settings.timeout)
        request = invocation_service_pb2.InvokeStreamRequest(spec=spec)
        return AnswerStream(self._connection, request, deadline=deadline)

    def invoke_async(
        self,
        function: str,
        payload: object = None,
        *,
        callback_url: str | None = None,
        callback_headers: HeaderValues | None = None,
        on_success: Destinations | None = None,
        on_failure: Destinations | None = None,
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
        headers: HeaderValues | None = None,
        labels: Mapping[str, str] | None = None,
        retry_policy: RetryPolicy | None = None,
        call_id: str | None = None,
    ) -> InvocationHandle:
        """Have a function run later; return once that is durably accepted.

        A request id always goes along, so the call is idempotent and is retried while the server is unavailable.

        :param function: The name of the function.
        :param payload: str goes as text, bytes as they are, None as an empty body, all else as JSON; at most 64 MiB.
        :param callback_url: An http or https URL that receives the function's output.
        :param callback_headers: Further headers of the callback.
        :param on_success: Where its envelope goes when it succeeded, in place of the function's destinations: one URI
            or up to 8, each ``https://…``, ``http://…``, ``function:NAME`` or ``amqp:EXCHANGE/KEY``.
        :param on_failure: Where its envelope goes when it ended otherwise, in the same way.
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
        :param call_id: What ``X-Call-Id`` shows to the function and to receivers of the outcome, at most 128 printable
            ASCII characters without spaces; by default the id of the invocation. Several may bear one, and what an
            outcome causes inherits it.
        :raises TypeError: An argument is of the wrong type.
        :raises InvalidRequestError: An argument breaks a rule.
        :raises NotFoundError: There is no such function.
        :raises AlreadyExistsError: The request id was used before, with other content.
        :raises RequestError: The call failed. Where it may have been accepted, the error's ``request_id`` makes
            another try safe.
        """
        deadline = Deadline.of(timeout, self._connection.settings.timeout)
        request = InvocationRequest(
            function=function,
            payload=payload,
            request_id=request_id,
            callback_url=callback_url,
            callback_headers=callback_headers,
            on_success=on_success,
            on_failure=on_failure,
            max_age=max_age,
            schedule_time=schedule_time,
            delay=delay,
            attempt_timeout=attempt_timeout,
            content_type=content_type,
            method=method,
            path=path,
            query=query,
            headers=headers,
            labels=labels,
            retry_policy=retry_policy,
            call_id=call_id,
        )
        return accept(self._connection, request, raw, deadline=deadline)

    @overload
    def invoke_batch(
        self, what: Iterable[InvocationRequest], *, timeout: Seconds | Unset | None = ...
    ) -> list[InvocationHandle[Result] | RequestError]: ...

    @overload
    def invoke_batch(
        self,
        what: str,
        payloads: Iterable[object],
        *,
        timeout: Seconds | Unset | None = ...,
        **options: Unpack[AsyncOptions],
    ) -> list[InvocationHandle[Result] | RequestError]: ...

    def invoke_batch(
        self,
        what: str | Iterable[InvocationRequest],
        payloads: Iterable[object] | None = None,
        *,
        timeout: Seconds | Unset | None = UNSET,
        **options: Unpack[AsyncOptions],
    ) -> list[InvocationHandle[Result] | RequestError]:
        """Have many invocations run later; return when each is durably accepted or refused.

        ::

            for outcome in client.invoke_batch("figlet", ["one", "two"]):
                if isinstance(outcome, RequestError):
                    print("refused:", outcome)
                else:
                    print(outcome.id)

        There may be any number: they travel 1,000 in a call, or as many as fit into a message. Request ids always go
        along, so what the server may not have got is sent again while it is unavailable.

        Every outcome stands in the place of its request: a handle, or the error that ``invoke_async`` would have
        raised, as a value. **A RequestError is not raised here**, not even where the whole call fails, because others
        may have been accepted; its ``request_id`` makes another try safe.

        :param what: The name of a function, or the requests.
        :param payloads: With the name of a function: the payload of each invocation, as for ``invoke_async``.
        :param timeout: How long all of it may take, in seconds or as a timedelta; by default the client's.
        :param options: With the name of a function: options of ``invoke_async`` that hold for all.
        :raises TypeError: An argument or a request is of the wrong type; nothing was sent.
        :raises ClientUseError: The client cannot be used here.
        """
        deadline = Deadline.of(timeout, self._connection.settings.timeout)
        return accept_batch(self._connection, Batch(requests_of(what, payloads, options)), raw, deadline=deadline)

    @overload
    def map(
        self,
        function: str,
        items: Iterable[object],
        *,
        concurrency: int = ...,
        ordered: bool = ...,
        return_exceptions: Literal[False] = ...,
        timeout: Seconds | None = ...,
        **options: Unpack[AsyncOptions],
    ) -> Generator[Result, None, None]: ...

    @overload
    def map(
        self,
        function: str,
        items: Iterable[object],
        *,
        concurrency: int = ...,
        ordered: bool = ...,
        return_exceptions: bool,
        timeout: Seconds | None = ...,
        **options: Unpack[AsyncOptions],
    ) -> Generator[Result | Exception, None, None]: ...

    @overload
    def map(
        self,
        function: TypedFunction[In, Out],
        items: Iterable[In],
        *,
        concurrency: int = ...,
        ordered: bool = ...,
        return_exceptions: Literal[False] = ...,
        timeout: Seconds | None = ...,
        **options: Unpack[AsyncOptions],
    ) -> Generator[Out, None, None]: ...

    @overload
    def map(
        self,
        function: TypedFunction[In, Out],
        items: Iterable[In],
        *,
        concurrency: int = ...,
        ordered: bool = ...,
        return_exceptions: bool,
        timeout: Seconds | None = ...,
        **options: Unpack[AsyncOptions],
    ) -> Generator[Out | Exception, None, None]: ...

    def map(
        self,
        function: str | TypedFunction[Any, Any],
        items: Iterable[Any],
        *,
        concurrency: int = 50,
        ordered: bool = True,
        return_exceptions: bool = False,
        timeout: Seconds | None = None,
        **options: Unpack[AsyncOptions],
    ) -> Generator[Any, None, None]:
        """Run a function for each item and yield the results while items go in.

        ::

            for result in client.map("figlet", words):
                print(result.text)

        Each item is an asynchronous invocation, so a restart of the server or of workers costs time and nothing else.
        Items are taken as there is room for them: at most ``concurrency`` are under way, and at most twice as many
        are under way or wait to be handed out.
        The items are iterated over in the threads that do this, one item at a time.

        The first failure is raised, and from then on no further item is taken or submitted. What was submitted before
        runs to its end; its results are dropped. In order, a failure is raised in its place, after the results of the
        items before it; as completed, at once. Closing the iterator early also submits nothing more.

        :param function: The name of a function, or one that ``function`` returned: then its outputs are yielded.
        :param items: The payloads, or the inputs of the typed function.
        :param concurrency: How many invocations are under way at a time, 1 to 1,000.
        :param ordered: Whether results come in the order of the items; otherwise as they are completed.
        :param return_exceptions: Whether failures of single items are yielded in place of their results; then the map
            goes on. Errors of ``items`` itself and of the use of the client are raised nevertheless.
        :param timeout: How long to wait for each item, in seconds or as a timedelta; by default for ever. To be
            accepted an item has no longer than the client's timeout.
        :param options: Options of ``invoke_async`` that hold for all: labels, on_success, retry_policy and so on.
        :raises TypeError: An argument is of the wrong type.
        :raises InvalidRequestError: An argument or an item breaks a rule.
        :raises InvocationError: An invocation ended without success.
        :raises ResultTimeoutError: An invocation did not end in time.
        :raises InvalidResultError: The answer of a typed function is not of its output type.
        :raises RequestError: A call failed.
        """
        if not isinstance(function, TypedFunction):
            function = self.function(function, input=object, output=Result)
        return function.map(
            items,
            concurrency=concurrency,
            ordered=ordered,
            return_exceptions=return_exceptions,
            timeout=timeout,
            **options,
        )

    def function(self, name: str, *, input: type[In], output: type[Out]) -> TypedFunction[In, Out]:  # noqa: A002
        """Return a callable for a function with the types of what it takes and gives, without a call.

        Types are dataclasses, TypedDicts, pydantic models, enums, datetimes, UUIDs and the like, and lists, tuples,
        dicts, unions and optionals of them; they travel as JSON. str and bytes travel as they are; ``object`` as an
        input is what ``invoke`` takes, ``Result`` as an output what it returns.

        :param name: The name of the function.
        :param input: The type of its input.
        :param output: The type of its output.
        :raises TypeError: A type is none that JSON can carry, or the name no str.
        """
        return TypedFunction(self._connection, self.invoke, Signature.of(name, input, output))
