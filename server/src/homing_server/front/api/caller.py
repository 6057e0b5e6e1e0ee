"""Who makes the call that is being served, as the interceptor found out that let them in.

Services ask here, once, and pass the identity on as an argument: nothing below them knows of this.
"""

from __future__ import annotations

from contextvars import ContextVar

from homing_server.auth.identity import Identity

_caller: ContextVar[Identity] = ContextVar("homing_caller")
"""Has no default: a call that came past the interceptor is nobody's, and may do nothing."""


class CallerUnknownError(RuntimeError):
    """A call came here past the interceptor that finds out who calls."""


def caller() -> Identity:
    """Return who makes the call that is being served.

    :raises CallerUnknownError: Nobody was let in.
    """
    try:
        return _caller.get()
    except LookupError:
        raise CallerUnknownError("nobody has found out who makes this call") from None


def serve_for(identity: Identity) -> None:
    """Note who makes the call that this task serves."""
    _caller.set(identity)
