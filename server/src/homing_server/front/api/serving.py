"""Serves calls, whatever they come by: so many at a time, within bounds, ended with their keys, told to the audit."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Self, TypeVar

from homing_server.auth import audit
from homing_server.auth.refusals import Refusals
from homing_server.errors import ApiError, slow_consumer
from homing_server.front.api.caller import caller
from homing_server.front.api.calls import Calls
from homing_server.front.api.context import CallContext, Responses
from homing_server.front.api.status import told
from homing_server.rules.bounds import check_bounds

UNREAD_SECONDS = 30.0
"""A stream whose reader takes no message for so long is cut off."""

_ANSWERS: Final = frozenset({"/homing.v1.InvocationService/InvokeStream"})
"""Streams that wait for their readers: nothing piles up meanwhile, since who writes them waits too."""

T = TypeVar("T")
R = TypeVar("R")
Behaviour = Callable[[Any, Any], Any]
"""What a service does with a request, or an iterator over requests, and the context of the call."""
Read = Callable[[R], Awaitable[Any]]
"""Makes the request, or an iterator over requests, from what came."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """What is done in a call."""

    name: str
    """As gRPC has it, `/SERVICE/METHOD`."""
    behaviour: Behaviour
    operates: bool
    """Whether it is a control action."""
    audited: Callable[[Any], AbstractContextManager[object]]
    """What a request is served in."""

    @classmethod
    def of(cls, name: str, behaviour: Behaviour, *, streams_in: bool = False) -> Self:
        """Return what a service does under a name.

        :param streams_in: Whether it takes a stream of requests; each of these has bounds of its own then.
        """
        operates = audit.is_control(name)
        return cls(
            name=name,
            behaviour=behaviour if streams_in else _bounded(behaviour),
            operates=operates,
            audited=partial(_audit, name) if operates else contextlib.nullcontext,
        )


class Serving:
    """Serves calls in the tasks that ask for it, once it is known who calls."""

    def __init__(self, calls: Calls, refusals: Refusals) -> None:
        """Prepare to serve.

        :param calls: Bound the calls that are under way.
        :param refusals: Tells of calls for which a key is missing, or which are too many.
        """
        self.calls: Final = calls
        self.refusals: Final = refusals

    async def answer(self, method: Method, read: Read[R], raw: R, context: CallContext) -> Any:
        """Serve a call that has one answer, and return it.

        :raises Exception: Whatever it fails with: `failed` makes of it what the caller is told.
        """
        with self.calls.serving(caller(), operates=method.operates) as call:
            with call:
                request = await read(raw)
            with method.audited(request), call:
                return await method.behaviour(request, context)

    async def stream(self, method: Method, read: Read[R], raw: R, context: CallContext, out: Responses) -> None:
        """Serve a call that is answered by a stream.

        :raises Exception: Whatever it fails with: `failed` makes of it what the caller is told.
        """
        with self.calls.serving(caller(), operates=method.operates) as call:
            with call:
                request = await read(raw)
            with method.audited(request), call:
                unread = None if method.name in _ANSWERS else UNREAD_SECONDS
                await write_all(method.behaviour(request, context), out, unread=unread)

    def failed(self, error: Exception, *, method: str, host: str) -> ApiError:
        """Return what a caller is told of an error; audit log and log are told what concerns them.

        :param method: What was called.
        :param host: Where the call comes from.
        """
        self.refusals.note(error, peer=host, what=method)
        return told(error, method)


async def write_all(
    responses: AsyncGenerator[Any, None], out: Responses, *, unread: float | None = UNREAD_SECONDS
) -> None:
    """Send what comes, as it comes.

    :param unread: So many seconds a message may wait for its reader; None for ever.
    :raises ApiError: RESOURCE_EXHAUSTED: nobody reads it.
    """
    # Whoever goes away leaves nothing behind that still works, or waits.
    begun = False
    async with contextlib.aclosing(responses):
        async for response in responses:
            if not begun:
                await out.begin()
                begun = True
            try:
                async with asyncio.timeout(unread):
                    await out.write(response)
            except TimeoutError:
                raise slow_consumer(UNREAD_SECONDS) from None


def _bounded(behaviour: Callable[[Any, Any], T]) -> Callable[[Any, Any], T]:
    """Return what a call does, which sees no request with more entries in its lists than they may have."""

    def bounded(request: Any, context: CallContext) -> T:
        check_bounds(request)
        return behaviour(request, context)

    return bounded


@contextlib.contextmanager
def _audit(method: str, request: Any) -> Iterator[None]:
    """Write the audit line of a control action at its end."""
    identity = caller()
    outcome = "CANCELLED"
    try:
        yield
        outcome = "OK"
    except ApiError as error:
        outcome = error.code.name
        raise
    except Exception:
        outcome = "INTERNAL"
        raise
    finally:
        audit.log_action(method, caller=identity.name, request=request, outcome=outcome)
