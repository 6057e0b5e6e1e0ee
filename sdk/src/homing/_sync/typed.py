# Generated from _aio/typed.py by scripts/unasync.py; do not edit.
"""Functions with types, for the synchronous client."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from datetime import timedelta
from typing import Generic, Literal, TypeVar, Unpack, overload

from homing._core.batch import Batch
from homing._core.calls import UNSET, Deadline, Unset
from homing._core.mapping import checked_concurrency
from homing._core.options import AsyncOptions, InvocationRequest, RunOptions
from homing._core.typed import Signature
from homing._core.values import Result
from homing._sync.accepting import accept, accept_batch
from homing._sync.connection import Connection
from homing._sync.handle import InvocationHandle
from homing._sync.mapping import map_items
from homing.errors import RequestError

In = TypeVar("In")
Out = TypeVar("Out")


class TypedFunction(Generic[In, Out]):
    """A function with the types of what it takes and gives. Made by ``client.function``.

    ::

        resize = client.function("resize", input=ResizeIn, output=ResizeOut)
        small = resize(ResizeIn(width=10))

    A value that is not of the input type is an InvalidRequestError that names the field, before anything is sent. An
    answer that is not of the output type is an InvalidResultError that keeps the answer.
    """

    def __init__(self, connection: Connection, invoke: Callable[..., Result], signature: Signature[In, Out]) -> None:
        self._connection = connection
        self._invoke = invoke
        self._signature = signature

    def __repr__(self) -> str:
        return f"<TypedFunction {self.name}>"

    @property
    def name(self) -> str:
        """The name of the function."""
        return self._signature.function

    def __call__(
        self, value: In, /, *, timeout: float | timedelta | Unset | None = UNSET, **options: Unpack[RunOptions]
    ) -> Out:
        """Run the function and wait for its answer, as ``client.invoke`` does; the options are the same.

        :raises InvalidRequestError: The value is not of the input type, or an option breaks a rule.
        :raises InvalidResultError: The answer is not of the output type.
        :raises InvocationError: The invocation ended without success.
        :raises ResultTimeoutError: There was no answer in time.
        :raises RequestError: The call failed.
        """
        payload, content_type = self._signature.payload(value)
        options.setdefault("content_type", content_type)
        return self._signature.value(self._invoke(self.name, payload, timeout=timeout, **options))

    def invoke_async(
        self,
        value: In,
        /,
        *,
        request_id: str | None = None,
        timeout: float | timedelta | Unset | None = UNSET,
        **options: Unpack[AsyncOptions],
    ) -> InvocationHandle[Out]:
        """Have the function run later, as ``client.invoke_async`` does; the options are the same.

        :raises InvalidRequestError: The value is not of the input type, or an option breaks a rule.
        :raises RequestError: The call failed.
        """
        deadline = Deadline.of(timeout, self._connection.settings.timeout)
        request = self._request(value, request_id, options)
        return accept(self._connection, request, self._signature.value, deadline=deadline)

    def invoke_batch(
        self,
        values: Iterable[In],
        /,
        *,
        timeout: float | timedelta | Unset | None = UNSET,
        **options: Unpack[AsyncOptions],
    ) -> list[InvocationHandle[Out] | RequestError]:
        """Have the function run later for each value, as ``client.invoke_batch`` does; the options are the same.

        :raises InvalidRequestError: A value is not of the input type; nothing was sent.
        """
        deadline = Deadline.of(timeout, self._connection.settings.timeout)
        batch = Batch([self._request(value, None, options) for value in values])
        return accept_batch(self._connection, batch, self._signature.value, deadline=deadline)

    @overload
    def map(
        self,
        values: Iterable[In],
        /,
        *,
        concurrency: int = ...,
        ordered: bool = ...,
        return_exceptions: Literal[False] = ...,
        timeout: float | timedelta | None = ...,
        **options: Unpack[AsyncOptions],
    ) -> Generator[Out, None, None]: ...

    @overload
    def map(
        self,
        values: Iterable[In],
        /,
        *,
        concurrency: int = ...,
        ordered: bool = ...,
        return_exceptions: bool,
        timeout: float | timedelta | None = ...,
        **options: Unpack[AsyncOptions],
    ) -> Generator[Out | Exception, None, None]: ...

    def map(
        self,
        values: Iterable[In],
        /,
        *,
        concurrency: int = 50,
        ordered: bool = True,
        return_exceptions: bool = False,
        timeout: float | timedelta | None = None,
        **options: Unpack[AsyncOptions],
    ) -> Generator[Out | Exception, None, None]:
        """Run the function for each value and yield the outputs, as ``client.map`` does; the options are the same.

        A value that is not of the input type, or an answer not of the output type, fails like any other.
        """
        usual = self._connection.settings.timeout
        seconds = Deadline.of(timeout, None).remaining()

        def run(value: In) -> Out:
            end = Deadline.after(seconds)
            handle = accept(
                self._connection,
                self._request(value, None, options),
                self._signature.value,
                deadline=Deadline.earlier(usual, seconds),
            )
            return handle.result(end.remaining())

        return map_items(
            run,
            values,
            concurrency=checked_concurrency(concurrency),
            ordered=ordered,
            return_exceptions=return_exceptions,
        )

    def _request(self, value: In, request_id: str | None, options: AsyncOptions) -> InvocationRequest:
        payload, content_type = self._signature.payload(value)
        given: AsyncOptions = {"content_type": content_type, **options}
        return InvocationRequest(function=self.name, payload=payload, request_id=request_id, **given)
