"""Who calls, and what they may do: their scopes, and what a key that is limited to functions may see and do.

The front finds out who calls and passes the identity on, to all that has to check it. There is no default: what was not
told who calls can do nothing for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Final

from homing.v1 import function_pb2
from homing.v1.dead_letter_pb2 import DeadLetterFilter
from homing.v1.invocation_pb2 import InvocationFilter, InvocationSpec
from homing.v1.key_service_pb2 import SCOPE_INVOKE, SCOPE_READ, Key, Scope
from homing_core.clock import now_us
from homing_server.auth.rate_limit import TokenBucket
from homing_server.auth.scopes import ALL_SCOPES, Scopes, scopes_of, shown_scope
from homing_server.errors import (
    ApiError,
    function_not_allowed,
    key_expired,
    key_limited,
    key_missing,
    key_missing_for,
    key_revoked,
    not_served,
    rate_limited,
    scope_missing,
)

_OPEN_OPTIONS: Final = frozenset({"function", "payload", "http", "call_id"})
"""What a call without a key may say."""


End = Callable[[ApiError], None]
"""Ends a call with an error."""


@dataclass(kw_only=True, slots=True)
class KeyState:
    """What changes of a key while it is in use."""

    bucket: TokenBucket = field(default_factory=TokenBucket)
    revoked: bool = False
    """Whether it was revoked after it was shown."""
    calls: set[End] = field(default_factory=set)
    """What ends the calls that are under way for it."""

    def revoke(self) -> None:
        """End what is under way for it."""
        self.revoked = True
        for end in list(self.calls):
            end(key_revoked())


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """Who calls."""

    name: str
    """What records, stop requests and audit lines show as the caller."""
    scopes: Scopes
    functions: frozenset[str] = frozenset()
    """The functions that it may have to do with; empty for all."""
    max_per_second: float = 0.0
    """How many calls and invocations in a second it may make; 0 for any number."""
    expire_us: int = 0
    """When its key ends, in microseconds since the epoch; 0 where it does not."""
    known: bool = True
    """Whether it showed a key that is good, or none is needed."""
    state: KeyState = field(default_factory=KeyState, repr=False, compare=False)

    def check_in_force(self) -> None:
        """Check that its key has neither ended nor been revoked.

        :raises ApiError: UNAUTHENTICATED.
        """
        if self.expire_us and now_us() >= self.expire_us:
            raise key_expired(self.name)
        if self.state.revoked:
            raise key_revoked()

    def ending(self, end: End) -> AbstractContextManager[None]:
        """Return a context in which a call is ended once its key has ended, or was revoked.

        To enter it raises ApiError, UNAUTHENTICATED, where that is so already.
        """
        return _Ending(self, end)

    def take(self, number: int = 1) -> None:
        """Count calls.

        :raises ApiError: RESOURCE_EXHAUSTED: there were too many lately.
        """
        wait = self.take_or_wait(number)
        if wait:
            raise rate_limited(self.name, self.max_per_second, wait)

    def take_or_wait(self, number: int) -> float:
        """Count calls and return 0; or count none and return after how many seconds they are not too many."""
        return self.state.bucket.take(number, per_second=self.max_per_second) if self.max_per_second else 0.0

    def check_call(self, method: str) -> None:
        """Check that it has one of the scopes that a method needs.

        :raises ApiError: PERMISSION_DENIED; UNIMPLEMENTED: there is no such method.
        """
        needed = scopes_of(method)
        if not needed:
            raise not_served(method)
        if not (needed & self.scopes):
            raise scope_missing(method.rpartition("/")[2], [shown_scope(scope) for scope in sorted(needed)])

    def check_options(self, spec: InvocationSpec) -> None:
        """Check that it may ask for what a spec asks for: without a key, for a function's answer and nothing else.

        Outcomes are sent signed, and to exchanges by the rights of the workers: that is lent to nobody unknown.

        :raises ApiError: UNAUTHENTICATED.
        """
        if self.known:
            return
        for option, _ in spec.ListFields():
            if option.name not in _OPEN_OPTIONS:
                raise key_missing_for(f"spec.{option.name}")

    def may(self, scope: Scope.ValueType) -> bool:
        """Tell whether it has a scope."""
        return scope in self.scopes

    def covers(self, function: str) -> bool:
        """Tell whether it may have to do with a function."""
        return self.known and (not self.functions or function in self.functions)

    @property
    def reads_all(self) -> bool:
        """Whether it may read every record."""
        return SCOPE_READ in self.scopes and not self.functions

    def refusal(self, function: str) -> ApiError:
        """Return the error of what it may not do with a function."""
        return function_not_allowed(function) if self.known else key_missing()

    def check_function(self, function: str) -> None:
        """Check that it may have to do with a function.

        :raises ApiError: PERMISSION_DENIED.
        """
        if not self.covers(function):
            raise self.refusal(function)

    def check_destination(self, function: function_pb2.Function) -> None:
        """Check that it may send outcomes to a function, which invokes that function.

        :raises ApiError: PERMISSION_DENIED.
        """
        if not function.public:
            self.check_function(function.name)

    def check_read(self, *, function: str, caller: str, caused: bool) -> None:
        """Check that it may read a record.

        :param caller: Who had asked for it.
        :param caused: Whether it comes from a delivery, so that another than its caller may have chosen the function.
        :raises ApiError: PERMISSION_DENIED.
        """
        if caused and not self.covers(function):
            raise self.refusal(function)
        if SCOPE_READ in self.scopes:
            if self.covers(function) or (SCOPE_INVOKE in self.scopes and caller == self.name):
                return
            raise self.refusal(function)
        if caller != self.name:
            raise scope_missing("an invocation of another caller", [shown_scope(SCOPE_READ)])

    def check_unlimited(self, what: str) -> None:
        """Check that its key is for all functions, where what it asks for concerns all of them.

        :raises ApiError: PERMISSION_DENIED; UNAUTHENTICATED: it showed no key.
        """
        self._check_known()
        if self.functions:
            raise key_limited(what)

    def narrow(self, selection: InvocationFilter | DeadLetterFilter) -> None:
        """Let a filter select nothing beyond the functions that it may have to do with.

        :raises ApiError: PERMISSION_DENIED: the filter names another one; UNAUTHENTICATED: it showed no key.
        """
        self._check_known()
        if self.functions:
            for function in selection.functions:
                self.check_function(function)
            if not selection.functions:
                selection.functions.extend(sorted(self.functions))

    def _check_known(self) -> None:
        if not self.known:
            raise key_missing()


class _Ending(AbstractContextManager[None]):
    """A call that is ended with its key. It is a class, since every call has one: a generator costs twice as much."""

    __slots__ = ("_end", "_expiry", "_identity")

    def __init__(self, identity: Identity, end: End) -> None:
        self._identity = identity
        self._end = end
        self._expiry: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        identity = self._identity
        identity.check_in_force()
        identity.state.calls.add(self._end)
        if identity.expire_us:
            seconds = (identity.expire_us - now_us()) / 1e6
            self._expiry = asyncio.get_running_loop().call_later(seconds, self._end, key_expired(identity.name))

    def __exit__(self, *_: object) -> None:
        self._identity.state.calls.discard(self._end)
        if self._expiry is not None:
            self._expiry.cancel()


EVERYBODY: Final = Identity(name="", scopes=ALL_SCOPES)
"""Whoever calls a server without authentication."""
ANONYMOUS: Final = Identity(name="", scopes=frozenset({SCOPE_INVOKE}), known=False)
"""Who shows no key where keys are needed."""

ROOT: Final = "root"
"""The name of whoever shows the root key; no other key has it."""


def identity_of(key: Key, state: KeyState) -> Identity:
    """Return who shows a key."""
    return Identity(
        name=key.name,
        scopes=frozenset(key.scopes),
        functions=frozenset(key.functions),
        max_per_second=key.max_per_second,
        expire_us=key.expire_time.ToMicroseconds() if key.HasField("expire_time") else 0,
        state=state,
    )
