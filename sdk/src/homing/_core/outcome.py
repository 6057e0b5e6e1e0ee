"""What the end of an invocation means to the caller who waits for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from homing import errors
from homing._core.names import InvocationState
from homing._core.values import Invocation, Result, result_of

_ERRORS: Final[Mapping[InvocationState, type[errors.InvocationError]]] = {
    InvocationState.FAILED: errors.FunctionError,
    InvocationState.TIMED_OUT: errors.FunctionTimeoutError,
    InvocationState.STOPPED: errors.InvocationStoppedError,
    InvocationState.EXPIRED: errors.InvocationExpiredError,
    InvocationState.INVALID: errors.InvocationInvalidError,
}


def outcome_of(invocation: Invocation) -> Result:
    """Return the result of an ended invocation.

    :raises InvocationError: It did not succeed.
    """
    if invocation.state is InvocationState.SUCCEEDED:
        return result_of(invocation)
    raise _ERRORS.get(invocation.state, errors.InvocationError)(_summary(invocation), invocation=invocation)


def _summary(invocation: Invocation) -> str:
    count = len(invocation.attempts)
    tries = "" if not count else " after 1 attempt" if count == 1 else f" after {count} attempts"
    why = f": {invocation.failure.message} [{invocation.failure.reason}]" if invocation.failure else ""
    return f"{invocation.function} ended {invocation.state}{tries}{why} (invocation {invocation.id})"


def result_timeout(invocation_id: str | None, function: str | None) -> errors.ResultTimeoutError:
    """Return the error of a wait that is over before the invocation is."""
    what = f"invocation {invocation_id}" if invocation_id else "the invocation"
    of = f" of {function}" if function else ""
    return errors.ResultTimeoutError(f"{what}{of} did not end in time", invocation_id=invocation_id)
