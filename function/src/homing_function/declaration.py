"""The decorator: a Python function becomes one of homing's."""

from __future__ import annotations

import inspect
import re
import typing
from collections.abc import AsyncGenerator as AsyncGeneratorType
from collections.abc import AsyncIterable, AsyncIterator, Callable, Generator, Iterable, Iterator
from functools import update_wrapper
from typing import Any, Final, Generic, ParamSpec, TypeVar, overload

from homing_function.context import Context
from homing_function.errors import DeclarationError
from homing_function.payload import Payload
from homing_function.response import Response
from homing_function.types import Converter, converter

P = ParamSpec("P")
R = TypeVar("R")

_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_STREAMS: Final = (Iterator, Iterable, Generator, AsyncIterator, AsyncIterable, AsyncGeneratorType)
_ANYTHING: Final = converter(Any)
_MAX_CONCURRENCY: Final = 1000


class Function(Generic[P, R]):
    """A function that can be served. Called, it does what the Python function does that it was made from."""

    name: str
    """Its name in homing."""
    concurrency: int
    """How many calls one process serves at a time."""

    def __init__(self, handler: Callable[P, R], *, name: str, concurrency: int) -> None:
        """Read what a Python function declares.

        :raises DeclarationError: It cannot be served.
        """
        self.name = name or handler.__name__.strip("_").replace("_", "-").lower()
        self.concurrency = concurrency
        self.handler = handler
        what = f"the function {handler.__qualname__}"
        if not _NAME.fullmatch(self.name):
            raise DeclarationError(f"{what} has the name {self.name!r}, which must match {_NAME.pattern}; give name=")
        if not 1 <= concurrency <= _MAX_CONCURRENCY:
            raise DeclarationError(f"{what} has concurrency {concurrency}, which must be from 1 to {_MAX_CONCURRENCY}")
        try:
            hints = typing.get_type_hints(handler, include_extras=True)
        except NameError as error:
            raise DeclarationError(f"the types of {what} cannot be found: {error}") from error
        self.context_name = ""
        """The parameter that takes the context; empty where there is none."""
        self.payload: Payload | None = None
        """The parameter that takes the payload; None where there is none."""
        for parameter in inspect.signature(handler).parameters.values():
            self._take(parameter, hints.get(parameter.name, parameter.empty), what)
        self.is_async = inspect.iscoroutinefunction(handler) or inspect.isasyncgenfunction(handler)
        self.streams = inspect.isgeneratorfunction(handler) or inspect.isasyncgenfunction(handler)
        self.output = self._output(hints.get("return", Any), what)
        """Converts what it returns, or yields, to JSON."""
        update_wrapper(self, handler)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the Python function."""
        return self.handler(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<function {self.name} of homing>"

    def _take(self, parameter: inspect.Parameter, hint: Any, what: str) -> None:
        if hint is Context:
            self.context_name = parameter.name
        elif parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise DeclarationError(f"{what} has the parameter {parameter}, and parameters are given by their names")
        elif self.payload is not None:
            raise DeclarationError(
                f"{what} has the parameters {self.payload.name} and {parameter.name}: one takes the payload, and"
                " another one may be of type Context"
            )
        else:
            try:
                self.payload = Payload.of(parameter, hint)
            except TypeError as error:
                raise DeclarationError(f"{what} has the parameter {parameter.name}: {error}") from error

    def _output(self, hint: Any, what: str) -> Converter:
        if self.streams or typing.get_origin(hint) in _STREAMS:
            arguments = typing.get_args(hint)
            hint = arguments[0] if arguments else Any
        if hint is Response or typing.get_origin(hint) is Response:
            return _ANYTHING
        try:
            return _written(hint)
        except TypeError as error:
            raise DeclarationError(f"what {what} returns: {error}") from error


def _written(hint: Any) -> Converter:
    """Return the converter of what is returned; of several types one may be a Response."""
    kinds = typing.get_args(hint)
    if kinds and Response in kinds:
        return _ANYTHING
    return converter(hint)


@overload
def function(handler: Callable[P, R], /) -> Function[P, R]: ...
@overload
def function(*, name: str = "", concurrency: int = 1) -> Callable[[Callable[P, R]], Function[P, R]]: ...
def function(
    handler: Callable[P, R] | None = None, /, *, name: str = "", concurrency: int = 1
) -> Function[P, R] | Callable[[Callable[P, R]], Function[P, R]]:
    """Make a Python function one of homing's: ``@function`` or ``@function(concurrency=8)``.

    One parameter takes the payload, as its type says; one of type :class:`Context` the call. It may be async; a plain
    one runs in a thread. A generator's items are sent as they come.

    :param name: Its name in homing; by default that of the Python function, with hyphens.
    :param concurrency: How many calls one process serves at a time; 1 to 1,000.
    :raises DeclarationError: It cannot be served.
    """

    def decorate(handler: Callable[P, R]) -> Function[P, R]:
        return Function(handler, name=name, concurrency=concurrency)

    return decorate if handler is None else decorate(handler)
