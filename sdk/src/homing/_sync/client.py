"""The synchronous client."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

import grpc

from homing._core import check, convert, status
from homing._core.batch import Batch, requests_of
from homing._core.calls import UNSET, Deadline, Unset
from homing._core.interceptors import Interceptor, checked
from homing._core.listing import ListProgress, Order, list_request
from homing._core.options import AsyncOptions, InvocationRequest, RunOptions
from homing._core.outcome import outcome_of, result_timeout
from homing._core.policy import RetryPolicy
from homing._core.settings import DEFAULT_TIMEOUT, ConnectionSettings
from homing._core.spec import Query, Seconds, invocation_filter, invocation_spec
from homing._core.typed import Signature, raw
from homing._core.values import Invocation, InvocationState, Result
from homing._core.watch import WatchProgress
from homing._sync.accepting import accept, accept_batch
from homing._sync.connection import Connection
from homing._sync.functions import Functions
from homing._sync.handle import InvocationHandle
from homing._sync.listing import InvocationList
from homing._sync.typed import TypedFunction
from homing._sync.watch import ResultWatch
from homing.errors import DeadlineExceededError, RequestError
from homing.v1 import invocation_service_pb2

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

In = TypeVar("In")
Out = TypeVar("Out")


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
        interceptors: Sequence[Interceptor] = (),
    ) -> None:
        """Make a client; it connects with its first call.

        :param target: ``HOST:PORT`` of the server; by default HOMING_TARGET, or else ``localhost:50051``.
        :param api_key: The key to show to the server; by default HOMING_API_KEY, or else none.
        :param tls_ca: A PEM file with the certificates to trust; by default HOMING_TLS_CA. With one TLS is used.
        :param timeout: The longest that a call may take where it does not say itself, in seconds or as a timedelta;
            calls that are repeated because the server is unavailable are repeated within it. None means for ever.
        :param interceptors: Callables that every call passes on its way out, the first one first; see
            ``Interceptor``.
        :raises TypeError: An argument is of the wrong type.
        :raises InvalidRequestError: An argument breaks a rule.
        """
        self._connection = Connection(
            ConnectionSettings.read(
                target=target, api_key=api_key, tls_ca=tls_ca, timeout=timeout, environment=os.environ
            ),
            checked(interceptors),
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
        request = InvocationRequest(
            function=function,
            payload=payload,
            request_id=request_id,
            callback_url=callback_url,
            callback_headers=callback_headers,
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
        **options: Unpack[RunOptions],
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
        **options: Unpack[RunOptions],
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
        **options: Unpack[RunOptions],
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
        **options: Unpack[RunOptions],
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
        **options: Unpack[RunOptions],
    ) -> Generator[Any, None, None]:
        """Run a function for each item and yield the results while items go in.

        ::

            for result in client.map("figlet", words):
                print(result.text)

        Each item is an asynchronous invocation, so a restart of the server or of workers costs time and nothing else.
        Items are taken as there is room for them: at most ``concurrency`` are under way, and at most twice as many
        are under way or wait to be handed out. The items are iterated over in
        the threads that do this, one item at a time.

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
        :param options: Options of ``invoke`` that hold for all: labels, attempt_timeout, retry_policy and so on.
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

    def list_invocations(
        self,
        *,
        function: str | Iterable[str] | None = None,
        states: Iterable[InvocationState] | None = None,
        labels: Mapping[str, str] | None = None,
        id_prefix: str | None = None,
        created_since: datetime | None = None,
        created_until: datetime | None = None,
        started_since: datetime | None = None,
        started_until: datetime | None = None,
        ended_since: datetime | None = None,
        ended_until: datetime | None = None,
        order: Order = "newest_first",
        limit: int | None = None,
        page_size: int | None = None,
        page_token: str | None = None,
        include_payload: bool = False,
        include_result: bool = False,
        timeout: Seconds | Unset | None = UNSET,
    ) -> InvocationList:
        """Return the invocations that match, fetched page by page while one iterates; the call itself fetches nothing.

        ::

            for invocation in client.list_invocations(states=[InvocationState.FAILED], limit=200):
                print(invocation.id, invocation.failure)

        Conditions that are given must all match. Pages neither repeat nor miss a record while others arrive.

        :param function: The name of a function, or several names.
        :param states: Any of these states.
        :param labels: All of these labels.
        :param id_prefix: Ids that start so.
        :param created_since: Accepted at this time or later; times are datetimes with a time zone.
        :param created_until: Accepted before this time.
        :param started_since: Started at this time or later.
        :param started_until: Started before this time.
        :param ended_since: Ended at this time or later.
        :param ended_until: Ended before this time.
        :param order: ``newest_first`` or ``oldest_first``, by the time of acceptance.
        :param limit: How many at the most; by default all.
        :param page_size: How many to fetch in one call, up to 1,000; 100 by default.
        :param page_token: Goes on where another list with the same conditions was: its ``next_page_token``.
        :param include_payload: Whether payloads are wanted.
        :param include_result: Whether results are wanted.
        :param timeout: How long fetching a page may take, in seconds or as a timedelta; by default the client's.
        :raises TypeError: An argument is of the wrong type.
        :raises InvalidRequestError: An argument breaks a rule.
        """
        request = list_request(
            function=function,
            states=states,
            labels=labels,
            id_prefix=id_prefix,
            created_since=created_since,
            created_until=created_until,
            started_since=started_since,
            started_until=started_until,
            ended_since=ended_since,
            ended_until=ended_until,
            order=order,
            page_token=page_token,
            include_payload=include_payload,
            include_result=include_result,
        )
        patience = Deadline.of(timeout, self._connection.settings.timeout).remaining()
        progress = ListProgress(request, limit=limit, page_size=page_size)
        return InvocationList(self._connection, progress, timeout=patience)

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
