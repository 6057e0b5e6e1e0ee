"""The chain of callables that every call passes on its way out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from google.protobuf.message import Message


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One call on its way to the server. A call that is retried passes the interceptors anew each time."""

    method: str
    """The name of the method, for example ``InvokeAsync``."""
    request: Message = field(repr=False)
    """The message that is sent, one of ``homing.v1``; to be replaced, not changed."""
    metadata: tuple[tuple[str, str | bytes], ...] = field(default=(), repr=False)
    """The metadata that go along; names in lower case, values of names that end with ``-bin`` are bytes."""
    timeout: float | None = None
    """The seconds that are left for it; None for any number, as for streams."""

    def with_metadata(self, name: str, value: str | bytes) -> Call:
        """Return the same call with further metadata."""
        return replace(self, metadata=(*self.metadata, (name, value)))


Interceptor = Callable[[Call, Callable[[Call], Any]], Any]
"""Gets a call and what makes it; returns the response, of a stream an iterator of responses."""
AsyncInterceptor = Callable[[Call, Callable[[Call], Awaitable[Any]]], Awaitable[Any]]
"""The same for AsyncClient: a coroutine function; the response of a stream is an async iterator."""


def checked(interceptors: Sequence[Callable[..., Any]]) -> tuple[Callable[..., Any], ...]:
    """Return the interceptors of a client.

    :raises TypeError: One cannot be called.
    """
    if isinstance(interceptors, str) or not isinstance(interceptors, Sequence):
        raise TypeError(f"interceptors must be a list of callables, not {type(interceptors).__name__}")
    for place, interceptor in enumerate(interceptors):
        if not callable(interceptor):
            raise TypeError(f"interceptors[{place}] must be callable, not {type(interceptor).__name__}")
    return tuple(interceptors)


def chain(interceptors: Sequence[Callable[..., Any]], last: Callable[[Call], Any]) -> Callable[[Call], Any]:
    """Return what passes a call through all interceptors, the first one outermost, and then makes it."""
    for interceptor in reversed(interceptors):
        last = _link(interceptor, last)
    return last


def _link(interceptor: Callable[..., Any], following: Callable[[Call], Any]) -> Callable[[Call], Any]:
    return lambda call: interceptor(call, following)


def call_of(request: Message, metadata: Sequence[tuple[str, str]], timeout: float | None) -> Call:
    """Return a call of the method that a request belongs to: requests bear the names of their methods."""
    name = request.DESCRIPTOR.name.removesuffix("Request")
    return Call(method=name, request=request, metadata=tuple(metadata), timeout=timeout)
